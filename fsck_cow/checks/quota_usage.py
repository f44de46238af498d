"""What quota groups use, counted again and compared with what they say.

With full quotas an extent counts for every subvolume that reaches it.  Blocks that are reached by the same subvolumes
share one number for that set, so a snapshot costs a pass over the references between blocks, not a walk.  With simple
quotas an extent counts for whom it was made, if it was made after they were turned on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from cowlib.btree.nodes import I64
from cowlib.format import MAX_LEVEL, QGROUP_LEVEL_SHIFT, KeyType, ObjectId, QgroupStatusFlag
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.extents import EXTENT, EXTENTS, OWNER, OWNERS, TREE_BLOCK, find
from fsck_cow.checks.quotas import GROUP, GROUPS, RELATION, RELATIONS, STATUS, STATUSES, named
from fsck_cow.checks.roots import is_subvolume
from fsck_cow.context import Context
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.walk import LOST

#: The name under which `USE` rows are gathered.
USES = "quota-data-uses"

#: A data extent that a leaf (a row of the block table) refers to.
USE = np.dtype([("bytenr", "<u8"), ("leaf", "<i8")])


def _mode(context: Context) -> int | None:
    """The flags of the status item if quotas are on and their numbers are meant to be right, else None."""
    status = context.columns(STATUSES, STATUS)
    if len(status) != 1:
        return None
    flags, generation = int(status["flags"][0]), int(status["generation"][0])
    if not flags & QgroupStatusFlag.ON or flags & (QgroupStatusFlag.RESCAN | QgroupStatusFlag.INCONSISTENT):
        return None
    # The kernel takes numbers of an older generation for inconsistent.
    stale = generation != int(context.fs.superblock.generation)
    return None if stale and not flags & QgroupStatusFlag.SIMPLE_MODE else flags


@leaf_check("quota", Kind.FILES)
def data_uses(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Which leaf refers to which data extent, if full quotas need it."""
    mode = _mode(context)
    if mode is not None and not mode & QgroupStatusFlag.SIMPLE_MODE:
        extents = batch.regular_extents
        rows = np.zeros(len(extents.rows), USE)
        rows["bytenr"], rows["leaf"] = extents.rows["disk_bytenr"], batch.rows[extents.items.node]
        rows = rows[rows["bytenr"] > 0]
        order = np.lexsort((rows["bytenr"], rows["leaf"]))
        rows = rows[order]
        new = np.ones(len(rows), bool)
        new[1:] = (rows["bytenr"][1:] != rows["bytenr"][:-1]) | (rows["leaf"][1:] != rows["leaf"][:-1])
        context.gather(USES, rows[new])
    yield from ()


@final_check("quota", ("quota.not-compared", "quota.usage-wrong"), order=41)
def usage(context: Context) -> Iterator[Problem]:
    """The numbers of each group against those that the trees give."""
    status = context.columns(STATUSES, STATUS)
    if not len(status) or not int(status["flags"][0]) & QgroupStatusFlag.ON:
        return
    mode = _mode(context)
    if mode is None:
        yield Problem(
            "quota.not-compared",
            "numbers of quota groups are not compared: they are to be counted again",
            Severity.NOTE,
            tree=int(ObjectId.QUOTA_TREE),
        )
        return
    if (context.blocks.blocks["state"] == LOST).any():
        return
    simple = bool(mode & QgroupStatusFlag.SIMPLE_MODE)
    parents = _ancestors(context.columns(RELATIONS, RELATION))
    referred, exclusive = _simple(context, parents) if simple else _full(context, parents)
    for row in context.columns(GROUPS, GROUP):
        group, item = int(row["id"]), row["item"]
        wanted = {"rfer": referred[group], "excl": exclusive[group]}
        if not simple:
            wanted |= {"rfer_cmpr": referred[group], "excl_cmpr": exclusive[group]}
        found = {name: int(item[name]) for name in wanted}
        if found != wanted:
            yield Problem(
                "quota.usage-wrong",
                f"group {named(group)} uses another number of bytes",
                tree=int(ObjectId.QUOTA_TREE),
                key=(0, int(KeyType.QGROUP_INFO), group),
                found=found,
                expected=wanted,
            )


class _Ancestors(dict[int, frozenset[int]]):
    """For each group: itself and every group that it is part of, over any number of levels."""

    def __init__(self, parents: dict[int, set[int]]) -> None:
        super().__init__()
        self._parents = parents

    def __missing__(self, group: int) -> frozenset[int]:
        seen, waiting = {group}, [group]
        while waiting:
            for parent in self._parents.get(waiting.pop(), set()) - seen:
                seen.add(parent)
                waiting.append(parent)
        self[group] = frozenset(seen)
        return self[group]


def _ancestors(relations: Rows) -> _Ancestors:
    parents: dict[int, set[int]] = defaultdict(set)
    for group, other in (row.item() for row in relations):
        if group >> QGROUP_LEVEL_SHIFT < other >> QGROUP_LEVEL_SHIFT:
            parents[group].add(other)
    return _Ancestors(parents)


