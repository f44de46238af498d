"""What the checks of one run share: the filesystem, the blocks reached, columns that one check gathers for another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64
from cowlib.errors import Damage
from cowlib.filesystem import Filesystem
from cowlib.format import KeyType, RootItemV0, columns
from fsck_cow.batch import LeafBatch
from fsck_cow.problems import Problem, Report
from fsck_cow.walk import LOST, BlockTable, Walked

#: Leaves looked at in one go.
BATCH_LEAVES = 512

Rows = npt.NDArray[Any]


@dataclass
class Context:
    """One run.

    ``walked`` has every tree that was walked, by (object id, key offset) of its root item.  ``gathered`` holds
    columns by name, each a list of structured arrays that batches added; `Context.columns` joins them.  While a batch
    is looked at, what is gathered goes to ``incoming``, so that it can be handed on from wherever that happens.
    """

    fs: Filesystem
    report: Report
    blocks: BlockTable
    walked: dict[tuple[int, int], Walked] = field(default_factory=dict)
    gathered: dict[str, list[Rows]] = field(default_factory=dict)
    incoming: dict[str, list[Rows]] | None = None
    progress: Callable[[str, int, int], None] = lambda step, done, total: None

    @cached_property
    def dropping(self) -> dict[tuple[int, int], tuple[int, int, int]]:
        """Subvolumes that are being deleted, by (object id, key offset): what is before this key is gone already."""
        found = {}
        for nodes in self.fs.reader.leaves(self.fs.root_tree):
            items = nodes.items().of_type(KeyType.ROOT_ITEM)
            items = items.select(items.in_bounds & (items.size >= columns(RootItemV0).itemsize))
            rows = items.view(RootItemV0)
            for i in np.flatnonzero(rows["refs"] == 0).tolist():
                key = rows["drop_progress"][i]
                place = (int(items.objectid[i]), int(items.offset[i]))
                found[place] = (int(key["objectid"]), int(key["type"]), int(key["offset"]))
        return found

    def lost_trees(self) -> set[int]:
        """Object ids of the trees of which some block could not be read, however it was reached."""
        blocks = self.blocks.blocks
        lost = set(np.flatnonzero(blocks["state"] == LOST).tolist())
        if not lost:
            return set()
        trees = set()
        for (objectid, _), walked in self.walked.items():
            if any(row in lost for row in walked.leaves.tolist()) or objectid in blocks["tree"][list(lost)].tolist():
                trees.add(objectid)
        return trees

    def describe_damage(self, damage: Damage) -> Problem:
        """A block that no copy could give, and what is missing because of it."""
        row = int(self.blocks.rows_of(np.array([damage.logical], np.uint64))[0])
        message = damage.reason
        key = None
        if row >= 0:
            block = self.blocks.blocks[row]
            first, after = block["key"], block["next_key"]
            key = (int(first["objectid"]), int(first["type"]), int(first["offset"]))
            last = (int(after["objectid"]), int(after["type"]), int(after["offset"]))
            what = "leaf" if not block["level"] else f"node of level {int(block['level'])}"
            until = "the end of the tree" if last[1] == 255 else f"key {last}"
            message += f"; this {what} holds everything from key {key} up to {until}"
        return Problem("node.unreadable", message, logical=damage.logical, tree=damage.tree, key=key)

    def gather(self, name: str, rows: Rows) -> None:
        """Adds rows to the columns of this name."""
        target = self.gathered if self.incoming is None else self.incoming
        target.setdefault(name, []).append(rows)

    def columns(self, name: str, dtype: np.dtype[Any]) -> Rows:
        """All rows gathered under a name, in order; empty, of ``dtype``, where there are none."""
        parts = self.gathered.get(name, [])
        if len(parts) > 1:
            self.gathered[name] = parts = [np.concatenate(parts)]
        return parts[0] if parts else np.empty(0, dtype)

    def batches(self, tree: int, rows: I64) -> Iterator[LeafBatch]:
        """Reads listed leaves of one tree in batches."""
        for start in range(0, len(rows), BATCH_LEAVES):
            nodes, good = self.blocks.read(rows[start : start + BATCH_LEAVES])
            if len(nodes):
                yield LeafBatch(tree, nodes, good)

    def whole(self, walked: Walked) -> LeafBatch:
        """All leaves of one tree as a single batch: for the exact joins that a damaged filesystem needs."""
        nodes, good = self.blocks.read(walked.leaves)
        return LeafBatch(walked.root.objectid, nodes, good)
