"""raid5 and raid6: rows are read whole, their data verified by checksum, their parity against what the data give.

Only parity of sectors beside checksummed data is compared: what was never written has none to speak of.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cowlib.btree import ragged_index
from cowlib.btree.nodes import I64, Bytes, Mask
from cowlib.device import scratch_buffer
from cowlib.format import STRIPE_LEN
from cowlib.volume import Pieces, raid
from fsck_cow.data.sectors import BAD, P, Q, Source
from fsck_cow.walk import Rows

#: Bytes of rows that are read together.
_BATCH_BYTES = 4 << 20


def parity_work(source: Source, pieces: Pieces, table: Bytes) -> list[Callable[[], Rows]]:
    """What is to be done to verify the rows that hold these pieces: each call reads some and gives rows of `BAD`."""
    chunks = source.volume.chunks
    work: list[Callable[[], Rows]] = []
    for chunk in np.unique(pieces.chunk).tolist():
        mine = pieces.select(np.flatnonzero(pieces.chunk == chunk))
        row = mine.offset // (STRIPE_LEN * int(chunks.width[chunk]))
        order = np.argsort(row, kind="stable")
        mine, row = mine.select(order), row[order]
        at_once = max(1, _BATCH_BYTES // (STRIPE_LEN * int(chunks.num_stripes[chunk])))
        group = np.zeros(len(row), np.int64)
        # Rows that follow each other, but for small gaps, up to a number of them.
        group[1:] = np.cumsum((np.diff(row) > 1) | (row[1:] // at_once != row[:-1] // at_once))
        for part in np.split(np.arange(len(row)), np.flatnonzero(np.diff(group)) + 1):
            work.append(_RowCheck(source, chunk, mine.select(part), table).run)
    return work


class _RowCheck:
    """Some rows of one chunk, one after the other. ``stripes`` is (columns, rows, STRIPE_LEN): data, P, Q."""

    def __init__(self, source: Source, chunk: int, pieces: Pieces, table: Bytes) -> None:
        chunks = source.volume.chunks
        self.source, self.chunk, self.table = source, chunk, table
        self.count, self.parity = int(chunks.num_stripes[chunk]), int(chunks.parity[chunk])
        self.width = self.count - self.parity
        unit = pieces.offset // STRIPE_LEN
        first, last = int(unit[0] // self.width), int(unit[-1] // self.width)
        self.rows = np.arange(first, last + 1)
        self.stripe, self.physical = chunks.row_stripes(chunk, self.rows)
        size = source.sectorsize
        count = pieces.length // size
        # Every checksummed sector: its row, column, number in the stripe, and its checksum.
        self.offset = ragged_index(pieces.offset, pieces.length)[::size]
        self.sum = ragged_index(pieces.position // size, count)
        inner_unit = self.offset // STRIPE_LEN
        self.row, self.column = inner_unit // self.width - first, inner_unit % self.width
        self.sector = self.offset % STRIPE_LEN // size
        self.readable = np.ones((self.count, len(self.rows), STRIPE_LEN // size), bool)
        self.missing = np.zeros((len(self.rows), self.count), bool)

    def run(self) -> Rows:
        """Reads and verifies them."""
        stripes = self._read()
        size = self.source.sectorsize
        recovered = self._recover(stripes)
        sectors = stripes.reshape(self.count, len(self.rows), -1, size)[self.column, self.row, self.sector]
        there = recovered[self.row] | ~self.missing[self.row, self.column]
        self.source.lost_bytes += int((~there).sum()) * size
        unread = ~self.readable[self.column, self.row, self.sector]
        wrong = (self.source.wrong(sectors, self.table[self.sum]) | unread) & there
        bad = [self._bad(np.flatnonzero(wrong), unread)]
        bad += self._check_parity(stripes, wrong)
        return np.concatenate(bad)

    def _read(self) -> Bytes:
        chunks = self.source.volume.chunks
        rows = len(self.rows)
        on_disk = scratch_buffer(self.count * rows * STRIPE_LEN).reshape(self.count, rows, STRIPE_LEN)
        first = int(chunks.first_stripe[self.chunk])
        usable = np.ones((self.count, rows, STRIPE_LEN // self.source.sectorsize), bool)
        gone = np.zeros(self.count, bool)
        for stripe in range(self.count):
            device = self.source.device(int(chunks.stripe_devid[first + stripe]))
            start = int(chunks.stripe_offset[first + stripe]) + int(self.rows[0]) * STRIPE_LEN
            if device is None or start + rows * STRIPE_LEN > device.size:
                gone[stripe] = True
                on_disk[stripe] = 0
                continue
            good = self.source.read(device, start, on_disk[stripe].reshape(-1))
            if good is not None:
                usable[stripe] = good.reshape(rows, -1)
        nth = self.stripe - first
        self.missing = gone[nth]
        which = (nth.T, np.arange(rows)[np.newaxis, :])
        self.readable = usable[which]
        stripes: Bytes = on_disk[which]
        return stripes

    def _recover(self, stripes: Bytes) -> Mask:
        """Fills in columns on missing devices where parity allows it; which rows are whole now: bool (rows,)."""
        whole = self.missing.sum(axis=1) <= self.parity
        for i in np.flatnonzero(self.missing.any(axis=1) & whole).tolist():
            raid.recover(stripes[:, i], self.parity, np.flatnonzero(self.missing[i]).tolist())
        recovered: Mask = whole
        return recovered

    def _bad(self, which: I64, unread: Mask) -> Rows:
        bad = np.zeros(len(which), BAD)
        row, column = self.row[which], self.column[which]
        stripe = self.stripe[row, column]
        size = self.source.sectorsize
        bad["logical"] = self.source.volume.chunks.logical[self.chunk] + self.offset[which].astype(np.uint64)
        bad["devid"] = self.source.volume.chunks.stripe_devid[stripe]
        bad["physical"] = self.physical[row, column] + self.sector[which] * size
        bad["sum"] = self.sum[which]
        # What parity gave in place of a missing device is the second way to read it.
        bad["copy"] = np.where(self.missing[row, column], 2, 1)
        bad["unread"] = unread[which]
        return bad

    def _check_parity(self, stripes: Bytes, wrong: Mask) -> list[Rows]:
        """Parity of the sectors beside checksummed data, where none of those is wrong or missing."""
        size = self.source.sectorsize
        wanted = np.zeros((len(self.rows), STRIPE_LEN // size), bool)
        wanted[self.row, self.sector] = True
        wanted[self.row[wrong], self.sector[wrong]] = False
        wanted[self.missing.any(axis=1)] = False
        wanted &= self.readable.all(axis=0)
        flat = stripes.reshape(self.count, -1)
        computed = [np.empty_like(flat[0])]
        raid.gen_p(flat[: self.width], computed[0])
        if self.parity == 2:
            computed.append(np.empty_like(flat[0]))
            raid.gen_q(flat[: self.width], computed[1])
        found = []
        for number, parity in enumerate(computed):
            differs = (flat[self.width + number] != parity).reshape(*wanted.shape, size).any(axis=2)
            row, sector = np.nonzero(differs & wanted)
            bad = np.zeros(len(row), BAD)
            start = self.rows[row] * self.width * STRIPE_LEN + sector * size
            stripe = self.stripe[row, self.width + number]
            bad["logical"] = self.source.volume.chunks.logical[self.chunk] + start.astype(np.uint64)
            bad["devid"] = self.source.volume.chunks.stripe_devid[stripe]
            bad["physical"] = self.physical[row, self.width + number] + sector * size
            bad["copy"] = (P, Q)[number]
            found.append(bad)
        return found
