"""Where the chunks of a new filesystem go on its devices."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from cowlib.errors import NoSpaceError
from cowlib.format import DEVICE_RANGE_RESERVED, STRIPE_LEN, SUPERBLOCK_OFFSETS, BlockGroupFlag
from cowlib.volume.profiles import Profile

MIB = 1 << 20
GIB = 1 << 30

#: The first logical address: zero would read as a hole in a file extent.
_FIRST_LOGICAL = DEVICE_RANGE_RESERVED

#: A chunk takes at most this much of one device, as the kernel's allocator has it.
_MAX_STRIPE = GIB

#: Nor does a data chunk get longer than this, over however many devices it is striped.
_MAX_DATA_CHUNK = 10 * GIB

#: Above this size of the whole filesystem the kernel makes metadata chunks of 1 GiB instead of 256 MiB.
_LARGE_FILESYSTEM = 50 * GIB

#: The smallest chunk worth having, by kind: what a kernel needs to keep writing.
_MIN_CHUNK = {
    BlockGroupFlag.SYSTEM: 4 * MIB,
    BlockGroupFlag.METADATA: 32 * MIB,
    BlockGroupFlag.DATA: 8 * MIB,
    BlockGroupFlag.DATA | BlockGroupFlag.METADATA: 8 * MIB,
}

#: Stripes of a chunk: so many have room in an item of the smallest nodes.
_MAX_STRIPES = 122

#: Stripes of a system chunk: so many the kernel makes room for in the superblock's array.
_MAX_SYSTEM_STRIPES = 58


@dataclass
class DeviceSpace:
    """One device of the new filesystem: its id, UUID, size in bytes, and where its unallocated space starts."""

    devid: int
    uuid: uuid.UUID
    total_bytes: int
    end: int = DEVICE_RANGE_RESERVED
    bytes_used: int = 0

    @property
    def free(self) -> int:
        """Unallocated bytes, in whole stripes."""
        return max(0, self.total_bytes - self.end) // STRIPE_LEN * STRIPE_LEN


@dataclass
class NewChunk:
    """A chunk and its block group: ``length`` logical bytes at ``logical``; stripes as (devid, physical byte)."""

    logical: int
    length: int
    kind: BlockGroupFlag
    profile: Profile
    stripe_size: int
    stripes: list[tuple[int, int]]

    @property
    def flags(self) -> int:
        """The type bits of chunk item and block group item."""
        return int(self.kind | self.profile.flag)

    @property
    def end(self) -> int:
        """The first logical byte after the chunk."""
        return self.logical + self.length

    def superblock_ranges(self) -> list[tuple[int, int]]:
        """Logical ranges (start, length), sorted, over superblock copies: never allocated, never free.

        Whole stripes (with parity: whole rows of stripes), as the kernel leaves them out of its free space.
        """
        profile = self.profile
        width = STRIPE_LEN * (profile.data_stripes(len(self.stripes)) if profile.parity else 1)
        found = set()
        for index, (_, physical) in enumerate(self.stripes):
            for offset in SUPERBLOCK_OFFSETS:
                if not physical <= offset < physical + self.stripe_size:
                    continue
                row = (offset - physical) // STRIPE_LEN
                if not profile.exact and not profile.parity:
                    row = (row * len(self.stripes) + index) // profile.sub_stripes
                start = self.logical + row * width
                found.add((start, min(width, self.end - start)))
        return sorted(found)


class ChunkAllocator:
    """Hands out chunks, each at the end of what is used on its devices and of the logical address space."""

    def __init__(self, devices: list[DeviceSpace]) -> None:
        self.devices = devices
        self.chunks: list[NewChunk] = []
        self._logical = _FIRST_LOGICAL

    @property
    def total_bytes(self) -> int:
        """The sizes of all devices together."""
        return sum(device.total_bytes for device in self.devices)

    def fork(self) -> ChunkAllocator:
        """A copy to try allocations on."""
        other = ChunkAllocator([DeviceSpace(**vars(device)) for device in self.devices])
        other.chunks, other._logical = list(self.chunks), self._logical
        return other

    def default_length(self, kind: BlockGroupFlag, profile: Profile) -> int:
        """How long a chunk should be: what the kernel would choose, but at most a tenth of each device."""
        if kind == BlockGroupFlag.SYSTEM:
            return 8 * MIB if self.total_bytes >= 256 * MIB else 4 * MIB
        count = _stripes(kind, profile, len(self.devices))
        share = profile.data_stripes(count * profile.copies_per_device)
        tenth = min(device.total_bytes for device in self.devices) // 10 * share
        if kind == BlockGroupFlag.DATA:
            limit = min(_MAX_STRIPE * share, _MAX_DATA_CHUNK)
        else:
            limit = GIB if self.total_bytes > _LARGE_FILESYSTEM else 256 * MIB
        return max(_MIN_CHUNK[kind], min(tenth, limit) // MIB * MIB)

    def allocate(self, kind: BlockGroupFlag, profile: Profile, length: int) -> NewChunk:
        """A chunk of about ``length`` logical bytes, less where the devices have no more room.

        Raises NoSpaceError when not even a small one fits.
        """
        devices = self._choose(kind, profile)
        count = len(devices) * profile.copies_per_device
        data_stripes = profile.data_stripes(count)
        wanted = -(-length // data_stripes)
        wanted = -(-wanted // MIB) * MIB if wanted > MIB else -(-wanted // STRIPE_LEN) * STRIPE_LEN
        room = min(device.free // profile.copies_per_device for device in devices) // STRIPE_LEN * STRIPE_LEN
        size = min(wanted, _MAX_STRIPE, room)
        if size < min(wanted, _MIN_CHUNK[kind] // data_stripes):
            raise NoSpaceError(f"no room for a {describe_kind(kind)} chunk ({profile.name})")
        stripes = []
        for device in devices:
            for _ in range(profile.copies_per_device):
                stripes.append((device.devid, device.end))
                device.end += size
                device.bytes_used += size
        chunk = NewChunk(self._logical, size * data_stripes, kind, profile, size, stripes)
        self._logical = chunk.end
        self.chunks.append(chunk)
        return chunk

    def _choose(self, kind: BlockGroupFlag, profile: Profile) -> list[DeviceSpace]:
        """The devices a chunk is striped over: those with most room first, in device id order."""
        if len(self.devices) < profile.min_devices:
            raise NoSpaceError(f"profile {profile.name} needs at least {profile.min_devices} devices")
        able = [device for device in self.devices if device.free // profile.copies_per_device >= MIB]
        able.sort(key=lambda device: (-device.free, device.devid))
        count = _stripes(kind, profile, len(able))
        if count < profile.min_devices:
            raise NoSpaceError(f"profile {profile.name} needs room on {profile.min_devices} devices")
        return sorted(able[:count], key=lambda device: device.devid)

    def release(self, chunk: NewChunk) -> bool:
        """Takes back the chunk that was allocated last; False, and nothing done, if it is not the last."""
        if not self.chunks or chunk is not self.chunks[-1]:
            return False
        self.chunks.pop()
        self._logical = chunk.logical
        by_id = {device.devid: device for device in self.devices}
        for devid, physical in chunk.stripes:
            by_id[devid].end = min(by_id[devid].end, physical)
            by_id[devid].bytes_used -= chunk.stripe_size
        return True


def _stripes(kind: BlockGroupFlag, profile: Profile, devices: int) -> int:
    """How many of so many devices a chunk takes."""
    return profile.use_devices(min(devices, _MAX_SYSTEM_STRIPES if kind == BlockGroupFlag.SYSTEM else _MAX_STRIPES))


def describe_kind(kind: BlockGroupFlag) -> str:
    """A block group's kind in words."""
    if kind & BlockGroupFlag.DATA and kind & BlockGroupFlag.METADATA:
        return "mixed"
    return next(bit.name.lower() for bit in BlockGroupFlag if kind & bit and bit.name is not None)
