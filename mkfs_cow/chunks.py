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

#: A chunk on one stripe follows what is in it, from here on: the kernel makes more when it needs them, of the kind that
#: it needs.
_LEAST_SINGLE = 8 * MIB

#: Chunks that follow the content are as short as that takes, but not cut to less where devices are full.
_MIN_TIGHT = MIB

#: Stripes of a chunk: so many have room in an item of the smallest nodes.
_MAX_STRIPES = 122

#: Stripes of a system chunk: two such chunks have room in the superblock's array of 2048 bytes. The kernel makes a
#: second one beside the first when it scrubs or balances.
MAX_SYSTEM_STRIPES = 29


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
    """Hands out chunks, each at the end of what is used on its devices and of the logical address space.

    A ``tight`` one makes chunks that follow the content alone: the same ones whatever the size of the devices, if only
    they are large enough.
    """

    def __init__(self, devices: list[DeviceSpace], *, tight: bool = False) -> None:
        self.devices = devices
        self.tight = tight
        self.chunks: list[NewChunk] = []
        self._logical = _FIRST_LOGICAL

    @property
    def total_bytes(self) -> int:
        """The sizes of all devices together."""
        return sum(device.total_bytes for device in self.devices)

    def fork(self) -> ChunkAllocator:
        """A copy to try allocations on."""
        other = ChunkAllocator([DeviceSpace(**vars(device)) for device in self.devices], tight=self.tight)
        other.chunks, other._logical = list(self.chunks), self._logical
        return other

    def suitable_length(self, kind: BlockGroupFlag, profile: Profile, least: int = 0) -> int:
        """How long the next chunk should be where ``least`` bytes are wanted: all in bytes of logical address space.

        What the kernel would choose, but at most a tenth of each device; or, if tight, no more than is wanted.
        """
        devices = _stripes(kind, profile, len(self.devices))
        stripes = devices * profile.copies_per_device
        share = profile.data_stripes(stripes)
        if kind == BlockGroupFlag.DATA:
            limit = min(_MAX_STRIPE * share, _MAX_DATA_CHUNK)
        elif self.tight:
            limit = _MAX_STRIPE
        else:
            limit = GIB if self.total_bytes > _LARGE_FILESYSTEM else 256 * MIB
            limit = limit if profile.exact else limit * share // stripes
        if self.tight:
            return min(limit, least or _MIN_CHUNK[kind])
        if kind == BlockGroupFlag.SYSTEM:
            return 8 * MIB if stripes > 1 and self.total_bytes >= 256 * MIB else 4 * MIB
        tenth = min(device.total_bytes for device in self.devices) // 10 // profile.copies_per_device * share
        longest = max(_MIN_CHUNK[kind], min(tenth, limit) // MIB * MIB)
        if stripes == 1:
            return max(_LEAST_SINGLE, min(least, longest))
        return longest

    def allocate(self, kind: BlockGroupFlag, profile: Profile, length: int) -> NewChunk:
        """A chunk of about ``length`` logical bytes, less where the devices have no more room.

        Raises NoSpaceError when not even a small one fits.
        """
        devices = self._choose(kind, profile, length)
        count = len(devices) * profile.copies_per_device
        data_stripes = profile.data_stripes(count)
        unit = STRIPE_LEN if self.tight or length <= MIB * data_stripes else MIB
        wanted = min(-(-length // (data_stripes * unit)) * unit, _MAX_STRIPE)
        room = min(device.free // profile.copies_per_device for device in devices) // STRIPE_LEN * STRIPE_LEN
        size = min(wanted, room)
        if size < min(wanted, (_MIN_TIGHT if self.tight else _MIN_CHUNK[kind]) // data_stripes):
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

    def _choose(self, kind: BlockGroupFlag, profile: Profile, length: int) -> list[DeviceSpace]:
        """The devices a chunk is striped over, in device id order: those with most room first; if tight, those that
        hold least, of which their sizes say nothing."""
        if len(self.devices) < profile.min_devices:
            raise NoSpaceError(f"profile {profile.name} needs at least {profile.min_devices} devices")
        least = STRIPE_LEN if self.tight else MIB
        able = [device for device in self.devices if device.free // profile.copies_per_device >= least]
        able.sort(key=lambda device: (-device.free, device.devid))
        count = _stripes(kind, profile, len(able))
        if count < profile.min_devices:
            raise NoSpaceError(f"profile {profile.name} needs room on {profile.min_devices} devices")
        if self.tight:
            need = min(length, _MAX_STRIPE) * profile.copies_per_device
            roomy = [device for device in able if device.free >= need]
            if len(roomy) >= count:
                able = sorted(roomy, key=lambda device: (device.end, device.devid))
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

    def shorten(self, chunk: NewChunk, length: int) -> bool:
        """Cuts the last chunk to ``length`` bytes, rounded up to whole stripes, where its bytes stay in their places.

        False, and nothing done, if it is not the last, or holds copies one behind the other on a device.
        """
        profile = chunk.profile
        if not self.chunks or chunk is not self.chunks[-1] or profile.copies_per_device > 1:
            return False
        share = profile.data_stripes(len(chunk.stripes))
        size = max(-(-length // (share * STRIPE_LEN)), 1) * STRIPE_LEN
        by_id = {device.devid: device for device in self.devices}
        for devid, physical in chunk.stripes:
            by_id[devid].end = physical + size
            by_id[devid].bytes_used -= chunk.stripe_size - size
        chunk.stripe_size, chunk.length = size, size * share
        self._logical = chunk.end
        return True


def _stripes(kind: BlockGroupFlag, profile: Profile, devices: int) -> int:
    """How many of so many devices a chunk takes."""
    return profile.use_devices(min(devices, MAX_SYSTEM_STRIPES if kind == BlockGroupFlag.SYSTEM else _MAX_STRIPES))


def describe_kind(kind: BlockGroupFlag) -> str:
    """A block group's kind in words."""
    if kind & BlockGroupFlag.DATA and kind & BlockGroupFlag.METADATA:
        return "mixed"
    return next(bit.name.lower() for bit in BlockGroupFlag if kind & bit and bit.name is not None)
