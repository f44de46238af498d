"""The data of whole trees written out: read, checksummed and on disk in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cowlib.checksum import csum_size
from mkfs_cow.data.compressed import CompressedStore
from mkfs_cow.data.extents import Extents, Sums, assemble, holes, referenced, summed
from mkfs_cow.data.inline import InlineBuilder
from mkfs_cow.data.plain import PlainStore
from mkfs_cow.data.plan import DataOptions, make_plan
from mkfs_cow.data.reader import Prefetcher, Reader
from mkfs_cow.data.reflink import Cloner
from mkfs_cow.data.sink import MeasuringSink, Sink
from mkfs_cow.source.tables import S_IFLNK, Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DataEstimate:
    """What data needs: ``data`` bytes of data chunks, items for ``extents`` with addresses of their own (and holes),
    and inline data of ``inline`` bytes each (int64)."""

    data: int
    extents: int
    inline: NDArray[np.int64]


@dataclass(frozen=True)
class Written:
    """Data that is on disk.

    ``trees`` are those given, with the sizes that files really had and without those that were lost; ``nbytes``
    (uint64 per inode, for each tree) is what inode items say, for symbolic links the length of the target.
    """

    trees: list[Tree]
    extents: Extents
    sums: Sums
    nbytes: list[NDArray[np.uint64]]


def estimate_data(trees: Sequence[Tree], options: DataOptions) -> DataEstimate:
    """What the data of ``trees`` needs at most, without reading any: nothing gets smaller by compression, but whatever
    could become inline by it does.
    """
    plan = make_plan(trees, options)
    files = plan.files
    packed = files.compress & (files.size > options.inline_limit) & (files.size <= options.sectorsize)
    inline = np.append(plan.inline_sizes, np.full(np.count_nonzero(packed), options.inline_limit))
    holes = 0 if options.no_holes else len(plan.chunks) + len(files)
    return DataEstimate(plan.total, len(plan.chunks) + holes, inline)


def measure_data(
    trees: Sequence[Tree], options: DataOptions, *, progress: Callable[[int], None] | None = None
) -> DataEstimate:
    """What the data of ``trees`` needs exactly, by reading and compressing all of it.

    Up to 124 KiB more may be needed wherever an allocated piece ends: a compressed extent is not divided. What is
    wrong with files is not told here, and a file that changes later may need another amount.
    """
    sink = MeasuringSink()
    written = write_data(trees, sink, options, progress=progress, warn=lambda _: None)
    inline = written.extents.inline.lengths
    return DataEstimate(sink.used, len(written.extents) - len(inline), inline)


def write_data(
    trees: Sequence[Tree],
    sink: Sink,
    options: DataOptions,
    *,
    cloner: Cloner | None = None,
    progress: Callable[[int], None] | None = None,
    warn: Callable[[str], None],
) -> Written:
    """Reads every regular file of ``trees`` once and writes it to ``sink``.

    Room is allocated in the order of trees and inodes, whatever the threads do: the same files give the same
    result. With a ``cloner`` for the same sink data that is not compressed is shared with the files where that can
    be. ``progress`` gets the number of bytes done so far, of `estimate_data`'s ``data``. ``warn`` gets a line for
    each file that vanished, cannot be read (both are left out) or changed (what was read of it is taken, at most the
    size it was scanned with).
    """
    contents = [tree.contents for tree in trees]
    plan = make_plan(trees, options)
    small = InlineBuilder(contents)
    store: PlainStore | CompressedStore
    if options.compresses:
        store = CompressedStore(plan, sink, options, small)
    else:
        store = PlainStore(plan, sink, options, small, cloner)
        plan = store.plan
    reader = Reader(plan, contents, warn)
    with Prefetcher(plan, contents if cloner is None else ()) as prefetcher, store:
        for batch in plan.batches():
            store.take(batch, reader)
            prefetcher.follow()
            if progress is not None:
                progress(batch.stop)
    stored = referenced(store.stored(), reader.size, options.sectorsize)
    inline = small.inline(reader.size)
    sums = summed(_sums(store.runs, options), stored, plan.files.datasum, options.sectorsize)
    parts = [stored]
    if not options.no_holes:
        parts.append(holes(stored, inline, reader.size, options.sectorsize))
    extents = assemble(plan.files, parts, inline, reader.size)
    done = [_as_read(tree, number, reader) for number, tree in enumerate(trees)]
    return Written(done, extents, sums, [_nbytes(tree, n, extents) for n, tree in enumerate(done)])


def _sums(runs: Sequence[tuple[int, NDArray[np.uint8]]], options: DataOptions) -> Sums:
    """The checksums of all writes, by address."""
    size = csum_size(options.csum_type)
    if not runs:
        return Sums(np.zeros(0, dtype=np.uint64), np.zeros((0, size), dtype=np.uint8))
    runs = sorted(runs, key=lambda run: run[0])
    step = options.sectorsize
    logical = [np.arange(start, start + len(csums) * step, step, dtype=np.uint64) for start, csums in runs]
    return Sums(np.concatenate(logical), np.concatenate([csums for _, csums in runs]))


def _as_read(tree: Tree, number: int, reader: Reader) -> Tree:
    """The tree with what became of its files."""
    files = reader.files
    rows = np.flatnonzero(files.tree == number)
    size = tree.size.copy()
    size[files.inode[rows]] = reader.size[rows]
    lost = np.zeros(len(tree), dtype=np.bool_)
    lost[files.inode[rows]] = reader.lost[rows]
    return replace(tree, size=size).without(lost)


def _nbytes(tree: Tree, number: int, extents: Extents) -> NDArray[np.uint64]:
    rows = (extents.tree == number) & ((extents.disk_bytenr > 0) | (extents.payload >= 0))
    nbytes = np.zeros(len(tree), dtype=np.uint64)
    np.add.at(nbytes, extents.inode[rows], extents.num_bytes[rows])
    links = tree.is_type(S_IFLNK)
    nbytes[links] = tree.size[links]
    return nbytes
