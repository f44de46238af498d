"""Filesystems the kernel wrote: every mirror of every tree block and data sector has its checksum."""

from __future__ import annotations

import re
from contextlib import ExitStack
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

import cowlib
from cowlib.checksum import csum_blocks, csum_size
from cowlib.device import Device
from cowlib.filesystem import Filesystem
from cowlib.format import CSUM_SIZE, STRIPE_LEN, SUPERBLOCK_OFFSETS, KeyType, ObjectId
from cowlib.volume import Volume
from tests import corpus
from tests.cowlib.volume.pools import rows_of_wrong_parity

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]

MULTI = {"raid0": 0, "raid1": 1, "raid10": 1, "raid1c3": 2, "raid1c4": 3, "raid5": 1, "raid6": 2}
"""Images on several devices: how many of those may be missing."""


def open_image(name: str) -> Filesystem:
    return cowlib.open(corpus.devices(name), scan=False)


def tree_blocks(name: str) -> U64:
    """Addresses of all nodes, as btrfs-progs found them."""
    found = re.findall(r"^(?:leaf|node) (\d+) (?:items|level)", corpus.text(name, "dump-tree"), re.MULTILINE)
    return np.array(sorted(set(map(int, found))), np.uint64)


def data_sectors(fs: Filesystem) -> tuple[U64, U8]:
    """(addresses, their checksums as rows) of all data that has any."""
    width = csum_size(fs.csum_type)
    addresses, sums = [np.zeros(0, np.uint64)], [np.zeros((0, width), np.uint8)]
    for items in fs.items(ObjectId.CSUM_TREE):
        for index in np.flatnonzero(items.type == KeyType.EXTENT_CSUM).tolist():
            rows = np.frombuffer(items.payload(index), np.uint8).reshape(-1, width)
            addresses.append(items.offset[index] + np.arange(len(rows), dtype=np.uint64) * np.uint64(fs.sectorsize))
            sums.append(rows)
    return np.concatenate(addresses), np.concatenate(sums)


def bad_blocks(fs: Filesystem, volume: Volume, blocks: U64, mirror: int) -> list[int]:
    found, ok = volume.read_many(blocks, fs.nodesize, mirror)
    width = csum_size(fs.csum_type)
    body = np.ascontiguousarray(found[:, CSUM_SIZE:])
    right = (csum_blocks(fs.csum_type, body, body.shape[1]) == found[:, :width]).all(axis=1)
    return blocks[~(ok & right)].tolist()


def bad_sectors(fs: Filesystem, volume: Volume, sectors: tuple[U64, U8], mirror: int) -> list[int]:
    addresses, sums = sectors
    found, ok = volume.read_many(addresses, fs.sectorsize, mirror)
    right = (csum_blocks(fs.csum_type, found, fs.sectorsize) == sums).all(axis=1)
    return addresses[~(ok & right)].tolist()


@pytest.mark.parametrize("name", corpus.kernel_images())
def test_every_mirror_of_everything(name: str) -> None:
    with open_image(name) as fs:
        assert not fs.volume.chunks.damage
        assert not fs.volume.missing
        blocks, sectors = tree_blocks(name), data_sectors(fs)
        assert {fs.superblock.root, fs.superblock.chunk_root} <= set(blocks.tolist())
        assert len(sectors[0])
        copies = np.array([fs.volume.num_copies(address) for address in blocks.tolist()])
        for mirror in range(copies.max() + 1):
            assert bad_blocks(fs, fs.volume, blocks[copies >= mirror], mirror) == [], f"mirror {mirror}"
        copies = np.array([fs.volume.num_copies(address) for address in sectors[0].tolist()])
        for mirror in range(copies.max() + 1):
            here = (sectors[0][copies >= mirror], sectors[1][copies >= mirror])
            assert bad_sectors(fs, fs.volume, here, mirror) == [], f"mirror {mirror}"


@pytest.mark.parametrize("name", corpus.kernel_images(*MULTI))
def test_without_some_devices(name: str) -> None:
    with open_image(name) as fs, ExitStack() as opened:
        blocks, sectors = tree_blocks(name), data_sectors(fs)
        # data with a lower profile than the metadata is lost sooner: look at what should be there
        devices = {devid: opened.enter_context(Device.open(path)) for devid, path in enumerate(fs.paths, 1)}
        assert sorted(devices) == sorted(fs.volume.devices)
        for count in range(1, MULTI[corpus.shape(name)] + 1):
            for lost in combinations(devices, count):
                some = Volume({devid: None if devid in lost else at for devid, at in devices.items()}, fs.volume.chunks)
                tolerant = fs.volume.chunks.parity + fs.volume.chunks.copies - 1 >= count
                assert bad_blocks(fs, some, blocks[tolerant[fs.volume.chunks.locate(blocks)]], 0) == [], lost
                kept = tolerant[fs.volume.chunks.locate(sectors[0])]
                assert bad_sectors(fs, some, (sectors[0][kept], sectors[1][kept]), 0) == [], lost
                assert kept.any()


@pytest.mark.parametrize("name", corpus.kernel_images("raid5", "raid6"))
def test_parity_is_as_the_kernel_left_it(name: str) -> None:
    """True in all rows but those with a superblock copy in them, which is written without regard to parity."""
    with open_image(name) as fs:
        chunks = fs.volume.chunks
        assert chunks.parity.any()
        for chunk in np.flatnonzero(chunks.parity).tolist():
            wrong = np.array(rows_of_wrong_parity(fs.volume, chunk), np.int64)
            _, places = chunks.row_stripes(chunk, wrong)
            has_copy = np.zeros(len(wrong), np.bool_)
            for offset in SUPERBLOCK_OFFSETS:
                has_copy |= ((places <= offset) & (offset < places + STRIPE_LEN)).any(axis=1)
            assert has_copy.all()
