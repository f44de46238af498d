"""Copies that stand on disk as they are: put in the order of the disks, read in long runs, verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cowlib.btree import ragged_index
from cowlib.btree.nodes import I64, U64, Bytes, Mask
from cowlib.device import scratch_buffer
from cowlib.volume import Pieces
from fsck_cow.data.sectors import BAD, Source
from fsck_cow.walk import Rows

#: Bytes of a run.
_RUN_BYTES = 4 << 20

#: Reading a gap this small costs less than another read.
_BRIDGE_BYTES = 128 << 10

_NAMES = ("devid", "physical", "length", "logical", "sum", "copy")


@dataclass(frozen=True)
class Copies:
    """Copies of pieces of ranges; columns of length n.

    ``sum`` is the index of the first sector's checksum in the table, ``copy`` counts from 1.
    """

    devid: U64
    physical: I64
    length: I64
    logical: U64
    sum: I64
    copy: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.devid)

    def select(self, which: I64) -> Copies:
        """Those that an index array picks, in its order."""
        return Copies(*(getattr(self, name)[which] for name in _NAMES))


def direct_work(source: Source, pieces: Pieces, table: Bytes) -> list[Callable[[], Rows]]:
    """What is to be done to verify every direct copy of these pieces: each call reads a run and gives rows of `BAD`."""
    if not len(pieces):
        return []
    copies = _present(source, _sorted_copies(source, pieces))
    return [lambda run=run: _verify(source, copies.select(run), table) for run in _runs(copies)]  # type: ignore[misc]


def _sorted_copies(source: Source, pieces: Pieces) -> Copies:
    """Every direct copy of the pieces, sorted by device and place."""
    chunks = source.volume.chunks
    parts = []
    number = chunks.copies[pieces.chunk]
    for copy in range(1, int(number.max()) + 1):
        which = pieces.select(number >= copy)
        stripe, physical = chunks.place(which.chunk, which.offset, copy)
        parts.append(
            Copies(
                chunks.stripe_devid[stripe],
                physical,
                which.length,
                chunks.logical[which.chunk] + which.offset.astype(np.uint64),
                which.position // source.sectorsize,
                np.full(len(which), copy, np.uint8),
            )
        )
    whole = Copies(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))
    return whole.select(np.lexsort((whole.physical, whole.devid)))


def _present(source: Source, copies: Copies) -> Copies:
    """The copies on devices that are there and reach that far; counts the bytes that have no such copy."""
    sizes = {devid: device.size for devid, device in source.volume.devices.items() if device is not None}
    devids = np.array(sorted(sizes), np.uint64)
    if len(devids):
        slot = np.minimum(np.searchsorted(devids, copies.devid), len(devids) - 1)
        room = np.array([sizes[int(devid)] for devid in devids], np.int64)[slot]
        present = (devids[slot] == copies.devid) & (copies.physical <= room - copies.length)
    else:
        present = np.zeros(len(copies), bool)
    if present.all():
        return copies
    kept, gone = copies.select(np.flatnonzero(present)), copies.select(np.flatnonzero(~present))
    lost = ~np.isin(gone.sum, kept.sum)
    _, once = np.unique(gone.sum[lost], return_index=True)
    source.lost_bytes += int(gone.length[lost][once].sum())
    return kept


def _runs(copies: Copies) -> list[I64]:
    """Index arrays of the copies that are read together, those of the devices in turn."""
    if not len(copies):
        return []
    end = copies.physical + copies.length
    gap = copies.physical[1:] - end[:-1]
    breaks = np.ones(len(copies), bool)
    breaks[1:] = (copies.devid[1:] != copies.devid[:-1]) | (gap > _BRIDGE_BYTES) | (gap < 0)
    first = np.flatnonzero(breaks)
    origin = np.repeat(copies.physical[first], np.diff(first, append=len(copies)))
    bucket = (end - 1 - origin) // _RUN_BYTES
    breaks[1:] |= bucket[1:] != bucket[:-1]
    starts = np.flatnonzero(breaks)
    runs = np.split(np.arange(len(copies)), starts[1:])
    _, device_start = np.unique(copies.devid[starts], return_index=True)
    turn = np.arange(len(starts)) - np.repeat(device_start, np.diff(device_start, append=len(starts)))
    return [runs[i] for i in np.argsort(turn, kind="stable").tolist()]


def _verify(source: Source, run: Copies, table: Bytes) -> Rows:
    """Reads and verifies copies that are close to each other on one device."""
    device = source.device(int(run.devid[0]))
    assert device is not None
    start, size = int(run.physical[0]), source.sectorsize
    buffer = scratch_buffer(int(run.physical[-1] + run.length[-1]) - start)
    good = source.read(device, start, buffer)
    count = run.length // size
    if int(run.length.sum()) == buffer.size:
        position = None
        sectors = buffer.reshape(-1, size)
    else:
        position = ragged_index(run.physical - start, run.length)[::size]
        sectors = np.ndarray((buffer.size - size + 1, size), np.uint8, buffer.data, strides=(1, 1))[position]
    wrong = source.wrong(sectors, table[ragged_index(run.sum, count)])
    unread = np.zeros(len(wrong), bool)
    if good is not None:
        unread = ~good[np.arange(len(wrong)) if position is None else position // size]
    return _bad_sectors(run, np.flatnonzero(wrong | unread), count, size, unread)


def _bad_sectors(run: Copies, which: I64, count: I64, size: int, unread: Mask) -> Rows:
    bad = np.zeros(len(which), BAD)
    if not len(which):
        return bad
    ends = np.cumsum(count)
    piece = np.searchsorted(ends, which, "right")
    inner = which - (ends - count)[piece]
    bad["logical"] = run.logical[piece] + (inner * size).astype(np.uint64)
    bad["devid"] = run.devid[piece]
    bad["physical"] = run.physical[piece] + inner * size
    bad["sum"] = run.sum[piece] + inner
    bad["copy"] = run.copy[piece]
    bad["unread"] = unread[which]
    return bad
