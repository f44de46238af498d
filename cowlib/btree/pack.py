"""Packing a sorted table of items into full nodes, bottom up: the shape first, then bytes in bounded batches.

The two steps are apart because the extent tree describes every node, its own included: how many nodes a table needs is
asked before any of them has an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64, U64, Bytes, Nodes, item_capacity, pointer_capacity, ragged_index
from cowlib.btree.table import ItemTable, copy_ragged, scatter
from cowlib.checksum import csum_rows, csum_size
from cowlib.errors import DamagedError
from cowlib.format import (
    BACKREF_REV_SHIFT,
    CSUM_SIZE,
    HEADER_SIZE,
    ITEM_SIZE,
    KEY_PTR_SIZE,
    MAX_LEVEL,
    MIXED_BACKREF_REV,
    CsumType,
    Header,
    HeaderFlag,
    Item,
    KeyPtr,
    columns,
)

#: Nodes made at a time.
BATCH_NODES = 512

#: The second version of back references, in the top byte of a header's flags.
_BACKREF_REV = MIXED_BACKREF_REV << BACKREF_REV_SHIFT


@dataclass(frozen=True)
class NodeStyle:
    """What all nodes of one filesystem share: sizes, ids (16 bytes each), checksum type, and the new generation."""

    nodesize: int
    csum_type: CsumType
    fsid: bytes
    chunk_tree_uuid: bytes
    generation: int


@dataclass(frozen=True)
class Level:
    """One level of a tree in the making: node i holds entries ``starts[i]`` to ``starts[i + 1]`` (i8, shape (n + 1,)).

    Entries are items at level 0 and nodes of the level below elsewhere.  ``first`` (i8, shape (n,)) is the index of the
    item whose key is the node's first key.
    """

    starts: I64
    first: I64

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Plan:
    """The shape of a packed tree: its levels from the leaves up; the last has one node."""

    table: ItemTable
    levels: list[Level]

    @property
    def node_count(self) -> int:
        """How many nodes the tree has in all."""
        return sum(len(level) for level in self.levels)

    @property
    def height(self) -> int:
        """The level of the root node."""
        return len(self.levels) - 1

    def node_levels(self) -> npt.NDArray[np.uint8]:
        """The level of each node, leaves first, as `build` numbers them: u1, shape (node_count,)."""
        return np.repeat(np.arange(len(self.levels), dtype=np.uint8), [len(level) for level in self.levels])

    def first_items(self) -> I64:
        """The item whose key is each node's first key, in the same order: i8, shape (node_count,)."""
        return np.concatenate([level.first for level in self.levels])


