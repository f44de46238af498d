"""Which profiles a new filesystem has, and whether everything fits: settled before any device is written."""

from __future__ import annotations

import uuid

from cowlib.errors import NoSpaceError, UsageError
from cowlib.format import BlockGroupFlag
from cowlib.volume import PROFILES, Profile
from cowlib.volume.profiles import profile_named
from mkfs_cow.chunks import MAX_SYSTEM_STRIPES, ChunkAllocator, DeviceSpace
from mkfs_cow.options import ResolvedOptions
from mkfs_cow.space import SpaceAllocator
from mkfs_cow.space_estimate import SpaceEstimate
from mkfs_cow.words import size_in_words

MIXED = BlockGroupFlag.DATA | BlockGroupFlag.METADATA


#: Profiles that put a chunk on few devices and survive as many lost ones as a striped one does.
_INSTEAD_OF_STRIPED = {"raid0": "single", "raid10": "raid1", "raid5": "raid1", "raid6": "raid1c3"}


def choose_profiles(options: ResolvedOptions) -> dict[BlockGroupFlag, Profile]:
    """The profile of each kind of block group, as asked for or as suits the number of devices; raises UsageError."""
    several = len(options.devices) > 1
    if options.mixed:
        name = options.data_profile or options.metadata_profile or ("raid1" if several else "single")
        mixed = _profile(name, len(options.devices), "mixed")
        return {BlockGroupFlag.SYSTEM: _system_profile(mixed, len(options.devices)), MIXED: mixed}
    metadata = _profile(options.metadata_profile or ("raid1" if several else "dup"), len(options.devices), "metadata")
    data = _profile(options.data_profile or "single", len(options.devices), "data")
    system = _system_profile(metadata, len(options.devices))
    return {BlockGroupFlag.SYSTEM: system, BlockGroupFlag.METADATA: metadata, BlockGroupFlag.DATA: data}


def _profile(name: str, devices: int, what: str) -> Profile:
    profile = profile_named(name)
    if profile is None:
        raise UsageError(f"unknown profile '{name}'", hint="choose " + ", ".join(p.name for p in PROFILES))
    if devices < profile.min_devices:
        raise UsageError(f"{what} profile {profile.name} needs at least {profile.min_devices} devices, {devices} given")
    return profile


def _system_profile(metadata: Profile, devices: int) -> Profile:
    """That of metadata, unless its chunk would have too many stripes.

    The superblock's array must hold two system chunks: the kernel makes another one to scrub or to balance, over all
    devices where it is striped.
    """
    if devices <= MAX_SYSTEM_STRIPES:
        return metadata
    other = profile_named(_INSTEAD_OF_STRIPED.get(metadata.name, metadata.name))
    return other or metadata


def reserve(space: SpaceAllocator, estimate: SpaceEstimate) -> None:
    """Makes the chunks that there have to be before data is written: system, metadata, then data.

    Tight ones for metadata are left to `reserve_nodes`. Raises NoSpaceError.
    """
    space.add_chunk(BlockGroupFlag.SYSTEM, estimate.system or None)
    if space.chunks.tight:
        space.reserve(BlockGroupFlag.DATA, max(estimate.data, 1), loss=estimate.loss)
        return
    kind = space.kind_for(BlockGroupFlag.METADATA)
    if kind & BlockGroupFlag.DATA:
        space.reserve(kind, estimate.metadata + estimate.data, loss=estimate.loss)
        return
    space.reserve(BlockGroupFlag.METADATA, estimate.metadata)
    space.reserve(BlockGroupFlag.DATA, estimate.data, loss=estimate.loss)
    if not space.groups[BlockGroupFlag.DATA]:
        space.add_chunk(BlockGroupFlag.DATA)


def reserve_nodes(space: SpaceAllocator, estimate: SpaceEstimate) -> None:
    """Makes the chunks for metadata behind those for data, where chunks are tight. Raises NoSpaceError.

    They are the last then, and can be cut when the trees are laid out and it is known how many nodes there are.
    """
    if space.chunks.tight:
        kind = space.kind_for(BlockGroupFlag.METADATA)
        space.reserve(kind, space.free(kind) + estimate.metadata)


def check_fits(chunks: ChunkAllocator, profiles: dict[BlockGroupFlag, Profile], estimate: SpaceEstimate) -> bool:
    """Whether chunks for this much data and metadata can be made on the devices, without making them."""
    try:
        space = SpaceAllocator(chunks.fork(), profiles)
        reserve(space, estimate)
        reserve_nodes(space, estimate)
    except NoSpaceError:
        return False
    return True


def too_small(chunks: ChunkAllocator, profiles: dict[BlockGroupFlag, Profile], estimate: SpaceEstimate) -> NoSpaceError:
    """The error for devices on which not everything fits: says how much would do."""
    raw = needed_bytes(profiles, len(chunks.devices), estimate, tight=chunks.tight)
    have = size_in_words(chunks.total_bytes)
    if estimate.contents:
        text = f"the files do not fit: they need about {size_in_words(raw)}, there are {have}"
        return NoSpaceError(text, hint="use larger devices, --compress, or profiles with fewer copies")
    text = f"too small: about {size_in_words(raw)} are needed at least, there are {have}"
    return NoSpaceError(text, hint="use larger devices, or -m single, or --mixed")


def needed_bytes(
    profiles: dict[BlockGroupFlag, Profile], devices: int, estimate: SpaceEstimate, *, tight: bool = False
) -> int:
    """About how many bytes the devices together must have: found by trying sizes, from small to large."""

    def would_fit(size: int) -> bool:
        spaces = [DeviceSpace(devid, uuid.UUID(int=devid), size) for devid in range(1, devices + 1)]
        return check_fits(ChunkAllocator(spaces, tight=tight), profiles, estimate)

    low, high = 1 << 20, 16 << 20
    while high * devices < estimate.data:
        low, high = high, high * 2
    while not would_fit(high):
        low, high = high, high * 2
    while high - low > max(1 << 20, high >> 7):
        middle = (low + high) // 2
        if would_fit(middle):
            high = middle
        else:
            low = middle
    return -(-high * devices // (1 << 20)) * (1 << 20)
