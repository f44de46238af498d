"""All trees of the new filesystem: their shapes, their addresses, and at last their nodes on the devices.

The extent tree lists every node, its own too, and the free-space tree what is left, so their sizes depend on
themselves: they are planned again until the number of nodes no longer changes.  Greedy packing makes that number grow
with what is to be packed and never shrink, so the search goes up from the smallest and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cowlib.btree import ItemSource, ItemTable, NodeStyle, Plan, build, plan
from cowlib.btree.nodes import U64
from cowlib.format import BlockGroupFlag, ObjectId
from cowlib.volume import Volume
from mkfs_cow.space import BlockGroup, SpaceAllocator
from mkfs_cow.trees.extents import BlockStyle, block_group_items, free_space_items, tree_block_items
from mkfs_cow.trees.system import TreeLocation

#: Trees whose contents say where other trees or free space are: planned last, in this order.
_SELF_DESCRIBING = (ObjectId.FREE_SPACE_TREE, ObjectId.EXTENT_TREE)


@dataclass
class PlacedTree:
    """A tree with its shape and the addresses of its nodes (u8, leaves first, root last)."""

    owner: int
    shape: Plan
    bytenrs: U64

    @property
    def location(self) -> TreeLocation:
        """Where its root is."""
        return TreeLocation(int(self.bytenrs[-1]), self.shape.height, self.shape.node_count)


@dataclass(frozen=True)
class TreeStyle:
    """How the trees of one filesystem are written: nodes, and which optional trees and item forms there are."""

    nodes: NodeStyle
    skinny: bool
    free_space_tree: bool
    block_group_tree: bool


class TreeLayout:
    """Trees by their object id; `place` settles where everything is, `write` puts it there."""

    def __init__(self, space: SpaceAllocator, style: TreeStyle) -> None:
        self.space = space
        self.style = style
        self._tables: dict[int, Callable[[], ItemTable]] = {}
        self._fixed: dict[int, Plan] = {}
        self.trees: dict[int, PlacedTree] = {}
        self.data_extents = ItemTable.empty()

    def add(self, owner: int, items: ItemSource) -> None:
        """A tree whose sorted items are final."""
        self._fixed[owner] = plan(items, self.style.nodes.nodesize)

    def add_late(self, owner: int, make: Callable[[], ItemTable]) -> None:
        """A tree whose item sizes are known but whose contents depend on where others are: made again after placing."""
        self._tables[owner] = make

    @property
    def owners(self) -> list[int]:
        """The object ids of all trees, those that describe space too."""
        return sorted({*self._fixed, *self._tables, *self._dependent()})

    def place(self, spare: Callable[[int], int] | None = None) -> None:
        """Gives every node an address. Adds chunks when nodes need them; raises NoSpaceError.

        ``spare`` is told how many nodes there are, and says how many bytes for nodes are to stay free: the last chunk
        for nodes is then cut to that.
        """
        start = self._copy(self.space.groups)
        while True:
            chunks = len(self.space.chunks.chunks)
            self._search(start)
            if len(self.space.chunks.chunks) == chunks:
                break
            # A chunk was added on the way: the trees that list chunks have grown. Keep it, and start over.
            for kind, groups in self.space.groups.items():
                start[kind] += [BlockGroup.of(group.chunk) for group in groups[len(start[kind]) :]]
        if spare is None:
            return
        nodes = sum(tree.shape.node_count for tree in self.trees.values())
        if self.space.trim_nodes(spare(nodes)):
            for kind, groups in self.space.groups.items():
                del start[kind][len(groups) :]
                if groups and groups[-1].chunk is not start[kind][-1].chunk:
                    start[kind][-1] = BlockGroup.of(groups[-1].chunk)
            self.space.groups = start
            self.place()

    @staticmethod
    def _copy(groups: dict[BlockGroupFlag, list[BlockGroup]]) -> dict[BlockGroupFlag, list[BlockGroup]]:
        return {kind: [group.copy() for group in members] for kind, members in groups.items()}

    def _search(self, start: dict[BlockGroupFlag, list[BlockGroup]]) -> None:
        nodesize = self.style.nodes.nodesize
        counts = dict.fromkeys(self._dependent(), 1)
        shapes = dict(self._fixed)
        while True:
            self.space.groups = self._copy(start)
            self.trees = {}
            for owner, make in self._tables.items():
                shapes[owner] = plan(make(), nodesize)
            for owner, shape in shapes.items():
                self._take(owner, shape, shape.node_count)
            pending = {owner: self._addresses(owner, count) for owner, count in counts.items()}
            grown = self._plan_dependent(pending)
            if all(shape.node_count == counts[owner] for owner, shape in grown.items()):
                for owner, shape in grown.items():
                    self.trees[owner] = PlacedTree(owner, shape, pending[owner])
                return
            counts = {owner: shape.node_count for owner, shape in grown.items()}

    def _dependent(self) -> tuple[ObjectId, ...]:
        return _SELF_DESCRIBING if self.style.free_space_tree else (ObjectId.EXTENT_TREE,)

    def _addresses(self, owner: int, count: int) -> U64:
        purpose = BlockGroupFlag.SYSTEM if owner == ObjectId.CHUNK_TREE else BlockGroupFlag.METADATA
        return self.space.take_nodes(count, self.style.nodes.nodesize, purpose)

    def _take(self, owner: int, shape: Plan, count: int) -> None:
        self.trees[owner] = PlacedTree(owner, shape, self._addresses(owner, count))

    def _plan_dependent(self, pending: dict[ObjectId, U64]) -> dict[ObjectId, Plan]:
        """The shapes of the trees that describe space, given addresses for as many nodes as they had last time."""
        groups = self.space.all_groups()
        shapes = {}
        if ObjectId.FREE_SPACE_TREE in pending:
            shapes[ObjectId.FREE_SPACE_TREE] = plan(free_space_items(groups), self.style.nodes.nodesize)
        tables = [self.data_extents]
        tables += [self._blocks(tree.owner, tree.shape, tree.bytenrs) for tree in self.trees.values()]
        for owner, shape in shapes.items():
            if shape.node_count == len(pending[owner]):
                tables.append(self._blocks(owner, shape, pending[owner]))
        if not self.style.block_group_tree:
            tables.append(block_group_items(groups))
        others = ItemTable.concat(tables)
        shapes[ObjectId.EXTENT_TREE] = self._plan_extent_tree(others, pending[ObjectId.EXTENT_TREE])
        return shapes

    def _plan_extent_tree(self, others: ItemTable, own: U64) -> Plan:
        """The extent tree with the items for its own nodes; final if it has as many nodes as ``own`` has addresses.

        Sizes and order of those items are known before the shape is, their contents only after: so twice.
        """
        nodesize = self.style.nodes.nodesize
        first_draft = tree_block_items(own, np.zeros(len(own), np.uint8), None, self._block_style(ObjectId.EXTENT_TREE))
        shape = plan(ItemTable.concat([others, first_draft]).sorted(), nodesize)
        if shape.node_count != len(own):
            return shape
        return plan(ItemTable.concat([others, self._blocks(ObjectId.EXTENT_TREE, shape, own)]).sorted(), nodesize)

    def _block_style(self, owner: int) -> BlockStyle:
        nodes = self.style.nodes
        return BlockStyle(owner, nodes.generation, self.style.skinny, nodes.nodesize)

    def _blocks(self, owner: int, shape: Plan, bytenrs: U64) -> ItemTable:
        """The extent items of a tree's nodes."""
        return tree_block_items(bytenrs, shape.node_levels(), shape, self._block_style(owner))

    def write(self, volume: Volume) -> None:
        """Writes every node of every tree, in batches; late trees with what they say by now."""
        for owner, tree in sorted(self.trees.items()):
            shape = tree.shape
            if owner in self._tables:
                shape = plan(self._tables[owner](), self.style.nodes.nodesize)
            for nodes in build(shape, tree.bytenrs, owner, self.style.nodes):
                volume.write_many(nodes.bytenr, nodes.buffer.reshape(len(nodes), nodes.nodesize))
