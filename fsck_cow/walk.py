"""Which tree blocks there are: the inner nodes of all trees are read, the leaves below them listed, each block once.

Snapshots share blocks, so a tree is a list of leaves that may be another tree's too.  What is kept of a block is a
row of columns, never its items: memory grows with blocks, not with what stands in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import Nodes, Pointers, TreeReader, TreeRoot
from cowlib.btree.nodes import I64
from cowlib.format import MAX_LEVEL, DiskKey, columns

Rows = npt.NDArray[Any]

#: A tree block as its first parent describes it, and, once it was read, what its header says.
#: ``key`` is the first key promised, ``next_key`` the first one after it in the parent's level (all ones at the end).
#: ``tree`` is the object id of the tree it was first reached from; ``state`` is one of the constants below.
BLOCK = np.dtype(
    [
        ("bytenr", "<u8"),
        ("expected_generation", "<u8"),
        ("key", columns(DiskKey)),
        ("next_key", columns(DiskKey)),
        ("tree", "<u8"),
        ("generation", "<u8"),
        ("owner", "<u8"),
        ("flags", "<u8"),
        ("nritems", "<u4"),
        ("level", "u1"),
        ("state", "u1"),
    ]
)

PLANNED, READ, LOST = 0, 1, 2

#: A reference to the block at ``child`` from row ``parent`` of the block table (-1: from the root item of ``tree``).
EDGE = np.dtype(
    [
        ("parent", "<i8"),
        ("child", "<u8"),
        ("tree", "<u8"),
        ("generation", "<u8"),
        ("level", "u1"),
        ("key", columns(DiskKey)),
    ]
)

#: Inner nodes read at a time.
_INNER_BATCH = 512

_LAST_KEY = (2**64 - 1, 255, 2**64 - 1)

#: What is done with inner nodes as they are read: the nodes, and their rows in the block table.
InspectNodes = Callable[[Nodes, I64], None]


class Growing:
    """Rows of one dtype that grow by batches: room is doubled when it is used up."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._room = np.zeros(256, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, count: int) -> Rows:
        """Room for ``count`` more rows, zeroed, as a view to fill."""
        while self._count + count > len(self._room):
            self._room = np.concatenate([self._room, np.zeros_like(self._room)])
        rows = self._room[self._count : self._count + count]
        self._count += count
        return rows

    @property
    def rows(self) -> Rows:
        """What there is so far: a view, good until more is added."""
        return self._room[: self._count]


@dataclass(frozen=True)
class Walked:
    """One tree: its root, its leaves as rows of the block table in key order (i8), and how many of them are new."""

    root: TreeRoot
    leaves: I64
    fresh: I64


