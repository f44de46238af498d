"""Data stored as it is: every address is known before the first byte is read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cowlib.checksum import csum_blocks
from mkfs_cow.data.extents import Stored
from mkfs_cow.data.inline import InlineBuilder
from mkfs_cow.data.plan import Batch, DataOptions, Plan, recut
from mkfs_cow.data.write_queue import WriteQueue

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.data.reader import Reader
    from mkfs_cow.data.reflink import Cloner
    from mkfs_cow.data.sink import Sink

_WRITERS = 3


class PlainStore:
    """Takes batches and writes each at once. A context manager: on leaving it everything is written.

    ``plan`` is the plan cut to the room there is, ``runs`` the checksums of each write with its address, ``small``
    the inline data.
    """

    def __init__(
        self, plan: Plan, sink: Sink, options: DataOptions, small: InlineBuilder, cloner: Cloner | None = None
    ) -> None:
        """With a ``cloner`` files share their blocks with the sink where that can be."""
        pieces = sink.allocate(plan.total) if plan.total else []
        self.plan = recut(plan, pieces, options)
        self.runs: list[tuple[int, NDArray[np.uint8]]] = []
        self._sink = sink
        self._cloner = cloner
        self._options = options
        lengths = np.array([length for _, length in pieces], dtype=np.int64)
        self._piece_start = np.cumsum(lengths) - lengths
        self._piece_address = np.array([address for address, _ in pieces], dtype=np.int64)
        self.small = small
        runs = self.runs
        self._queue: WriteQueue[tuple[int, NDArray[np.uint8]]] = WriteQueue(
            _WRITERS, _WRITERS + 2, options.batch_bytes, lambda _, run: runs.append(run)
        )

    def __enter__(self) -> PlainStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self._queue.__exit__(*exc)

    def take(self, batch: Batch, reader: Reader) -> None:
        """Reads one batch and sends it on its way."""
        reader.place_inline(batch, self.small)
        if batch.start < batch.stop:
            buffer = self._queue.buffer()
            (address,) = self._address(np.array([batch.start]))[0].tolist()
            if self._cloner is None:
                reader.fill(batch, buffer)
                self._queue.start(buffer, self._write, address, batch.stop - batch.start)
            else:
                shared = reader.fill(batch, buffer, partial(self._cloner.share, address))
                self._queue.start(buffer, self._complete, address, batch.stop - batch.start, shared)

    def stored(self) -> Stored:
        """The extents, lost files included."""
        chunks = self.plan.chunks
        address, piece = self._address(chunks.start)
        length, none = chunks.length, np.zeros_like(piece)
        return Stored(chunks.file, chunks.offset, length, length, address, length, none, piece)

    def _write(self, buffer: NDArray[np.uint8], address: int, length: int) -> tuple[int, NDArray[np.uint8]]:
        data = buffer[:length]
        self._sink.write(address, data)
        return address, csum_blocks(self._options.csum_type, data, self._options.sectorsize)

    def _complete(
        self, buffer: NDArray[np.uint8], address: int, length: int, shared: list[tuple[int, int]]
    ) -> tuple[int, NDArray[np.uint8]]:
        """Writes what is not shared, and sums what is as it stands now: files may have changed since."""
        data = buffer[:length]
        assert self._cloner is not None
        end = 0
        for begin, stop in [*shared, (length, length)]:
            if end < begin:
                self._sink.write(address + end, data[end:begin])
            data[begin:stop] = self._cloner.read(address + begin, stop - begin) if begin < stop else 0
            end = stop
        return address, csum_blocks(self._options.csum_type, data, self._options.sectorsize)

    def _address(self, start: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The address of each place in the stream, and the number of the piece it is in."""
        piece = np.searchsorted(self._piece_start, start, side="right") - 1
        return self._piece_address[piece] + start - self._piece_start[piece], piece
