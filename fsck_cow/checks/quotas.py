"""The quota tree by itself: its status, its groups, their limits, and which group is part of which.

What groups use is counted in `fsck_cow.checks.quota_usage`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cowlib.btree import Items
from cowlib.format import (
    QGROUP_LEVEL_SHIFT,
    QGROUP_STATUS_VERSION,
    IncompatFeature,
    KeyType,
    ObjectId,
    QgroupInfoItem,
    QgroupLimitFlag,
    QgroupLimitItem,
    QgroupStatusFlag,
    QgroupStatusItem,
    QgroupStatusItemV0,
    columns,
)
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.reporting import report_items
from fsck_cow.checks.roots import ROOT, ROOTS, is_subvolume
from fsck_cow.context import Context
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check

#: The names under which rows of `STATUS`, `GROUP`, `LIMIT` and `RELATION` are gathered.
STATUSES, GROUPS, LIMITS, RELATIONS = "quota-status", "quota-groups", "quota-limits", "quota-relations"

STATUS = columns(QgroupStatusItem)
GROUP = np.dtype([("id", "<u8"), ("item", columns(QgroupInfoItem))])
LIMIT = np.dtype([("id", "<u8")])
RELATION = np.dtype([("group", "<u8"), ("other", "<u8")])

_SIZES: dict[int, tuple[int, ...]] = {
    KeyType.QGROUP_STATUS: (columns(QgroupStatusItem).itemsize, columns(QgroupStatusItemV0).itemsize),
    KeyType.QGROUP_INFO: (columns(QgroupInfoItem).itemsize,),
    KeyType.QGROUP_LIMIT: (columns(QgroupLimitItem).itemsize,),
    KeyType.QGROUP_RELATION: (0,),
}


def named(group: int) -> str:
    """A group's id as people write it."""
    return f"{group >> QGROUP_LEVEL_SHIFT}/{group & (1 << QGROUP_LEVEL_SHIFT) - 1}"


