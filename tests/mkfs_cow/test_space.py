"""Chunks on devices, and space in chunks: nothing overlaps, nothing is lost, superblocks are left alone."""

from __future__ import annotations

import itertools
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.errors import NoSpaceError
from cowlib.format import STRIPE_LEN, SUPERBLOCK_OFFSETS, BlockGroupFlag
from cowlib.volume import PROFILES
from mkfs_cow.chunks import MIB, ChunkAllocator, DeviceSpace
from mkfs_cow.fit import check_fits
from mkfs_cow.space import SpaceAllocator
from mkfs_cow.space_estimate import SpaceEstimate

BY_NAME = {profile.name: profile for profile in PROFILES}
GIB = 1 << 30


def allocator(*sizes: int, tight: bool = False) -> ChunkAllocator:
    return ChunkAllocator([DeviceSpace(i, uuid.UUID(int=i), size) for i, size in enumerate(sizes, 1)], tight=tight)


def space(profile: str, *sizes: int, tight: bool = False) -> SpaceAllocator:
    kinds = (BlockGroupFlag.SYSTEM, BlockGroupFlag.METADATA, BlockGroupFlag.DATA)
    return SpaceAllocator(allocator(*sizes, tight=tight), dict.fromkeys(kinds, BY_NAME[profile]))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@given(st.data())
def test_chunks_do_not_overlap(profile, data):
    count = data.draw(st.integers(profile.min_devices, 6))
    sizes = data.draw(st.lists(st.integers(64 * MIB, 4 * GIB), min_size=count, max_size=count))
    chunks = allocator(*sizes)
    for length in data.draw(st.lists(st.integers(8 * MIB, 2 * GIB), max_size=8)):
        try:
            chunks.allocate(BlockGroupFlag.DATA, profile, length)
        except NoSpaceError:
            break
    used: dict[int, list[tuple[int, int]]] = {}
    end = 0
    for chunk in chunks.chunks:
        assert chunk.logical >= max(end, MIB)
        end = chunk.end
        assert chunk.length == chunk.stripe_size * profile.data_stripes(len(chunk.stripes))
        for devid, physical in chunk.stripes:
            used.setdefault(devid, []).append((physical, physical + chunk.stripe_size))
    for devid, ranges in used.items():
        ranges.sort()
        assert ranges[0][0] >= MIB
        assert ranges[-1][1] <= sizes[devid - 1]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))
    for device in chunks.devices:
        assert device.bytes_used == sum(b - a for a, b in used.get(device.devid, []))


def test_releasing_chunks_undoes_them():
    chunks = allocator(GIB, GIB)
    before = [vars(device).copy() for device in chunks.devices]
    made = [chunks.allocate(BlockGroupFlag.DATA, BY_NAME[name], 64 * MIB) for name in ("raid1", "single", "raid0")]
    assert not chunks.release(made[0])
    assert all(chunks.release(chunk) for chunk in reversed(made))
    assert [vars(device) for device in chunks.devices] == before


def test_superblock_copies_are_never_handed_out():
    groups = space("dup", 8 * GIB)
    pieces = groups.take_data(300 * MIB)
    assert sum(length for _, length in pieces) == 300 * MIB
    for group in groups.groups[BlockGroupFlag.DATA]:
        for _, physical in group.chunk.stripes:
            for offset in SUPERBLOCK_OFFSETS:
                at = group.chunk.logical + offset - physical
                assert not any(start <= at < start + length for start, length in pieces)
    assert len(pieces) > 1


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=30))
def test_used_and_free_make_up_each_group(requests):
    groups = space("single", 2 * GIB)
    taken = []
    for nodes, amount in requests:
        if nodes:
            taken += [(int(at), 16384) for at in groups.take_nodes(amount % 50, 16384)]
        else:
            taken += groups.take_data(amount * 4096)
    for group in groups.all_groups():
        mine = [(s, n) for s, n in taken if group.chunk.logical <= s < group.chunk.end]
        ranges = sorted([*mine, *group.free_ranges(), *group.holes])
        assert sum(n for _, n in mine) == group.used
        at = group.chunk.logical
        for start, length in ranges:
            assert start == at
            at += length
        assert at == group.chunk.end


def test_settling_gives_back_what_holds_nothing():
    groups = space("single", 8 * GIB)
    groups.take_data(200 * MIB)
    group = groups.groups[BlockGroupFlag.DATA][0]
    first = group.chunk.logical
    hole, length = group.holes[0]
    start = np.array([first + 4096, hole + length], np.uint64)
    groups.settle_data(start, np.array([4096, 8192], np.uint64))
    assert group.used == 12288
    assert group.free_ranges()[:2] == [(first, 4096), (first + 8192, hole - first - 8192)]
    assert group.cursor == hole + length + 8192


def test_a_full_device_is_no_space():
    groups = space("raid1", 128 * MIB, 128 * MIB)
    with pytest.raises(NoSpaceError):
        groups.take_data(GIB)


@pytest.mark.parametrize("profile", ["raid0", "raid10", "raid5", "raid6"])
def test_chunks_fit_where_they_are_listed(profile):
    """An item of the smallest nodes, and the superblock's array of system chunks, hold so many stripes and no more."""
    chunks = allocator(*[GIB] * 200)
    made = chunks.allocate(BlockGroupFlag.DATA, BY_NAME[profile], GIB)
    assert 48 + 32 * len(made.stripes) <= 4096 - 101 - 25
    made = chunks.allocate(BlockGroupFlag.SYSTEM, BY_NAME[profile], 8 * MIB)
    assert 17 + 48 + 32 * len(made.stripes) <= 2048


@given(st.integers(1, 400 * MIB), st.integers(0, 124 << 10), st.booleans())
def test_what_is_reserved_can_be_used(nbytes, loss, tight):
    groups = space("single", 2 * GIB, tight=tight)
    groups.reserve(BlockGroupFlag.DATA, nbytes, loss=loss)
    ranges = [length for group in groups.groups[BlockGroupFlag.DATA] for _, length in group.free_ranges()]
    assert sum(length - loss for length in ranges if length > loss) >= nbytes
    if tight:
        assert sum(ranges) <= nbytes + (loss + MIB) * len(ranges)


def test_the_last_chunk_may_be_short():
    groups = space("single", 100 * MIB)
    groups.reserve(BlockGroupFlag.DATA, groups.chunks.devices[0].free - STRIPE_LEN)  # less a superblock's place
    assert groups.chunks.devices[0].free == 0
    with pytest.raises(NoSpaceError):
        space("single", 8 * MIB).reserve(BlockGroupFlag.METADATA, MIB)


@pytest.mark.parametrize("metadata", [MIB, 40 * MIB, 90 * MIB])
def test_what_fits_fits_into_more(metadata):
    profiles = {
        BlockGroupFlag.SYSTEM: BY_NAME["dup"],
        BlockGroupFlag.METADATA: BY_NAME["dup"],
        BlockGroupFlag.DATA: BY_NAME["single"],
    }
    estimate = SpaceEstimate(data=MIB, metadata=metadata)
    fits = [check_fits(allocator(size * MIB), profiles, estimate) for size in range(60, 400)]
    assert sorted(fits) == fits
    assert fits[-1]
