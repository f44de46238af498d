"""Names joined: each entry's two items, the reference back to it, the inode it points to, the directory's size.

In a healthy subvolume these sums are all zero (see `fsck_cow.ledger`), name by name and inode by inode:

- an entry under DIR_INDEX, less its reference under INODE_REF or INODE_EXTREF,
- an entry under DIR_INDEX, less the one under DIR_ITEM,
- an inode with its type, once for each link it counts, less every DIR_INDEX that points to it with that type,
- a directory's size, less the lengths of all names in it, which stand there twice,
- the link of the top directory, less its reference to itself.

They are added to one sum: where it is zero all rules hold, and link counts as well, since they follow from the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64, U64
from cowlib.format import FileType, FileTypeFlag, KeyType, ObjectId
from fsck_cow.batch import Entries, LeafBatch
from fsck_cow.checks.inodes import file_types, is_inode
from fsck_cow.ledger import Posting, ledger, minus, mix, times
from fsck_cow.problems import Problem, Severity

_NOT_ENCRYPTED = np.uint8(0xFF ^ FileTypeFlag.ENCRYPTED)
_TOP = np.uint64(ObjectId.FIRST_FREE)
_TOP_LINK = np.uint64(0xC2B2AE3D27D4EB4F)
_NOTHING = np.uint64(0)
_LONGEST_TOLD = 255

CODES = (
    "name.unmatched",
    "name.no-inode-ref",
    "name.no-dir-item",
    "name.no-dir-index",
    "name.index-differs",
    "name.type-differs",
    "name.twice",
    "name.not-in-directory",
    "inode.missing",
    "inode.nlink-wrong",
    "inode.directory-size",
    "inode.half-dropped",
)


def _entry_values(entries: Entries) -> U64:
    """One number for what a DIR_ITEM and a DIR_INDEX must say alike."""
    location = entries.rows["location"]
    return mix(
        entries.objectid,
        entries.fingerprint,
        location["objectid"],
        location["type"].astype(np.uint64) << np.uint64(8) | entries.rows["type"],
    )


def _size_values(entries: Entries) -> U64:
    return times(mix(entries.objectid), entries.length)


def explain(batch: LeafBatch) -> Iterator[Problem]:
    """Joins the names of a whole subvolume exactly."""
    yield from _Joined(batch).problems()


@ledger("names", CODES, explain)
def names_agree(batch: LeafBatch) -> Iterator[Posting]:
    """What a batch has of the sums above."""
    inodes, rows = batch.inodes.items, batch.inodes.rows
    kind = file_types(rows["mode"])
    links = times(mix(inodes.objectid, kind), rows["nlink"])
    top = inodes.objectid == _TOP
    links[top] = times(np.full(int(np.count_nonzero(top)), _TOP_LINK), rows["nlink"][top])
    directory = np.flatnonzero(kind == FileType.DIR)
    links[directory] += times(mix(inodes.objectid[directory]), rows["size"][directory])
    yield inodes.node, np.where(inodes.objectid <= np.uint64(ObjectId.LAST_FREE), links, _NOTHING)
    indexes = batch.dir_indexes
    if len(indexes):
        location = indexes.rows["location"]
        target = location["objectid"]
        named = mix(indexes.objectid, indexes.offset, indexes.fingerprint, target)
        named -= mix(target, indexes.rows["type"] & _NOT_ENCRYPTED)
        value = np.where(location["type"] == KeyType.INODE_ITEM, named, _NOTHING)
        yield indexes.node, value + _entry_values(indexes) - _size_values(indexes)
    items = batch.dir_items
    if len(items):
        yield items.node, minus(_entry_values(items) + _size_values(items))
    for refs, parent in ((batch.inode_refs, "offset"), (batch.inode_extrefs, "parent_objectid")):
        if len(refs):
            above = refs.offset if parent == "offset" else refs.rows[parent]
            value = mix(above, refs.rows["index"], refs.fingerprint, refs.objectid)
            own = (above == refs.objectid) & (above == _TOP)
            yield refs.node, minus(np.where(own, _TOP_LINK, value))


@dataclass(frozen=True)
class _Side:
    """One of three sides a name has: for each, whom it names (inode or subvolume), in which directory, and how.

    ``place`` is the index of each among ``entries``, ``index`` the DIR_INDEX offset, 0 on the side that knows none.
    """

    entries: Entries
    place: I64
    child: U64
    subvolume: npt.NDArray[np.bool_]
    parent: U64
    mark: U64
    index: U64


class _Joined:
    """All names of a subvolume, one group for each inode, directory and name: which of the three items each has."""

    def __init__(self, batch: LeafBatch) -> None:
        self.batch = batch
        self.tree = batch.tree
        self.items = _entry_side(batch.dir_items, with_index=False)
        self.indexes = _entry_side(batch.dir_indexes, with_index=True)
        self.refs = _ref_side(batch.inode_refs, batch.inode_refs.offset)
        self.extrefs = _ref_side(batch.inode_extrefs, batch.inode_extrefs.rows["parent_objectid"])
        self.sides = (self.items, self.indexes, self.refs, self.extrefs)

    def _column(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(side, name) for side in self.sides])

    @cached_property
    def group(self) -> I64:
        """The group of each row of all sides, one side after the other."""
        keys = [self._column(name) for name in ("mark", "parent", "subvolume", "child")]
        order = np.lexsort(keys)
        new = np.ones(len(order), bool)
        new[1:] = False
        for key in keys:
            new[1:] |= key[order][1:] != key[order][:-1]
        group = np.empty(len(order), np.int64)
        group[order] = np.cumsum(new) - 1
        return group

    @cached_property
    def parts(self) -> list[I64]:
        """The groups of the rows of each side."""
        return np.split(self.group, np.cumsum([len(side.place) for side in self.sides])[:-1])

    def _counts(self, number: int) -> I64:
        groups = int(self.group.max()) + 1 if len(self.group) else 0
        return np.bincount(self.parts[number], minlength=groups)

    def _first(self, number: int) -> I64:
        """The first row of a side in each group, -1 where it has none."""
        first = np.full(int(self.group.max()) + 1 if len(self.group) else 0, -1, np.int64)
        part = self.parts[number]
        first[part[::-1]] = np.arange(len(part))[::-1]
        return first

    def problems(self) -> Iterator[Problem]:
        """Everything that does not agree."""
        yield from self._lone_names()
        yield from self._types()
        yield from self._links()
        yield from self._directories()

    def _name(self, number: int, row: int) -> tuple[tuple[int, int, int], bytes]:
        side = self.sides[number]
        place = int(side.place[row])
        entries = side.entries
        return entries.items.key(int(entries.item[place])), entries.name(place)

    def _tell(self, code: str, message: str, number: int, row: int, found: Any = None, expected: Any = None) -> Problem:
        key, name = self._name(number, row)
        text = f"{message}: {name[:_LONGEST_TOLD]!r}"
        return Problem(code, text, tree=self.tree, key=key, found=found, expected=expected)

    def _lone_names(self) -> Iterator[Problem]:
        item, index = self._counts(0), self._counts(1)
        ref = self._counts(2) + self._counts(3)
        first = [self._first(number) for number in range(4)]
        best = np.where(first[1] >= 0, 1, np.where(first[0] >= 0, 0, np.where(first[2] >= 0, 2, 3)))
        subvolume = np.zeros(len(item), bool)
        subvolume[self.group] = self._column("subvolume")
        for code, message, wrong in (
            ("name.no-dir-item", "name has no directory item", item == 0),
            ("name.no-dir-index", "name has no directory index", index == 0),
            (
                "name.no-inode-ref",
                "the inode does not refer back to the directory by this name",
                (ref == 0) & ~subvolume,
            ),
            ("name.twice", "name of the same inode stands twice in a directory", (item > 1) | (index > 1) | (ref > 1)),
        ):
            for group in np.flatnonzero(wrong).tolist():
                number = int(best[group])
                yield self._tell(code, message, number, int(first[number][group]))
        back = np.full(len(item), 0, np.uint64)
        for number in (2, 3):
            has = first[number] >= 0
            back[has] = self.sides[number].index[first[number][has]]
        both = np.flatnonzero((index > 0) & (ref > 0))
        there = self.indexes.index[first[1][both]]
        for i in np.flatnonzero(there != back[both]).tolist():
            group = both[i]
            message = "directory index and the inode's reference do not say the same index"
            row = int(first[1][group])
            yield self._tell("name.index-differs", message, 1, row, int(there[i]), int(back[group]))

    @cached_property
    def _inode_order(self) -> I64:
        return np.argsort(self.batch.inodes.items.objectid, kind="stable")

    def _inode(self, objectid: U64) -> I64:
        """The index of each inode's item, -1 where there is none."""
        order = self._inode_order
        numbers = self.batch.inodes.items.objectid[order]
        if not len(numbers):
            return np.full(len(objectid), -1, np.int64)
        place = np.minimum(np.searchsorted(numbers, objectid), len(numbers) - 1)
        return np.where(numbers[place] == objectid, order[place], -1)

    def _types(self) -> Iterator[Problem]:
        """What an entry says of the type of its inode is so, and the inode is there."""
        modes = self.batch.inodes.rows["mode"]
        for number in (0, 1):
            side = self.sides[number]
            inode = self._inode(side.child)
            known = np.flatnonzero((inode >= 0) & ~side.subvolume)
            said = (side.entries.rows["type"][side.place] & _NOT_ENCRYPTED)[known]
            wanted = file_types(modes[inode[known]])
            for i in np.flatnonzero(said != wanted).tolist():
                message = "type of a directory entry is not that of its inode"
                row = int(known[i])
                yield self._tell("name.type-differs", message, number, row, int(said[i]), int(wanted[i]))
        targets = np.concatenate([self.items.child[~self.items.subvolume], self.indexes.child[~self.indexes.subvolume]])
        targets = np.unique(targets)
        for objectid in targets[self._inode(targets) < 0].tolist():
            key = (objectid, int(KeyType.INODE_ITEM), 0)
            yield Problem(
                "inode.missing", "directory entry points to an inode that is not there", tree=self.tree, key=key
            )

    def _links(self) -> Iterator[Problem]:
        """Link counts, over all names that any side knows of."""
        heads = self.batch.inodes
        groups = int(self.group.max()) + 1 if len(self.group) else 0
        child, subvolume = np.zeros(groups, np.uint64), np.zeros(groups, bool)
        child[self.group], subvolume[self.group] = self._column("child"), self._column("subvolume")
        inode = self._inode(child[~subvolume])
        counted = np.bincount(inode[inode >= 0], minlength=len(heads.items))
        top = heads.items.objectid == _TOP
        own = self._own_refs()
        nlink = heads.rows["nlink"]
        wrong = (nlink != counted) & is_inode(heads.items.objectid) & ~top
        for i in np.flatnonzero(wrong).tolist():
            yield Problem(
                "inode.nlink-wrong",
                "link count is not the number of names",
                tree=self.tree,
                key=heads.items.key(i),
                found=int(nlink[i]),
                expected=int(counted[i]),
            )
        for i in np.flatnonzero(top & ((nlink != own) | (counted > 0))).tolist():
            message = "top directory has another number of links than references to itself, or stands in a directory"
            yield Problem("inode.nlink-wrong", message, tree=self.tree, key=heads.items.key(i), found=int(nlink[i]))

    def _own_refs(self) -> int:
        refs = self.batch.inode_refs
        return int(np.count_nonzero((refs.objectid == _TOP) & (refs.offset == _TOP)))

    def _directories(self) -> Iterator[Problem]:
        """Sizes of directories; entries under what is none."""
        heads = self.batch.inodes
        total = np.zeros(len(heads.items), np.int64)
        for entries in (self.batch.dir_items, self.batch.dir_indexes):
            inode = self._inode(entries.objectid)
            known = inode >= 0
            total += np.bincount(inode[known], entries.length[known], len(total)).astype(np.int64)
        directory = file_types(heads.rows["mode"]) == FileType.DIR
        size = heads.rows["size"]
        wrong = directory & (size != total.astype(np.uint64)) & is_inode(heads.items.objectid)
        for i in np.flatnonzero(wrong).tolist():
            dropped = int(heads.rows["nlink"][i]) == 0
            yield Problem(
                "inode.half-dropped" if dropped else "inode.directory-size",
                "size of a directory is not twice the sum of its names' lengths",
                Severity.NOTE if dropped else Severity.ERROR,
                tree=self.tree,
                key=heads.items.key(i),
                found=int(size[i]),
                expected=int(total[i]),
            )
        for i in np.flatnonzero(~directory & (total > 0)).tolist():
            yield Problem(
                "name.not-in-directory",
                "directory entries of an inode that is no directory",
                tree=self.tree,
                key=heads.items.key(i),
            )


def _entry_side(entries: Entries, *, with_index: bool) -> _Side:
    location = entries.rows["location"]
    place = np.arange(len(entries), dtype=np.int64)
    index = entries.offset if with_index else np.zeros(len(entries), np.uint64)
    subvolume = location["type"] == KeyType.ROOT_ITEM
    return _Side(entries, place, location["objectid"], subvolume, entries.objectid, entries.fingerprint, index)


def _ref_side(refs: Entries, parent: U64) -> _Side:
    """References to names, without the top directory's to itself."""
    keep = np.flatnonzero((parent != refs.objectid) | (parent != _TOP))
    none = np.zeros(len(keep), bool)
    index = refs.rows["index"][keep]
    return _Side(refs, keep, refs.objectid[keep], none, parent[keep], refs.fingerprint[keep], index)
