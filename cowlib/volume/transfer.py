"""Many small pieces of several devices, moved by few large system calls, several of them in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cowlib.device import SECTOR_SIZE, Device, aligned_buffer
from cowlib.device.buffers import is_aligned
from cowlib.errors import DeviceError

I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
T = TypeVar("T")
R = TypeVar("R")

IN_FLIGHT = 4
_RUN_BYTES = 2 << 20  # also keeps a run of 4 KiB pieces below the 1024 buffers a system call takes
_BRIDGE_BYTES = 64 << 10  # reading a gap this small costs less than another system call


@dataclass(frozen=True)
class Moves:
    """What to move where: columns, one row a move. All int64[n].

    ``slot`` index of the device, -1 for a missing one, ``physical`` byte offset on it, ``length`` bytes,
    ``position`` byte offset in the caller's buffer.
    """

    slot: I64
    physical: I64
    length: I64
    position: I64

    def __len__(self) -> int:
        return len(self.slot)

    def select(self, which: I64) -> Moves:
        """The moves an index array picks, in its order."""
        return Moves(self.slot[which], self.physical[which], self.length[which], self.position[which])

    def joined(self, other: Moves) -> Moves:
        """These and then the others."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in Moves.__dataclass_fields__)
        return Moves(*map(np.concatenate, pairs))


@dataclass(frozen=True)
class _Run:
    """One system call: ``views`` take the bytes from ``physical``; ``moves`` are the indices it serves."""

    slot: int
    physical: int
    length: int
    views: list[memoryview]
    moves: I64


class Transfer:
    """Moves bytes between devices (``slot`` is the index in ``devices``) and one flat buffer."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = devices
        self.sizes = np.array([device.size for device in devices], np.int64)
        self.last_error: DeviceError | None = None
        self._gap = aligned_buffer(_BRIDGE_BYTES).data  # nobody looks at what is read into it
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
        """``function`` of every item, in order, several at a time; inline when there is only one."""
        if len(items) <= 1:
            return [function(item) for item in items]
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(IN_FLIGHT, "cowlib-io")
            pool = self._pool
        return list(pool.map(function, items))

    def read(self, moves: Moves, buffer: NDArray[np.uint8]) -> Bool:
        """Bring bytes from devices to the buffer. bool[n]: they could be read."""
        good = self._inside(moves)
        sectors = (moves.physical | moves.length | moves.position) % SECTOR_SIZE == 0
        done = good & sectors & is_aligned(buffer)
        runs = self._runs(moves, np.flatnonzero(done), buffer, _BRIDGE_BYTES)
        for run, whole in zip(runs, self.each(self._read_run, runs), strict=True):
            if not whole:
                done[run.moves] = False
        for index in np.flatnonzero(good & ~done).tolist():
            at = int(moves.position[index])
            out = buffer[at : at + int(moves.length[index])]
            try:
                self.devices[moves.slot[index]].read_into(int(moves.physical[index]), out)
            except DeviceError as error:
                self.last_error = error
                good[index] = False
        return good

    def write(self, moves: Moves, source: NDArray[np.uint8]) -> None:
        """Bring bytes from an aligned buffer to devices that are there: whole sectors."""

        def write_run(run: _Run) -> None:
            self.devices[run.slot].write_vector(run.physical, run.views)

        self.each(write_run, self._runs(moves, np.arange(len(moves)), source, 0))

    def _inside(self, moves: Moves) -> Bool:
        """bool[n]: the device is there and large enough."""
        if not self.devices:
            return np.zeros(len(moves), np.bool_)
        room = self.sizes[moves.slot] - moves.length
        inside: Bool = (moves.slot >= 0) & (moves.physical >= 0) & (moves.physical <= room)
        return inside

    def _read_run(self, run: _Run) -> bool:
        try:
            return self.devices[run.slot].read_vector(run.physical, run.views) == run.length
        except OSError:
            return False  # its pieces are then read one by one, so that a bad sector costs only its own

    def _runs(self, moves: Moves, which: I64, buffer: NDArray[np.uint8], bridge: int) -> list[_Run]:
        """Runs of the moves ``which``, by device and place, with gaps of at most ``bridge`` bytes inside."""
        if not len(which):
            return []
        order = which[np.lexsort((moves.physical[which], moves.slot[which]))]
        moves = moves.select(order)
        end = moves.physical + moves.length
        gap = moves.physical[1:] - end[:-1]
        breaks = _run_breaks(moves, gap, bridge)
        # moves that stand together on both sides share a view
        cuts = breaks.copy()
        cuts[1:] |= (gap > 0) | (moves.position[1:] != moves.position[:-1] + moves.length[:-1])
        begin = np.flatnonzero(cuts)
        last = np.append(begin[1:], len(order)) - 1
        skip = np.append(0, gap)[begin]
        low = moves.position[begin]
        high = low + end[last] - moves.physical[begin]
        memory = buffer.data
        run_views: list[list[memoryview]] = []
        rows = zip(breaks[begin].tolist(), skip.tolist(), low.tolist(), high.tolist(), strict=True)
        for new_run, skipped, start, stop in rows:
            if new_run:
                run_views.append([])
            elif skipped:
                run_views[-1].append(self._gap[:skipped])
            run_views[-1].append(memory[start:stop])
        starts = np.flatnonzero(breaks)
        stops = np.append(starts[1:], len(order))
        slots, places = moves.slot[starts].tolist(), moves.physical[starts].tolist()
        lengths = (end[stops - 1] - moves.physical[starts]).tolist()
        members = np.split(order, starts[1:])
        return list(map(_Run, slots, places, lengths, run_views, members))


def _run_breaks(moves: Moves, gap: I64, bridge: int) -> Bool:
    """bool[n]: a new run begins at this one of the sorted moves. ``gap``: bytes between each and the next."""
    breaks = np.ones(len(moves), np.bool_)
    breaks[1:] = (moves.slot[1:] != moves.slot[:-1]) | (gap < 0) | (gap > bridge)
    first = np.flatnonzero(breaks)
    origin = np.repeat(moves.physical[first], np.diff(first, append=len(moves)))
    bucket = (moves.physical - origin) // _RUN_BYTES
    breaks[1:] |= bucket[1:] != bucket[:-1]
    return breaks
