"""What the data of files became: rows for EXTENT_DATA items, and checksums."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from cowlib.format import MAX_EXTENT_SIZE, Compression, FileExtentType
from mkfs_cow.source.tables import Blobs, BlobsBuilder

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
    inline: Blobs

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
    allocated piece it is in. All lengths are whole sectors.
    """

    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    ram_length: NDArray[np.int64]
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


@dataclass(frozen=True)
class Inline:
    """Inline data as it was read: ``file`` (row of `Files`, int64), ``data``, and its ``compression`` (int64)."""

    file: NDArray[np.int64]
    data: Blobs
    compression: NDArray[np.int64]


class InlineBuilder:
    """Inline data gathered file by file, in the order of `Files`."""

    def __init__(self) -> None:
        self._file = array("q")
        self._data = BlobsBuilder()
        self._compression = array("q")

    def add(self, file: int, data: bytes, compression: int = Compression.NONE) -> None:
        """Appends the data of one file."""
        self._file.append(file)
        self._data.add(data)
        self._compression.append(compression)

    def inline(self, sizes: NDArray[np.int64]) -> Inline:
        """The data of files that have any left, going by their ``sizes``; none may be added after that."""
        file = np.array(self._file, dtype=np.int64)
        rows = np.flatnonzero(sizes[file] > 0)
        compression = np.array(self._compression, dtype=np.int64)
        return Inline(file[rows], self._data.blobs().select(rows), compression[rows])


def referenced(stored: Stored, sizes: NDArray[np.int64], sectorsize: int) -> Stored:
    """The extents less what lies behind the end of files that turned out shorter: ``sizes`` per file, 0 if lost.

    A plain extent ends where its file does; a compressed one stays whole on disk and is used in part.
    """
    whole = -(-sizes // sectorsize) * sectorsize
    needed = whole[stored.file] - stored.offset
    kept = stored.select(needed > 0)
    length = np.minimum(kept.length, needed[needed > 0])
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
    """Extents of address 0 for what the others leave out of each file, up to its size in whole sectors."""
    whole = -(-sizes // sectorsize) * sectorsize
    whole[inline.file] = 0
    count = len(stored)
    file = np.concatenate([stored.file, np.arange(len(sizes))])  # with a row at the end of every file
    begin = np.concatenate([stored.offset, whole])
    length = np.concatenate([stored.length, np.zeros_like(whole)])
    order = np.lexsort((np.arange(len(file)) >= count, begin, file))
    file, begin, end = file[order], begin[order], (begin + length)[order]
    covered = np.zeros_like(begin)
    covered[1:] = np.where(file[1:] == file[:-1], end[:-1], 0)
    gap = np.flatnonzero(begin > covered)
    nothing, missing = np.zeros_like(gap), (begin - covered)[gap]
    return Stored(file[gap], covered[gap], missing, missing, nothing, nothing, nothing, nothing)


def assemble(files: Files, parts: Sequence[Stored], inline: Inline, sizes: NDArray[np.int64]) -> Extents:
    """The rows of all of it, sorted. ``sizes`` are what the files turned out to have."""
    nothing = np.zeros(len(inline.file), dtype=np.int64)
    size = sizes[inline.file]
    payload = np.arange(len(nothing))
    table = np.concatenate(
        [
            np.stack(
                [p.file, p.offset, p.address, p.disk_length, p.length, p.ram_length, p.compression, np.full(len(p), -1)]
            )
            for p in parts
        ]
        + [np.stack([inline.file, nothing, nothing, inline.data.lengths, size, size, inline.compression, payload])],
        axis=1,
    )
    place = (table[0],) if files.sorted else (files.inode[table[0]], files.tree[table[0]])
    table = table[:, np.lexsort((table[1], *place))]
    file, offset, address, disk_length, length, ram_length, compression, payload = table
    return Extents(
        tree=files.tree[file],
        inode=files.inode[file],
        file_offset=offset.astype(np.uint64),
        disk_bytenr=address.astype(np.uint64),
        disk_num_bytes=disk_length.astype(np.uint64),
        num_bytes=length.astype(np.uint64),
        ram_bytes=ram_length.astype(np.uint64),
        type=np.where(payload < 0, FileExtentType.REG, FileExtentType.INLINE).astype(np.uint8),
        compression=compression.astype(np.uint8),
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
