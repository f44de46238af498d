"""Checksummed ranges, what can be wrong with a copy of one of their sectors, and how sectors are read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cowlib.btree.nodes import I64, U64, Bytes, Mask
from cowlib.checksum import csum_rows
from cowlib.device import Device
from cowlib.errors import DeviceError
from cowlib.format import CsumType
from cowlib.volume import Volume

#: A sector of data that is not as its checksum says, or of parity that is not as the data say.
#: ``sum`` is the index of the checksum.  ``copy`` counts from 1; of parity it is one of those below.
#: ``unread``: the disk could not give it.
BAD = np.dtype(
    [
        ("logical", "<u8"),
        ("devid", "<u8"),
        ("physical", "<u8"),
        ("sum", "<i8"),
        ("copy", "u1"),
        ("unread", "?"),
    ]
)

P, Q = 254, 255


@dataclass(frozen=True)
class Sums:
    """Checksums of some ranges, all aligned to sectors.

    ``logical`` u8, ``count`` i8 and ``first`` i8 (n,): where each range starts, how many sectors it has, and which of
    ``table``, uint8 (m, csum_size), is its first checksum.
    """

    logical: U64
    count: I64
    first: I64
    table: Bytes


@dataclass
class Source:
    """The disks and how their data are checksummed. ``lost_bytes`` grows by what stands on missing devices alone."""

    volume: Volume
    csum_type: CsumType
    sectorsize: int
    lost_bytes: int = field(default=0)

    def device(self, devid: int) -> Device | None:
        """The device with this id if it is there."""
        return self.volume.devices.get(devid)

    def wrong(self, sectors: Bytes, expected: Bytes) -> Mask:
        """Which of the sectors (n, sectorsize) do not have the checksums (n, csum_size): bool (n,)."""
        wrong: Mask = (csum_rows(self.csum_type, sectors) != expected).any(axis=1)
        return wrong

    def read(self, device: Device, start: int, out: Bytes) -> Mask | None:
        """Fills ``out`` from byte ``start`` of a device; None, or where the disk fails which sectors it could give."""
        try:
            device.read_into(start, out)
        except DeviceError:
            return self._read_sectors(device, start, out)
        return None

    def _read_sectors(self, device: Device, start: int, out: Bytes) -> Mask:
        size = self.sectorsize
        good = np.ones(-(-out.size // size), bool)
        for i in range(len(good)):
            try:
                device.read_into(start + i * size, out[i * size : (i + 1) * size])
            except DeviceError:
                good[i] = False
                out[i * size : (i + 1) * size] = 0
        return good
