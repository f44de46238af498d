"""Batches of the stream filled with what stands in the files."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mkfs_cow.data.inline import InContents, InlineData
from mkfs_cow.data.plan import Batch, Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.data.inline import InlineBuilder
    from mkfs_cow.source.contents import Contents

#: How many batches ahead the kernel is asked to read.
_AHEAD = 8

#: How many pieces of a batch are probed.
_SAMPLES = 8


#: Of a place in the buffer, a descriptor, a position in it and a length: how many bytes, from the first one on, are
#: taken in without being read.
Share: TypeAlias = Callable[[int, int, int, int], int]


class Reader:
    """Reads the batches of a plan, one after another, and finds out what files really hold.

    A file that cannot be read is ``lost`` (bool per file). ``size`` (int64 per file) is what a file held when it was
    read, at most what it was scanned with, and 0 if it is lost. Each of those, and each that changed otherwise, is
    named once to ``warn``. Where a file gave less than planned the stream has zeros.
    """

    def __init__(self, plan: Plan, contents: Sequence[Contents], warn: Callable[[str], None]) -> None:
        self.size = plan.files.size.copy()
        self.lost = np.zeros(len(plan.files), dtype=np.bool_)
        self.files = plan.files
        self._plan = plan
        self._contents = contents
        self._warn = warn
        self._named: set[int] = set()

    def fill(self, batch: Batch, buffer: NDArray[np.uint8], share: Share | None = None) -> list[tuple[int, int]]:
        """Puts the stream from ``batch.start`` to ``batch.stop`` into the beginning of ``buffer``.

        What ``share`` takes care of is left out: the ranges of the buffer, begin and end, are returned in order.
        """
        shared: list[tuple[int, int]] = []
        plan = self._plan
        rows = slice(batch.reads.start, batch.reads.stop)
        reads = plan.reads
        files = reads.file[rows]
        view = buffer.data
        end = 0
        for file, tree, inode, offset, length, position, start in zip(
            files.tolist(),
            plan.files.tree[files].tolist(),
            plan.files.inode[files].tolist(),
            reads.offset[rows].tolist(),
            reads.length[rows].tolist(),
            reads.position[rows].tolist(),
            (reads.start[rows] - batch.start).tolist(),
            strict=True,
        ):
            if start > end:
                buffer[end:start] = 0
            end = start + length
            taken = None if share is None else partial(share, start)
            got, skipped = self._read(file, tree, inode, offset, view[start:end], position, taken)
            if skipped:
                shared.append((start, start + skipped))
            if got < length:
                buffer[start + got : end] = 0
        buffer[end : batch.stop - batch.start] = 0
        return shared

    def place_inline(self, batch: Batch, small: InlineBuilder) -> None:
        """Gives the small files of a batch to ``small``: their data, or where it stands if it can stay there."""
        for tree, rows in self._by_tree(batch):
            contents = self._contents[tree]
            if not contents.shared:
                for file, data in self._each_inline(tree, rows):
                    small.add(file, data)
                continue
            files, position = self._plan.inline[rows], self._plan.inline_position[rows]
            small.leave(tree, files, position, self._in_shared(tree, files, position))

    def inline(self, batch: Batch) -> list[tuple[int, bytes]]:
        """Each small file of a batch and its data; of one that is lost nothing."""
        found: list[tuple[int, bytes]] = []
        for tree, rows in self._by_tree(batch):
            if not self._contents[tree].shared:
                found += self._each_inline(tree, rows)
                continue
            files, position = self._plan.inline[rows], self._plan.inline_position[rows]
            length = self._in_shared(tree, files, position)
            place = np.zeros(len(files), dtype=np.uint16)
            data = InlineData([InContents(self._contents[tree])], place, position, length)
            buffer, start, _ = data.read(np.arange(len(files)))
            ends = (start + length).tolist()
            found += [
                (file, buffer[first:last].tobytes())
                for file, first, last in zip(files.tolist(), start.tolist(), ends, strict=True)
            ]
        return found

    def _by_tree(self, batch: Batch) -> Iterator[tuple[int, slice]]:
        """The inline rows of a batch, by the number of their tree."""
        rows = slice(batch.inline.start, batch.inline.stop)
        trees = self._plan.files.tree[self._plan.inline[rows]]
        heads = np.flatnonzero(np.diff(trees, prepend=-1)).tolist()
        for first, last in pairwise([*heads, len(trees)]):
            yield int(trees[first]), slice(rows.start + first, rows.start + last)

    def _each_inline(self, tree: int, rows: slice) -> Iterator[tuple[int, bytes]]:
        """Some small files of a tree, each opened and read."""
        files = self._plan.inline[rows]
        sizes = self._plan.files.size[files]
        scratch = memoryview(bytearray(int(sizes.max(initial=0))))
        for file, inode, size, position in zip(
            files.tolist(),
            self._plan.files.inode[files].tolist(),
            sizes.tolist(),
            self._plan.inline_position[rows].tolist(),
            strict=True,
        ):
            got, _ = self._read(file, tree, inode, 0, scratch[:size], position)
            yield file, bytes(scratch[:got])

    def _in_shared(self, tree: int, files: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
        """How much of some small files is really there, going by the length of what holds all of them."""
        contents = self._contents[tree]
        sizes = self._plan.files.size[files]
        fd = contents.open(0)
        try:
            there = os.fstat(fd).st_size
        finally:
            contents.close(fd)
        length = np.clip(there - position, 0, sizes)
        for file in files[length < sizes].tolist():
            self.size[file] = length[np.searchsorted(files, file)]
            self._changed(file, contents.name(int(self.files.inode[file])))
        return length

    def _read(
        self,
        file: int,
        tree: int,
        inode: int,
        offset: int,
        into: memoryview,
        position: int,
        share: Callable[[int, int, int], int] | None = None,
    ) -> tuple[int, int]:
        """Reads from a file at ``offset``; gives the number of bytes, less than asked for only at its end, and how
        many of them, the first ones, were shared and not read.
        """
        shared = 0
        contents = self._contents[tree]
        try:
            fd = contents.open(inode)
            try:
                if share is not None:
                    shared = share(fd, position, len(into))
                got = shared + (_read_whole(fd, into[shared:], position + shared) if shared < len(into) else 0)
                same = not contents.changed(fd, inode)
            finally:
                contents.close(fd)
        except OSError as error:
            self._lose(file, contents.name(inode), error)
            return 0, 0
        if got < len(into):
            self.size[file] = min(self.size[file], offset + got)
            same = False
        if not same:
            self._changed(file, contents.name(inode))
        return got, shared

    def _changed(self, file: int, name: str) -> None:
        if file not in self._named:
            self._named.add(file)
            self._warn(f"{name}: changed while it was read")

    def _lose(self, file: int, name: str, error: OSError) -> None:
        if not self.lost[file]:
            self.lost[file] = True
            self.size[file] = 0
            what = "vanished" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "cannot be read"
            self._warn(f"{name}: {what}, left out: {error.strerror}")


def _read_whole(fd: int, into: memoryview, position: int) -> int:
    got = os.preadv(fd, [into], position)
    while 0 < got < len(into):
        more = os.preadv(fd, [into[got:]], position + got)
        if more == 0:
            break
        got += more
    return got


class Prefetcher:
    """Asks the kernel to read files some batches ahead of the reader, on a thread of its own.

    Reading many small files one by one leaves a disk waiting for the next question most of the time. Batches that
    seem to be in memory already, going by a few of their files, are passed over. A context manager; `follow` tells
    how far the reader is.
    """

    def __init__(self, plan: Plan, contents: Sequence[Contents]) -> None:
        self._plan = plan
        self._contents = contents
        self._ahead = threading.Semaphore(_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetcher:
        if any(contents.prefetch for contents in self._contents):
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._ahead.release()
        if self._thread.ident is not None:
            self._thread.join()

    def follow(self) -> None:
        """One batch was read."""
        self._ahead.release()

    def _run(self) -> None:
        reads, files = self._plan.reads, self._plan.files
        for batch in self._plan.batches():
            self._ahead.acquire()
            if self._stop.is_set():
                return
            rows = slice(batch.reads.start, batch.reads.stop)
            small = self._plan.inline[batch.inline.start : batch.inline.stop]
            file = np.concatenate([reads.file[rows], small])
            position = np.concatenate([reads.position[rows], np.zeros_like(small)])
            length = np.concatenate([reads.length[rows], files.size[small]])
            columns = (files.tree[file], files.inode[file], position, length)
            pieces = list(zip(*(column.tolist() for column in columns), strict=True))
            if all(self._each(pieces[:: len(pieces) // _SAMPLES + 1], _is_cached)):
                continue
            for _ in self._each(pieces, _ask_for):
                if self._stop.is_set():
                    return

    def _each(self, pieces: list[tuple[int, int, int, int]], what: Callable[[int, int, int], bool]) -> Iterator[bool]:
        """Calls ``what`` with the descriptor, position and length of pieces of files: tree, inode and these two."""
        for tree, inode, position, length in pieces:
            contents = self._contents[tree]
            if not contents.prefetch:
                continue
            # What is wrong with a file the reader will find out and tell.
            with contextlib.suppress(OSError):
                fd = contents.open(inode)
                try:
                    yield what(fd, position, length)
                finally:
                    contents.close(fd)


def _is_cached(fd: int, position: int, length: int) -> bool:
    """Whether the data can be had without waiting for a disk, going by its first byte."""
    try:
        return os.preadv(fd, [bytearray(1)], position, os.RWF_NOWAIT) >= 0
    except OSError:
        return False


def _ask_for(fd: int, position: int, length: int) -> bool:
    os.posix_fadvise(fd, position, length, os.POSIX_FADV_WILLNEED)
    return True
