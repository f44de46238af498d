"""Block groups: each stands for one chunk, in the right tree, and says how much of it is used.

Facts: btrfs on-disk format documentation, what the kernel refuses in its tree checker and when it reads block groups at
mount, what ``btrfs check`` compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cowlib.btree.nodes import U64
from cowlib.format import (
    BlockGroupItem,
    BlockGroupItemV2,
    IncompatFeature,
    KeyType,
    ObjectId,
    SuperFlag,
    columns,
)
from fsck_cow.batch import LeafBatch
from fsck_cow.checks.extents import EXTENT, EXTENTS
from fsck_cow.context import Context, Rows
from fsck_cow.intervals import overlaps
from fsck_cow.problems import Problem
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.space import (
    BLOCK_GROUP,
    CHUNK,
    block_group_tree,
    find_pairs,
    is_whole,
    keyed,
    rows_where,
    strangers,
    wrong_sizes,
)


def _problem(row: Any, code: str, message: str, **more: Any) -> Problem:
    key = (int(row["bytenr"]), int(KeyType.BLOCK_GROUP_ITEM), int(row["length"]))
    return Problem(code, message, logical=int(row["bytenr"]), tree=int(row["tree"]), key=key, **more)


@leaf_check("block-group", Kind.EXTENTS, Kind.BLOCK_GROUPS, codes=("block-group.item-size", "block-group.stranger"))
def gather_block_groups(ctx: Context, batch: LeafBatch) -> Iterator[Problem]:
    """BLOCK_GROUP_ITEMs have their size; the block group tree holds nothing else."""
    if batch.tree == ObjectId.BLOCK_GROUP_TREE:
        yield from strangers(batch, (KeyType.BLOCK_GROUP_ITEM,), "block-group.stranger")
    found = batch.items.of_type(KeyType.BLOCK_GROUP_ITEM)
    if not len(found):
        return
    remap = int(ctx.fs.superblock.incompat_flags) & IncompatFeature.REMAP_TREE
    size = columns(BlockGroupItemV2 if remap else BlockGroupItem).itemsize
    yield from wrong_sizes(batch, found, size, "block-group.item-size")
    rows = keyed(BLOCK_GROUP, batch.heads(BlockGroupItem, KeyType.BLOCK_GROUP_ITEM), "bytenr", "length")
    rows["tree"] = batch.tree
    ctx.gather("block-groups", rows)


def block_groups(ctx: Context) -> Rows:
    """The block groups of the tree that they belong into, in order of address: dtype `BLOCK_GROUP`."""
    rows = ctx.columns("block-groups", BLOCK_GROUP)
    rows = rows[rows["tree"] == block_group_tree(ctx)]
    ordered: Rows = rows[np.argsort(rows["bytenr"], kind="stable")]
    return ordered


@final_check(
    "block-group",
    codes=("block-group.wrong-tree", "block-group.field-wrong", "block-group.used-too-large", "block-group.overlap"),
    order=30,
)
def items(ctx: Context) -> Iterator[Problem]:
    """Each block group by itself, and where it stands."""
    rows = ctx.columns("block-groups", BLOCK_GROUP)
    tree = block_group_tree(ctx)
    # While a conversion from one tree to the other is under way they are spread over both.
    if not int(ctx.fs.superblock.flags) & SuperFlag.CHANGING_BG_TREE:
        for i in rows_where(rows["tree"] != tree):
            message = "block group stands in a tree where nobody looks for it"
            yield _problem(rows[i], "block-group.wrong-tree", message, found=int(rows["tree"][i]), expected=tree)
    rows = block_groups(ctx)
    item = rows["item"]
    for i in rows_where(rows["length"] == 0):
        yield _problem(rows[i], "block-group.field-wrong", "block group is empty")
    for i in rows_where(item["chunk_objectid"] != ObjectId.FIRST_CHUNK_TREE):
        yield _problem(
            rows[i],
            "block-group.field-wrong",
            "chunk_objectid is not that of chunks",
            found=int(item["chunk_objectid"][i]),
            expected=int(ObjectId.FIRST_CHUNK_TREE),
        )
    for i in rows_where(item["used"] > rows["length"]):
        yield _problem(
            rows[i],
            "block-group.used-too-large",
            "more is used than there is",
            found=int(item["used"][i]),
            expected=f"at most {int(rows['length'][i])}",
        )
    late, early = overlaps(rows["bytenr"], rows["bytenr"] + rows["length"])
    for i, k in zip(late.tolist(), early.tolist(), strict=True):
        message = f"block group begins inside the one at {int(rows['bytenr'][k])}"
        yield _problem(rows[i], "block-group.overlap", message)


@final_check(
    "block-group",
    codes=("block-group.missing", "block-group.chunk-missing", "block-group.flags-differ"),
    order=31,
)
def against_chunks(ctx: Context) -> Iterator[Problem]:
    """Every chunk has a block group of the same place, length and flags, and every block group a chunk."""
    if not is_whole(ctx, ObjectId.CHUNK_TREE, block_group_tree(ctx)):
        return
    rows, chunks = block_groups(ctx), ctx.columns("chunks", CHUNK)
    places = (chunks["logical"], chunks["item"]["length"])
    found = find_pairs((rows["bytenr"], rows["length"]), places)
    for i in rows_where(found < 0):
        logical, length = (int(column[i]) for column in places)
        key = (int(ObjectId.FIRST_CHUNK_TREE), int(KeyType.CHUNK_ITEM), logical)
        message = f"no block group stands for the chunk of {length} bytes"
        tree = int(ObjectId.CHUNK_TREE)
        yield Problem("block-group.missing", message, logical=logical, tree=tree, key=key)
    for i in rows_where(find_pairs(places, (rows["bytenr"], rows["length"])) < 0):
        message = "no chunk has this place and length"
        yield _problem(rows[i], "block-group.chunk-missing", message)
    paired = np.flatnonzero(found >= 0)
    group, flags = found[paired], chunks["item"]["type"][paired]
    differ = rows["item"]["flags"][group] != flags
    for row, expected in zip(rows[group[differ]], flags[differ].tolist(), strict=True):
        message = "flags are not those of the chunk"
        found_flags = hex(int(row["item"]["flags"]))
        yield _problem(row, "block-group.flags-differ", message, found=found_flags, expected=hex(expected))


def bytes_in(extents: Rows, start: U64, end: U64) -> U64:
    """The bytes of all extents that begin in each range: u8, shape (number of ranges,)."""
    bytenr, size = extents["bytenr"], extents["num_bytes"]
    if len(bytenr) > 1 and (bytenr[1:] < bytenr[:-1]).any():
        order = np.argsort(bytenr, kind="stable")
        bytenr, size = bytenr[order], size[order]
    running = np.zeros(len(size) + 1, np.uint64)
    np.cumsum(size, out=running[1:])
    total: U64 = running[np.searchsorted(bytenr, end)] - running[np.searchsorted(bytenr, start)]
    return total


@final_check("block-group", codes=("block-group.used-wrong",), order=32)
def used(ctx: Context) -> Iterator[Problem]:
    """A block group's used bytes are those of the extents in it."""
    if not is_whole(ctx, ObjectId.EXTENT_TREE, block_group_tree(ctx)):
        return
    rows = block_groups(ctx)
    end = rows["bytenr"] + rows["length"]
    expected = bytes_in(ctx.columns(EXTENTS, EXTENT), rows["bytenr"], np.maximum(end, rows["bytenr"]))
    for i in rows_where(rows["item"]["used"] != expected):
        yield _problem(
            rows[i],
            "block-group.used-wrong",
            "used is not the sum of the extents",
            found=int(rows["item"]["used"][i]),
            expected=int(expected[i]),
        )
