"""Superblocks: finding the copies on a device, checking one, choosing where to start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cowlib.checksum import checksum, csum_size
from cowlib.device import Device
from cowlib.errors import CowError, DamagedError, NotBtrfsError, UnsupportedError
from cowlib.format import (
    CSUM_SIZE,
    MAX_LEVEL,
    SUPERBLOCK_MAGIC,
    SUPERBLOCK_OFFSETS,
    SUPERBLOCK_SIZE,
    CsumType,
    IncompatFeature,
    Superblock,
    columns,
)

#: Incompatible features whose metadata this library reads. Those left out change where blocks are or what they mean.
READABLE = (
    IncompatFeature.MIXED_BACKREF
    | IncompatFeature.DEFAULT_SUBVOL
    | IncompatFeature.MIXED_GROUPS
    | IncompatFeature.COMPRESS_LZO
    | IncompatFeature.COMPRESS_ZSTD
    | IncompatFeature.BIG_METADATA
    | IncompatFeature.EXTENDED_IREF
    | IncompatFeature.RAID56
    | IncompatFeature.SKINNY_METADATA
    | IncompatFeature.NO_HOLES
    | IncompatFeature.METADATA_UUID
    | IncompatFeature.RAID1C34
    | IncompatFeature.RAID_STRIPE_TREE
    | IncompatFeature.SIMPLE_QUOTA
)

_MIN_NODESIZE, _MAX_NODESIZE = 4096, 65536


@dataclass(frozen=True)
class SuperblockCopy:
    """One of a device's superblock places: its ``index`` and byte ``offset``, the 4096 bytes there (None where the
    device ends before), and ``fault``, what is wrong with them (None when the copy is good)."""

    index: int
    offset: int
    data: bytes | None
    fault: str | None

    def parse(self) -> Any:
        """The declared structure, whether the copy is good or not; raises NotBtrfsError when there are no bytes."""
        if self.data is None:
            raise NotBtrfsError(self.fault or "no superblock")
        return Superblock.parse(self.data)


def superblock_copies(device: Device) -> list[SuperblockCopy]:
    """All superblock places of a device, each with its verdict; never raises for what is on the disk."""
    copies = []
    for index, offset in enumerate(SUPERBLOCK_OFFSETS):
        if offset + SUPERBLOCK_SIZE > device.size:
            copies.append(SuperblockCopy(index, offset, None, "lies beyond the end of the device"))
            continue
        data = device.read(offset, SUPERBLOCK_SIZE).tobytes()
        copies.append(SuperblockCopy(index, offset, data, fault_of(data, offset)))
    return copies


def fault_of(data: bytes, offset: int) -> str | None:
    """What keeps 4096 bytes read at ``offset`` from being a usable superblock, or None.

    Checks magic, checksum type, checksum, address, and the sizes that everything else divides by.
    """
    fields = np.frombuffer(data, columns(Superblock), 1)[0]
    if bytes(fields["magic"]) != SUPERBLOCK_MAGIC:
        return "no btrfs magic"
    kind = int(fields["csum_type"])
    if kind not in CsumType.__members__.values():
        return f"unknown checksum type {kind}"
    size = csum_size(CsumType(kind))
    found = checksum(CsumType(kind), memoryview(data)[CSUM_SIZE:])
    if data[:size] != found:
        return f"checksum is {data[:size].hex()}, its bytes give {found.hex()}"
    if int(fields["bytenr"]) != offset:
        return f"says it stands at {int(fields['bytenr'])}"
    return geometry_fault(fields)


def geometry_fault(fields: Any) -> str | None:
    """What is wrong with a superblock's sizes and root levels, or None: nothing may divide by a zero from the disk."""
    for name in ("nodesize", "sectorsize"):
        value = int(fields[name])
        if not _MIN_NODESIZE <= value <= _MAX_NODESIZE or value & (value - 1):
            return f"{name} is {value}"
    if int(fields["nodesize"]) < int(fields["sectorsize"]):
        return f"nodesize {int(fields['nodesize'])} is less than sectorsize {int(fields['sectorsize'])}"
    for name in ("root_level", "chunk_root_level", "log_root_level"):
        if int(fields[name]) >= MAX_LEVEL:
            return f"{name} is {int(fields[name])}"
    return None


def read_superblock(device: Device, copy: int | None = None) -> Any:
    """The superblock of a device as a parsed structure: copy 0, or the one that is asked for.

    Raises NotBtrfsError (no magic there) or DamagedError (magic, but not usable); the hint names a good copy.
    """
    copies = superblock_copies(device)
    index = copy or 0
    if index >= len(copies):
        raise NotBtrfsError(f"there are {len(copies)} superblock copies, 0 to {len(copies) - 1}", device=device.path)
    chosen = copies[index]
    if chosen.fault is None:
        return chosen.parse()
    good = next((c for c in copies if c.fault is None), None)
    hint = f"superblock copy {good.index} is good: try --super-copy {good.index}" if good else None
    magic = chosen.data is not None and chosen.data[64:72] == SUPERBLOCK_MAGIC
    kind: type[CowError] = DamagedError if magic else NotBtrfsError
    text = f"superblock copy {index} at byte {chosen.offset}: {chosen.fault}"
    if not magic and good is None:
        text, hint = "not a btrfs filesystem (no btrfs magic in any superblock place)", None
    raise kind(text, device=device.path, hint=hint)


def refuse_unknown(superblock: Any, device: str) -> None:
    """Raises UnsupportedError, naming the bits, for incompatible features that the reader does not understand."""
    unknown = int(superblock.incompat_flags) & ~int(READABLE)
    if unknown:
        names = [
            bit.name or hex(bit) if (bit := IncompatFeature(1 << n)) else "" for n in range(64) if unknown >> n & 1
        ]
        raise UnsupportedError(
            f"incompatible feature(s) {', '.join(names)}: not supported",
            device=device,
            hint="read it with the kernel or a newer tool",
        )
