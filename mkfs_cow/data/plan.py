"""What is read, in what order, and where it will stand: settled before a byte moves.

All files that are not inline are laid one after another, each range of data rounded to sectors: the stream.
Everything has a place in the stream first, and an address only later, once there is room. The stream is read
in batches, and a plain batch becomes one large write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from cowlib.format import MAX_COMPRESSED, MAX_EXTENT_SIZE, Compression, CsumType, InodeFlag
from mkfs_cow.data.extents import in_sectors
from mkfs_cow.source.tables import S_IFREG, Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    IntColumn = NDArray[np.int64]

_NO_COMPRESSION = np.uint64(InodeFlag.NODATACOW | InodeFlag.NODATASUM | InodeFlag.NOCOMPRESS)

_NO_BORDERS = np.zeros(1, dtype=np.int64)

#: Small files kept in metadata are read with the stream, at most so many of them in a batch.
_INLINE_PER_BATCH = 4096


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class DataOptions:
    """How data is stored. Sizes are bytes.

    ``max_inline`` is the longest inline data the trees take (0: nothing is inline). ``batch_bytes`` is the size of
    one write, a multiple of the sector size; writes of it begin at multiples of it from where an allocated piece
    begins. ``level`` is the compression level, 0 for the algorithm's default; ``rules`` are the other ways to compress
    that `Tree.compression` counts from 1, as algorithm and level. Without ``no_holes`` holes are extents of their own.
    ``threads`` is how many compress, checksum and write.
    """

    sectorsize: int = 4096
    csum_type: CsumType = CsumType.CRC32
    max_inline: int = 2048
    compression: Compression = Compression.NONE
    level: int = 0
    rules: tuple[tuple[Compression, int], ...] = ()
    no_holes: bool = True
    batch_bytes: int = 8 << 20
    threads: int = field(default_factory=_cpus)

    @property
    def compresses(self) -> bool:
        """Whether any data is compressed where that helps."""
        return any(algorithm != Compression.NONE for algorithm, _ in self.choices)

    @property
    def choices(self) -> tuple[tuple[Compression, int], ...]:
        """Algorithm and level for each value of `Tree.compression`."""
        return ((self.compression, self.level), *self.rules)

    @property
    def inline_limit(self) -> int:
        """The longest inline data, compressed or not: less than a sector, or btrfs would not take it."""
        return min(self.max_inline, self.sectorsize - 1)


@dataclass(frozen=True)
class Files:
    """Every regular file of all trees that has a size, in the order that their data has; a row number here is what
    `file` means elsewhere.

    ``sorted`` says if this is the order of trees and inodes. ``tree`` (its number), ``inode`` and ``size`` are int64;
    ``compress`` says whether it may be compressed, ``choice`` (uint16) which of `DataOptions.choices` that means,
    ``datasum`` whether its data has checksums.
    """

    tree: IntColumn
    inode: IntColumn
    size: IntColumn
    compress: NDArray[np.bool_]
    choice: NDArray[np.uint16]
    datasum: NDArray[np.bool_]
    sorted: bool = True

    def __len__(self) -> int:
        return len(self.tree)

    def select(self, rows: IntColumn) -> Files:
        """The files of these rows, in this order, which is none of their own."""
        columns = {column.name: getattr(self, column.name)[rows] for column in fields(self) if column.name != "sorted"}
        return Files(**columns, sorted=False)

    @classmethod
    def of(cls, trees: Sequence[Tree], options: DataOptions) -> Files:
        """The files in the order their data will have: by priority from the highest, by tree, then by inode."""
        inodes = [np.flatnonzero(tree.is_type(S_IFREG) & (tree.size > 0)) for tree in trees]
        flags = _joined([tree.flags[rows] for tree, rows in zip(trees, inodes, strict=True)])
        choice = _joined([t.compression[rows] for t, rows in zip(trees, inodes, strict=True)]).astype(np.uint16)
        packs = np.array([algorithm != Compression.NONE for algorithm, _ in options.choices])
        files = cls(
            tree=np.repeat(np.arange(len(trees)), [len(rows) for rows in inodes]),
            inode=_joined(inodes).astype(np.int64),
            size=_joined([t.size[rows] for t, rows in zip(trees, inodes, strict=True)]).astype(np.int64),
            compress=((flags & _NO_COMPRESSION) == 0) & packs[choice],
            choice=choice,
            datasum=(flags & np.uint64(InodeFlag.NODATASUM)) == 0,
        )
        priority = np.concatenate([t.priority[rows] for t, rows in zip(trees, inodes, strict=True)]).astype(np.int64)
        return files.select(np.argsort(-priority, kind="stable")) if priority.any() else files


@dataclass(frozen=True)
class Reads:
    """Pieces of files and their place in the stream, none across the border of two batches. All int64."""

    file: IntColumn
    offset: IntColumn  # in the file
    length: IntColumn
    position: IntColumn  # in what the contents open
    start: IntColumn  # in the stream, ascending

    def __len__(self) -> int:
        return len(self.file)


@dataclass(frozen=True)
class Chunks:
    """The stream cut where one extent must end, in order. All int64.

    A chunk is one extent, or a part of a plain one: ``file``, ``offset`` in the file, ``start`` in the stream and
    ``length``, whole sectors.
    """

    file: IntColumn
    offset: IntColumn
    start: IntColumn
    length: IntColumn

    def __len__(self) -> int:
        return len(self.file)


@dataclass(frozen=True)
class Batch:
    """What is read at once: ``reads``, rows of `Plan.reads`, which fill the stream from ``start`` to ``stop``, the
    ``chunks`` that make it up, and ``inline``, rows of `Plan.inline`.
    """

    start: int
    stop: int
    reads: range
    chunks: range
    inline: range


@dataclass(frozen=True)
class Plan:
    """The whole of it. ``inline`` are the files to keep in metadata (int64, ascending) and ``inline_position`` where
    the contents have their data, ``total`` the bytes of the stream, ``borders`` where batches begin in it (int64,
    ascending, the first is 0).
    """

    files: Files
    inline: IntColumn
    inline_position: IntColumn
    reads: Reads
    chunks: Chunks
    borders: IntColumn
    total: int

    @property
    def inline_sizes(self) -> IntColumn:
        """The size of each inline file in bytes: int64, shape (files,)."""
        return self.files.size[self.inline]

    def batches(self) -> Iterator[Batch]:
        """The batches in order."""
        stops = np.append(self.borders[1:], self.total)
        reads = [*np.searchsorted(self.reads.start, self.borders).tolist(), len(self.reads)]
        chunks = [*np.searchsorted(self.chunks.start, self.borders).tolist(), len(self.chunks)]
        # An inline file is read together with the file that follows it.
        row = np.searchsorted(self.chunks.file, self.inline)
        place = np.append(self.chunks.start, self.total)[row]
        inline = [*np.searchsorted(place, self.borders).tolist(), len(self.inline)]
        for i, (start, stop) in enumerate(zip(self.borders.tolist(), stops.tolist(), strict=True)):
            first, last = inline[i], inline[i + 1]
            while last - first > _INLINE_PER_BATCH:
                some = range(first, first + _INLINE_PER_BATCH)
                yield Batch(start, start, range(0), range(0), some)
                first = some.stop
            some_reads, some_chunks = range(reads[i], reads[i + 1]), range(chunks[i], chunks[i + 1])
            yield Batch(start, stop, some_reads, some_chunks, range(first, last))


def make_plan(trees: Sequence[Tree], options: DataOptions) -> Plan:
    """The plan for all of ``trees``, with addresses left open."""
    sector = options.sectorsize
    files = Files.of(trees, options)
    file, offset, length, position = _segments(trees, files)
    small = (length == files.size[file]) & (length <= options.inline_limit)
    inline, inline_position = file[small], position[small]
    outside = ~small
    file, offset, length, position = (column[outside] for column in (file, offset, length, position))

    # Ranges of whole sectors. Two that touch the same sector become one.
    first = offset // sector  # counted in sectors: in bytes the last one of a file may end beyond int64
    end = in_sectors(offset + length, sector)
    new = np.ones(len(file), dtype=np.bool_)
    new[1:] = (file[1:] != file[:-1]) | (first[1:] > end[:-1])
    heads = np.flatnonzero(new)
    tails = np.append(heads[1:], len(file))[: len(heads)] - 1
    begin = first * sector
    range_length = (end[tails] - first[heads]) * sector
    range_start = _starts(range_length)
    total = int(range_length.sum())

    of_range = np.cumsum(new) - 1
    start = range_start[of_range] + offset - begin[heads][of_range]
    limit = MAX_COMPRESSED if options.compresses else MAX_EXTENT_SIZE
    chunks = _chunks(file[heads], begin[heads], range_start, range_length, limit)
    borders = _borders(chunks, total, options)
    reads = _cut(Reads(file, offset, length, position, start), borders)
    return Plan(files, inline, inline_position, reads, chunks, borders, total)


def recut(plan: Plan, pieces: Sequence[tuple[int, int]], options: DataOptions) -> Plan:
    """The plan with no chunk and no batch across the border of two of ``pieces``: (address, bytes) each, which
    together take the stream.
    """
    lengths = np.array([length for _, length in pieces], dtype=np.int64)
    starts = _starts(lengths)
    borders = _multiples(starts, lengths, options.batch_bytes) if plan.total else _NO_BORDERS
    chunks = plan.chunks
    begin = np.union1d(chunks.start, starts)
    row = np.searchsorted(chunks.start, begin, side="right") - 1
    offset = chunks.offset[row] + begin - chunks.start[row]
    length = np.diff(np.append(begin, plan.total))
    cut = Chunks(chunks.file[row], offset, begin, length)
    return replace(plan, reads=_cut(plan.reads, borders), chunks=cut, borders=borders)


def _joined(columns: Sequence[NDArray[np.generic]]) -> NDArray[np.uint64]:
    return np.concatenate([column.astype(np.uint64) for column in columns])


def _starts(lengths: IntColumn) -> IntColumn:
    """Where each of several ranges begins if they stand one after another."""
    return np.cumsum(lengths) - lengths


def _multiples(starts: IntColumn, lengths: IntColumn, step: int) -> IntColumn:
    """Each range ``start`` to ``start + length`` cut into steps from its own beginning: where they begin."""
    count = -(-lengths // step)
    nth = np.arange(int(count.sum())) - np.repeat(_starts(count), count)
    return np.repeat(starts, count) + nth * step


def _segments(trees: Sequence[Tree], files: Files) -> tuple[IntColumn, IntColumn, IntColumn, IntColumn]:
    """The segments of all trees as one table: file, offset, length, position."""
    tables = []
    for number, tree in enumerate(trees):
        rows = np.flatnonzero(files.tree == number)
        if not files.sorted:
            rows = rows[np.argsort(files.inode[rows])]
        segments = tree.segments
        file = rows[np.searchsorted(files.inode[rows], segments.inode)]
        tables.append((file, segments.offset, segments.length, segments.position))
    file, offset, length, position = (np.concatenate(column) for column in zip(*tables, strict=True))
    if not files.sorted:
        order = np.lexsort((offset, file))
        file, offset, length, position = file[order], offset[order], length[order], position[order]
    return file, offset, length, position


def _chunks(file: IntColumn, offset: IntColumn, start: IntColumn, length: IntColumn, limit: int) -> Chunks:
    """Ranges of the stream cut into chunks of at most ``limit`` bytes."""
    begin = _multiples(start, length, limit)
    row = np.searchsorted(start, begin, side="right") - 1
    stop = np.append(begin[1:], start[-1] + length[-1] if len(start) else 0)[: len(begin)]
    return Chunks(file[row], offset[row] + begin - start[row], begin, stop - begin)


def _borders(chunks: Chunks, total: int, options: DataOptions) -> IntColumn:
    """Where batches begin so that no chunk is in two of them, as compression needs it. For plain data they depend
    on the addresses: see `recut`.
    """
    if not options.compresses or not total:
        return _NO_BORDERS
    number = chunks.start // options.batch_bytes
    first = np.ones(len(number), dtype=np.bool_)
    first[1:] = number[1:] != number[:-1]
    return chunks.start[first]


def _cut(reads: Reads, borders: IntColumn) -> Reads:
    """The reads cut at the borders of batches."""
    stop = reads.start + reads.length
    first = np.searchsorted(borders, reads.start, side="right")
    count = np.searchsorted(borders, stop, side="left") - first + 1
    row = np.repeat(np.arange(len(reads)), count)
    nth = np.arange(len(row)) - np.repeat(_starts(count), count)
    bounded = np.append(borders, 0)
    begin = np.where(nth == 0, reads.start[row], bounded[first[row] + nth - 1])
    end = np.where(nth == count[row] - 1, stop[row], bounded[np.minimum(first[row] + nth, len(borders))])
    skipped = begin - reads.start[row]
    return Reads(reads.file[row], reads.offset[row] + skipped, end - begin, reads.position[row] + skipped, begin)
