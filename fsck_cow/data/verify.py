"""All copies of everything: checksums from the tree, one batch after the other, and words for what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cowlib.btree import ragged_index
from cowlib.btree.nodes import U64, Bytes, Mask
from cowlib.checksum import csum_size
from cowlib.format import KeyType, ObjectId
from fsck_cow.context import Context
from fsck_cow.data.direct import direct_work
from fsck_cow.data.nodes import check_node_copies
from fsck_cow.data.parity import parity_work
from fsck_cow.data.sectors import BAD, P, Q, Source, Sums
from fsck_cow.owners import FileRange, files_at
from fsck_cow.problems import Problem, Severity
from fsck_cow.walk import Rows, Walked

CODES = ("data.checksum-wrong", "data.parity-wrong", "data.unreadable", "data.not-verified")

#: Bad sectors that are told one by one; more of them are only counted.
_MOST_BAD = 100_000

#: Bad ranges whose files are looked for.
_MOST_NAMED = 1000

#: Bad sectors that are looked for in other copies at a time.
_BATCH_SECTORS = 1024

#: Reads in flight: for each device, and in all.
_IN_FLIGHT = 4
_MOST_IN_FLIGHT = 12

#: The progress of one batch of checksums is told in so many steps.
_STEPS = 1000


def check_copies(ctx: Context) -> Iterator[Problem]:
    """Reads every copy of every tree block and of all data that has checksums.

    Bad copies of tree blocks go where the reader keeps them.
    """
    check_node_copies(ctx)
    stripes = [walked for (tree, _), walked in ctx.walked.items() if tree == ObjectId.RAID_STRIPE_TREE]
    if any(len(walked.leaves) and _holds_items(ctx, walked) for walked in stripes):
        yield Problem(
            "data.not-verified",
            "data placed by a RAID stripe tree is not verified by this version",
            Severity.NOTE,
            tree=int(ObjectId.RAID_STRIPE_TREE),
        )
        return
    yield from DataCheck(ctx).run()


def _holds_items(ctx: Context, walked: Walked) -> bool:
    return bool(ctx.blocks.blocks["nritems"][walked.leaves].any())


class DataCheck:
    """One pass over all checksummed data."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.source = Source(ctx.fs.volume, ctx.fs.csum_type, ctx.fs.sectorsize)
        self.uncounted = 0

    def run(self) -> Iterator[Problem]:
        """Reads and verifies everything."""
        present = sum(device is not None for device in self.source.volume.devices.values())
        pool = ThreadPoolExecutor(min(_IN_FLIGHT * max(1, present), _MOST_IN_FLIGHT), "fsck-data")
        found: list[tuple[Rows, Mask]] = []
        try:
            for sums, progress in self._batches():
                bad = self._verify(pool, sums, progress)
                if len(bad):
                    room = _MOST_BAD - sum(len(rows) for rows, _ in found)
                    self.uncounted += max(0, len(bad) - room)
                    bad = bad[: max(0, room)]
                    found.append((bad, self._cured(bad, sums)))
        finally:
            pool.shutdown(cancel_futures=True)
        if found:
            bad, cured = (np.concatenate(part) for part in zip(*found, strict=True))
            yield from self._tell(bad, cured)
        if self.uncounted:
            yield Problem("data.checksum-wrong", f"{self.uncounted} more sectors are wrong and are not listed")
        if self.source.lost_bytes:
            yield Problem(
                "data.unreadable",
                f"{self.source.lost_bytes} bytes of data stand on missing devices alone",
            )

    def _batches(self) -> Iterator[tuple[Sums, Callable[[int, int], None]]]:
        """The checksums in batches, and what is to be told of the progress of each."""
        walked = [tree for (objectid, _), tree in self.ctx.walked.items() if objectid == ObjectId.CSUM_TREE]
        total = sum(len(tree.leaves) for tree in walked)
        done = 0
        for tree in walked:
            for batch in self.ctx.batches(int(ObjectId.CSUM_TREE), tree.leaves):
                items = batch.items.of_type(KeyType.EXTENT_CSUM)
                width, size = csum_size(self.source.csum_type), self.source.sectorsize
                items = items.select(items.in_bounds & (items.offset % np.uint64(size) == 0))
                count = items.size // width
                table = items.buffer[ragged_index(items.position, count * width)].reshape(-1, width)
                here = len(batch.nodes)

                def progress(part: int, parts: int, done: int = done, here: int = here) -> None:
                    position = done * _STEPS + here * _STEPS * part // parts
                    self.ctx.progress("verifying data", position, total * _STEPS)

                yield Sums(items.offset, count, np.cumsum(count) - count, table), progress
                done += here

    def _verify(self, pool: ThreadPoolExecutor, sums: Sums, progress: Callable[[int, int], None]) -> Rows:
        """What is wrong with any copy of these ranges: rows of `BAD`."""
        chunks, size = self.source.volume.chunks, self.source.sectorsize
        pieces, _ = chunks.pieces(sums.logical, sums.count * size, sums.first * size)
        by_parity = chunks.parity[pieces.chunk] > 0
        work = direct_work(self.source, pieces.select(~by_parity), sums.table)
        if by_parity.any():
            work += parity_work(self.source, pieces.select(by_parity), sums.table)
        found = []
        for done, bad in enumerate(pool.map(lambda task: task(), work), 1):
            progress(done, len(work))
            if len(bad):
                found.append(bad)
        return np.concatenate(found) if found else np.empty(0, BAD)

    def _cured(self, bad: Rows, sums: Sums) -> Mask:
        """Which of the bad sectors another copy, or parity, gives as the checksum says: bool (n,)."""
        cured: Mask = bad["copy"] >= P
        index = np.flatnonzero(~cured)
        logical, first, inverse = np.unique(bad["logical"][index], return_index=True, return_inverse=True)
        expected = sums.table[bad["sum"][index][first]]
        good = np.zeros(len(logical), bool)
        for start in range(0, len(logical), _BATCH_SECTORS):
            part = slice(start, start + _BATCH_SECTORS)
            good[part] = self._good_copies(logical[part], expected[part])
        cured[index] = good[inverse]
        return cured

    def _good_copies(self, logical: U64, expected: Bytes) -> Mask:
        """Which sectors can be had in any way as their checksums say: bool (n,)."""
        good = np.zeros(len(logical), bool)
        _, first = np.unique(self.source.volume.chunks.locate(logical), return_index=True)
        copies = max((self.source.volume.num_copies(int(logical[i])) for i in first.tolist()), default=0)
        for copy in range(1, copies + 1):
            left = np.flatnonzero(~good)
            sectors, ok = self.source.volume.read_many(logical[left], self.source.sectorsize, mirror=copy)
            good[left] = ok & ~self.source.wrong(sectors, expected[left])
        return good

    def _tell(self, bad: Rows, cured: Mask) -> Iterator[Problem]:
        """A problem for each run of sectors that are bad in the same copy, naming the file."""
        order = np.lexsort((bad["logical"], bad["copy"]))
        bad, cured = bad[order], cured[order]
        size = self.source.sectorsize
        follows = (np.diff(bad["logical"]) == size) & (np.diff(bad["physical"]) == size)
        for name in ("copy", "devid", "unread"):
            follows &= bad[name][1:] == bad[name][:-1]
        follows &= cured[1:] == cured[:-1]
        starts = np.flatnonzero(np.concatenate([[True], ~follows]))
        counts = np.diff(starts, append=len(bad))
        self.ctx.progress("naming files", 0, 0)
        ranges = [(int(at), int(at) + int(n) * size) for at, n in zip(bad["logical"][starts], counts, strict=True)]
        owners = files_at(self.ctx, ranges[:_MOST_NAMED])
        for i, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
            files = owners[i] if i < len(owners) else []
            yield self._problem(bad[start], count, bool(cured[start]), files)

    def _problem(self, row: Rows, count: int, cured: bool, files: list[FileRange]) -> Problem:
        device = self.source.device(int(row["devid"]))
        sectors = f"{count} sectors" if count > 1 else "a sector"
        copy = int(row["copy"])
        where = f"at byte {int(row['physical'])} of the device"
        severity = Severity.REPAIRABLE if cured else Severity.ERROR
        if copy >= P:
            code, text = (
                "data.parity-wrong",
                f"parity {'Q' if copy == Q else 'P'} of {sectors} {where} is not that of the data",
            )
        elif row["unread"]:
            code, text = "data.unreadable", f"{sectors} of copy {copy} {where} cannot be read"
        else:
            code, text = "data.checksum-wrong", f"{sectors} of copy {copy} {where} differ from the checksum"
        if copy < P:
            text += "; another copy is good" if cured else "; no copy is good"
        if len(files) > 1:
            text += f" ({len(files) - 1} more files share it)"
        return Problem(
            code,
            text,
            severity,
            device=device.path if device else None,
            logical=int(row["logical"]),
            tree=files[0].tree if files else None,
            path=str(files[0]) if files else None,
        )
