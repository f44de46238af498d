"""Walking the trees: which nodes are printed, in which order, under which titles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from cow_debug_tree.printers.listing import Form, Style
from cow_debug_tree.printers.nodes import TEXT, Batch, Run, page
from cow_debug_tree.titles import ALONE, Wishes, backups, start, title, totals
from cowlib.btree import Nodes, Pointers, TreeReader, TreeRoot
from cowlib.errors import Damage, UsageError
from cowlib.filesystem import Filesystem
from cowlib.format import MAX_LEVEL, ObjectId

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

#: Bytes of nodes that are printed at once.
BATCH_BYTES = 4 << 20

#: The same where every checksum of data becomes text, which is several times longer.
BATCH_BYTES_WITH_CSUMS = 1 << 20

_NOWHERE = np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class Stretch:
    """Nodes of one tree and one level that are printed one after another, under a title.

    ``nodes`` are inner nodes, which had to be read to find what is below; else ``bytenr`` and ``generation``
    (n,) point to leaves. ``is_root`` says that the pointer to the only leaf comes from a root item, and need
    not be right.
    """

    title: bytes
    tree: int | None
    nodes: Nodes | None = None
    bytenr: U64 = field(default_factory=lambda: _NOWHERE)
    generation: U64 = field(default_factory=lambda: _NOWHERE)
    is_root: bool = False

    def __len__(self) -> int:
        return len(self.bytenr) if self.nodes is None else len(self.nodes)

    def cut(self, count: int) -> tuple[Stretch, Stretch]:
        """The first ``count`` leaves, and the others without a title."""
        head, tail = slice(0, count), slice(count, None)
        return (
            Stretch(self.title, self.tree, None, self.bytenr[head], self.generation[head], self.is_root),
            Stretch(b"", self.tree, None, self.bytenr[tail], self.generation[tail], self.is_root),
        )


@dataclass
class Task:
    """What is printed in one go. ``full`` says that more will follow."""

    stretches: list[Stretch] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    full: bool = False


@dataclass
class Data:
    """The nodes of a task, and what was wrong with others."""

    batch: Batch
    complaints: list[str]


class Dump:
    """The text of a filesystem's trees, as tasks which can be done one by one, or every other one."""

    def __init__(self, fs: Filesystem, wishes: Wishes, style: Style, form: Form = TEXT) -> None:
        self._fs = fs
        self._reader = fs.reader  # for inner nodes
        self._damage: list[Damage] = []  # among leaves, which are read in a thread of their own
        self._leaf_reader = replace(fs.reader, damage=self._damage)
        self._wishes = wishes
        self._style = style
        self._form = form
        self._batch = max(1, (BATCH_BYTES_WITH_CSUMS if style.csum_items else BATCH_BYTES) // fs.nodesize)
        self._complaints: list[str] = []  # about the trees' shapes, until a task takes them

    def tasks(self) -> Iterator[Task]:
        """Everything there is to print, in order. Reads inner nodes only, and what the root tree says."""
        task, room = Task(), self._batch
        for stretch in self._stretches():
            while True:
                fits, stretch = stretch.cut(room) if stretch.nodes is None else (stretch, Stretch(b"", None))
                task.stretches.append(fits)
                room -= len(fits)
                task.complaints += self._found()
                if room > 0:
                    break
                task.full = True
                yield task
                task, room = Task(), self._batch
                if not len(stretch):
                    break
        task.complaints += self._found()
        yield task

    def _found(self) -> list[str]:
        """What was found wrong while walking, since the last call."""
        found = self._complaints + list(map(str, self._reader.damage))
        self._complaints = []
        self._reader.damage.clear()
        return found

    def read(self, task: Task) -> Data:
        """What a task prints: reads its leaves."""
        batch = self._batch_of(task)
        # Leaves of several trees are read at once; only we know which is whose.
        trees = {int(at): some.tree for some in task.stretches for at in some.bytenr} if self._damage else {}
        damage = [Damage(one.logical, one.reason, trees.get(one.logical)) for one in self._damage]
        self._damage.clear()
        return Data(batch, list(dict.fromkeys(task.complaints + list(map(str, damage)))))

    def render(self, data: Data) -> tuple[bytearray, list[str]]:
        """The text, and complaints about what could not be read or understood."""
        text, complaints = page(data.batch, self._style, self._form)
        return text, data.complaints + complaints

    # -- what to print ---------------------------------------------------------------------------------------

    def _stretches(self) -> Iterator[Stretch]:
        wishes, fs = self._wishes, self._fs
        if wishes.blocks:
            for bytenr in dict.fromkeys(sorted(wishes.blocks)):
                yield from self._block(bytenr)
            return
        if wishes.tree is not None and wishes.tree in ALONE:
            yield from self._tree(self._alone(wishes.tree), ALONE[wishes.tree])
            return
        fixed = [("root", fs.root_tree), ("chunk", fs.chunk_tree)]
        fixed += [("log root", fs.log_root)] if fs.log_root else []
        if not wishes.extents and not wishes.uuid and wishes.tree is None:
            for name, root in fixed:
                if wishes.roots:
                    yield Stretch(start(name, root), root.objectid)
                else:
                    yield from self._tree(root, f"{name} tree\n".encode())
        found = False
        for root in self._roots():
            if wishes.shows(root.objectid):
                found = True
                yield from self._tree(root, title(root, wishes))
        if wishes.tree is not None and not found:
            self._complaints.append(f"there is no tree with id {wishes.tree}")
        if not wishes.restricted:
            text = backups(fs.superblock) if wishes.backups else b""
            yield Stretch(text + totals(fs.superblock), None)

    def _roots(self) -> Iterator[TreeRoot]:
        yield from self._fs.roots
        if self._fs.log_root:
            yield from self._fs.roots_in(self._fs.log_root)

    def _alone(self, tree: int) -> TreeRoot:
        if tree == ObjectId.TREE_LOG:
            if self._fs.log_root is None:
                raise UsageError("there is no log tree")
            return self._fs.log_root
        return self._fs.root(tree)

    def _block(self, bytenr: int) -> Iterator[Stretch]:
        if bytenr % self._fs.sectorsize:
            self._complaints.append(f"block {bytenr} is not aligned to {self._fs.sectorsize} bytes")
            return
        nodes, _ = self._reader.read(np.array([bytenr], np.uint64), level=None)
        if len(nodes) and self._wishes.follow:
            yield from self._below(nodes, None, b"")
        elif len(nodes):
            inner = int(nodes.header["level"][0]) > 0
            yield Stretch(b"", None, nodes) if inner else self._leaves(nodes, None, b"")

    # -- trees -----------------------------------------------------------------------------------------------

    def _tree(self, root: TreeRoot, text: bytes) -> Iterator[Stretch]:
        """A whole tree. One whose root cannot be read has no title either."""
        if root.generation < self._wishes.min_transid:
            return
        if self._wishes.roots:
            yield Stretch(text, root.objectid)
            return
        bytenr, generation = np.array([root.bytenr], np.uint64), np.array([root.generation], np.uint64)
        if root.level == 0:
            yield Stretch(text, root.objectid, None, bytenr, generation, is_root=True)
            return
        nodes, _ = self._reader.read(bytenr, level=root.level, tree=root.objectid, generation=generation)
        if not len(nodes):
            nodes = self._reader_of_anything().read(bytenr, level=None)[0]
        if len(nodes):
            yield from self._below(nodes, root.objectid, text)

    def _reader_of_anything(self) -> TreeReader:
        """Reads a node that is not what was promised, which has been complained about."""
        return replace(self._reader, damage=[])

    def _leaves(self, nodes: Nodes, tree: int | None, text: bytes) -> Stretch:
        return Stretch(text, tree, None, nodes.bytenr, np.ascontiguousarray(nodes.header["generation"]))

    def _below(self, top: Nodes, tree: int | None, text: bytes) -> Iterator[Stretch]:
        """One node and everything below it."""
        level = int(top.header["level"][0])
        if level == 0:
            yield self._leaves(top, tree, text)
        elif self._wishes.depth_first and not self._wishes.extents:
            yield from self._depth_first(top, level, tree, text, [set() for _ in range(MAX_LEVEL)])
        else:
            yield from self._breadth_first(top, level, tree, text)

    def _breadth_first(self, top: Nodes, level: int, tree: int | None, text: bytes) -> Iterator[Stretch]:
        leaves_only = self._wishes.extents
        yield Stretch(text, tree, None if leaves_only else top)
        bytenr, generation = self._children([top.pointers()], tree)
        for below in range(level - 1, 0, -1):
            pointers = []
            for nodes in self._read_inner(bytenr, generation, below, tree):
                pointers.append(nodes.pointers())
                if not leaves_only:
                    yield Stretch(b"", tree, nodes)
            bytenr, generation = self._children(pointers, tree)
        yield Stretch(b"", tree, None, bytenr, generation)

    def _depth_first(
        self, nodes: Nodes, level: int, tree: int | None, text: bytes, seen: list[set[int]]
    ) -> Iterator[Stretch]:
        for nth in range(len(nodes)):
            one = nodes.select(slice(nth, nth + 1))
            yield Stretch(b"" if nth else text, tree, one)
            bytenr, generation = self._children([one.pointers()], tree, seen[level])
            if level == 1:
                yield Stretch(b"", tree, None, bytenr, generation)
                continue
            for below in self._read_inner(bytenr, generation, level - 1, tree):
                yield from self._depth_first(below, level - 1, tree, b"", seen)

    def _read_inner(self, bytenr: U64, generation: U64, level: int, tree: int | None) -> Iterator[Nodes]:
        for first in range(0, len(bytenr), self._batch):
            some = slice(first, first + self._batch)
            nodes, _ = self._reader.read(bytenr[some], level=level, tree=tree, generation=generation[some])
            yield nodes

    def _children(self, pointers: list[Pointers], tree: int | None, seen: set[int] | None = None) -> tuple[U64, U64]:
        """Addresses and generations of children, each once: a crafted tree must not become longer than its
        device.

        ``seen`` are those that were found before, to which these are added.
        """
        bytenr = np.concatenate([_NOWHERE, *(some.blockptr for some in pointers)])
        generation = np.concatenate([_NOWHERE, *(some.generation for some in pointers)])
        keep = np.zeros(len(bytenr), np.bool_)
        keep[np.unique(bytenr, return_index=True)[1]] = True
        if seen is not None:
            keep &= np.fromiter((address not in seen for address in bytenr.tolist()), np.bool_, len(bytenr))
            seen.update(bytenr.tolist())
        if not keep.all():
            where = "" if tree is None else f" of tree {tree}"
            twice = np.unique(bytenr[~keep])
            self._complaints += [f"block {address}{where} is pointed to more than once" for address in twice]
        keep &= generation >= np.uint64(self._wishes.min_transid)
        return bytenr[keep], generation[keep]

    # -- printing --------------------------------------------------------------------------------------------

    def _batch_of(self, task: Task) -> Batch:
        """Reads the leaves of a task."""
        leaves, index = self._read_leaves([some for some in task.stretches if some.nodes is None])
        inner = [stretch.nodes for stretch in task.stretches if stretch.nodes is not None]
        runs = []
        inner_at = leaf_at = 0
        for stretch in task.stretches:
            if stretch.nodes is not None:
                runs.append(Run(stretch.title, stretch.tree or 0, True, inner_at, len(stretch)))
                inner_at += len(stretch)
            else:
                first, end = np.searchsorted(index, (leaf_at, leaf_at + len(stretch))).tolist()
                runs.append(Run(stretch.title, stretch.tree or 0, False, first, end - first))
                leaf_at += len(stretch)
        return Batch(_together(inner, self._fs.nodesize), leaves, runs)

    def _read_leaves(self, stretches: list[Stretch]) -> tuple[Nodes, I64]:
        """The leaves that can be read, and their indices among all.

        A root that is a leaf, but not the one that was promised, is better than nothing.
        """
        bytenr = np.concatenate([_NOWHERE, *(some.bytenr for some in stretches)])
        generation = np.concatenate([_NOWHERE, *(some.generation for some in stretches)])
        nodes, index = self._leaf_reader.read(bytenr, level=0, generation=generation)
        if len(index) == len(bytenr):
            return nodes, index
        is_root = np.repeat([some.is_root for some in stretches], [len(some) for some in stretches])
        lost = np.setdiff1d(np.flatnonzero(is_root), index)
        others, found = self._reader_of_anything().read(bytenr[lost], level=None)
        leaf = others.header["level"] == 0
        both = _together([nodes, others.select(leaf)], nodes.nodesize)
        index = np.concatenate([index, lost[found][leaf]])
        order = np.argsort(index)
        return both.select(order), index[order]


def _together(batches: list[Nodes], nodesize: int) -> Nodes:
    if len(batches) == 1:
        return batches[0]
    buffer = np.concatenate([np.empty(0, np.uint8), *(nodes.buffer for nodes in batches)])
    return Nodes(buffer, nodesize, np.concatenate([_NOWHERE, *(nodes.bytenr for nodes in batches)]))
