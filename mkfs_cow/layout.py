"""Which profiles a new filesystem has, and whether everything fits: settled before any device is written."""

from __future__ import annotations

from collections.abc import Sequence

from cowlib.errors import NoSpaceError, UsageError
from cowlib.format import (
    HEADER_SIZE,
    ITEM_SIZE,
    BlockGroupFlag,
    DirItem,
    FileExtentHead,
    FileExtentItem,
    InodeItem,
    InodeRef,
)
from cowlib.volume import PROFILES, Profile
from cowlib.volume.profiles import profile_named
from mkfs_cow.chunks import ChunkAllocator
from mkfs_cow.data.write import Estimate
from mkfs_cow.options import Options
from mkfs_cow.source.tables import Tree
from mkfs_cow.space import SpaceAllocator
from mkfs_cow.words import size_in_words

MIXED = BlockGroupFlag.DATA | BlockGroupFlag.METADATA

#: Bytes of an extent item with one data reference, and of a tree block's.
_DATA_EXTENT_ITEM, _BLOCK_ITEM = 62 + ITEM_SIZE, 51 + ITEM_SIZE

#: Every tree of an empty filesystem has one node, and the next few transactions want as many again.
_BASE_NODES = 64

#: What is left free for the kernel's own writes, as a part of what the files' metadata takes.
_HEADROOM = 8


def choose_profiles(options: Options) -> dict[BlockGroupFlag, Profile]:
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


def metadata_estimate(trees: Sequence[Tree], data: Estimate, options: Options, csum_size: int) -> int:
    """Bytes of nodes that the trees will take, from above: names, inodes, extents, checksums, inline data."""
    nodesize = options.nodesize or 0
    total: int = data.inline + data.extents * (FileExtentItem.sizeof() + ITEM_SIZE + _DATA_EXTENT_ITEM)
    total += data.data // options.sectorsize * csum_size
    for tree in trees:
        text = int(tree.names.name.lengths.sum())
        total += len(tree) * (InodeItem.sizeof() + ITEM_SIZE)
        total += len(tree.names) * (2 * (DirItem.sizeof() + ITEM_SIZE) + InodeRef.sizeof() + ITEM_SIZE) + 3 * text
        total += len(tree.xattrs) * (DirItem.sizeof() + ITEM_SIZE)
        total += int(tree.xattrs.name.lengths.sum() + tree.xattrs.value.lengths.sum())
        total += len(tree.symlinks.inode) * (FileExtentHead.sizeof() + ITEM_SIZE)
        total += int(tree.symlinks.target.lengths.sum())
    # A leaf stays empty by as much as its next item is too long, and every node has an item of its own.
    packed = total * nodesize // (nodesize - HEADER_SIZE - _BLOCK_ITEM - nodesize // 8)
    return packed + _BASE_NODES * nodesize


def reserve(space: SpaceAllocator, data_bytes: int, metadata_bytes: int, *, shrink: bool) -> None:
    """Makes the chunks of the new filesystem: system, metadata, then data; raises NoSpaceError."""
    kind = space.kind_for(BlockGroupFlag.METADATA)
    room = metadata_bytes + metadata_bytes // _HEADROOM
    space.add_chunk(BlockGroupFlag.SYSTEM)
    if kind & BlockGroupFlag.DATA:
        space.reserve(kind, room + data_bytes, tight=shrink)
        if not space.groups[kind]:
            space.add_chunk(kind)
        return
    space.reserve(BlockGroupFlag.METADATA, room)
    space.reserve(BlockGroupFlag.DATA, data_bytes, tight=shrink)
    if not space.groups[BlockGroupFlag.DATA] and not shrink:
        space.add_chunk(BlockGroupFlag.DATA)


def check_fits(
    chunks: ChunkAllocator, profiles: dict[BlockGroupFlag, Profile], data_bytes: int, metadata_bytes: int
) -> bool:
    """Whether chunks for this much data and metadata can be made on the devices, without making them."""
    try:
        reserve(SpaceAllocator(chunks.fork(), profiles), data_bytes, metadata_bytes, shrink=True)
    except NoSpaceError:
        return False
    return True


def too_small(
    chunks: ChunkAllocator, profiles: dict[BlockGroupFlag, Profile], data_bytes: int, metadata_bytes: int
) -> NoSpaceError:
    """The error for devices on which not everything fits: says how much would do."""
    raw = needed_bytes(profiles, len(chunks.devices), data_bytes, metadata_bytes)
    have = size_in_words(chunks.total_bytes)
    if data_bytes:
        text = f"the files do not fit: they need about {size_in_words(raw)}, there are {have}"
        return NoSpaceError(text, hint="use larger devices, --compress, or profiles with fewer copies")
    text = f"too small: about {size_in_words(raw)} are needed at least, there are {have}"
    return NoSpaceError(text, hint="use larger devices, or -m single, or --mixed")


def needed_bytes(profiles: dict[BlockGroupFlag, Profile], devices: int, data_bytes: int, metadata_bytes: int) -> int:
    """About how many bytes the devices together must have: found by trying sizes, from small to large."""
    low, high = 1 << 20, 16 << 20
    while not _would_fit(profiles, devices, high, data_bytes, metadata_bytes):
        low, high = high, high * 2
    while high - low > max(1 << 20, high >> 7):
        middle = (low + high) // 2
        if _would_fit(profiles, devices, middle, data_bytes, metadata_bytes):
            high = middle
        else:
            low = middle
    return -(-high * devices // (1 << 20)) * (1 << 20)


def _would_fit(
    profiles: dict[BlockGroupFlag, Profile], devices: int, size: int, data_bytes: int, metadata_bytes: int
) -> bool:
    import uuid

    from mkfs_cow.chunks import DeviceSpace

    spaces = [DeviceSpace(devid, uuid.UUID(int=devid), size) for devid in range(1, devices + 1)]
    return check_fits(ChunkAllocator(spaces), profiles, data_bytes, metadata_bytes)
