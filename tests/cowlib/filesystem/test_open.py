"""Opening filesystems: real ones, with devices missing, and from another starting point."""

from __future__ import annotations

import numpy as np
import pytest

import cowlib
from cowlib.errors import CowError, DamagedError, NotBtrfsError, UnsupportedError, UsageError
from cowlib.format import SUPERBLOCK_OFFSETS, InodeItem, KeyType, ObjectId
from tests import corpus

#: How many devices each image of several survives without.
SPARES = {"raid1": 1, "raid10": 1, "raid1c3": 2, "raid5": 1, "raid6": 2}


def count_items(fs) -> int:
    roots = [fs.root_tree, fs.chunk_tree, *fs.roots]
    return sum(len(nodes.items()) for root in roots for nodes in fs.reader.leaves(root))


@pytest.mark.parametrize("name", corpus.kernel_images())
def test_every_item_of_a_kernel_image_is_read(name):
    with cowlib.open(corpus.devices(name), scan=False) as fs:
        log = 0
        if fs.log_root is not None:
            logs = list(fs.roots_in(fs.log_root))
            log = sum(len(n.items()) for root in [fs.log_root, *logs] for n in fs.reader.leaves(root))
        assert count_items(fs) + log == corpus.text(name, "dump-tree").count("\titem ")
        assert not fs.damage


@pytest.mark.parametrize("name", corpus.kernel_images(*SPARES))
def test_missing_devices_are_survived(name):
    spares = SPARES[corpus.shape(name)]
    devices = corpus.devices(name)
    with cowlib.open(devices, scan=False) as fs:
        whole = count_items(fs)
    for first in range(len(devices)):
        rest = [d for i, d in enumerate(devices) if (i - first) % len(devices) >= spares]
        with cowlib.open(rest, scan=False) as fs:
            assert count_items(fs) == whole
            assert not fs.damage


@pytest.fixture
def image(tmp_path):
    return corpus.copy(corpus.devices("default")[0], tmp_path)


def overwrite(path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_columns_of_inodes(image):
    with cowlib.open(image) as fs:
        sizes = [items.of_type(KeyType.INODE_ITEM).view(InodeItem)["size"] for items in fs.items(ObjectId.FS_TREE)]
    assert np.concatenate(sizes).sum() > 0


def test_a_spoilt_superblock_names_a_good_copy(image):
    overwrite(image, SUPERBLOCK_OFFSETS[0] + 400, b"\xff" * 8)
    with pytest.raises(DamagedError) as caught:
        cowlib.open(image)
    assert "--super-copy 1" in str(caught.value.hint)
    with cowlib.open(image, super_copy=1) as fs:
        assert fs.roots


def test_backup_roots(image):
    with cowlib.open(image) as fs:
        generations = [int(b.tree_root_gen) for b in fs.superblock.super_roots]
        newest = int(fs.superblock.generation)
        root = fs.superblock.root
    with cowlib.open(image, backup=-1) as fs:
        assert fs.root_tree.generation == max(g for g in generations if g < newest)
        assert fs.root_tree.bytenr != root
    with cowlib.open(image, backup=generations.index(newest)) as fs:
        assert fs.root_tree.bytenr == root
    with pytest.raises(UsageError, match="no backup root 4"):
        cowlib.open(image, backup=4)


def test_given_roots(image):
    with cowlib.open(image) as fs:
        tree, chunk = fs.root_tree.bytenr, fs.chunk_tree.bytenr
    with cowlib.open(image, tree_root=tree, chunk_root=chunk) as fs:
        assert fs.roots
    with pytest.raises(DamagedError):
        cowlib.open(image, tree_root=tree + 4096)


def test_unknown_incompatible_features_are_named(image):
    from cowlib.checksum import checksum
    from cowlib.format import Superblock

    at = SUPERBLOCK_OFFSETS[0]
    with image.open("rb") as file:
        file.seek(at)
        block = Superblock.parse(file.read(4096))
    block.incompat_flags |= 1 << 13 | 1 << 60
    data = bytearray(Superblock.build(block))
    data[:4] = checksum(0, bytes(data[32:]))
    overwrite(image, at, bytes(data))
    with pytest.raises(UnsupportedError, match=r"EXTENT_TREE_V2, 0x1000000000000000"):
        cowlib.open(image)


def test_what_is_no_btrfs(tmp_path):
    path = tmp_path / "zeros.img"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(NotBtrfsError, match="not a btrfs"):
        cowlib.open(path)
    with pytest.raises(CowError, match="No such file"):
        cowlib.open(tmp_path / "missing.img")
    with pytest.raises(UsageError):
        cowlib.open([])
