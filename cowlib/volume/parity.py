"""raid5 and raid6 rows: rebuilt from what is left of them, parity kept true when part of one is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from cowlib.device import scratch_buffer
from cowlib.errors import DeviceError, MissingDeviceError
from cowlib.format import STRIPE_LEN
from cowlib.volume import raid
from cowlib.volume.chunks import ChunkMap, Pieces
from cowlib.volume.transfer import Moves, Transfer

I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_SCRATCH_BYTES = 32 << 20
_LOCKS = 64

ReadPieces = Callable[[Pieces, NDArray[np.uint8]], Bool]


class ParityRows:
    """The rows of a map's raid5 and raid6 chunks.

    ``slots``: int64, the device slot of every stripe in the stripe table, -1 for a missing device.
    """

    def __init__(self, chunks: ChunkMap, slots: I64, transfer: Transfer) -> None:
        self._chunks = chunks
        self._slots = slots
        self._transfer = transfer
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def rebuild(self, pieces: Pieces, mirror: int, buffer: NDArray[np.uint8]) -> Bool:
        """Fill the buffer without reading the pieces' own stripes. bool[n]: enough of the row was there.

        ``mirror`` 2 uses all other stripes, 3 (raid6) not P either; from 4 on another data stripe is held
        to be lost as well, the last one first: what to try when some stripe of the row is silently wrong.
        """
        good = np.zeros(len(pieces), np.bool_)
        for chunk in np.unique(pieces.chunk).tolist():
            count = int(self._chunks.num_stripes[chunk])
            for batch in _batches(np.flatnonzero(pieces.chunk == chunk), pieces.length * count):
                good[batch] = self._rebuild_batch(chunk, pieces.select(batch), mirror, buffer)
        return good

    def _rebuild_batch(self, chunk: int, pieces: Pieces, mirror: int, buffer: NDArray[np.uint8]) -> Bool:
        count, parity = int(self._chunks.num_stripes[chunk]), int(self._chunks.parity[chunk])
        unit, inner = np.divmod(pieces.offset, STRIPE_LEN)
        row, column = np.divmod(unit, count - parity)
        stripe, start = self._chunks.row_stripes(chunk, row)
        slot = self._slots[stripe]
        lost = slot < 0
        lost[np.arange(len(pieces)), column] = True
        if mirror >= 3:
            other = np.full(len(pieces), count - parity - (mirror - 3))
            other -= other <= column  # the piece's own column is lost already, and P comes after all of them
            lost[np.arange(len(pieces)), other] = True
        # pieces that lack the same stripes are recovered together: let them stand together
        order = np.lexsort(lost.T)
        place = np.zeros(len(pieces), np.int64)
        place[order] = np.cumsum(pieces.length[order]) - pieces.length[order]
        total = int(pieces.length.sum())
        scratch = scratch_buffer(count * total)
        wanted = ~lost & (lost.sum(axis=1) <= parity)[:, np.newaxis]
        which = np.nonzero(wanted)
        moves = Moves(
            slot[which],
            (start + inner[:, np.newaxis])[which],
            pieces.length[which[0]],
            which[1] * total + place[which[0]],
        )
        lost[which] = ~self._transfer.read(moves, scratch)
        good: Bool = lost.sum(axis=1) <= parity
        stripes = scratch[: count * total].reshape(count, total)
        for group in _equal_neighbours(lost, order[good[order]]):
            begin = int(place[group[0]])
            end = int(place[group[-1]] + pieces.length[group[-1]])
            raid.recover(stripes[:, begin:end], parity, np.flatnonzero(lost[group[0]]).tolist())
        for index in np.flatnonzero(good).tolist():
            at, length, source = int(pieces.position[index]), int(pieces.length[index]), int(place[index])
            buffer[at : at + length] = stripes[int(column[index]), source : source + length]
        return good

    def write(self, pieces: Pieces, source: NDArray[np.uint8], read: ReadPieces) -> None:
        """Write the pieces and the parity of their rows.

        ``read`` gives what the filesystem holds at other pieces (rebuilt where it must be), for rows that are
        written in part. Writers of parts of the same row wait for each other.
        """
        for chunk in np.unique(pieces.chunk).tolist():
            count = int(self._chunks.num_stripes[chunk])
            mine = np.flatnonzero(pieces.chunk == chunk)
            rows = pieces.offset[mine] // (STRIPE_LEN * int(self._chunks.width[chunk]))
            order = np.argsort(rows, kind="stable")
            at_once = max(1, _SCRATCH_BYTES // (count * STRIPE_LEN))
            unique, start = np.unique(rows[order], return_index=True)
            bounds = [*start.tolist(), len(order)]
            for low in range(0, len(unique), at_once):
                high = min(low + at_once, len(unique))
                self._write_rows(
                    chunk,
                    unique[low:high],
                    pieces.select(mine[order[bounds[low] : bounds[high]]]),
                    source,
                    read,
                )

    def _write_rows(self, chunk: int, rows: I64, pieces: Pieces, source: NDArray[np.uint8], read: ReadPieces) -> None:
        """``pieces`` are all in ``rows`` (sorted, each once) of one chunk."""
        count, parity = int(self._chunks.num_stripes[chunk]), int(self._chunks.parity[chunk])
        width = count - parity
        unit, inner = np.divmod(pieces.offset, STRIPE_LEN)
        row, column = np.divmod(unit, width)
        nth = np.searchsorted(rows, row)
        low = np.full(len(rows), STRIPE_LEN)
        high = np.zeros(len(rows), np.int64)
        np.minimum.at(low, nth, inner)
        np.maximum.at(high, nth, inner + pieces.length)
        covered = np.zeros((len(rows), width), np.int64)
        np.add.at(covered, (nth, column), pieces.length)
        partial = covered < (high - low)[:, np.newaxis]

        stripe, start = self._chunks.row_stripes(chunk, rows)
        slot = self._slots[stripe]
        self._refuse_lost(chunk, slot, parity)
        scratch = scratch_buffer(len(rows) * count * STRIPE_LEN)
        place = (nth * count + column) * STRIPE_LEN + inner
        with ExitStack() as held:
            for index in sorted({hash((chunk, int(at))) % _LOCKS for at in rows[partial.any(axis=1)]}):
                held.enter_context(self._locks[index])
            self._read_rest(chunk, rows, partial, low, high, scratch, read)
            for to, at, length in zip(place.tolist(), pieces.position.tolist(), pieces.length.tolist(), strict=True):
                scratch[to : to + length] = source[at : at + length]
            stripes = scratch.reshape(len(rows), count, STRIPE_LEN)
            for index, (begin, end) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
                raid.fill_parity(stripes[index, :, begin:end], parity)
            new = Moves(slot[nth, column], start[nth, column] + inner, pieces.length, place)
            at, nth = np.divmod(np.arange(len(rows) * parity), parity)
            nth += width
            of_parity = Moves(
                slot[at, nth],
                start[at, nth] + low[at],
                (high - low)[at],
                (at * count + nth) * STRIPE_LEN + low[at],
            )
            moves = new.joined(of_parity)
            self._transfer.write(moves.select(np.flatnonzero(moves.slot >= 0)), scratch)

    def _read_rest(
        self,
        chunk: int,
        rows: I64,
        partial: Bool,
        low: I64,
        high: I64,
        scratch: NDArray[np.uint8],
        read: ReadPieces,
    ) -> None:
        """What stands on the devices beside the new bytes, for the columns that are not wholly new."""
        nth, column = np.nonzero(partial)
        if not len(nth):
            return
        width, count = partial.shape[1], int(self._chunks.num_stripes[chunk])
        rest = Pieces(
            np.arange(len(nth)),
            np.full(len(nth), chunk),
            (rows[nth] * width + column) * STRIPE_LEN + low[nth],
            (high - low)[nth],
            (nth * count + column) * STRIPE_LEN + low[nth],
        )
        good = read(rest, scratch)
        if not good.all():
            first = int(rest.offset[np.flatnonzero(~good)[0]])
            raise DeviceError(
                "cannot read the rest of a stripe to compute its parity",
                logical=int(self._chunks.logical[chunk]) + first,
            )

    def _refuse_lost(self, chunk: int, slot: I64, parity: int) -> None:
        if ((slot < 0).sum(axis=1) > parity).any():
            raise MissingDeviceError(
                "cannot write: more devices are missing than the profile survives",
                logical=int(self._chunks.logical[chunk]),
            )


def _batches(which: I64, cost: I64) -> Iterator[I64]:
    """Cut an index array so that each part costs about `_SCRATCH_BYTES` of memory, or is a single index."""
    bucket = (np.cumsum(cost[which]) - 1) // _SCRATCH_BYTES
    yield from np.split(which, np.flatnonzero(np.diff(bucket)) + 1)


def _equal_neighbours(lost: Bool, order: I64) -> Sequence[I64]:
    """``order`` cut where the rows of ``lost`` change."""
    if not len(order):
        return []
    return np.split(order, np.flatnonzero((lost[order][1:] != lost[order][:-1]).any(axis=1)) + 1)
