"""Inline data: many small contents that go into the trees, and until then need not be in memory.

What stands in a file that stays as it is, such as an archive, is read there a second time; what does not goes to a
temporary file. Either way only places are kept, and whoever makes the leaves reads a batch of them at once.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np

from cowlib.errors import CowError
from cowlib.format import Compression
from mkfs_cow.source.spool import spool_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.source.contents import Contents

#: Data that is kept in memory before a temporary file is begun.
_MEMORY = 16 << 20

#: Data so near to each other is read at once with what is between: the header of the next member of an archive.
_GAP = 4096


class Place(Protocol):
    """Something that bytes can be read from."""

    def read_into(self, position: int, into: memoryview) -> None:
        """Fills ``into`` with what stands at ``position``. Raises CowError."""
        ...


class Spool:
    """Takes bytes one after another: the first of them in memory, more than a few MiB in a temporary file.

    Where there is no room for such a file everything stays in memory.
    """

    def __init__(self) -> None:
        self._tail = bytearray()
        self._flushed = 0
        self._file: IO[bytes] | None = None
        self._limit = _MEMORY

    def append(self, data: bytes) -> int:
        """Takes ``data``; gives its position."""
        position = self._flushed + len(self._tail)
        self._tail += data
        if len(self._tail) >= self._limit:
            self._flush()
        return position

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._file = spool_file(buffering=0)
            written = os.pwrite(self._file.fileno(), self._tail, self._flushed)
        except OSError:
            self._limit = 1 << 62
            return
        self._flushed += written
        del self._tail[:written]

    def read_into(self, position: int, into: memoryview) -> None:
        """As `Place` has it."""
        on_disk = max(0, min(len(into), self._flushed - position))
        if on_disk and self._file is not None:
            _read_all(self._file.fileno(), position, into[:on_disk], "temporary file")
        start = position + on_disk - self._flushed
        into[on_disk:] = self._tail[start : start + len(into) - on_disk]


@dataclass(frozen=True)
class InContents:
    """Data where the contents of a tree have it: in one descriptor for all."""

    contents: Contents

    def read_into(self, position: int, into: memoryview) -> None:
        """As `Place` has it."""
        fd = self.contents.open(0)
        try:
            _read_all(fd, position, into, self.contents.name(0))
        finally:
            self.contents.close(fd)


def _read_all(fd: int, position: int, into: memoryview, name: str) -> None:
    done = 0
    while done < len(into):
        try:
            got = os.preadv(fd, [into[done:]], position + done)
        except OSError as error:
            raise CowError(f"{name}: cannot be read again: {error.strerror}") from error
        if not got:
            raise CowError(f"{name}: became shorter while it was read")
        done += got


@dataclass(frozen=True)
class InlineData:
    """Many byte strings, each with the place where it stands: string i is ``lengths[i]`` bytes (int64) at ``start[i]``
    (int64) of ``places[place[i]]`` (uint16).
    """

    places: Sequence[Place]
    place: NDArray[np.uint16]
    start: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, i: int) -> bytes:
        buffer, _, _ = self.read(np.array([i]))
        return buffer.tobytes()

    def select(self, rows: NDArray[np.int64]) -> InlineData:
        """Some of the strings."""
        return InlineData(self.places, self.place[rows], self.start[rows], self.lengths[rows])

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """Some of the strings in one buffer, with the position and the length of each in it. Raises CowError."""
        place, start, length = self.place[rows], self.start[rows], self.lengths[rows]
        if not len(rows):
            return np.empty(0, np.uint8), start, length
        order = np.lexsort((start, place))
        place, begin, end = place[order], start[order], (start + length)[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (place[1:] != place[:-1]) | (begin[1:] > end[:-1] + _GAP)
        heads = np.flatnonzero(new)
        size = np.maximum.reduceat(end, heads) - begin[heads]
        at = np.cumsum(size) - size
        buffer = np.empty(int(size.sum()), dtype=np.uint8)
        view = buffer.data
        windows = zip(place[heads].tolist(), begin[heads].tolist(), at.tolist(), size.tolist(), strict=True)
        for number, position, first, nbytes in windows:
            self.places[number].read_into(position, view[first : first + nbytes])
        found = np.empty_like(start)
        found[order] = begin + (at - begin[heads])[np.cumsum(new) - 1]
        return buffer, found, length


@dataclass(frozen=True)
class Inline:
    """Inline data of files: ``file`` (row of `Files`, int64), ``data``, and its ``compression`` (uint8)."""

    file: NDArray[np.int64]
    data: InlineData
    compression: NDArray[np.uint8]


class InlineBuilder:
    """Inline data gathered in the order of `Files`."""

    def __init__(self, contents: Sequence[Contents] = ()) -> None:
        """``contents`` of the trees, of which data may stay where it is."""
        self._spool = Spool()
        self._places: list[Place] = [self._spool, *map(InContents, contents)]
        self._file = array("q")
        self._start = array("q")
        self._length = array("q")
        self._place = array("H")
        self._compression = array("B")

    def add(self, file: int, data: bytes, compression: int = Compression.NONE) -> None:
        """Takes the data of one file."""
        self._file.append(file)
        self._start.append(self._spool.append(data))
        self._length.append(len(data))
        self._place.append(0)
        self._compression.append(compression)

    def leave(self, tree: int, file: NDArray[np.int64], position: NDArray[np.int64], length: NDArray[np.int64]) -> None:
        """Says where the data of some files of a tree stands in the contents of that tree: it stays there."""
        self._file.frombytes(file.tobytes())
        self._start.frombytes(position.tobytes())
        self._length.frombytes(length.tobytes())
        self._place.frombytes(np.full(len(file), tree + 1, dtype=np.uint16).tobytes())
        self._compression.frombytes(bytes(len(file)))

    def inline(self, sizes: NDArray[np.int64]) -> Inline:
        """The data of files that have any left, going by their ``sizes``; none may be added after that."""
        file = np.frombuffer(self._file, dtype=np.int64)
        rows = np.flatnonzero(sizes[file] > 0)
        data = InlineData(
            self._places,
            np.frombuffer(self._place, dtype=np.uint16),
            np.frombuffer(self._start, dtype=np.int64),
            np.frombuffer(self._length, dtype=np.int64),
        )
        return Inline(file[rows], data.select(rows), np.frombuffer(self._compression, dtype=np.uint8)[rows])
