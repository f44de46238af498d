"""What the data of files became: rows for EXTENT_DATA items, and checksums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cowlib.format import MAX_EXTENT_SIZE, Compression, FileExtentType
from mkfs_cow.data.inline import Inline, InlineData

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.data.plan import Files


@dataclass(frozen=True)
class Extents:
    """File extents of all trees, sorted by tree, inode and place in the file.

    ``tree`` (number) and ``inode`` (index) are int64. ``file_offset``, ``disk_bytenr`` (0: a hole),
    ``disk_num_bytes``, ``num_bytes`` and ``ram_bytes`` are uint64 as in btrfs_file_extent_item, whose ``offset``
    is always 0. ``type`` and ``compression`` are uint8. The inline data of row i is ``inline[payload[i]]``, of
    ``disk_num_bytes`` bytes, for a file of ``ram_bytes``; ``payload`` is int64, -1 in other rows.
    """

    tree: NDArray[np.int64]
    inode: NDArray[np.int64]
    file_offset: NDArray[np.uint64]
    disk_bytenr: NDArray[np.uint64]
    disk_num_bytes: NDArray[np.uint64]
    num_bytes: NDArray[np.uint64]
    ram_bytes: NDArray[np.uint64]
    type: NDArray[np.uint8]
    compression: NDArray[np.uint8]
    payload: NDArray[np.int64]
    inline: InlineData

    def __len__(self) -> int:
        return len(self.tree)


@dataclass(frozen=True)
class Sums:
    """Checksums of data sectors, by address: ``logical`` uint64 (n), ``csum`` uint8 (n, csum_size)."""

    logical: NDArray[np.uint64]
    csum: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.logical)


@dataclass(frozen=True)
class Stored:
    """Extents as they were written, in order, all int64.

    ``file`` (row of `Files`), ``offset`` in it and the ``length`` it takes there, ``ram_length``, the bytes it has
    when expanded, ``address`` and ``disk_length`` on disk, ``compression``, and ``piece``, the number of the
    allocated piece it is in. All lengths are whole sectors; those of holes are uint64.
    """

    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[Any]
    ram_length: NDArray[Any]
    address: NDArray[np.int64]
    disk_length: NDArray[np.int64]
    compression: NDArray[np.int64]
    piece: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.file)

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Stored:
        """Some of the rows."""
        return Stored(*(getattr(self, column.name)[rows] for column in fields(self)))

    def plain(self) -> NDArray[np.bool_]:
        """Which of the extents are not compressed."""
        return np.equal(self.compression, Compression.NONE)


def in_sectors(nbytes: NDArray[np.int64], sectorsize: int) -> NDArray[np.int64]:
    """How many sectors so many bytes take. In bytes that may be more than int64 holds: a file can end just below."""
    return nbytes // sectorsize + (nbytes % sectorsize > 0)


def referenced(stored: Stored, sizes: NDArray[np.int64], sectorsize: int) -> Stored:
    """The extents less what lies behind the end of files that turned out shorter: ``sizes`` per file, 0 if lost.

    A plain extent ends where its file does; a compressed one stays whole on disk and is used in part.
    """
    needed = in_sectors(sizes, sectorsize)[stored.file] - stored.offset // sectorsize
    rows = np.flatnonzero(needed > 0)
    kept = stored.select(rows)
    length = np.minimum(kept.length // sectorsize, needed[rows]) * sectorsize
    plain = kept.plain()
    return replace(
        kept,
        length=length,
        ram_length=np.where(plain, length, kept.ram_length),
        disk_length=np.where(plain, length, kept.disk_length),
    )


def merged(stored: Stored) -> Stored:
    """Plain extents that follow each other in their file and on disk made one, as far as an extent may reach.

    The rows of such a run must be equally long but for its last, as compression cuts them.
    """
    if not len(stored):
        return stored
    plain = stored.plain()
    follows = np.zeros(len(stored), dtype=np.bool_)
    follows[1:] = (
        (plain[1:] & plain[:-1])
        & (stored.file[1:] == stored.file[:-1])
        & (stored.piece[1:] == stored.piece[:-1])
        & (stored.offset[1:] == stored.offset[:-1] + stored.length[:-1])
        & (stored.address[1:] == stored.address[:-1] + stored.length[:-1])
    )
    run = np.flatnonzero(~follows)[np.cumsum(~follows) - 1]
    limit = MAX_EXTENT_SIZE // stored.length[run] * stored.length[run]
    into = stored.offset - stored.offset[run]
    head = np.flatnonzero(~follows | (into % np.maximum(limit, 1) == 0))
    rows = stored.select(head)
    length = np.add.reduceat(stored.length, head)
    plain = rows.plain()
    return replace(
        rows,
        length=length,
        ram_length=np.where(plain, length, rows.ram_length),
        disk_length=np.where(plain, length, rows.disk_length),
    )


def holes(stored: Stored, inline: Inline, sizes: NDArray[np.int64], sectorsize: int) -> Stored:
    """Extents of address 0 for what the others leave out of each file, up to its size in whole sectors.

    The lengths are uint64: the hole of the largest file there can be is longer than int64 says.
    """
    whole = in_sectors(sizes, sectorsize)
    whole[inline.file] = 0
    count = len(stored)
    file = np.concatenate([stored.file, np.arange(len(sizes))])  # with a row at the end of every file
    begin = np.concatenate([stored.offset // sectorsize, whole])
    length = np.concatenate([stored.length // sectorsize, np.zeros_like(whole)])
    order = np.lexsort((np.arange(len(file)) >= count, begin, file))
    file, begin, end = file[order], begin[order], (begin + length)[order]
    covered = np.zeros_like(begin)
    covered[1:] = np.where(file[1:] == file[:-1], end[:-1], 0)
    gap = np.flatnonzero(begin > covered)
    nothing = np.zeros_like(gap)
    missing = (begin - covered)[gap].astype(np.uint64) * np.uint64(sectorsize)
    return Stored(file[gap], covered[gap] * sectorsize, missing, missing, nothing, nothing, nothing, nothing)


def assemble(files: Files, parts: Sequence[Stored], inline: Inline, sizes: NDArray[np.int64]) -> Extents:
    """The rows of all of it, sorted. ``sizes`` are what the files turned out to have."""
    size = sizes[inline.file].astype(np.uint64)
    nothing = np.zeros(len(size), dtype=np.uint64)
    file = np.concatenate([*(part.file for part in parts), inline.file])
    offset = np.concatenate([*(part.offset for part in parts), nothing.astype(np.int64)])
    tree, inode = files.tree[file], files.inode[file]
    order = np.lexsort((offset, inode, tree))

    def column(name: str, of_inline: NDArray[Any], dtype: type[np.generic] = np.uint64) -> NDArray[Any]:
        # One column after the other: all at once would be most of what there is in memory.
        values = [*(getattr(part, name).astype(dtype) for part in parts), of_inline.astype(dtype)]
        return np.concatenate(values)[order]

    payload = np.concatenate([np.full(sum(map(len, parts)), -1), np.arange(len(size))])[order]
    return Extents(
        tree=tree[order],
        inode=inode[order],
        file_offset=offset[order].astype(np.uint64),
        disk_bytenr=column("address", nothing),
        disk_num_bytes=column("disk_length", inline.data.lengths),
        num_bytes=column("length", size),
        ram_bytes=column("ram_length", size),
        type=np.where(payload < 0, FileExtentType.REG, FileExtentType.INLINE).astype(np.uint8),
        compression=column("compression", inline.compression, np.uint8),
        payload=payload,
        inline=inline.data,
    )


def summed(sums: Sums, stored: Stored, datasum: NDArray[np.bool_], sectorsize: int) -> Sums:
    """The checksums of the extents that have some; ``datasum`` per file. ``sums`` must cover all of ``stored``."""
    kept = stored.select(datasum[stored.file])
    first = np.searchsorted(sums.logical, kept.address.astype(np.uint64))
    depth = np.zeros(len(sums) + 1, dtype=np.int8)  # no two extents share a sector
    np.add.at(depth, first, 1)
    np.add.at(depth, first + kept.disk_length // sectorsize, -1)
    wanted = np.cumsum(depth[:-1]) > 0
    return sums if wanted.all() else Sums(sums.logical[wanted], sums.csum[wanted])