class BlockTable:
    """Every block of every tree that was walked so far, by row; and every reference between them."""

    def __init__(self, reader: TreeReader) -> None:
        self.reader = reader
        self._blocks = Growing(BLOCK)
        self._edges = Growing(EDGE)
        self._row_of: dict[int, int] = {}
        self._below: dict[int, Pointers] = {}

    @property
    def blocks(self) -> Rows:
        """The blocks: structured rows of `BLOCK`."""
        return self._blocks.rows

    @property
    def edges(self) -> Rows:
        """The references: structured rows of `EDGE`, one for each pointer of each block, shared blocks' once."""
        return self._edges.rows

    def rows_of(self, bytenrs: npt.NDArray[np.uint64]) -> I64:
        """The row of each address, -1 where no such block was reached: i8, shape (n,)."""
        found = map(self._row_of.get, bytenrs.tolist(), [-1] * len(bytenrs))
        return np.fromiter(found, np.int64, len(bytenrs))

    def walk(self, root: TreeRoot, inspect: InspectNodes, gone_before: tuple[int, int, int] | None = None) -> Walked:
        """Reads what is new of a tree's inner nodes and lists its leaves, which are not read here.

        ``inspect`` gets each batch of inner nodes, once. Blocks that cannot be used become `LOST`; what hangs below
        them is not listed.  Of a subvolume that is being deleted, what lies before the key ``gone_before`` is not there
        any more: pointers to it are passed over.
        """
        nothing = np.empty(0, np.int64)
        if not 0 <= root.level < MAX_LEVEL:
            return Walked(root, nothing, nothing)
        pointers = Pointers.to_root(root.bytenr, root.generation)
        self._note(pointers, np.array([-1], np.int64), root.level, root.objectid)
        for level in range(root.level, 0, -1):
            rows, fresh = self._enter(pointers, level, root.objectid)
            self._read_inner(fresh, level, root.objectid, inspect, gone_before)
            pointers = _joined([self._below[row] for row in rows.tolist() if row in self._below])
        return Walked(root, *self._enter(pointers, 0, root.objectid))

    def read(self, rows: I64) -> tuple[Nodes, I64]:
        """Reads listed blocks of one tree and level: the usable ones and their rows. The others become `LOST`."""
        blocks = self.blocks
        if not len(rows):
            return Nodes(np.empty(0, np.uint8), self.reader.nodesize, np.empty(0, np.uint64)), rows
        head = blocks[rows[0]]
        nodes, index = self.reader.read(
            np.ascontiguousarray(blocks["bytenr"][rows]),
            level=int(head["level"]),
            tree=int(head["tree"]),
            generation=blocks["expected_generation"][rows],
        )
        blocks["state"][rows] = LOST
        good = rows[index]
        self.record(good, nodes)
        return nodes, good

    def record(self, rows: I64, nodes: Nodes) -> None:
        """Notes what the headers of blocks say that were read, here or in another process."""
        blocks = self.blocks
        blocks["state"][rows] = READ
        for name in ("generation", "owner", "flags", "nritems"):
            blocks[name][rows] = nodes.header[name]

    def _note(self, pointers: Pointers, parents: I64, level: int, tree: int) -> None:
        edge = self._edges.extend(len(pointers))
        edge["parent"], edge["child"], edge["generation"] = parents, pointers.blockptr, pointers.generation
        edge["tree"], edge["level"] = tree, level
        _put_key(edge["key"], pointers)

    def _enter(self, pointers: Pointers, level: int, tree: int) -> tuple[I64, I64]:
        """Rows of the blocks pointed to, in order, and the rows of those that are new.

        A block that was reached before at another level is left out of the first: the levels of the references to it
        tell of it.
        """
        unknown = np.flatnonzero(self.rows_of(pointers.blockptr) < 0)
        _, first = np.unique(pointers.blockptr[unknown], return_index=True)
        new = unknown[np.sort(first)]
        base = len(self._blocks)
        block = self._blocks.extend(len(new))
        block["bytenr"], block["expected_generation"] = pointers.blockptr[new], pointers.generation[new]
        _put_key(block["key"], pointers, new)
        _put_next_key(block["next_key"], pointers, new)
        block["tree"], block["level"] = tree, level
        fresh = np.arange(base, base + len(new), dtype=np.int64)
        self._row_of.update(zip(pointers.blockptr[new].tolist(), fresh.tolist(), strict=True))
        rows = self.rows_of(pointers.blockptr)
        return rows[self.blocks["level"][rows] == level], fresh

    def _read_inner(
        self,
        rows: I64,
        level: int,
        tree: int,
        inspect: InspectNodes,
        gone_before: tuple[int, int, int] | None,
    ) -> None:
        for start in range(0, len(rows), _INNER_BATCH):
            nodes, good = self.read(rows[start : start + _INNER_BATCH])
            if not len(nodes):
                continue
            inspect(nodes, good)
            pointers = nodes.pointers()
            if gone_before and any(gone_before):
                pointers = pointers.select(~_gone(pointers, self.blocks["next_key"][good], gone_before))
            self._note(pointers, good[pointers.node], level - 1, tree)
            bounds = np.searchsorted(pointers.node, np.arange(len(nodes) + 1)).tolist()
            for i, row in enumerate(good.tolist()):
                self._below[row] = pointers.select(slice(bounds[i], bounds[i + 1]))


def _gone(pointers: Pointers, next_keys: Rows, key: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Which pointers lead to nothing but keys before ``key``: those after which a key comes that is not beyond it.

    ``next_keys`` are the first keys after each node.
    """
    following = [np.append(column[1:], column[:1]) for column in (pointers.objectid, pointers.type, pointers.offset)]
    last = np.append(pointers.node[1:] != pointers.node[:-1], True) if len(pointers) else np.empty(0, bool)
    for column, name in zip(following, ("objectid", "type", "offset"), strict=True):
        column[last] = next_keys[name][pointers.node[last]]
    objectid, kind, offset = following
    same_object = objectid == np.uint64(key[0])
    same_type = same_object & (kind == np.uint8(key[1]))
    return np.asarray(
        (objectid < np.uint64(key[0]))
        | (same_object & (kind < np.uint8(key[1])))
        | (same_type & (offset <= np.uint64(key[2])))
    )


def _put_key(target: Rows, pointers: Pointers, which: I64 | slice = slice(None)) -> None:
    target["objectid"] = pointers.objectid[which]
    target["type"] = pointers.type[which]
    target["offset"] = pointers.offset[which]


def _put_next_key(target: Rows, pointers: Pointers, which: I64) -> None:
    """The key of the pointer after each one; the highest key there is after the last."""
    for name, highest in zip(("objectid", "type", "offset"), _LAST_KEY, strict=True):
        column = getattr(pointers, name)
        target[name] = np.append(column, np.array([highest], column.dtype))[which + 1]


def _joined(parts: list[Pointers]) -> Pointers:
    if not parts:
        return Pointers.to_root(0, 0).select(slice(0, 0))
    names = ("objectid", "type", "offset", "blockptr", "generation", "node", "slot")
    return Pointers(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
