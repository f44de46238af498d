"""Inodes by themselves: mode, links, flags, generation, times; unknown items, orphans, verity.

The rules are those of the kernel's tree checker and of ``btrfs check``. What joins an inode to names and extents that
stand in other leaves is in `links`, `file_extents` and `boundaries`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import Items
from cowlib.format import FileType, InodeFlag, InodeItem, KeyType, ObjectId, VerityDescriptorItem, columns
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.walk import Walked

Mask = npt.NDArray[np.bool_]

#: The type that a directory entry gives, by the four highest bits of the mode of what it points to; 0: no known mode.
FILE_TYPES = np.zeros(16, np.uint8)
for _mode, _type in (
    (stat.S_IFREG, FileType.REG_FILE),
    (stat.S_IFDIR, FileType.DIR),
    (stat.S_IFCHR, FileType.CHRDEV),
    (stat.S_IFBLK, FileType.BLKDEV),
    (stat.S_IFIFO, FileType.FIFO),
    (stat.S_IFSOCK, FileType.SOCK),
    (stat.S_IFLNK, FileType.SYMLINK),
):
    FILE_TYPES[_mode >> 12] = _type

_MODE_BITS = np.uint32(0o177777)
_KNOWN_FLAGS = np.uint64(sum(InodeFlag))
_FIXED = np.uint64(InodeFlag.IMMUTABLE | InodeFlag.APPEND)
_LONGEST_TARGET = 4095
_NSEC = 10**9

#: What a subvolume may hold beside its inodes.
_BESIDE = {ObjectId.ORPHAN: KeyType.ORPHAN_ITEM, ObjectId.FREE_SPACE: KeyType.UNTYPED}

_COMMON, _RARE = 1, 2

_FILE_ITEMS = {
    **dict.fromkeys((KeyType.INODE_ITEM, KeyType.INODE_REF, KeyType.INODE_EXTREF, KeyType.XATTR_ITEM), _COMMON),
    **dict.fromkeys((KeyType.DIR_ITEM, KeyType.DIR_INDEX, KeyType.EXTENT_DATA), _COMMON),
    **dict.fromkeys((KeyType.VERITY_DESC_ITEM, KeyType.VERITY_MERKLE_ITEM), _RARE),
    **dict.fromkeys((KeyType.ORPHAN_ITEM, KeyType.UNTYPED), _RARE),
}

#: An inode without a name (``orphan`` 0), or an orphan item for one (1): the row of its leaf, and its number.
ORPHAN = np.dtype([("row", "<i8"), ("objectid", "<u8"), ("orphan", "u1")])


@cache
def _item_kinds() -> npt.NDArray[np.uint8]:
    """How common each type of key is in a subvolume: 0 unknown, `_COMMON`, or `_RARE`."""
    kinds = np.zeros(256, np.uint8)
    for kind, value in _FILE_ITEMS.items():
        kinds[kind] = value
    return kinds


def file_types(modes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """The type a directory entry gives for each mode, 0 where the mode has no known type."""
    return FILE_TYPES.take(modes >> np.uint32(12) & np.uint32(15))


def is_inode(objectid: Any) -> Any:
    """Which object ids are those of files in a subvolume."""
    return (objectid >= np.uint64(ObjectId.FIRST_FREE)) & (objectid <= np.uint64(ObjectId.LAST_FREE))


@leaf_check(
    "inode",
    Kind.FILES,
    Kind.ROOTS,
    Kind.LOG,
    codes=(
        "inode.item-size",
        "inode.key-wrong",
        "inode.generation-wrong",
        "inode.mode-wrong",
        "inode.directory-links",
        "inode.flags-unknown",
        "inode.flags-odd",
        "inode.time-wrong",
        "inode.size-wrong",
        "inode.device-odd",
        "inode.cache-deprecated",
    ),
)
def check_inodes(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Every INODE_ITEM by itself."""
    items, rows = batch.inodes.items, batch.inodes.rows
    tree = batch.tree
    if len(items) != np.count_nonzero(batch.items.type == KeyType.INODE_ITEM):
        short = batch.items.of_type(KeyType.INODE_ITEM)
        wrong = short.size < columns(InodeItem).itemsize
        yield from report_items(
            "inode.item-size", "inode item is too short", short, wrong, tree=tree, found=short.size, expected=160
        )
    if not len(items):
        return
    wrong = items.size != columns(InodeItem).itemsize
    yield from report_items(
        "inode.item-size", "inode item is too long", items, wrong, tree=tree, found=items.size, expected=160
    )
    yield from _check_keys(items, tree)
    yield from _check_generations(items, rows, tree, int(context.fs.superblock.generation) + 1)
    kind = file_types(rows["mode"])
    yield from _check_modes(items, rows, kind, tree)
    yield from _check_flags(items, rows, kind, tree)
    yield from _check_sizes(items, rows, kind, tree)
    for name in ("atime", "ctime", "mtime", "otime"):
        nsec = rows[name]["nsec"]
        yield from report_items(
            "inode.time-wrong",
            f"{name} has a full second or more of nanoseconds",
            items,
            nsec >= _NSEC,
            tree=tree,
            found=nsec,
            expected=f"less than {_NSEC}",
            # Old kernels logged inodes with whatever stood in memory there.
            severity=Severity.NOTE if name == "otime" else Severity.ERROR,
        )


