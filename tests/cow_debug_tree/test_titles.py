"""Names of trees."""

from __future__ import annotations

import pytest

from cow_debug_tree.titles import tree_id
from cowlib.errors import UsageError
from cowlib.format import ObjectId


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("5", 5),
        ("0x100", 256),
        ("007", 7),
        ("18446744073709551607", ObjectId.DATA_RELOC_TREE),
        ("fs", ObjectId.FS_TREE),
        ("FS_TREE", ObjectId.FS_TREE),
        ("btrfs_fs_tree_objectid", ObjectId.FS_TREE),
        ("root", ObjectId.ROOT_TREE),
        ("chunk", ObjectId.CHUNK_TREE),
        ("device", ObjectId.DEV_TREE),
        ("dev", ObjectId.DEV_TREE),
        ("checksum", ObjectId.CSUM_TREE),
        ("free-space", ObjectId.FREE_SPACE_TREE),
        ("BLOCK_GROUP_TREE", ObjectId.BLOCK_GROUP_TREE),
        ("data_reloc", ObjectId.DATA_RELOC_TREE),
        ("tree-log", ObjectId.TREE_LOG),
        ("TREE_LOG_FIXUP", ObjectId.TREE_LOG_FIXUP),
        ("BTRFS_TREE_RELOC_OBJECTID", ObjectId.TREE_RELOC),
        ("raid-stripe", ObjectId.RAID_STRIPE_TREE),
    ],
)
def test_tree_ids(text: str, tree: int) -> None:
    assert tree_id(text) == tree


@pytest.mark.parametrize("text", ["", "0", "-1", "tree", "fst", "18446744073709551616", "fs_tree_x"])
def test_no_such_tree(text: str) -> None:
    with pytest.raises(UsageError, match="no such tree"):
        tree_id(text)
