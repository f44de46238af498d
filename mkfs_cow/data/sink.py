"""Where data goes: room in data chunks, and writes to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cowlib.errors import NoSpaceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


#: How often room is asked for that turns out to be in pieces too small. Once is usual, where a chunk ends.
_TRIES = 100


class Sink(Protocol):
    """The data side of a new filesystem. Only ``write`` is called from several threads at once."""

    def allocate(self, nbytes: int) -> list[tuple[int, int]]:
        """Room for ``nbytes``, whole sectors: (logical address, bytes) of each piece, together exactly that much.

        A piece is contiguous and does not leave its block group. Raises NoSpaceError.
        """
        ...

    def write(self, logical: int, data: NDArray[np.uint8]) -> None:
        """Writes whole sectors from page-aligned memory, into one allocated piece."""
        ...


class CloningSink(Sink, Protocol):
    """A sink whose bytes can be those of a file, without being copied. Called from several threads at once."""

    def clone(self, logical: int, length: int, fd: int, position: int) -> None:
        """Makes whole blocks of an allocated piece those that an open file has. Raises OSError where it cannot."""
        ...

    def read(self, logical: int, length: int) -> NDArray[np.uint8]:
        """What stands there now."""
        ...


@dataclass
class MeasuringSink:
    """A sink with endless room that keeps nothing, to find out how much is needed."""

    used: int = 0

    def allocate(self, nbytes: int) -> list[tuple[int, int]]:
        self.used += nbytes
        return [(self.used - nbytes, nbytes)]

    def write(self, logical: int, data: NDArray[np.uint8]) -> None:
        pass


@dataclass
class Cursor:
    """Hands out the room of a sink bit by bit, to extents that must each be contiguous.

    What is left of a piece when an extent does not fit into it stays unused: less than an extent in each piece.
    """

    sink: Sink
    _pieces: deque[tuple[int, int]] = field(default_factory=deque)
    _count: int = 0

    def place(self, lengths: list[int]) -> list[tuple[int, int]]:
        """An address for each extent, and the number of the piece it is in. Raises NoSpaceError."""
        placed = []
        left = sum(lengths)
        for length in lengths:
            self._find(length, left)
            address, room = self._pieces.popleft()
            placed.append((address, self._count))
            left -= length
            if room > length:
                self._pieces.appendleft((address + length, room - length))
            else:
                self._count += 1
        return placed

    def _find(self, length: int, left: int) -> None:
        """Brings a piece to the front that has room for ``length`` bytes, of ``left`` that are still to be placed."""
        for _ in range(_TRIES):
            while self._pieces:
                if self._pieces[0][1] >= length:
                    return
                self._pieces.popleft()
                self._count += 1
            self._pieces.extend(self.sink.allocate(left))
        raise NoSpaceError(f"no room for {length} bytes in one piece")
