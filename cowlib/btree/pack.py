"""Packing sorted items into full nodes, bottom up: the shape first, then bytes in bounded batches.

The two steps are apart because the extent tree describes every node, its own included: how many nodes a table needs is
asked before any of them has an address.  Of the items only what each node needs stays in memory between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.batches import KEY, ItemBatch, ItemSource
from cowlib.btree.nodes import I64, U64, Bytes, Nodes, item_capacity, pointer_capacity, ragged_index
from cowlib.btree.table import scatter
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

    Entries are items at level 0 and nodes of the level below elsewhere.  ``keys`` (dtype `KEY`, shape (n,)) are the
    nodes' first keys, zero in an empty leaf.
    """

    starts: I64
    keys: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Plan:
    """The shape of a packed tree: its levels from the leaves up; the last has one node."""

    source: ItemSource
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

    def first_keys(self) -> npt.NDArray[Any]:
        """Each node's first key, in the same order: dtype `KEY`, shape (node_count,)."""
        return np.concatenate([level.keys for level in self.levels])


def plan(source: ItemSource, nodesize: int) -> Plan:
    """Cuts sorted items into the fewest nodes that hold them; none at all give one empty leaf.

    Raises DamagedError, naming the key, for an item that no leaf can hold.
    """
    levels = [_plan_leaves(source, nodesize)]
    fanout = pointer_capacity(nodesize)
    while len(levels[-1]) > 1:
        below = levels[-1]
        nodes = -(-len(below) // fanout)
        # Spread evenly: a last node with a single pointer would be legal but of no use.
        starts = np.arange(nodes + 1, dtype=np.int64) * len(below) // nodes
        levels.append(Level(starts, below.keys[starts[:-1]]))
    if len(levels) > MAX_LEVEL:
        raise DamagedError(f"tree of {len(levels)} levels, the format has {MAX_LEVEL}")
    return Plan(source, levels)


def _plan_leaves(source: ItemSource, nodesize: int) -> Level:
    """Fills one leaf after the other; the last one of a batch stays open for the next batch."""
    room = nodesize - HEADER_SIZE
    starts: list[int] = []
    keys: list[npt.NDArray[Any]] = []
    items = filled = 0  # so far, bytes with their heads
    begin = -room  # of the open leaf: none is open
    for batch in source.batches():
        _check_sizes(batch, room)
        ends = filled + np.cumsum(batch.sizes + ITEM_SIZE)
        cuts = []
        while (cut := int(np.searchsorted(ends, begin + room, side="right"))) < len(ends):
            cuts.append(cut)
            begin = int(ends[cut - 1]) if cut else filled
        starts += [items + cut for cut in cuts]
        keys.append(batch.keys[cuts])
        items += len(batch)
        filled = int(ends[-1]) if len(ends) else filled
    if not starts:
        return Level(np.zeros(2, np.int64), np.zeros(1, KEY))
    return Level(np.array([*starts, items], np.int64), np.concatenate(keys))


def _check_sizes(batch: ItemBatch, room: int) -> None:
    largest = int(batch.sizes.max(initial=0))
    if largest + ITEM_SIZE > room:
        objectid, kind, offset = batch.keys[int(np.argmax(batch.sizes))].tolist()
        raise DamagedError(
            f"item of {largest} bytes, a leaf holds {room - ITEM_SIZE}",
            key=(objectid, kind, offset),
        )


def build(shape: Plan, bytenrs: U64, owner: int, style: NodeStyle) -> Iterator[Nodes]:
    """The nodes of a planned tree with their checksums, in bounded batches, leaves first and the root last.

    ``bytenrs`` u8 of shape (node_count,) are their logical addresses in the same order.
    """
    yield from _build_leaves(shape, bytenrs[: len(shape.levels[0])], owner, style)
    base = 0
    for number in range(1, len(shape.levels)):
        below, level = shape.levels[number - 1], shape.levels[number]
        children = bytenrs[base : base + len(below)]
        base += len(below)
        own = bytenrs[base : base + len(level)]
        for first in range(0, len(level), BATCH_NODES):
            last = min(first + BATCH_NODES, len(level))
            starts = level.starts[first : last + 1]
            nodes = Nodes(np.zeros((last - first) * style.nodesize, np.uint8), style.nodesize, own[first:last])
            _fill_inner(nodes.buffer, below, children, starts, style)
            _seal(nodes, number, np.diff(starts), owner, style)
            yield nodes


def _build_leaves(shape: Plan, bytenrs: U64, owner: int, style: NodeStyle) -> Iterator[Nodes]:
    """The leaves, as batches of items fill them; one that goes on in the next batch is carried over to it."""
    starts, size = shape.levels[0].starts, style.nodesize
    leaf = item = 0
    carried = np.zeros(size, np.uint8)  # the beginning of the next leaf
    used = 0  # bytes of payload in it
    for batch in shape.source.batches():
        if not len(batch):
            continue
        last = int(np.searchsorted(starts, item + len(batch), side="left"))  # leaves up to here are begun
        buffer = np.zeros((last - leaf) * size, np.uint8)
        buffer[:size] = carried
        borders = np.clip(starts[leaf : last + 1], item, item + len(batch)) - item
        slots = item - int(starts[leaf])
        used = _fill_leaves(buffer, batch, borders, slots, used, size)
        item += len(batch)
        full = last if int(starts[last]) == item else last - 1
        yield from _sealed_leaves(buffer, leaf, full, starts, bytenrs, owner, style)
        if full < last:
            carried = buffer[(full - leaf) * size :].copy()
        else:
            carried, used = np.zeros(size, np.uint8), 0
        leaf = full
    if item != int(starts[-1]):
        raise DamagedError(f"{item} items to write, {int(starts[-1])} were planned")
    if not item:
        yield from _sealed_leaves(carried, 0, 1, starts, bytenrs, owner, style)


def _sealed_leaves(
    buffer: Bytes, first: int, last: int, starts: I64, bytenrs: U64, owner: int, style: NodeStyle
) -> Iterator[Nodes]:
    """Leaves ``first`` to ``last``, with which ``buffer`` begins, finished."""
    for here in range(first, last, BATCH_NODES):
        stop = min(here + BATCH_NODES, last)
        part = buffer[(here - first) * style.nodesize : (stop - first) * style.nodesize]
        nodes = Nodes(part, style.nodesize, bytenrs[here:stop])
        _seal(nodes, 0, np.diff(starts[here : stop + 1]), owner, style)
        yield nodes


def _fill_leaves(buffer: Bytes, batch: ItemBatch, borders: I64, slots: int, used: int, nodesize: int) -> int:
    """Writes item heads and payloads of consecutive leaves: items ``borders[i]`` to ``borders[i + 1]`` of the batch go
    to leaf i. The first leaf has ``slots`` items and ``used`` bytes of payload already; gives how many bytes the last
    one has then.
    """
    sizes, counts = batch.sizes, np.diff(borders)
    leaf = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    slot = np.arange(len(batch), dtype=np.int64) - borders[leaf]
    slot[: int(borders[1])] += slots
    ends = np.cumsum(sizes)
    before_leaf = np.concatenate([[-used], ends[borders[1:-1] - 1]])
    # Payloads grow down from the end of the leaf, so item k's starts where the sizes up to and with k have gone.
    data_offset = (nodesize - HEADER_SIZE) - (ends - before_leaf[leaf])
    heads = np.empty(len(batch), columns(Item))
    heads["key"] = batch.keys
    heads["offset"] = data_offset
    heads["size"] = sizes
    origin = leaf * nodesize + HEADER_SIZE
    scatter(buffer, origin + slot * ITEM_SIZE, heads)
    batch.put(buffer, origin + data_offset)
    return int(ends[-1] - before_leaf[-1])


def _fill_inner(buffer: Bytes, below: Level, children: U64, starts: I64, style: NodeStyle) -> None:
    """Writes the key pointers of consecutive inner nodes: children ``starts[i]`` to ``starts[i + 1]`` go to node i."""
    low, counts = int(starts[0]), np.diff(starts)
    index = ragged_index(starts[:-1], counts)
    node = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    slot = index - low - np.repeat(starts[:-1] - low, counts)
    heads = np.empty(len(index), columns(KeyPtr))
    heads["key"] = below.keys[index]
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
