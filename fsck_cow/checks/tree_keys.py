"""Which types of items stand in which tree: every tree but those of files, whose keys the inode checks know."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cowlib.format import KeyType, ObjectId
from fsck_cow.batch import LeafBatch
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context
from fsck_cow.problems import Problem
from fsck_cow.registry import Kind, LeafCheckFunction, leaf_check

#: The types of items that each kind of tree has.
TYPES: dict[Kind, tuple[KeyType, ...]] = {
    Kind.ROOTS: (
        KeyType.UNTYPED,
        KeyType.INODE_ITEM,
        KeyType.INODE_REF,
        KeyType.ORPHAN_ITEM,
        KeyType.DIR_ITEM,
        KeyType.EXTENT_DATA,
        KeyType.ROOT_ITEM,
        KeyType.ROOT_BACKREF,
        KeyType.ROOT_REF,
        KeyType.TEMPORARY_ITEM,
    ),
    Kind.CHUNKS: (KeyType.DEV_ITEM, KeyType.CHUNK_ITEM),
    Kind.DEVICES: (KeyType.DEV_EXTENT, KeyType.PERSISTENT_ITEM, KeyType.DEV_REPLACE),
    Kind.EXTENTS: (
        KeyType.EXTENT_ITEM,
        KeyType.METADATA_ITEM,
        KeyType.TREE_BLOCK_REF,
        KeyType.EXTENT_DATA_REF,
        KeyType.SHARED_BLOCK_REF,
        KeyType.SHARED_DATA_REF,
        KeyType.BLOCK_GROUP_ITEM,
    ),
    Kind.BLOCK_GROUPS: (KeyType.BLOCK_GROUP_ITEM,),
    Kind.CHECKSUMS: (KeyType.EXTENT_CSUM,),
    Kind.FREE_SPACE: (KeyType.FREE_SPACE_INFO, KeyType.FREE_SPACE_EXTENT, KeyType.FREE_SPACE_BITMAP),
    # mkfs.btrfs used to make the UUID tree with a directory in it, as if it were a subvolume.
    Kind.UUIDS: (
        KeyType.UUID_KEY_SUBVOL,
        KeyType.UUID_KEY_RECEIVED_SUBVOL,
        KeyType.INODE_ITEM,
        KeyType.INODE_REF,
    ),
    Kind.QUOTAS: (KeyType.QGROUP_STATUS, KeyType.QGROUP_INFO, KeyType.QGROUP_LIMIT, KeyType.QGROUP_RELATION),
    Kind.STRIPES: (KeyType.RAID_STRIPE,),
}

#: In the root tree, types that only one object has.
_ROOT_TREE_OBJECTS = {
    KeyType.UNTYPED: ObjectId.FREE_SPACE,
    KeyType.TEMPORARY_ITEM: ObjectId.BALANCE,
    KeyType.DIR_ITEM: ObjectId.ROOT_TREE_DIR,
    KeyType.ORPHAN_ITEM: ObjectId.ORPHAN,
}


def _check(types: tuple[KeyType, ...]) -> LeafCheckFunction:
    known = np.zeros(256, bool)
    known[list(types)] = True

    def check(context: Context, batch: LeafBatch) -> Iterator[Problem]:
        """Items of a type that this tree does not have."""
        items = batch.items
        wrong = ~known[items.type]
        yield from report_items(
            "node.key-unexpected", "item of a type that this tree does not have", items, wrong, tree=batch.tree
        )

    return check


for _kind, _types in TYPES.items():
    leaf_check("node", _kind, codes=("node.key-unexpected",))(_check(_types))


@leaf_check("node", Kind.ROOTS, codes=("node.key-unexpected",))
def root_tree_objects(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Types that only one object of the root tree has, on another."""
    items = batch.items
    for kind, objectid in _ROOT_TREE_OBJECTS.items():
        wrong = (items.type == kind) & (items.objectid != np.uint64(objectid))
        yield from report_items(
            "node.key-unexpected", f"{kind.name} of another object than {objectid.name}", items, wrong, tree=batch.tree
        )
