"""The items of the trees that say which bytes are used and what they should be: extents, checksums, free space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import ItemTable, Plan
from cowlib.btree.nodes import I64, U64
from cowlib.format import (
    HEADER_SIZE,
    ITEM_SIZE,
    BlockGroupItem,
    ExtentDataRef,
    ExtentFlag,
    ExtentInlineRef,
    ExtentItem,
    ExtentOwnerRef,
    FreeSpaceInfo,
    KeyType,
    ObjectId,
    TreeBlockInfo,
    columns,
)
from mkfs_cow.data.extents import Extents
from mkfs_cow.space import BlockGroup
from mkfs_cow.trees.entries import FIRST_INODE

_TYPE = np.dtype("u1")


def data_extent_items(tree_ids: U64, extents: Extents, rows: I64, generation: int, *, owner_refs: bool) -> ItemTable:
    """EXTENT_ITEMs of data, each with one inline reference; with simple quotas the owner stands before it.

    ``tree_ids`` u8 of shape (len(rows),).  Extents are whole, so a reference's offset is the place in the file.
    """
    owner: list[tuple[str, Any]] = [("owner_type", _TYPE), ("owner", columns(ExtentOwnerRef))] if owner_refs else []
    dtype = np.dtype([("head", columns(ExtentItem)), *owner, ("type", _TYPE), ("reference", columns(ExtentDataRef))])
    items = np.zeros(len(rows), dtype)
    items["head"]["refs"] = 1
    items["head"]["generation"] = generation
    items["head"]["flags"] = ExtentFlag.DATA
    if owner_refs:
        items["owner_type"] = KeyType.EXTENT_OWNER_REF
        items["owner"]["root_id"] = tree_ids
    items["type"] = KeyType.EXTENT_DATA_REF
    items["reference"]["root"] = tree_ids
    items["reference"]["objectid"] = extents.inode[rows] + FIRST_INODE
    items["reference"]["offset"] = extents.file_offset[rows]
    items["reference"]["count"] = 1
    return ItemTable.of(extents.disk_bytenr[rows], KeyType.EXTENT_ITEM, extents.disk_num_bytes[rows], items)


@dataclass(frozen=True)
class BlockStyle:
    """What the extent items of one tree's nodes share: the tree that owns them, when they were made, and their form."""

    owner: int
    generation: int
    skinny: bool
    nodesize: int


def tree_block_items(bytenrs: U64, levels: npt.NDArray[np.uint8], shape: Plan | None, style: BlockStyle) -> ItemTable:
    """METADATA_ITEMs (without skinny metadata EXTENT_ITEMs) of the nodes of one tree, each with one inline reference.

    ``bytenrs`` u8 and ``levels`` u1 of shape (n,).  ``shape`` tells the nodes' first keys where the items hold them;
    None leaves them zero.
    """
    info: list[tuple[str, Any]] = [] if style.skinny else [("info", columns(TreeBlockInfo))]
    dtype = np.dtype([("head", columns(ExtentItem)), *info, ("reference", columns(ExtentInlineRef))])
    rows = np.zeros(len(bytenrs), dtype)
    rows["head"]["refs"] = 1
    rows["head"]["generation"] = style.generation
    rows["head"]["flags"] = ExtentFlag.TREE_BLOCK
    rows["reference"]["type"] = KeyType.TREE_BLOCK_REF
    rows["reference"]["offset"] = style.owner
    if style.skinny:
        return ItemTable.of(bytenrs, KeyType.METADATA_ITEM, levels, rows)
    rows["info"]["level"] = levels
    if shape is not None:
        rows["info"]["key"] = shape.first_keys()
    return ItemTable.of(bytenrs, KeyType.EXTENT_ITEM, style.nodesize, rows)


def checksum_items(logical: U64, sums: npt.NDArray[np.uint8], sectorsize: int, nodesize: int) -> ItemTable:
    """EXTENT_CSUM items over sorted sectors: ``logical`` u8 (n,) their addresses, ``sums`` u1 (n, csum_size).

    An item covers neighbouring sectors, as many as leave room for a second item in its leaf: the kernel's limit.
    """
    count, width = sums.shape
    if not count:
        return ItemTable.empty()
    most = (nodesize - HEADER_SIZE - 2 * ITEM_SIZE) // width - 1
    new = np.ones(count, bool)
    new[1:] = np.diff(logical) != np.uint64(sectorsize)
    runs = np.flatnonzero(new)
    order = np.arange(count, dtype=np.int64)
    new |= (order - np.repeat(runs, np.diff(np.append(runs, count)))) % most == 0
    starts = np.flatnonzero(new)
    size = np.diff(np.append(starts, count)) * width
    return ItemTable(
        np.ascontiguousarray(sums).reshape(-1),
        np.full(len(starts), int(ObjectId.EXTENT_CSUM), np.uint64),
        np.full(len(starts), KeyType.EXTENT_CSUM, np.uint8),
        logical[starts],
        starts * width,
        size,
    )


def block_group_items(groups: list[BlockGroup]) -> ItemTable:
    """BLOCK_GROUP_ITEMs: the use of each chunk."""
    rows = np.zeros(len(groups), columns(BlockGroupItem))
    rows["used"] = [group.used for group in groups]
    rows["chunk_objectid"] = int(ObjectId.FIRST_CHUNK_TREE)
    rows["flags"] = [group.chunk.flags for group in groups]
    logical = np.array([group.chunk.logical for group in groups], np.uint64)
    length = np.array([group.chunk.length for group in groups], np.uint64)
    return ItemTable.of(logical, KeyType.BLOCK_GROUP_ITEM, length, rows)


def free_space_items(groups: list[BlockGroup]) -> ItemTable:
    """FREE_SPACE_INFO and FREE_SPACE_EXTENTs of every block group, sorted."""
    free = [group.free_ranges() for group in groups]
    info = np.zeros(len(groups), columns(FreeSpaceInfo))
    info["extent_count"] = [len(ranges) for ranges in free]
    logical = np.array([group.chunk.logical for group in groups], np.uint64)
    length = np.array([group.chunk.length for group in groups], np.uint64)
    flat = np.array([pair for ranges in free for pair in ranges], np.uint64).reshape(-1, 2)
    nothing = np.zeros(len(flat), np.int64)
    extents = ItemTable(
        np.empty(0, np.uint8),
        flat[:, 0],
        np.full(len(flat), KeyType.FREE_SPACE_EXTENT, np.uint8),
        flat[:, 1],
        nothing,
        nothing,
    )
    return ItemTable.concat([ItemTable.of(logical, KeyType.FREE_SPACE_INFO, length, info), extents]).sorted()
