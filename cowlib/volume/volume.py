"""Devices and a chunk map make one logical address space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowlib.device import SECTOR_SIZE, Device, scratch_buffer
from cowlib.device.buffers import as_bytes, is_aligned
from cowlib.errors import DamagedError, DeviceError, MissingDeviceError, UsageError
from cowlib.volume.chunks import MAX_PIECE, ChunkMap, Pieces
from cowlib.volume.parity import ParityRows
from cowlib.volume.transfer import Moves, Transfer

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

_WINDOW_BYTES = 8 << 20
_PARALLEL_BYTES = 256 << 10


class Volume:
    """The logical address space of a filesystem.

    ``devices``: devid to open `Device`, None for a missing one. ``chunks`` may be replaced at any time:
    first by the superblock's system chunks, then by the whole map. Mirrors count from 1, as in the kernel:
    the copies first, then the ways to rebuild from parity; mirror 0 is whichever can be read, the first
    that is there.

    Reading and writing are safe from several threads at once.
    """

    def __init__(self, devices: Mapping[int, Device | None], chunks: ChunkMap) -> None:
        self.devices = dict(devices)
        present = {devid: device for devid, device in self.devices.items() if device is not None}
        self._devids = np.array(sorted(present), np.uint64)
        self._transfer = Transfer([present[devid] for devid in sorted(present)])
        self.chunks = chunks

    @property
    def chunks(self) -> ChunkMap:
        """The chunk map in use."""
        return self._chunks

    @chunks.setter
    def chunks(self, chunks: ChunkMap) -> None:
        self._slots = self._slots_of(chunks.stripe_devid)
        self._parity = ParityRows(chunks, self._slots, self._transfer)
        self._any_parity = bool(chunks.parity.any())
        self._chunks = chunks

    def __enter__(self) -> Volume:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def missing(self) -> list[int]:
        """Ids of the devices that are known of, by chunk or by name, but not there."""
        known = set(self.devices) | set(self._chunks.stripe_devid[self._slots < 0].tolist())
        return sorted(devid for devid in known if self.devices.get(devid) is None)

    def num_copies(self, logical: int) -> int:
        """How many mirrors can be asked for at an address: 0 where none is mapped.

        Copies as the profile says; raid5 2 (as it stands, rebuilt); raid6 as many as stripes (as it stands,
        rebuilt from P, from Q, and with each other data stripe left out).
        """
        chunk = int(self._chunks.locate(np.array([logical], np.uint64))[0])
        return 0 if chunk < 0 else int(self._mirrors(np.array([chunk]))[0])

    def read(self, logical: int, length: int, mirror: int = 0) -> U8:
        """``length`` bytes from ``logical``, of any alignment: uint8 array.

        Raises `DamagedError` where the addresses are not mapped, or only past a device's end,
        `MissingDeviceError` where too many devices are missing and `DeviceError` where the disk fails.
        """
        straight = self._read_straight(logical, length, mirror)
        if straight is not None:
            return straight
        if length < 0 or length > int(self._chunks.length.sum()) or not 0 <= logical < 2**64:
            raise DamagedError(f"no chunk holds all of the {length} bytes from here", logical=logical)
        addresses, lengths = np.array([logical], np.uint64), np.array([length], np.int64)
        buffer, ok = self.read_ranges(addresses, lengths, mirror)
        if not ok[0]:
            raise self._unreadable(logical, length, mirror)
        return buffer[:length]

    def read_many(self, logical: U64, length: int, mirror: int = 0) -> tuple[U8, Bool]:
        """Blocks of ``length`` bytes: (uint8[n, length], bool[n] which could be read).

        The blocks may be anywhere and in any order; they are read with few large reads. A block that cannot
        be read is zeros.
        """
        lengths = np.full(len(logical), length, np.int64)
        buffer, ok = self.read_ranges(logical, lengths, mirror)
        return buffer.reshape(len(logical), length), ok

    def read_ranges(self, logical: U64, length: I64, mirror: int = 0) -> tuple[U8, Bool]:
        """Ranges of different lengths, one after the other: (flat uint8 array, bool[n] which could be read).

        Memory is the sum of the lengths: the caller bounds it. A range that cannot be read is zeros.
        """
        logical = np.ascontiguousarray(logical, np.uint64)
        position = np.cumsum(length) - length
        buffer = scratch_buffer(int(length.sum()))
        pieces, ok = self._chunks.pieces(logical, length, position)
        good = self._read_pieces(pieces, mirror, buffer)
        ok[pieces.request[~good]] = False
        for index in np.flatnonzero(~ok).tolist():
            buffer[position[index] : position[index] + length[index]] = 0
        return buffer, ok

    def write(self, logical: int, data: Any) -> None:
        """Write a buffer of whole sectors to all its copies, with parity where the profile has it.

        Copies on missing devices are left out as long as the profile survives without them. Raises
        `MissingDeviceError` otherwise, `DamagedError` where an address is not mapped, `DeviceError` where a
        disk fails. Large and page-aligned buffers go out without being copied.
        """
        source = as_bytes(data)
        addresses, lengths = np.array([logical], np.uint64), np.array([source.nbytes], np.int64)
        if not self._write_straight(logical, source):
            self._write_ranges(addresses, lengths, source)

    def write_many(self, logical: U64, data: U8) -> None:
        """Write block i of ``data`` (uint8[n, length]) to ``logical[i]``: as `write`, with few large writes.

        No two blocks may overlap.
        """
        lengths = np.full(len(logical), data.shape[1] if len(logical) else 0, np.int64)
        self._write_ranges(np.ascontiguousarray(logical, np.uint64), lengths, as_bytes(data))

    def clone(self, logical: int, length: int, source: int, position: int) -> None:
        """Make a range the same blocks that the open file ``source`` has at ``position``, without copying.

        All copies become what the file is at one moment. Raises `OSError` where that cannot be (see `Device.clone`),
        `UsageError` where the profile has parity or a device is missing; then anything may stand in the range.
        """
        for targets, at, size in self._clone_targets(logical, length):
            (slot, physical), *others = targets
            first = self._transfer.devices[slot]
            first.clone(physical, source, position + at, size)
            for other, there in others:
                self._transfer.devices[other].clone(there, first, physical, size)

    def flush(self) -> None:
        """Everything written so far is on stable storage, on every device, when this returns."""
        self._transfer.each(Device.flush, [device for device in self._transfer.devices if device.writable])

    def rest(self) -> None:
        """Let the threads go until the next transfer needs them: to be called before `os.fork`."""
        self._transfer.close()

    def close(self) -> None:
        """Close the devices. Does not flush."""
        self._transfer.close()
        for device in self._transfer.devices:
            device.close()

    def _mirrors(self, chunk: I64) -> I64:
        chunks = self._chunks
        by_parity = np.where(chunks.parity[chunk] == 2, chunks.num_stripes[chunk], 2)
        return np.where(chunks.parity[chunk] > 0, by_parity, chunks.copies[chunk])

    def _slots_of(self, devid: U64) -> I64:
        """Index of each device among those present, -1 for a missing one."""
        if not len(self._devids):
            return np.full(len(devid), -1, np.int64)
        slot = np.minimum(np.searchsorted(self._devids, devid), len(self._devids) - 1)
        return np.where(self._devids[slot] == devid, slot, -1).astype(np.int64)

    def _read_pieces(self, pieces: Pieces, mirror: int, buffer: U8) -> Bool:
        """Read each piece to its place in the buffer. bool[n]: which could be read."""
        good = np.zeros(len(pieces), np.bool_)
        if not len(pieces):
            return good
        limit = self._mirrors(pieces.chunk)
        for attempt in [mirror] if mirror else range(1, int(limit.max()) + 1):
            which = np.flatnonzero(~good & (attempt <= limit))
            if not len(which):
                break
            direct = which[attempt <= self._chunks.copies[pieces.chunk[which]]]
            if len(direct):
                good[direct] = self._read_copy(pieces.select(direct), attempt, buffer)
            if self._any_parity and attempt > 1:
                rebuilt = which[self._chunks.parity[pieces.chunk[which]] > 0]
                good[rebuilt] = self._parity.rebuild(pieces.select(rebuilt), attempt, buffer)
        return good

    def _read_copy(self, pieces: Pieces, mirror: int, buffer: U8) -> Bool:
        stripe, physical = self._chunks.place(pieces.chunk, pieces.offset, mirror)
        return self._transfer.read(Moves(self._slots[stripe], physical, pieces.length, pieces.position), buffer)

    def _straight(self, logical: int, length: int) -> list[tuple[int, int]] | None:
        """(device slot, byte offset on it) of every copy of sectors that lie in one unstriped chunk.

        None for any other range: it has to be cut into pieces. Cheap, for callers that come with one block.
        """
        chunks = self._chunks
        if logical % SECTOR_SIZE or not 0 <= logical < 2**64 or not len(chunks):
            return None
        chunk = int(chunks.logical.searchsorted(np.uint64(logical), "right")) - 1
        offset = logical - int(chunks.logical[chunk])
        if chunk < 0 or offset + length > int(chunks.length[chunk]) or chunks.width[chunk] > 1 or chunks.parity[chunk]:
            return None
        first = int(chunks.first_stripe[chunk])
        copies = slice(first, first + int(chunks.copies[chunk]))
        starts = chunks.stripe_offset[copies].tolist()
        return [(slot, start + offset) for slot, start in zip(self._slots[copies].tolist(), starts, strict=True)]

    def _clone_targets(self, logical: int, length: int) -> list[tuple[list[tuple[int, int]], int, int]]:
        """The parts of a range: (device slot, byte offset on it) of every copy, where the part begins, its length."""
        straight = self._straight(logical, length)
        if straight is not None:
            parts = [(straight, 0, length)]
        else:
            addresses, lengths = np.array([logical], np.uint64), np.array([length], np.int64)
            pieces, mapped = self._chunks.pieces(addresses, lengths, np.zeros(1, np.int64))
            if not mapped.all() or self._chunks.parity[pieces.chunk].any():
                raise UsageError("blocks can be shared only where a chunk without parity holds all of them")
            copies = [
                self._chunks.place(pieces.chunk, pieces.offset, mirror)
                for mirror in range(1, int(self._chunks.copies[pieces.chunk].max()) + 1)
            ]
            places = zip(*(zip(self._slots[s].tolist(), p.tolist(), strict=True) for s, p in copies), strict=True)
            columns = (map(list, places), pieces.position.tolist(), pieces.length.tolist())
            parts = list(zip(*columns, strict=True))
        if any(slot < 0 for targets, _, _ in parts for slot, _ in targets):
            raise UsageError("blocks cannot be shared with a device that is missing")
        return parts

    def _read_straight(self, logical: int, length: int, mirror: int) -> U8 | None:
        """A small range of one unstriped chunk; None if it is not one, or cannot be read this way."""
        copies = self._straight(logical, length) if length <= MAX_PIECE else None
        for slot, at in (copies or ())[max(mirror - 1, 0) : mirror or None]:
            if slot >= 0:
                try:
                    return self._transfer.devices[slot].read(at, length)
                except DeviceError as error:
                    self._transfer.last_error = error
        return None

    def _write_straight(self, logical: int, source: U8) -> bool:
        """Write a range of one unstriped chunk as it is; False if it is not one, or needs a copy."""
        copies = self._straight(logical, source.nbytes) if is_aligned(source) else None
        if copies is None:
            return False
        targets = [target for target in copies if target[0] >= 0]
        if not targets:
            raise _no_copy_left(logical)

        def write_copy(target: tuple[int, int]) -> None:
            self._transfer.devices[target[0]].write(target[1], source)

        if source.nbytes < _PARALLEL_BYTES:
            for target in targets:
                write_copy(target)
        else:
            self._transfer.each(write_copy, targets)
        return True

    def _write_ranges(self, logical: U64, length: I64, source: U8) -> None:
        """Write ranges that stand one after the other in ``source``."""
        if ((logical % SECTOR_SIZE).any()) or (length % SECTOR_SIZE).any():
            raise UsageError(f"only whole sectors of {SECTOR_SIZE} bytes can be written")
        pieces, mapped = self._chunks.pieces(logical, length, np.cumsum(length) - length)
        if not mapped.all():
            first = int(logical[np.flatnonzero(~mapped)[0]])
            raise DamagedError("cannot write: no chunk holds all of these bytes", logical=first)
        by_parity = self._chunks.parity[pieces.chunk] > 0
        self._write_copies(pieces.select(~by_parity), source)
        if by_parity.any():
            self._parity.write(pieces.select(by_parity), source, lambda rest, out: self._read_pieces(rest, 0, out))

    def _write_copies(self, pieces: Pieces, source: U8) -> None:
        if is_aligned(source):
            self._write_window(pieces, source)
            return
        bounce = scratch_buffer(min(_WINDOW_BYTES, source.nbytes))
        window = (np.cumsum(pieces.length) - 1) // (_WINDOW_BYTES - MAX_PIECE)
        for which in np.split(np.arange(len(pieces)), np.flatnonzero(np.diff(window)) + 1):
            part = pieces.select(which)
            start = np.cumsum(part.length) - part.length
            for to, at, size in zip(start.tolist(), part.position.tolist(), part.length.tolist(), strict=True):
                bounce[to : to + size] = source[at : at + size]
            self._write_window(replace(part, position=start), bounce)

    def _write_window(self, pieces: Pieces, source: U8) -> None:
        """Write pieces of an aligned buffer to every copy that is there."""
        written = np.zeros(len(pieces), np.bool_)
        copies = self._chunks.copies[pieces.chunk]
        moves = Moves(*[np.zeros(0, np.int64)] * 4)
        for mirror in range(1, int(copies.max(initial=0)) + 1):
            which = np.flatnonzero(copies >= mirror)
            stripe, physical = self._chunks.place(pieces.chunk[which], pieces.offset[which], mirror)
            slot = self._slots[stripe]
            there = np.flatnonzero(slot >= 0)
            written[which[there]] = True
            copy = Moves(slot, physical, pieces.length[which], pieces.position[which])
            moves = moves.joined(copy.select(there))
        if not written.all():
            lost = int(np.flatnonzero(~written)[0])
            raise _no_copy_left(int(self._chunks.logical[pieces.chunk[lost]]) + int(pieces.offset[lost]))
        self._transfer.write(moves, source)

    def _unreadable(self, logical: int, length: int, mirror: int) -> DamagedError | MissingDeviceError | DeviceError:
        """Why a range could not be read."""
        pieces, mapped = self._chunks.pieces(
            np.array([logical], np.uint64), np.array([length], np.int64), np.zeros(1, np.int64)
        )
        if not mapped[0]:
            return DamagedError(f"no chunk holds all of the {length} bytes from here", logical=logical)
        if mirror > self._mirrors(pieces.chunk).min():
            return DamagedError(f"there is no mirror {mirror}", logical=logical)
        stripe, _ = self._chunks.place(pieces.chunk, pieces.offset)
        if (self._slots[stripe] < 0).any():
            missing = ", ".join(map(str, self.missing))
            return MissingDeviceError(
                "cannot be read: too many devices are missing",
                logical=logical,
                hint=f"missing devices: {missing}",
            )
        return self._transfer.last_error or DamagedError("lies past the end of a device", logical=logical)


def _no_copy_left(logical: int) -> MissingDeviceError:
    return MissingDeviceError("cannot write: every device of this place is missing", logical=logical)