def _check_keys(items: Items, tree: int) -> Iterator[Problem]:
    yield from report_items(
        "inode.key-wrong",
        "offset of an inode's key",
        items,
        items.offset != 0,
        tree=tree,
        found=items.offset,
        expected=0,
    )
    strange = ~is_inode(items.objectid)
    if not strange.any():
        return
    cache_inode = items.objectid == np.uint64(ObjectId.FREE_INO)
    known = cache_inode | (items.objectid == np.uint64(ObjectId.ROOT_TREE_DIR))
    yield from report_items(
        "inode.key-wrong",
        "number of an inode is out of range",
        items,
        strange & ~known,
        tree=tree,
        found=items.objectid,
    )
    yield from report_items(
        "inode.cache-deprecated",
        "subvolume has a free inode cache, which kernels no longer know",
        items,
        cache_inode,
        tree=tree,
    )


def _check_generations(items: Items, rows: Rows, tree: int, newest: int) -> Iterator[Problem]:
    for name in ("generation", "transid"):
        yield from report_items(
            "inode.generation-wrong",
            f"{name} of an inode is in the future",
            items,
            rows[name] > np.uint64(newest),
            tree=tree,
            found=rows[name],
            expected=f"at most {newest}",
        )


def _check_modes(items: Items, rows: Rows, kind: npt.NDArray[np.uint8], tree: int) -> Iterator[Problem]:
    mode = rows["mode"]
    yield from report_items(
        "inode.mode-wrong",
        "mode is none that a file has",
        items,
        (kind == 0) | (mode > _MODE_BITS),
        tree=tree,
        found=mode,
    )
    yield from report_items(
        "inode.directory-links",
        "directory has several links",
        items,
        (kind == FileType.DIR) & (rows["nlink"] > 1),
        tree=tree,
        found=rows["nlink"],
        expected=1,
    )


def _check_flags(items: Items, rows: Rows, kind: npt.NDArray[np.uint8], tree: int) -> Iterator[Problem]:
    flags = rows["flags"]
    if not flags.any():
        return
    yield from report_items(
        "inode.flags-unknown",
        "inode has flags that mean nothing",
        items,
        flags & ~_KNOWN_FLAGS > 0,
        tree=tree,
        found=flags,
    )
    odd = (kind == FileType.SYMLINK) & (flags & _FIXED > 0)
    odd |= (kind != FileType.REG_FILE) & (flags & np.uint64(InodeFlag.RO_VERITY) > 0)
    yield from report_items(
        "inode.flags-odd", "inode has flags that this kind of file cannot have", items, odd, tree=tree, found=flags
    )


def _check_sizes(items: Items, rows: Rows, kind: npt.NDArray[np.uint8], tree: int) -> Iterator[Problem]:
    size = rows["size"]
    wrong = size >= np.uint64(1 << 63)
    special = (kind >= FileType.CHRDEV) & (kind <= FileType.SYMLINK)
    if special.any():
        link = (kind == FileType.SYMLINK) & is_inode(items.objectid) & (tree != ObjectId.TREE_LOG)
        wrong |= link & (rows["nlink"] > 0) & ((size == 0) | (size > _LONGEST_TARGET))
        wrong |= special & (kind != FileType.SYMLINK) & (size != 0)
    yield from report_items(
        "inode.size-wrong", "size is none that this kind of file has", items, wrong, tree=tree, found=size
    )
    device = (kind == FileType.CHRDEV) | (kind == FileType.BLKDEV)
    yield from report_items(
        "inode.device-odd",
        "inode has a device number but is no device",
        items,
        (rows["rdev"] != 0) & ~device,
        tree=tree,
        found=rows["rdev"],
        expected=0,
    )


