"""Root items: where trees begin, which trees there must be, and what is left of deleted subvolumes.

How subvolumes hang in each other is checked in `fsck_cow.checks.root_refs`.
Facts: the on-disk format documentation, and what the kernel's tree checker refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import Items, gather
from cowlib.format import (
    MAX_LEVEL,
    CompatRoFeature,
    IncompatFeature,
    KeyType,
    ObjectId,
    RootFlag,
    RootItem,
    RootItemV0,
    columns,
)
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.walk import LOST

#: The names under which `ROOT` rows, and the object ids that ORPHAN_ITEMs name, are gathered.
ROOTS, ORPHANS = "root-items", "root-orphans"

#: A root item with its key; of the old, short form what it lacks is zero.
ROOT = np.dtype([("objectid", "<u8"), ("offset", "<u8"), ("item", columns(RootItem))])

ORPHAN = np.dtype([("objectid", "<u8")])

_LONG, _SHORT = columns(RootItem).itemsize, columns(RootItemV0).itemsize

_SECOND = 1_000_000_000

CODES = (
    "root.size-wrong",
    "root.key-wrong",
    "root.bytenr-wrong",
    "root.level-wrong",
    "root.generation-wrong",
    "root.flags-wrong",
    "root.refs-wrong",
    "root.directory-wrong",
    "root.drop-progress-wrong",
    "root.time-wrong",
    "root.received-incomplete",
)


def is_subvolume(objectid: Any) -> Any:
    """Whether trees with these ids (a number or a column) are subvolumes."""
    return (objectid == ObjectId.FS_TREE) | ((objectid >= ObjectId.FIRST_FREE) & (objectid <= ObjectId.LAST_FREE))


@leaf_check("root", Kind.ROOTS, codes=CODES)
def root_items(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """The root items of a batch of leaves, each by itself."""
    items = batch.items.of_type(KeyType.ROOT_ITEM)
    items = items.select(items.in_bounds)
    whole = (items.size == _LONG) | (items.size == _SHORT)
    yield from report_items(
        "root.size-wrong", "size is none of a root item", items, ~whole, tree=ObjectId.ROOT_TREE, found=items.size
    )
    items = items.select(items.size >= _SHORT)
    rows = np.zeros(len(items), ROOT)
    rows["objectid"], rows["offset"] = items.objectid, items.offset
    for form, which in ((RootItem, items.size >= _LONG), (RootItemV0, items.size < _LONG)):
        index = np.flatnonzero(which)
        heads = gather(items.buffer, items.position[index], columns(form))
        for name in columns(form).names or ():
            rows["item"][name][index] = heads[name]
    context.gather(ROOTS, rows)
    orphans = batch.items.of_type(KeyType.ORPHAN_ITEM)
    context.gather(ORPHANS, orphans.offset.astype(ORPHAN))
    yield from _structure(context, items, rows["item"])
    yield from _state(items, rows["item"])
    yield from _history(context, items, rows["item"])


def _structure(context: Context, items: Items, rows: Rows) -> Iterator[Problem]:
    """Keys, addresses, levels and flags."""

    def tell(code: str, message: str, wrong: npt.NDArray[np.bool_], found: Any, expected: Any = None) -> Any:
        return report_items(code, message, items, wrong, tree=ObjectId.ROOT_TREE, found=found, expected=expected)

    reloc = items.objectid == np.uint64(ObjectId.TREE_RELOC)
    wrong = (items.objectid == 0) | (reloc & ~is_subvolume(items.offset))
    wrong &= ~(reloc & (items.offset == np.uint64(ObjectId.DATA_RELOC_TREE)))
    yield from tell("root.key-wrong", "no tree has this key", wrong, items.objectid)
    bytenr = rows["bytenr"]
    wrong = (bytenr == 0) | (bytenr % np.uint64(context.fs.sectorsize) != 0)
    yield from tell("root.bytenr-wrong", "address of the root node is not that of a block", wrong, bytenr)
    for name in ("level", "drop_level"):
        wrong = rows[name] >= MAX_LEVEL
        yield from tell("root.level-wrong", f"{name} is too high", wrong, rows[name], f"0 to {MAX_LEVEL - 1}")
    known = np.uint64(RootFlag.SUBVOL_RDONLY | RootFlag.SUBVOL_DEAD)
    yield from tell("root.flags-wrong", "unknown flags", rows["flags"] & ~known > 0, rows["flags"])
    # mkfs.btrfs makes a quota tree that nobody refers to, so none at all means something for subvolumes only.
    message = "a tree is referred to once, or not at all when it is deleted"
    yield from tell("root.refs-wrong", message, rows["refs"] > 1, rows["refs"])
    wrong = is_subvolume(items.objectid) & (rows["root_dirid"] != ObjectId.FIRST_FREE)
    yield from tell(
        "root.directory-wrong", "top directory of a subvolume", wrong, rows["root_dirid"], int(ObjectId.FIRST_FREE)
    )


def _state(items: Items, rows: Rows) -> Iterator[Problem]:
    """What only deleted trees have."""
    progress = rows["drop_progress"]
    begun = (progress["objectid"] > 0) | (progress["type"] > 0) | (progress["offset"] > 0)
    # A relocation notes there how far it has merged.
    reloc = items.objectid == np.uint64(ObjectId.TREE_RELOC)
    wrong = begun & ~reloc & ((rows["refs"] > 0) | (rows["drop_level"] > rows["level"]) | (rows["drop_level"] == 0))
    yield from report_items(
        "root.drop-progress-wrong",
        "being dropped: only a deleted tree is, from a level that it has",
        items,
        wrong,
        tree=ObjectId.ROOT_TREE,
        found=rows["drop_level"],
    )


def _history(context: Context, items: Items, rows: Rows) -> Iterator[Problem]:
    """Transactions and times. What follows ``generation_v2`` is void where that differs from the generation."""
    newest = np.uint64(int(context.fs.superblock.generation))
    new = rows["generation_v2"] == rows["generation"]
    for name in ("generation", "last_snapshot", "generation_v2", "ctransid", "otransid", "rtransid"):
        valid = new if name in ("ctransid", "otransid", "rtransid") else True
        yield from report_items(
            "root.generation-wrong",
            f"{name} is in the future",
            items,
            (rows[name] > newest) & valid,
            tree=ObjectId.ROOT_TREE,
            found=rows[name],
            expected=f"at most {int(newest)}",
        )
    yield from report_items(
        "root.generation-wrong",
        "generation_v2 is newer than generation",
        items,
        rows["generation_v2"] > rows["generation"],
        tree=ObjectId.ROOT_TREE,
        found=rows["generation_v2"],
        expected=rows["generation"],
    )
    for name in ("ctime", "otime", "stime", "rtime"):
        wrong = new & (rows[name]["nsec"] >= _SECOND)
        yield from report_items(
            "root.time-wrong",
            f"{name} has more than a second's worth of nanoseconds",
            items,
            wrong,
            tree=ObjectId.ROOT_TREE,
            found=rows[name]["nsec"],
        )
    received = rows["received_uuid"] != np.void(bytes(16))
    yield from report_items(
        "root.received-incomplete",
        "has a received UUID, but no transaction in which it was received",
        items,
        new & received & (rows["rtransid"] == 0),
        tree=ObjectId.ROOT_TREE,
        severity=Severity.NOTE,
    )


def _needed(context: Context) -> dict[int, bool]:
    """Trees by object id: whether the features in use ask for them or forbid them."""
    compat_ro, incompat = int(context.fs.superblock.compat_ro_flags), int(context.fs.superblock.incompat_flags)
    return {
        ObjectId.EXTENT_TREE: True,
        ObjectId.DEV_TREE: True,
        ObjectId.FS_TREE: True,
        ObjectId.CSUM_TREE: True,
        ObjectId.DATA_RELOC_TREE: True,
        ObjectId.FREE_SPACE_TREE: bool(compat_ro & CompatRoFeature.FREE_SPACE_TREE),
        ObjectId.BLOCK_GROUP_TREE: bool(compat_ro & CompatRoFeature.BLOCK_GROUP_TREE),
        ObjectId.RAID_STRIPE_TREE: bool(incompat & IncompatFeature.RAID_STRIPE_TREE),
    }


@final_check(
    "root",
    ("root.missing", "root.without-feature", "root.tree-unknown", "root.orphan-missing", "root.orphan-stale"),
    order=10,
)
def trees_present(context: Context) -> Iterator[Problem]:
    """The trees that the features ask for are there, no others are, and deleted ones wait to be dropped."""
    roots = context.columns(ROOTS, ROOT)
    present = set(roots["objectid"].tolist())
    blocks = context.blocks.blocks
    if ((blocks["tree"] == np.uint64(ObjectId.ROOT_TREE)) & (blocks["state"] == LOST)).any():
        return
    for tree, needed in _needed(context).items():
        name = ObjectId(tree).name
        if needed and tree not in present:
            yield Problem("root.missing", f"there is no root item of the {name}", tree=int(tree))
        if not needed and tree in present:
            yield Problem(
                "root.without-feature", f"the {name} is there, but not the feature flag", Severity.NOTE, tree=int(tree)
            )
    known = {*_needed(context), ObjectId.QUOTA_TREE, ObjectId.UUID_TREE, ObjectId.TREE_RELOC, ObjectId.REMAP_TREE}
    for objectid in sorted(present - known):
        if not is_subvolume(objectid):
            yield Problem("root.tree-unknown", "no tree has this id", tree=objectid)
    yield from _orphans(context, roots)


def _orphans(context: Context, roots: Rows) -> Iterator[Problem]:
    """A deleted subvolume has an ORPHAN_ITEM, or nobody would ever finish dropping it."""
    orphans = set(context.columns(ORPHANS, ORPHAN)["objectid"].tolist())
    deleted = roots[(roots["item"]["refs"] == 0) & is_subvolume(roots["objectid"])]
    for row in deleted:
        objectid = int(row["objectid"])
        if objectid not in orphans:
            key = (objectid, int(KeyType.ROOT_ITEM), int(row["offset"]))
            yield Problem("root.orphan-missing", "deleted subvolume has no ORPHAN_ITEM", tree=objectid, key=key)
    for objectid in sorted(orphans - set(deleted["objectid"].tolist())):
        yield Problem(
            "root.orphan-stale",
            "ORPHAN_ITEM of something that is not deleted, or gone",
            Severity.NOTE,
            tree=int(ObjectId.ROOT_TREE),
            key=(int(ObjectId.ORPHAN), int(KeyType.ORPHAN_ITEM), objectid),
        )
