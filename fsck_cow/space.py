"""Columns that the checks of devices, chunks, block groups and free space share, and the joins between them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cowlib.btree import Items
from cowlib.btree.nodes import I64, U64, Mask
from cowlib.format import BlockGroupItem, Chunk, CompatRoFeature, DevExtent, DevItem, ObjectId, columns
from fsck_cow.batch import Heads, LeafBatch
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context, Rows
from fsck_cow.problems import Problem

#: Gathered as "devices": the DEV_ITEMs.
DEVICE = np.dtype([("objectid", "<u8"), ("devid", "<u8"), ("item", columns(DevItem))])

#: Gathered as "chunks": the heads of the CHUNK_ITEMs. Their stripes are in the volume's chunk map.
CHUNK = np.dtype([("objectid", "<u8"), ("logical", "<u8"), ("item", columns(Chunk))])

#: Gathered as "device-extents": the DEV_EXTENTs.
DEVICE_EXTENT = np.dtype([("devid", "<u8"), ("physical", "<u8"), ("item", columns(DevExtent))])

#: Gathered as "block-groups": the BLOCK_GROUP_ITEMs, with the tree they stand in.
BLOCK_GROUP = np.dtype([("bytenr", "<u8"), ("length", "<u8"), ("tree", "<u8"), ("item", columns(BlockGroupItem))])


def is_whole(ctx: Context, *trees: int) -> bool:
    """Whether all of these trees exist and every block of them could be read."""
    walked = {objectid for (objectid, _), tree in ctx.walked.items() if len(tree.leaves)}
    return walked.issuperset(trees) and ctx.lost_trees().isdisjoint(trees)


def block_group_tree(ctx: Context) -> int:
    """The object id of the tree that holds the block group items."""
    if int(ctx.fs.superblock.compat_ro_flags) & CompatRoFeature.BLOCK_GROUP_TREE:
        return int(ObjectId.BLOCK_GROUP_TREE)
    return int(ObjectId.EXTENT_TREE)


def wrong_sizes(batch: LeafBatch, items: Items, expected: int | I64, code: str) -> Iterator[Problem]:
    """Says of each item whose payload is not ``expected`` bytes (one number, or one for each item)."""
    wrong = items.in_bounds & (items.size != expected)
    message = "item is not as long as its kind"
    return report_items(code, message, items, wrong, tree=batch.tree, found=items.size, expected=expected)


def strangers(batch: LeafBatch, known: tuple[int, ...], code: str) -> Iterator[Problem]:
    """Says of items of types that this tree does not hold."""
    items = batch.items
    wrong = ~np.isin(items.type, np.array(known, np.uint8))
    return report_items(code, "items of this type do not belong into this tree", items, wrong, tree=batch.tree)


def keyed(dtype: npt.DTypeLike, heads: Heads, first: str, second: str) -> Rows:
    """Rows of ``dtype`` for items: the key's object id and offset under these names, the payload's head as "item"."""
    rows = np.zeros(len(heads.items), dtype)
    rows[first], rows[second], rows["item"] = heads.items.objectid, heads.items.offset, heads.rows
    return rows


def find_pairs(table: tuple[U64, U64], wanted: tuple[U64, U64]) -> I64:
    """Index of the first row of the table that equals each wanted pair, -1 where none does: i8, one a wanted pair."""
    size = len(table[0])
    first, second = (np.concatenate(pair) for pair in zip(table, wanted, strict=True))
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    new = np.ones(len(order), bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    group = np.cumsum(new) - 1
    # The sort is stable: in each run of equal pairs, rows of the table come first.
    head = order[new][group]
    found = np.empty(len(order), np.int64)
    found[order] = np.where(head < size, head, -1)
    return found[size:]


def rows_where(mask: Mask) -> list[int]:
    """The indices at which a mask is set, as plain numbers."""
    indices: list[int] = np.flatnonzero(mask).tolist()
    return indices