@leaf_check("inode", Kind.FILES, codes=("inode.unknown-item", "inode.missing", "inode.top-wrong", "inode.verity-wrong"))
def check_items(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Every item of a subvolume has a known type, and belongs to an inode that stands before it.

    Leaves that begin in the middle of an inode are for `boundaries`.
    """
    items, tree = batch.items, batch.tree
    kinds = _item_kinds().take(items.type)
    if len(kinds) and (kinds.min() == 0 or kinds.max() == _RARE):
        yield from _check_rare(context, batch, kinds)
    starts = items.objectid[1:] != items.objectid[:-1]
    starts &= items.type[1:] != KeyType.INODE_ITEM
    if starts.any():
        first = np.flatnonzero(starts) + 1
        lone = items.select(first[items.slot[first] > 0])
        yield from missing_inodes(lone, tree)
    yield from _check_top(batch)
    _gather_unnamed(context, batch)


def missing_inodes(items: Items, tree: int) -> Iterator[Problem]:
    """A problem for each item, the first one of an object, that has no INODE_ITEM before it but needs one."""
    needs = np.ones(len(items), bool)
    for objectid, kind in _BESIDE.items():
        needs &= (items.objectid != np.uint64(objectid)) | (items.type != kind)
    yield from report_items("inode.missing", "items of an inode that has no inode item", items, needs, tree=tree)


def _check_top(batch: LeafBatch) -> Iterator[Problem]:
    """Inode 256 is a directory, with one link."""
    items, rows = batch.inodes.items, batch.inodes.rows
    top = np.flatnonzero(items.objectid == ObjectId.FIRST_FREE)
    if len(top):
        good = (file_types(rows["mode"][top]) == FileType.DIR) & (rows["nlink"][top] == 1)
        message = "inode 256, the top of a subvolume, is no directory with one link"
        yield from report_items("inode.top-wrong", message, items.select(top), ~good, tree=batch.tree)


def _gather_unnamed(context: Context, batch: LeafBatch) -> None:
    heads = batch.inodes
    unnamed = np.flatnonzero(heads.rows["nlink"] == 0)
    if len(unnamed):
        _gather(context, batch, heads.items.select(unnamed), heads.items.objectid[unnamed], 0)


def _gather(context: Context, batch: LeafBatch, items: Items, objectid: Any, orphan: int) -> None:
    rows = np.zeros(len(items), ORPHAN)
    rows["row"], rows["objectid"], rows["orphan"] = batch.rows[items.node], objectid, orphan
    context.gather("inode.orphans", rows)


def _check_rare(context: Context, batch: LeafBatch, kinds: npt.NDArray[np.uint8]) -> Iterator[Problem]:
    items, tree = batch.items, batch.tree
    rare = items.select(np.flatnonzero(kinds != _COMMON))
    unknown = kinds[kinds != _COMMON] == 0
    unknown |= (rare.type == KeyType.UNTYPED) & (rare.objectid != np.uint64(ObjectId.FREE_SPACE))
    unknown |= (rare.type == KeyType.ORPHAN_ITEM) & ((rare.objectid != np.uint64(ObjectId.ORPHAN)) | (rare.size != 0))
    yield from report_items("inode.unknown-item", "item of a kind that no subvolume has", rare, unknown, tree=tree)
    orphans = rare.select((rare.type == KeyType.ORPHAN_ITEM) & ~unknown)
    if len(orphans):
        _gather(context, batch, orphans, orphans.offset, 1)
    heads = batch.heads(VerityDescriptorItem, KeyType.VERITY_DESC_ITEM)
    first = heads.items.offset == 0
    wrong = (heads.rows["encryption"] != 0) | (heads.items.size != columns(VerityDescriptorItem).itemsize)
    yield from report_items(
        "inode.verity-wrong", "description of a verity descriptor", heads.items, first & wrong, tree=tree
    )


def whole_subvolumes(context: Context) -> Iterator[Walked]:
    """Every subvolume of which all leaves could be read, but for those that are being dropped or relocated."""
    lost = context.lost_trees()
    for (objectid, offset), walked in context.walked.items():
        named = objectid in (ObjectId.FS_TREE, ObjectId.DATA_RELOC_TREE) or bool(is_inode(np.uint64(objectid)))
        if named and objectid not in lost and (objectid, offset) not in context.dropping:
            yield walked


def rows_of_tree(context: Context, walked: Walked, rows: Rows) -> Rows:
    """Those of ``rows``, which name their leaf in a field ``row``, that belong to a tree."""
    of_tree = np.zeros(len(context.blocks.blocks), bool)
    of_tree[walked.leaves] = True
    mine: Rows = rows[of_tree[rows["row"]]]
    return mine


@final_check("orphan", ("orphan.missing",))
def check_orphans(context: Context) -> Iterator[Problem]:
    """Every inode without a name has an orphan item, by which it will be deleted."""
    gathered = context.columns("inode.orphans", ORPHAN)
    if not len(gathered):
        return
    for walked in whole_subvolumes(context):
        rows = rows_of_tree(context, walked, gathered)
        orphan = rows["orphan"] == 1
        lone = np.setdiff1d(rows["objectid"][~orphan], rows["objectid"][orphan])
        for objectid in lone.tolist():
            yield Problem(
                "orphan.missing",
                "inode without a name has no orphan item, so it will never be deleted",
                Severity.ERROR,
                tree=walked.root.objectid,
                key=(objectid, KeyType.INODE_ITEM, 0),
            )
