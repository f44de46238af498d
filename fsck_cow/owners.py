"""Which files hold a range of data: looked up in the file extents themselves, only when there is something to name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsck_cow.context import Context
from fsck_cow.paths import Paths
from fsck_cow.registry import Kind
from fsck_cow.walk import Walked


@dataclass(frozen=True)
class FileRange:
    """A file that refers to some data: ``tree`` is its subvolume; ``path`` starts at the top of the filesystem."""

    tree: int
    inode: int
    path: str

    def __str__(self) -> str:
        return self.path


def files_at(ctx: Context, ranges: list[tuple[int, int]]) -> list[list[FileRange]]:
    """The files that refer to any byte of each range (start, end) of logical addresses, in order of tree and inode.

    Every leaf of the subvolumes is looked at once, whoever shares it. A file with several names is named once.
    """
    from fsck_cow.engine import kind_of

    trees = {place: tree for place, tree in ctx.walked.items() if kind_of(place[0]) == Kind.FILES}
    starts = np.array([start for start, _ in ranges], np.uint64)
    ends = np.array([end for _, end in ranges], np.uint64)
    hits: dict[int, list[tuple[int, int]]] = {}
    seen: set[int] = set()
    for (objectid, _), walked in trees.items():
        fresh = np.array([row for row in walked.leaves.tolist() if row not in seen], np.int64)
        seen.update(fresh.tolist())
        for batch in ctx.batches(objectid, fresh):
            extents = batch.regular_extents
            low, length = extents.rows["disk_bytenr"], extents.rows["disk_num_bytes"]
            plain = extents.rows["compression"] == 0
            # What is compressed is hit anywhere; of other extents only the part that is referred to.
            low = np.where(plain, low + extents.rows["offset"], low)
            high = low + np.where(plain, extents.rows["num_bytes"], length)
            used = extents.rows["disk_bytenr"] > 0
            for number in range(len(ranges)):
                hit = np.flatnonzero(used & (low < ends[number]) & (high > starts[number]))
                for i in hit.tolist():
                    row = int(batch.rows[extents.items.node[i]])
                    hits.setdefault(row, []).append((number, int(extents.items.objectid[i])))
    return _named(ctx, trees, hits, len(ranges))


def _named(
    ctx: Context, trees: dict[tuple[int, int], Walked], hits: dict[int, list[tuple[int, int]]], count: int
) -> list[list[FileRange]]:
    paths = Paths(ctx.fs)
    found: list[dict[tuple[int, int], FileRange]] = [{} for _ in range(count)]
    rows = np.array(sorted(hits), np.int64)
    for place, walked in trees.items():
        here = np.intersect1d(rows, walked.leaves)
        for row in here.tolist():
            for number, inode in hits[row]:
                key = (place[0], inode)
                if key not in found[number]:
                    found[number][key] = FileRange(place[0], inode, paths.of(place[0], inode))
    return [[files[key] for key in sorted(files)] for files in found]
