"""Numbers and sizes against the kernel's own headers."""

import re
from enum import IntEnum
from pathlib import Path

import pytest

import cowlib.format as format
from cowlib.format import (
    BalanceArgsFlag,
    BalanceFlag,
    BlockGroupFlag,
    CompatRoFeature,
    CsumType,
    ExtentFlag,
    FileExtentType,
    FileType,
    IncompatFeature,
    InodeFlag,
    KeyType,
    ObjectId,
    QgroupLimitFlag,
    QgroupStatusFlag,
    RootFlag,
    SuperFlag,
)

HEADERS = [Path("/usr/include/linux/btrfs_tree.h"), Path("/usr/include/linux/btrfs.h")]
DEFINITION = re.compile(r"^(?:#define\s+)?\s*BTRFS_(\w+)\s+=?\s*(?:\(1U?L*\s*<<\s*(\d+)\)|(-?\d+))", re.MULTILINE)


@pytest.fixture(scope="module")
def defined() -> dict[str, int]:
    """Every number the headers define, by name less `BTRFS_`."""
    if not all(path.exists() for path in HEADERS):
        pytest.skip("no kernel headers")
    found = {}
    for path in HEADERS:
        for name, shift, value in DEFINITION.findall(path.read_text()):
            found[name] = 1 << int(shift) if shift else int(value) % 2**64
    assert len(found) > 150
    return found


def test_key_types(defined: dict[str, int]) -> None:
    keys = {name.removesuffix("_KEY"): value for name, value in defined.items() if name.endswith("_KEY")}
    keys |= {name: value for name, value in defined.items() if name.startswith("UUID_KEY_")}
    assert keys == {name: KeyType[name] for name in keys}


def test_object_ids(defined: dict[str, int]) -> None:
    ids = {name: value for name, value in defined.items() if name.endswith("_OBJECTID")}
    assert len(ids) > 20
    assert ids == {name: ObjectId[name.removesuffix("_OBJECTID")] for name in ids}
    assert defined["MULTIPLE_OBJECTIDS"] == ObjectId.MULTIPLE


@pytest.mark.parametrize(
    ("prefix", "enumeration"),
    [
        ("FEATURE_COMPAT_RO_", CompatRoFeature),
        ("FEATURE_INCOMPAT_", IncompatFeature),
        ("SUPER_FLAG_", SuperFlag),
        ("BLOCK_GROUP_", BlockGroupFlag),
        ("ROOT_", RootFlag),
        ("QGROUP_STATUS_FLAG_", QgroupStatusFlag),
        ("QGROUP_LIMIT_", QgroupLimitFlag),
        ("BALANCE_ARGS_", BalanceArgsFlag),
        ("BALANCE_", BalanceFlag),
        ("FT_", FileType),
        ("CSUM_TYPE_", CsumType),
        ("FILE_EXTENT_", FileExtentType),
        ("EXTENT_FLAG_", ExtentFlag),
        ("INODE_", InodeFlag),
    ],
)
def test_flags(defined: dict[str, int], prefix: str, enumeration: type[IntEnum]) -> None:
    ours = {name: int(value) for name, value in enumeration.__members__.items() if prefix + name in defined}
    assert ours == {name: defined[prefix + name] for name in ours}
    if prefix != "INODE_":  # the header of some kernels leaves these to the kernel's own
        assert len(ours) >= 2


def test_unknown_bits_are_kept() -> None:
    assert int(IncompatFeature(1 << 60 | 1)) == 1 << 60 | 1


# As the kernel's build asserts them.
SIZES = {
    "BalanceItem": 448,
    "BlockGroupItem": 24,
    "Chunk": 48,
    "DevExtent": 48,
    "DevItem": 98,
    "DirItem": 30,
    "DiskKey": 17,
    "ExtentDataRef": 28,
    "ExtentInlineRef": 9,
    "ExtentItem": 24,
    "FileExtentHead": 21,
    "FileExtentItem": 53,
    "FreeSpaceHeader": 41,
    "Header": format.HEADER_SIZE,
    "InodeExtref": 18,
    "InodeItem": 160,
    "InodeRef": 10,
    "Item": format.ITEM_SIZE,
    "KeyPtr": format.KEY_PTR_SIZE,
    "QgroupStatusItem": 40,
    "RootBackup": 168,
    "RootItem": 439,
    "RootItemV0": format.ROOT_ITEM_V0_SIZE,
    "RootRef": 18,
    "Stripe": 32,
    "Superblock": format.SUPERBLOCK_SIZE,
    "TreeBlockInfo": 18,
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    assert getattr(format, name).sizeof() == SIZES[name]