def plan(table: ItemTable, nodesize: int) -> Plan:
    """Cuts a sorted table into the fewest nodes that hold it; an empty table gives one empty leaf.

    Raises DamagedError, naming the key, for an item that no leaf can hold.
    """
    room = nodesize - HEADER_SIZE
    sizes = table.item_sizes + ITEM_SIZE
    if len(sizes) and int(sizes.max()) > room:
        at = int(table.item_starts[int(np.argmax(sizes))])
        raise DamagedError(
            f"item of {int(sizes.max()) - ITEM_SIZE} bytes, a leaf holds {room - ITEM_SIZE}",
            key=(int(table.objectid[at]), int(table.type[at]), int(table.offset[at])),
        )
    ends = np.cumsum(sizes)
    cuts = [0]
    while cuts[-1] < len(sizes):
        used = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(int(np.searchsorted(ends, used + room, side="right")))
    if len(cuts) == 1:
        cuts.append(0)
    starts = np.array(cuts, np.int64)
    levels = [Level(starts, starts[:-1])]
    fanout = pointer_capacity(nodesize)
    while len(levels[-1]) > 1:
        below = levels[-1]
        nodes = -(-len(below) // fanout)
        # Spread evenly: a last node with a single pointer would be legal but of no use.
        starts = np.arange(nodes + 1, dtype=np.int64) * len(below) // nodes
        levels.append(Level(starts, below.first[starts[:-1]]))
    if len(levels) > MAX_LEVEL:
        raise DamagedError(f"tree of {len(levels)} levels, the format has {MAX_LEVEL}")
    return Plan(table, levels)


def build(shape: Plan, bytenrs: U64, owner: int, style: NodeStyle) -> Iterator[Nodes]:
    """The nodes of a planned tree with their checksums, in bounded batches, leaves first and the root last.

    ``bytenrs`` u8 of shape (node_count,) are their logical addresses in the same order.
    """
    base = 0
    for number, level in enumerate(shape.levels):
        own = bytenrs[base : base + len(level)]
        for first in range(0, len(level), BATCH_NODES):
            last = min(first + BATCH_NODES, len(level))
            buffer = np.zeros((last - first) * style.nodesize, np.uint8)
            nodes = Nodes(buffer, style.nodesize, own[first:last])
            if number == 0:
                _fill_leaves(buffer, shape.table, level.starts[first : last + 1], style.nodesize)
            else:
                children = bytenrs[base - len(shape.levels[number - 1]) : base]
                below = shape.levels[number - 1]
                _fill_inner(buffer, shape.table, below, children, level.starts[first : last + 1], style)
            counts = np.diff(level.starts[first : last + 1])
            _seal(nodes, number, counts, owner, style)
            yield nodes
        base += len(level)


def _fill_leaves(buffer: Bytes, table: ItemTable, starts: I64, nodesize: int) -> None:
    """Writes item heads and payloads of consecutive leaves: items ``starts[i]`` to ``starts[i + 1]`` go to leaf i."""
    low, high = int(starts[0]), int(starts[-1])
    if low == high:
        return
    sizes = table.item_sizes[low:high]
    counts = np.diff(starts)
    leaf = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    slot = np.arange(high - low, dtype=np.int64) - np.repeat(starts[:-1] - low, counts)
    ends = np.cumsum(sizes)
    before_leaf = (ends - sizes)[starts[:-1] - low]
    # Payloads grow down from the end of the leaf, so item k's starts where the sizes up to and with k have gone.
    data_offset = (nodesize - HEADER_SIZE) - (ends - before_leaf[leaf])
    rows = table.item_starts[low:high]
    heads = np.empty(high - low, columns(Item))
    heads["key"]["objectid"] = table.objectid[rows]
    heads["key"]["type"] = table.type[rows]
    heads["key"]["offset"] = table.offset[rows]
    heads["offset"] = data_offset
    heads["size"] = sizes
    origin = leaf * nodesize + HEADER_SIZE
    scatter(buffer, origin + slot * ITEM_SIZE, heads)
    row_end = int(table.item_starts[high]) if high < len(table.item_starts) else len(table)
    parts = np.append(rows, row_end)
    part_counts = np.diff(parts)
    part = slice(int(parts[0]), row_end)
    part_sizes = table.size[part]
    part_ends = np.cumsum(part_sizes)
    before_item = (part_ends - part_sizes)[rows - int(parts[0])]
    inside = part_ends - part_sizes - np.repeat(before_item, part_counts)
    target = np.repeat(origin + data_offset, part_counts) + inside
    copy_ragged(buffer, target, table.buffer, table.position[part], part_sizes)


def _fill_inner(buffer: Bytes, table: ItemTable, below: Level, children: U64, starts: I64, style: NodeStyle) -> None:
    """Writes the key pointers of consecutive inner nodes: children ``starts[i]`` to ``starts[i + 1]`` go to node i."""
    low, counts = int(starts[0]), np.diff(starts)
    index = ragged_index(starts[:-1], counts)
    node = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    slot = index - low - np.repeat(starts[:-1] - low, counts)
    rows = table.item_starts[below.first[index]]
    heads = np.empty(len(index), columns(KeyPtr))
    heads["key"]["objectid"] = table.objectid[rows]
    heads["key"]["type"] = table.type[rows]
    heads["key"]["offset"] = table.offset[rows]
    heads["blockptr"] = children[index]
    heads["generation"] = style.generation
    scatter(buffer, node * style.nodesize + HEADER_SIZE + slot * KEY_PTR_SIZE, heads)


def _seal(nodes: Nodes, level: int, counts: I64, owner: int, style: NodeStyle) -> None:
    """Fills in the headers of finished nodes and their checksums."""
    if int(counts.max()) > (pointer_capacity(style.nodesize) if level else item_capacity(style.nodesize)):
        raise DamagedError("more entries than a node holds")
    head = np.zeros(len(nodes), columns(Header))
    head["fsid"] = np.void(style.fsid)
    head["bytenr"] = nodes.bytenr
    head["flags"] = int(HeaderFlag.WRITTEN) | _BACKREF_REV
    head["chunk_tree_uuid"] = np.void(style.chunk_tree_uuid)
    head["generation"] = style.generation
    head["owner"] = owner
    head["nritems"] = counts
    head["level"] = level
    nodes.header[:] = head
    rows = nodes.buffer.reshape(len(nodes), style.nodesize)
    rows[:, : csum_size(style.csum_type)] = csum_rows(style.csum_type, rows[:, CSUM_SIZE:])
