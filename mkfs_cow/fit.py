"""Which profiles a new filesystem has, and whether everything fits: settled before any device is written."""

from __future__ import annotations

import uuid

from cowlib.errors import NoSpaceError, UsageError
from cowlib.format import BlockGroupFlag
from cowlib.volume import PROFILES, Profile
from cowlib.volume.profiles import profile_named
from mkfs_cow.chunks import ChunkAllocator, DeviceSpace
from mkfs_cow.options import ResolvedOptions
from mkfs_cow.space import SpaceAllocator
from mkfs_cow.space_estimate import SpaceEstimate
from mkfs_cow.words import size_in_words

MIXED = BlockGroupFlag.DATA | BlockGroupFlag.METADATA


def choose_profiles(options: ResolvedOptions) -> dict[BlockGroupFlag, Profile]:
    """The profile of each kind of block group, as asked for or as suits the number of devices; raises UsageError."""
    several = len(options.devices) > 1
    if options.mixed:
        name = options.data_profile or options.metadata_profile or ("raid1" if several else "single")
        mixed = _profile(name, len(options.devices), "mixed")
        return {BlockGroupFlag.SYSTEM: mixed, MIXED: mixed}
    metadata = _profile(options.metadata_profile or ("raid1" if several else "dup"), len(options.devices), "metadata")
    data = _profile(options.data_profile or "single", len(options.devices), "data")
    return {BlockGroupFlag.SYSTEM: metadata, BlockGroupFlag.METADATA: metadata, BlockGroupFlag.DATA: data}


def _profile(name: str, devices: int, what: str) -> Profile:
    profile = profile_named(name)
    if profile is None:
        raise UsageError(f"unknown profile '{name}'", hint="choose " + ", ".join(p.name for p in PROFILES))
    if devices < profile.min_devices:
        raise UsageError(f"{what} profile {profile.name} needs at least {profile.min_devices} devices, {devices} given")
    return profile


def reserve(space: SpaceAllocator, estimate: SpaceEstimate) -> None:
    """Makes the chunks of the new filesystem: system, metadata, then data; raises NoSpaceError."""
    kind = space.kind_for(BlockGroupFlag.METADATA)
    space.add_chunk(BlockGroupFlag.SYSTEM)
    if kind & BlockGroupFlag.DATA:
        space.reserve(kind, estimate.metadata + estimate.data, loss=estimate.loss, tight=estimate.tight)
        return
    space.reserve(BlockGroupFlag.METADATA, estimate.metadata)
    space.reserve(BlockGroupFlag.DATA, estimate.data, loss=estimate.loss, tight=estimate.tight)
    if not space.groups[BlockGroupFlag.DATA] and not estimate.tight:
        space.add_chunk(BlockGroupFlag.DATA)


def check_fits(chunks: ChunkAllocator, profiles: dict[BlockGroupFlag, Profile], estimate: SpaceEstimate) -> bool:
    """Whether chunks for this much data and metadata can be made on the devices, without making them."""
    try:
        reserve(SpaceAllocator(chunks.fork(), profiles), estimate)
    except NoSpaceError:
        return False
    return True


def too_small(chunks: ChunkAllocator, profiles: dict[BlockGroupFlag, Profile], estimate: SpaceEstimate) -> NoSpaceError:
    """The error for devices on which not everything fits: says how much would do."""
    raw = needed_bytes(profiles, len(chunks.devices), estimate)
    have = size_in_words(chunks.total_bytes)
    if estimate.data:
        text = f"the files do not fit: they need about {size_in_words(raw)}, there are {have}"
        return NoSpaceError(text, hint="use larger devices, --compress, or profiles with fewer copies")
    text = f"too small: about {size_in_words(raw)} are needed at least, there are {have}"
    return NoSpaceError(text, hint="use larger devices, or -m single, or --mixed")


def needed_bytes(profiles: dict[BlockGroupFlag, Profile], devices: int, estimate: SpaceEstimate) -> int:
    """About how many bytes the devices together must have: found by trying sizes, from small to large."""
    low, high = 1 << 20, 16 << 20
    while not _would_fit(profiles, devices, high, estimate):
        low, high = high, high * 2
    while high - low > max(1 << 20, high >> 7):
        middle = (low + high) // 2
        if _would_fit(profiles, devices, middle, estimate):
            high = middle
        else:
            low = middle
    return -(-high * devices // (1 << 20)) * (1 << 20)


def _would_fit(profiles: dict[BlockGroupFlag, Profile], devices: int, size: int, estimate: SpaceEstimate) -> bool:
    spaces = [DeviceSpace(devid, uuid.UUID(int=devid), size) for devid in range(1, devices + 1)]
    return check_fits(ChunkAllocator(spaces), profiles, estimate)
