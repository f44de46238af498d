"""Data stored compressed where that saves sectors: how much room a batch takes shows only afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cowlib.checksum import csum_blocks
from cowlib.compression import compress
from cowlib.format import MAX_COMPRESSED, Compression
from mkfs_cow.data.extents import Stored, merged
from mkfs_cow.data.inline import InlineBuilder
from mkfs_cow.data.plan import Batch, DataOptions, Plan
from mkfs_cow.data.sink import Cursor
from mkfs_cow.data.write_queue import WriteQueue

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.data.reader import Reader
    from mkfs_cow.data.sink import Sink

_WRITERS = 2


@dataclass(frozen=True)
class _Packed:
    """What compressing made of a batch: the kept ``chunks`` (rows of the plan), and for each the ``length`` it takes
    on disk and its ``compression``; their ``sums``; and inline data by file, with its compression.
    """

    chunks: list[int]
    lengths: list[int]
    compression: list[int]
    sums: NDArray[np.uint8]
    inline: list[tuple[int, bytes, int]]


class CompressedStore:
    """Takes batches, has threads compress them, and writes them in their order.

    A context manager: on leaving it everything is written. ``runs`` are the checksums of each write with its
    address, ``small`` is the inline data.
    """

    def __init__(self, plan: Plan, sink: Sink, options: DataOptions, small: InlineBuilder) -> None:
        self.runs: list[tuple[int, NDArray[np.uint8]]] = []
        self._plan = plan
        self._sink = sink
        self._options = options
        self._cursor = Cursor(sink)
        self._rows: list[tuple[int, int, int, int, int]] = []  # chunk, address, piece, length, compression
        self.small = small
        nbytes = options.batch_bytes + MAX_COMPRESSED
        self._writing: WriteQueue[None] = WriteQueue(_WRITERS, _WRITERS + 1, nbytes, lambda *_: None)
        self._packing: WriteQueue[_Packed] = WriteQueue(options.threads, options.threads + 1, nbytes, self._place)

    def __enter__(self) -> CompressedStore:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._packing.__exit__(*exc)
        finally:
            self._writing.__exit__(*exc)

    def take(self, batch: Batch, reader: Reader) -> None:
        """Reads one batch and sends it on its way."""
        small = reader.inline(batch)
        buffer = self._packing.buffer()
        reader.fill(batch, buffer)
        self._packing.start(buffer, self._pack, batch, small, reader.size)

    def stored(self) -> Stored:
        """The extents, lost files included."""
        rows = np.array(self._rows, dtype=np.int64).reshape(-1, 5)
        chunk, address, piece, disk_length, compression = rows.T
        chunks = self._plan.chunks
        length = chunks.length[chunk]
        return merged(
            Stored(
                chunks.file[chunk],
                chunks.offset[chunk],
                length,
                length,
                address,
                disk_length,
                compression,
                piece,
            )
        )

    def _pack(
        self,
        buffer: NDArray[np.uint8],
        batch: Batch,
        small: list[tuple[int, bytes]],
        sizes: NDArray[np.int64],
    ) -> _Packed:
        """Compresses a batch within its buffer: no chunk gets longer, so what is done stays before what is not."""
        options, sector = self._options, self._options.sectorsize
        inline = [(file, *self._small(file, data)) for file, data in small]
        kept, lengths, compression = [], [], []
        rows = slice(batch.chunks.start, batch.chunks.stop)
        chunks = self._plan.chunks
        end = 0
        for row, file, offset, start, length in zip(
            batch.chunks,
            chunks.file[rows].tolist(),
            chunks.offset[rows].tolist(),
            (chunks.start[rows] - batch.start).tolist(),
            chunks.length[rows].tolist(),
            strict=True,
        ):
            size = int(sizes[file])
            if offset >= size:  # lost, or cut off since it was scanned
                continue
            packed = None
            algorithm, level = self._choice(file)
            if algorithm != Compression.NONE:
                if size <= sector:
                    packed = self._inline_form(algorithm, level, buffer[start : start + size].tobytes())
                    if packed is not None:
                        inline.append((file, packed, algorithm))
                        continue
                else:
                    data = buffer[start : start + length].tobytes()
                    packed = compress(algorithm, level, data, sector)
            if packed is None:
                algorithm = Compression.NONE
                if end < start:
                    buffer[end : end + length] = buffer[start : start + length]
            else:
                length = -(-len(packed) // sector) * sector
                buffer[end : end + len(packed)] = np.frombuffer(packed, dtype=np.uint8)
                buffer[end + len(packed) : end + length] = 0
            kept.append(row)
            lengths.append(length)
            compression.append(int(algorithm))
            end += length
        sums = csum_blocks(options.csum_type, buffer[:end], sector)
        return _Packed(kept, lengths, compression, sums, inline)

    def _choice(self, file: int) -> tuple[Compression, int]:
        """Algorithm and level for a file."""
        files = self._plan.files
        return self._options.choices[files.choice[file]] if files.compress[file] else (Compression.NONE, 0)

    def _small(self, file: int, data: bytes) -> tuple[bytes, int]:
        """Data that is inline in any case."""
        algorithm, level = self._choice(file)
        packed = None if algorithm == Compression.NONE else self._inline_form(algorithm, level, data)
        return (data, int(Compression.NONE)) if packed is None else (packed, int(algorithm))

    def _inline_form(self, algorithm: Compression, level: int, data: bytes) -> bytes | None:
        """A whole file compressed, if that helps and makes it short enough to be inline."""
        packed = compress(algorithm, level, data, self._options.sectorsize, inline=True)
        return packed if packed is not None and len(packed) <= self._options.inline_limit else None

    def _place(self, buffer: NDArray[np.uint8], packed: _Packed) -> None:
        """Finds room for a batch and writes it, as many contiguous ranges as it takes."""
        for file, data, algorithm in sorted(packed.inline):
            self.small.add(file, data, algorithm)
        placed = self._cursor.place(packed.lengths)
        self._rows += [
            (chunk, address, piece, length, algorithm)
            for chunk, (address, piece), length, algorithm in zip(
                packed.chunks, placed, packed.lengths, packed.compression, strict=True
            )
        ]
        breaks = [i for i in range(1, len(placed)) if placed[i][1] != placed[i - 1][1]]
        start = 0
        for first, last in pairwise([0, *breaks, len(placed)]) if placed else ():
            length = sum(packed.lengths[first:last])
            out = self._writing.buffer()
            out[:length] = buffer[start : start + length]
            self._writing.start(out, self._write, placed[first][0], length)
            sector = self._options.sectorsize
            self.runs.append((placed[first][0], packed.sums[start // sector : (start + length) // sector]))
            start += length

    def _write(self, buffer: NDArray[np.uint8], address: int, length: int) -> None:
        self._sink.write(address, buffer[:length])