@leaf_check(
    "quota",
    Kind.QUOTAS,
    codes=(
        "quota.size-wrong",
        "quota.status-wrong",
        "quota.flags-unknown",
        "quota.generation-wrong",
        "quota.key-wrong",
    ),
)
def quota_items(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """The items of the quota tree, each by itself."""
    for kind, sizes in _SIZES.items():
        items = batch.items.of_type(kind)
        wrong = items.in_bounds & ~np.isin(items.size, sizes)
        yield from _told("quota.size-wrong", "item is of the wrong size", items, wrong, items.size)
    infos, limits = (
        batch.heads(QgroupInfoItem, KeyType.QGROUP_INFO),
        batch.heads(QgroupLimitItem, KeyType.QGROUP_LIMIT),
    )
    newest = np.uint64(int(context.fs.superblock.generation))
    generation = infos.rows["generation"]
    yield from _told(
        "quota.generation-wrong", "generation is in the future", infos.items, generation > newest, generation
    )
    known = np.uint64(sum(QgroupLimitFlag))
    flags = limits.rows["flags"]
    # mkfs.btrfs leaves there what was in memory; only the known bits are read.
    yield from report_items(
        "quota.flags-unknown",
        "unknown limit flags",
        limits.items,
        flags & ~known > 0,
        tree=ObjectId.QUOTA_TREE,
        found=flags,
        severity=Severity.NOTE,
    )
    for heads in (infos, limits):
        yield from _told("quota.key-wrong", "no group has this key", heads.items, heads.items.objectid != 0, None)
    groups = np.zeros(len(infos.rows), GROUP)
    groups["id"], groups["item"] = infos.items.offset, infos.rows
    context.gather(GROUPS, groups)
    context.gather(LIMITS, limits.items.offset.astype(LIMIT))
    items = batch.items.of_type(KeyType.QGROUP_RELATION)
    relations = np.zeros(len(items), RELATION)
    relations["group"], relations["other"] = items.objectid, items.offset
    context.gather(RELATIONS, relations)
    yield from _status(context, batch)


def _told(code: str, message: str, items: Items, wrong: Any, found: Any) -> Iterator[Problem]:
    return report_items(code, message, items, wrong, tree=ObjectId.QUOTA_TREE, found=found)


def _status(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """The status item; its last field is missing in filesystems that never knew simple quotas."""
    heads = batch.heads(QgroupStatusItemV0, KeyType.QGROUP_STATUS)
    rows = np.zeros(len(heads.rows), STATUS)
    for name in columns(QgroupStatusItemV0).names or ():
        rows[name] = heads.rows[name]
    whole = batch.heads(QgroupStatusItem, KeyType.QGROUP_STATUS)
    rows["enable_gen"][heads.items.size >= STATUS.itemsize] = whole.rows["enable_gen"]
    context.gather(STATUSES, rows)
    newest = np.uint64(int(context.fs.superblock.generation))
    wrong = (heads.items.objectid != 0) | (heads.items.offset != 0)
    yield from _told("quota.key-wrong", "the status has no such key", heads.items, wrong, None)
    wrong = rows["version"] != QGROUP_STATUS_VERSION
    yield from _told("quota.status-wrong", "unknown version", heads.items, wrong, rows["version"])
    wrong = rows["flags"] & ~np.uint64(sum(QgroupStatusFlag)) > 0
    yield from _told("quota.flags-unknown", "unknown status flags", heads.items, wrong, rows["flags"])
    simple = bool(int(context.fs.superblock.incompat_flags) & IncompatFeature.SIMPLE_QUOTA)
    wrong = (rows["flags"] & np.uint64(QgroupStatusFlag.SIMPLE_MODE) > 0) != simple
    yield from _told(
        "quota.status-wrong", "mode is not that of the filesystem's features", heads.items, wrong, rows["flags"]
    )
    # The kernel leaves chance bytes in enable_gen where quotas are not simple.
    for name in ("generation", "enable_gen") if simple else ("generation",):
        wrong = rows[name] > newest
        yield from _told("quota.generation-wrong", f"{name} is in the future", heads.items, wrong, rows[name])


@final_check(
    "quota",
    (
        "quota.status-missing",
        "quota.limit-missing",
        "quota.limit-unknown",
        "quota.relation-one-sided",
        "quota.relation-unknown",
        "quota.relation-level",
        "quota.group-missing",
        "quota.group-stale",
    ),
    order=40,
)
def groups_together(context: Context) -> Iterator[Problem]:
    """Groups, limits, relations and subvolumes against each other."""
    if (ObjectId.QUOTA_TREE, 0) not in context.walked or ObjectId.QUOTA_TREE in context.lost_trees():
        return
    if not len(context.columns(STATUSES, STATUS)):
        yield Problem("quota.status-missing", "the quota tree has no status item", tree=int(ObjectId.QUOTA_TREE))
        return
    groups = set(context.columns(GROUPS, GROUP)["id"].tolist())
    limits = set(context.columns(LIMITS, LIMIT)["id"].tolist())
    for group in sorted(groups - limits):
        yield _of_group("quota.limit-missing", "group has no limit item", group, KeyType.QGROUP_LIMIT)
    for group in sorted(limits - groups):
        yield _of_group("quota.limit-unknown", "limits of a group that is not there", group, KeyType.QGROUP_LIMIT)
    yield from _relations(context.columns(RELATIONS, RELATION), groups)
    roots = context.columns(ROOTS, ROOT)
    subvolumes = roots[is_subvolume(roots["objectid"])]
    there, live = (
        set(subvolumes["objectid"].tolist()),
        set(subvolumes["objectid"][subvolumes["item"]["refs"] > 0].tolist()),
    )
    if ObjectId.ROOT_TREE in context.lost_trees():
        return
    for group in sorted(live - groups):
        yield _of_group("quota.group-missing", "subvolume has no group", group, KeyType.QGROUP_INFO)
    for group in sorted(group for group in groups - there if not group >> QGROUP_LEVEL_SHIFT):
        message = "group of a subvolume that is not there"
        yield _of_group("quota.group-stale", message, group, KeyType.QGROUP_INFO, Severity.NOTE)


def _of_group(code: str, message: str, group: int, kind: KeyType, severity: Severity = Severity.ERROR) -> Problem:
    place = (0, int(kind), group)
    return Problem(code, f"{message}: {named(group)}", severity, tree=int(ObjectId.QUOTA_TREE), key=place)


def _relations(relations: Rows, groups: set[int]) -> Iterator[Problem]:
    """Each stands twice, once from either side, between groups of different levels."""
    pairs = {row.item() for row in relations}
    for pair in sorted(pairs):
        group, other = pair
        key = (group, int(KeyType.QGROUP_RELATION), other)
        what = f"relation of {named(group)} and {named(other)}"
        tree = int(ObjectId.QUOTA_TREE)
        if (other, group) not in pairs:
            yield Problem("quota.relation-one-sided", f"{what} stands only once", tree=tree, key=key)
        if group not in groups or other not in groups:
            yield Problem("quota.relation-unknown", f"{what}: one of them is not there", tree=tree, key=key)
        if group >> QGROUP_LEVEL_SHIFT == other >> QGROUP_LEVEL_SHIFT:
            yield Problem("quota.relation-level", f"{what}: they are of the same level", tree=tree, key=key)
