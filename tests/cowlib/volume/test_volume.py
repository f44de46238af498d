"""What is written is read back: every profile, every mirror, with and without all devices."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowlib.device import Device, aligned_buffer
from cowlib.errors import DamagedError, DeviceError, MissingDeviceError, UsageError
from cowlib.format import STRIPE_LEN
from cowlib.volume import ChunkMap, Volume
from tests import oracles
from tests.cowlib.volume.pools import BASE, MIB, SHAPES, Pool, chunk_of, profile_named

SECTOR = 4096
NODE = 16384
every_shape = pytest.mark.parametrize(("name", "count"), SHAPES)


def survivable(pool: Pool) -> list[tuple[int, ...]]:
    """Every set of devices the profile can do without."""
    most = pool.profile.tolerated
    return [lost for count in range(1, most + 1) for lost in combinations(pool.paths, count)]


@every_shape
@settings(max_examples=12)
@given(st.data())
def test_what_is_written_is_there(tmp_path: Path, name: str, count: int, data: st.DataObject) -> None:
    pool = Pool(tmp_path, name, count)
    sectors = pool.size // SECTOR
    random = np.random.default_rng(data.draw(st.integers(0, 9999)))
    with pool.open(write=True) as volume:
        for _ in range(data.draw(st.integers(1, 6))):
            start = data.draw(st.integers(0, sectors - 1))
            length = data.draw(st.sampled_from([1, 3, 16, 40, sectors])) if start else sectors
            end = min(start + length, sectors)
            new = aligned_buffer((end - start) * SECTOR)
            new[:] = random.integers(0, 256, len(new), np.uint8)
            pool.shadow[start * SECTOR : end * SECTOR] = new
            volume.write(BASE + start * SECTOR, new if data.draw(st.booleans()) else new.tobytes())
        volume.flush()
        pool.assert_holds_shadow(volume)


@every_shape
def test_many_blocks_at_once(tmp_path: Path, name: str, count: int) -> None:
    pool = Pool(tmp_path, name, count)
    pool.fill()
    random = np.random.default_rng(5)
    blocks = random.permutation(pool.size // NODE)[: pool.size // NODE // 2]
    new = random.integers(0, 256, (len(blocks), NODE), np.uint8)
    pool.shadow.reshape(-1, NODE)[blocks] = new
    addresses = (BASE + blocks * NODE).astype(np.uint64)
    with pool.open(write=True) as volume:
        volume.write_many(addresses, new)
        pool.assert_holds_shadow(volume)
        for mirror in range(volume.num_copies(BASE) + 1):
            found, ok = volume.read_many(addresses, NODE, mirror)
            assert ok.all()
            assert (found == new).all()
        volume.write_many(addresses[:0], new[:0])


def test_more_neighbours_than_one_system_call_takes(tmp_path: Path) -> None:
    path = oracles.sparse(tmp_path / "image", 16 * MIB)
    blocks = 3000
    chunks = ChunkMap.of([(BASE, chunk_of(profile_named("single"), [(1, MIB)], 200))])
    order = np.random.default_rng(9).permutation(blocks)
    new = aligned_buffer(blocks * SECTOR).reshape(blocks, SECTOR)
    new[:] = np.random.default_rng(10).integers(0, 256, new.shape, np.uint8)
    addresses = BASE + order.astype(np.uint64) * np.uint64(SECTOR)
    with Volume({1: Device.open(path, write=True)}, chunks) as volume:
        volume.write_many(addresses, new)
        assert (volume.read(BASE, blocks * SECTOR).reshape(-1, SECTOR)[order] == new).all()
        every_other = np.flatnonzero(order % 2)
        found, ok = volume.read_many(addresses[every_other], SECTOR)
        assert ok.all()
        assert (found == new[every_other]).all()


@every_shape
def test_ranges_of_all_sizes_and_alignments(tmp_path: Path, name: str, count: int) -> None:
    pool = Pool(tmp_path, name, count)
    pool.fill()
    random = np.random.default_rng(6)
    start = random.integers(0, pool.size - 1, 50)
    length = np.minimum(random.integers(0, 200_000, 50), pool.size - start)
    with pool.open() as volume:
        found, ok = volume.read_ranges((BASE + start).astype(np.uint64), length)
        assert ok.all()
        expected = [pool.shadow[at : at + size] for at, size in zip(start, length, strict=True)]
        assert (found == np.concatenate(expected)).all()
        at, size = int(start[0]), int(length[0])
        assert (volume.read(BASE + at, size) == expected[0]).all()


@every_shape
def test_reading_without_some_devices(tmp_path: Path, name: str, count: int) -> None:
    pool = Pool(tmp_path, name, count)
    pool.fill()
    for lost in survivable(pool):
        with pool.open(without=lost) as volume:
            assert volume.missing == list(lost)
            assert (volume.read(BASE, pool.size) == pool.shadow).all(), lost
    too_many = list(pool.paths)[: pool.profile.tolerated + 1]
    with pool.open(without=too_many) as volume:
        found, ok = volume.read_many(BASE + np.arange(0, pool.size, SECTOR, dtype=np.uint64), SECTOR)
        assert not ok.all()
        assert not found[~ok].any()
        assert (found[ok] == pool.shadow.reshape(-1, SECTOR)[ok]).all()
        with pytest.raises(MissingDeviceError, match="too many devices are missing"):
            volume.read(BASE, pool.size)


@every_shape
def test_writing_without_some_devices(tmp_path: Path, name: str, count: int) -> None:
    pool = Pool(tmp_path, name, count)
    random = np.random.default_rng(7)
    for lost in survivable(pool):
        pool.fill()
        with pool.open(without=lost, write=True) as volume:
            for start, length in ((0, 3), (20, 1), (33, 14), (16, 90)):
                new = random.integers(0, 256, length * SECTOR, np.uint8)
                pool.shadow[start * SECTOR : (start + length) * SECTOR] = new
                volume.write(BASE + start * SECTOR, new)
            assert (volume.read(BASE, pool.size) == pool.shadow).all(), lost
        for also in survivable(pool):
            if set(lost) <= set(also):
                with pool.open(without=also) as volume:
                    assert (volume.read(BASE, pool.size) == pool.shadow).all(), (lost, also)
    too_many = list(pool.paths)[: pool.profile.tolerated + 1]
    with (
        pool.open(without=too_many, write=True) as volume,
        pytest.raises(MissingDeviceError, match="cannot write"),
    ):
        volume.write(BASE, pool.shadow)


@pytest.mark.parametrize(("name", "count"), [("raid5", 4), ("raid6", 5)])
def test_a_silently_wrong_stripe_is_not_in_some_mirror(tmp_path: Path, name: str, count: int) -> None:
    pool = Pool(tmp_path, name, count)
    pool.fill()
    for bad in pool.paths:
        pool.fill()
        with Device.open(pool.paths[bad], write=True) as device:
            device.write(MIB, bytes(3 * MIB))
        with pool.open() as volume:
            right = np.zeros(pool.size // SECTOR, np.bool_)
            for mirror in range(1, volume.num_copies(BASE) + 1):
                found = volume.read(BASE, pool.size, mirror)
                right |= (found == pool.shadow).reshape(-1, SECTOR).all(axis=1)
            assert right.all()


def test_two_silently_wrong_stripes_of_raid6(tmp_path: Path) -> None:
    pool = Pool(tmp_path, "raid6", 5)
    for bad in combinations(pool.paths, 2):
        pool.fill()
        for devid in bad:
            with Device.open(pool.paths[devid], write=True) as device:
                device.write(MIB, bytes(3 * MIB))
        with pool.open() as volume:
            right = np.zeros(pool.size // SECTOR, np.bool_)
            for mirror in range(1, volume.num_copies(BASE) + 1):
                found = volume.read(BASE, pool.size, mirror)
                right |= (found == pool.shadow).reshape(-1, SECTOR).all(axis=1)
            assert right.all(), bad


@every_shape
def test_a_device_that_ends_too_early(tmp_path: Path, name: str, count: int) -> None:
    """Blocks past its end are read from elsewhere, or are not ok, also if they were there when it was opened."""
    pool = Pool(tmp_path, name, count)
    pool.fill()
    addresses = BASE + np.arange(0, pool.size, SECTOR, dtype=np.uint64)
    for shrink_first in (True, False):
        pool.fill()
        if shrink_first:
            os.truncate(pool.paths[1], 3 * MIB + 3 * SECTOR)
        with pool.open() as volume:
            os.truncate(pool.paths[1], 3 * MIB + 3 * SECTOR)
            found, ok = volume.read_many(addresses, SECTOR)
            assert (found[ok] == pool.shadow.reshape(-1, SECTOR)[ok]).all()
            assert not found[~ok].any()
            assert ok.all() == (pool.profile.tolerated > 0)
            assert ok[: pool.size // SECTOR // 2].all(), "the first chunk is whole"
            if not ok.all():
                with pytest.raises((DamagedError, DeviceError)):
                    volume.read(BASE, pool.size)
        os.truncate(pool.paths[1], 4 * MIB)


def test_addresses_without_a_chunk(tmp_path: Path) -> None:
    pool = Pool(tmp_path, "raid0", 3)
    pool.fill()
    with pool.open(write=True) as volume:
        addresses = np.array([0, BASE, BASE + pool.size - SECTOR, BASE + pool.size, 2**64 - 1], np.uint64)
        found, ok = volume.read_many(addresses, NODE)
        assert ok.tolist() == [False, True, False, False, False]
        assert (found[1] == pool.shadow[:NODE]).all()
        assert not found[~ok].any()
        assert volume.num_copies(0) == 0
        for logical, length in (
            (0, 1),
            (BASE - 1, 2),
            (BASE + pool.size - 1, 2),
            (BASE, 2**60),
            (-5, 1),
            (2**64, 1),
        ):
            with pytest.raises(DamagedError, match="no chunk holds"):
                volume.read(logical, length)
        with pytest.raises(DamagedError, match="no mirror 2"):
            volume.read(BASE, SECTOR, mirror=2)
        with pytest.raises(DamagedError, match="no chunk holds"):
            volume.write(BASE + pool.size - SECTOR, bytes(2 * SECTOR))
        with pytest.raises(UsageError, match="whole sectors"):
            volume.write(BASE + 512, bytes(SECTOR))
        with pytest.raises(UsageError, match="whole sectors"):
            volume.write(BASE, bytes(SECTOR + 1))


def test_the_same_block_twice(tmp_path: Path) -> None:
    pool = Pool(tmp_path, "raid1", 2)
    pool.fill()
    with pool.open() as volume:
        addresses = BASE + np.array([5, 3, 5, 4, 3], np.uint64) * SECTOR
        found, ok = volume.read_many(addresses, NODE)
        assert ok.all()
        for row, address in zip(found, addresses.tolist(), strict=True):
            assert (row == pool.shadow[address - BASE :][:NODE]).all()


@pytest.mark.parametrize(("name", "count"), [("raid5", 4), ("raid6", 5)])
def test_writers_of_one_row_do_not_spoil_its_parity(tmp_path: Path, name: str, count: int) -> None:
    pool = Pool(tmp_path, name, count)
    pool.fill()
    random = np.random.default_rng(8)
    order = random.permutation(pool.size // SECTOR).tolist()
    pool.shadow = random.integers(0, 256, pool.size, np.uint8)
    with pool.open(write=True) as volume:

        def write(sector: int) -> None:
            volume.write(BASE + sector * SECTOR, pool.shadow[sector * SECTOR : (sector + 1) * SECTOR])

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, order))
        pool.assert_holds_shadow(volume)


def test_the_map_can_be_replaced(tmp_path: Path) -> None:
    pool = Pool(tmp_path, "raid5", 3)
    pool.fill()
    whole = pool.chunks
    first_only = ChunkMap.of([(BASE, chunk_of(pool.profile, [(devid, MIB) for devid in pool.paths], 5))])
    half = pool.size // 2
    with pool.open() as volume:
        volume.chunks = first_only
        assert (volume.read(BASE, half) == pool.shadow[:half]).all()
        with pytest.raises(DamagedError):
            volume.read(BASE + half, SECTOR)
        volume.chunks = whole
        assert (volume.read(BASE, pool.size) == pool.shadow).all()


def test_stripes_of_devices_nobody_knows_are_missing(tmp_path: Path) -> None:
    pool = Pool(tmp_path, "raid1", 2)
    pool.fill()
    odd = chunk_of(profile_named("raid1"), [(77, MIB), (2, MIB)], 5)
    with pool.open() as volume:
        volume.chunks = ChunkMap.of([(BASE, odd)])
        assert volume.missing == [77]
        assert (volume.read(BASE, STRIPE_LEN) == pool.shadow[:STRIPE_LEN]).all()
        assert not volume.read_many(np.array([BASE], np.uint64), NODE, mirror=1)[1].any()


def test_a_volume_without_any_device() -> None:
    chunks = ChunkMap.of([(BASE, chunk_of(profile_named("single"), [(1, MIB)], 5))])
    with Volume({1: None}, chunks) as volume:
        assert not volume.read_many(np.array([BASE], np.uint64), NODE)[1].any()
        with pytest.raises(MissingDeviceError):
            volume.read(BASE, NODE)
        with pytest.raises(MissingDeviceError):
            volume.write(BASE, aligned_buffer(NODE))