def _simple(context: Context, ancestors: _Ancestors) -> tuple[dict[int, int], dict[int, int]]:
    """Bytes by group: extents made since simple quotas are on, for whom they were made."""
    enabled = context.columns(STATUSES, STATUS)["enable_gen"][0]
    blocks = context.blocks.blocks
    blocks = blocks[(blocks["tree"] != np.uint64(ObjectId.TREE_LOG)) & (blocks["generation"] >= enabled)]
    owners = context.columns(OWNERS, OWNER)
    extents = context.columns(EXTENTS, EXTENT)
    row, known = find(extents["bytenr"], owners["bytenr"])
    new = known & (extents["generation"][row] >= enabled) if len(extents) else known
    roots = np.concatenate([blocks["owner"], owners["root"][new]])
    lengths = np.concatenate([np.full(len(blocks), context.fs.nodesize, np.uint64), extents["num_bytes"][row[new]]])
    used: dict[int, int] = defaultdict(int)
    ids, number = np.unique(roots, return_inverse=True)
    total = np.zeros(len(ids), np.uint64)
    np.add.at(total, number, lengths)
    for root, size in zip(ids.tolist(), total.tolist(), strict=True):
        if is_subvolume(root):
            for group in ancestors[root]:
                used[group] += size
    return used, used


class _Sets:
    """Sets of subvolumes, each known by a number; 0 is the empty one."""

    def __init__(self) -> None:
        self.members: list[frozenset[int]] = [frozenset()]
        self._numbers: dict[frozenset[int], int] = {frozenset(): 0}
        self._unions: dict[tuple[int, ...], int] = {}

    def number(self, members: frozenset[int]) -> int:
        """The number of a set."""
        if members not in self._numbers:
            self._numbers[members] = len(self.members)
            self.members.append(members)
        return self._numbers[members]

    def union(self, numbers: tuple[int, ...]) -> int:
        """The number of what several sets hold together."""
        if numbers not in self._unions:
            self._unions[numbers] = self.number(frozenset().union(*(self.members[n] for n in numbers)))
        return self._unions[numbers]

    def by_target(self, target: Any, numbers: I64) -> tuple[Any, I64]:
        """Each different target once, and the union of the sets that come with it. ``target`` is any integer column."""
        order = np.lexsort((numbers, target))
        target, numbers = target[order], numbers[order]
        new = np.ones(len(target), bool)
        new[1:] = (target[1:] != target[:-1]) | (numbers[1:] != numbers[:-1])
        targets, numbers = target[new], numbers[new]
        starts = np.flatnonzero(np.append(True, targets[1:] != targets[:-1])) if len(targets) else np.empty(0, np.int64)
        count = np.diff(np.append(starts, len(targets)))
        result = numbers[starts]
        for i in np.flatnonzero(count > 1).tolist():
            first = int(starts[i])
            result[i] = self.union(tuple(numbers[first : first + int(count[i])].tolist()))
        return targets[starts], result


def _full(context: Context, ancestors: _Ancestors) -> tuple[dict[int, int], dict[int, int]]:
    """Bytes by group, referred to and exclusive: every extent counts for all subvolumes that reach it."""
    sets = _Sets()
    reached_by = _blocks_reached(context, sets)
    totals = np.bincount(reached_by, minlength=len(sets.members)) * context.fs.nodesize
    uses = context.columns(USES, USE)
    extents = context.columns(EXTENTS, EXTENT)
    addresses, numbers = sets.by_target(uses["bytenr"], reached_by[uses["leaf"]])
    row, known = find(extents["bytenr"], addresses)
    known &= (extents["flags"][row] & TREE_BLOCK == 0) if len(extents) else known
    bytes_of: I64 = np.zeros(len(sets.members), np.int64)
    bytes_of[: len(totals)] += totals
    np.add.at(bytes_of, numbers[known], extents["num_bytes"][row[known]].astype(np.int64))
    referred: dict[int, int] = defaultdict(int)
    exclusive: dict[int, int] = defaultdict(int)
    for number in np.flatnonzero(bytes_of[1:]).tolist():
        size, members = int(bytes_of[number + 1]), sets.members[number + 1]
        lines = [ancestors[member] for member in members]
        for group in frozenset().union(*lines):
            referred[group] += size
        for group in lines[0].intersection(*lines[1:]):
            exclusive[group] += size
    return referred, exclusive


def _blocks_reached(context: Context, sets: _Sets) -> I64:
    """For each row of the block table the number of the set of subvolumes that reach it: from the roots downwards."""
    edges = context.blocks.edges
    edges = edges[edges["tree"] != np.uint64(ObjectId.TREE_LOG)]
    child = context.blocks.rows_of(edges["child"])
    reached: I64 = np.zeros(len(context.blocks.blocks), np.int64)
    for level in range(MAX_LEVEL - 1, -1, -1):
        here = np.flatnonzero((edges["level"] == level) & (child >= 0))
        parent = edges["parent"][here]
        numbers = np.where(parent >= 0, reached[parent], 0)
        for i in np.flatnonzero(parent < 0).tolist():
            tree = int(edges["tree"][here[i]])
            numbers[i] = sets.number(frozenset([tree])) if is_subvolume(tree) else 0
        used = numbers > 0
        rows, union = sets.by_target(child[here[used]], numbers[used])
        reached[rows] = union
    return reached
