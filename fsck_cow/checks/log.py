"""The log: what fsync wrote since the last commit, and the next mount will replay into the subvolumes.

It holds data that somebody was told is safe. A filesystem with a log is healthy, but nobody may write to it before the
log has been replayed, or given up.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cowlib.btree.nodes import I64
from cowlib.checksum import csum_size
from cowlib.format import (
    DirLogItem,
    FileExtentType,
    InodeFlag,
    KeyType,
    ObjectId,
    RootItem,
    RootItemV0,
    columns,
)
from fsck_cow.batch import LeafBatch
from fsck_cow.checks.checksums import RANGE, covered, covered_bytes, joined, ranges, summed_range
from fsck_cow.checks.inodes import is_inode
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check

_KNOWN = np.zeros(256, bool)
_KNOWN[
    [
        KeyType.INODE_ITEM,
        KeyType.INODE_REF,
        KeyType.INODE_EXTREF,
        KeyType.XATTR_ITEM,
        KeyType.VERITY_DESC_ITEM,
        KeyType.VERITY_MERKLE_ITEM,
        KeyType.DIR_LOG_ITEM,
        KeyType.DIR_LOG_INDEX,
        KeyType.DIR_ITEM,
        KeyType.DIR_INDEX,
        KeyType.EXTENT_DATA,
        KeyType.EXTENT_CSUM,
        KeyType.ROOT_ITEM,
    ]
] = True


@leaf_check("log", Kind.LOG, codes=("log.unknown-item", "log.root-wrong", "log.range-wrong", "log.checksum-wrong"))
def check_items(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Items that only logs have; gathers the data extents that no extent item speaks of before the log is replayed."""
    items, tree = batch.items, batch.tree
    message = "item of a kind that no log has"
    yield from report_items("log.unknown-item", message, items, ~_KNOWN[items.type], tree=tree)
    roots = items.of_type(KeyType.ROOT_ITEM)
    wrong = ~is_inode(roots.offset) & (roots.offset != ObjectId.FS_TREE)
    wrong |= roots.objectid != np.uint64(ObjectId.TREE_LOG)
    wrong |= (roots.size != columns(RootItem).itemsize) & (roots.size != columns(RootItemV0).itemsize)
    yield from report_items("log.root-wrong", "root of a log", roots, wrong, tree=tree)
    heads = batch.heads(DirLogItem, KeyType.DIR_LOG_ITEM, KeyType.DIR_LOG_INDEX)
    wrong = (heads.rows["end"] < heads.items.offset) | (heads.items.size != columns(DirLogItem).itemsize)
    message = "logged range of a directory ends before it begins"
    yield from report_items("log.range-wrong", message, heads.items, wrong, tree=tree, found=heads.rows["end"])
    sums = items.of_type(KeyType.EXTENT_CSUM)
    width, sector = csum_size(context.fs.csum_type), context.fs.sectorsize
    wrong = (sums.objectid != np.uint64(ObjectId.EXTENT_CSUM)) | (sums.offset & np.uint64(sector - 1) > 0)
    wrong |= (sums.size % width > 0) | (sums.size == 0)
    yield from report_items("log.checksum-wrong", "place or length of a checksum item", sums, wrong, tree=tree)
    rows = batch.regular_extents.rows
    rows = rows[rows["disk_bytenr"] > 0]
    data = np.empty(len(rows), RANGE)
    data["start"], data["end"] = rows["disk_bytenr"], rows["disk_bytenr"] + rows["disk_num_bytes"]
    context.gather("log.data", data)


@final_check("log", ("log.unreplayed", "log.subvolume-missing", "log.checksum-missing"))
def check_logs(context: Context) -> Iterator[Problem]:
    """What each subvolume's log would add, and that its data have checksums: in the log, or already in their tree."""
    known = {objectid for objectid, _ in context.walked if objectid != ObjectId.TREE_LOG}
    for (objectid, subvolume), walked in context.walked.items():
        if objectid != ObjectId.TREE_LOG or not subvolume:
            continue
        batch = context.whole(walked)
        names = len(batch.inode_refs) + len(batch.inode_extrefs)
        counts = f"{len(batch.inodes.items)} inodes, {names} names, {len(batch.file_extents.items)} extents"
        message = f"a log of subvolume {subvolume} waits to be replayed: {counts}"
        yield Problem("log.unreplayed", message, Severity.NOTE, logical=walked.root.bytenr, tree=subvolume)
        if subvolume not in known:
            message = f"there is a log of subvolume {subvolume}, which is not there"
            yield Problem("log.subvolume-missing", message, Severity.NOTE, tree=subvolume)
        yield from _check_sums(context, batch)


def _check_sums(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    committed = covered(context)
    rows, items = batch.regular_extents.rows, batch.regular_extents.items
    owner = _owners(batch)
    if committed is None or not len(rows):
        return
    sums = batch.items.of_type(KeyType.EXTENT_CSUM)
    length = sums.size // csum_size(context.fs.csum_type) * context.fs.sectorsize
    logged = joined(ranges(sums.offset, length))
    start, wanted = summed_range(rows)
    flags = batch.inodes.rows["flags"]
    summed = owner >= 0
    if len(flags):
        summed &= flags[owner] & np.uint64(InodeFlag.NODATASUM) == 0
    must = summed & (rows["type"] == FileExtentType.REG) & (rows["disk_bytenr"] > 0)
    found = np.maximum(covered_bytes(logged, start, wanted), covered_bytes(committed, start, wanted))
    message = "logged extent of data has no checksums, or not for all of it"
    yield from report_items(
        "log.checksum-missing", message, items, must & (found < wanted), tree=batch.tree, found=found, expected=wanted
    )


def _owners(batch: LeafBatch) -> I64:
    """The index among `LeafBatch.inodes` of the inode of each regular extent of a whole tree, -1 where it has none."""
    inodes, items = batch.inodes.items, batch.regular_extents.items
    if not len(inodes):
        return np.full(len(items), -1, np.int64)
    room = np.int64(1 << 20)
    before = np.searchsorted(inodes.node * room + inodes.slot, items.node * room + items.slot) - 1
    return np.where((before >= 0) & (inodes.objectid[before] == items.objectid), before, -1)
