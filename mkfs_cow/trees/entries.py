"""The items of directory entries: each name three times, by hash, by index, and with the inode that it leads to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cowlib.btree import ItemRows
from cowlib.checksum import extref_hashes_at, name_hashes_at
from cowlib.format import DirItem, FileType, InodeExtref, InodeRef, KeyType, ObjectId, columns
from mkfs_cow.trees.limits import beyond, item_room
from mkfs_cow.trees.rows import Ragged, ragged_rows

if TYPE_CHECKING:
    from cowlib.btree.nodes import I64
    from mkfs_cow.source.tables import Tree

#: The inode number of row 0 of a `Tree`, its top directory; row i has this number plus i.
FIRST_INODE = int(ObjectId.FIRST_FREE)

#: What a subvolume's entry in a directory has as its location's offset.
_ANY_SNAPSHOT = np.uint64(2**64 - 1)

#: A directory's first entry has this index: 0 and 1 stand for "." and "..".
_FIRST_INDEX = 2

#: `FileType` by the top four bits of a mode.
_FILE_TYPES = np.zeros(16, np.uint8)
for _mode, _type in (
    (0o01, FileType.FIFO),
    (0o02, FileType.CHRDEV),
    (0o04, FileType.DIR),
    (0o06, FileType.BLKDEV),
    (0o10, FileType.REG_FILE),
    (0o12, FileType.SYMLINK),
    (0o14, FileType.SOCK),
):
    _FILE_TYPES[_mode] = _type

Rows = npt.NDArray[np.uint32] | npt.NDArray[np.int64]


def entry_indices(parent: I64) -> I64:
    """Each directory entry's index in its directory, from 2; entries of a directory stand together: i8, (n,)."""
    order = np.arange(len(parent), dtype=np.int64)
    new = np.ones(len(order), bool)
    new[1:] = parent[1:] != parent[:-1]
    return order - np.maximum.accumulate(np.where(new, order, 0)) + _FIRST_INDEX


def _compact(rows: I64) -> Rows:
    """Row numbers in as few bytes as do: they stay in memory for long."""
    return rows.astype(np.uint32) if len(rows) < 1 << 32 else rows


class Entries:
    """The names of a tree in the orders that items have."""

    def __init__(self, tree: Tree, tree_ids: list[int], generation: int, nodesize: int) -> None:
        """``tree_ids`` are the tree ids of the subvolumes that `Names` refers to by number."""
        self._tree = tree
        self._names = names = tree.names
        self._tree_ids = np.array(tree_ids, np.int64)
        self._generation = generation
        self._text = Ragged.of(names.name)
        hashes = name_hashes_at(self._text.buffer, self._text.position, self._text.length)
        self._hash = hashes.astype(np.uint32)
        # Entries are sorted by parent, so this only turns those of each directory.
        self._by_hash = _compact(np.lexsort((hashes, names.parent)))
        self._index = _compact(entry_indices(names.parent))
        self._by_child, self._child = self._references_in_order()
        self._is_long = self._beyond_an_item(item_room(nodesize))

    def _references_in_order(self) -> tuple[Rows, Rows]:
        """The entries of inodes by inode, parent and index, and these inodes."""
        order = np.argsort(self._names.inode, kind="stable")
        order = order[np.count_nonzero(self._names.inode < 0) :]
        return _compact(order), _compact(self._names.inode[order])

    def _beyond_an_item(self, room: int) -> npt.NDArray[np.bool_] | None:
        """Which references, in their order, one INODE_REF can't hold; None if it can hold all."""
        rows = self._by_child
        size = self._text.length[rows] + columns(InodeRef).itemsize
        over = beyond(room, size, self._child, self._names.parent[rows])
        return over if over.any() else None

    def hash_cuts(self, first: int, last: int, step: int) -> Iterator[slice]:
        """The entries of one directory in the order of hashes, cut about every ``step`` where the hash changes."""
        while first < last:
            stop = min(first + step, last)
            while stop < last and self._hash[self._by_hash[stop]] == self._hash[self._by_hash[stop - 1]]:
                stop += 1
            yield slice(first, stop)
            first = stop

    def by_hash(self, place: slice) -> ItemRows:
        """DIR_ITEMs."""
        rows = self._by_hash[place].astype(np.int64)
        return self._entries(rows, KeyType.DIR_ITEM, self._hash[rows])

    def by_index(self, place: slice) -> ItemRows:
        """DIR_INDEX items."""
        rows = np.arange(place.start, place.stop, dtype=np.int64)
        return self._entries(rows, KeyType.DIR_INDEX, self._index[place])

    def _entries(self, rows: I64, kind: int, offset: npt.NDArray[np.uint32] | I64) -> ItemRows:
        text = self._text.select(rows)

        def heads() -> npt.NDArray[np.void]:
            inode = self._names.inode[rows]
            subvolume = inode < 0
            child = inode + FIRST_INODE
            child[subvolume] = self._tree_ids[~inode[subvolume]]
            items = np.zeros(len(rows), columns(DirItem))
            items["location"]["objectid"] = child
            items["location"]["type"] = np.where(subvolume, KeyType.ROOT_ITEM, KeyType.INODE_ITEM)
            items["location"]["offset"] = np.where(subvolume, _ANY_SNAPSHOT, np.uint64(0))
            items["transid"] = self._generation
            items["name_len"] = text.length
            modes = self._tree.mode[np.where(subvolume, 0, inode)]
            items["type"] = _FILE_TYPES[(modes >> np.uint32(12)) & np.uint32(15)]
            return items

        parent = self._names.parent[rows] + FIRST_INODE
        return ragged_rows(parent, kind, offset, columns(DirItem), heads, text.length, lambda: [text])

    def references(self, first: int, last: int) -> list[ItemRows]:
        """Back references of the inodes from ``first`` to ``last`` to their names: INODE_REF, and INODE_EXTREF for what
        that can't hold.
        """
        begin, end = np.searchsorted(self._child, [first, last]).tolist()
        rows = self._by_child[begin:end].astype(np.int64)
        if self._is_long is None:
            return [self._short_references(rows)]
        over = self._is_long[begin:end]
        return [self._short_references(rows[~over]), self._long_references(rows[over])]

    def _short_references(self, rows: I64) -> ItemRows:
        text = self._text.select(rows)

        def heads() -> npt.NDArray[np.void]:
            items = np.zeros(len(rows), columns(InodeRef))
            items["index"] = self._index[rows]
            items["name_len"] = text.length
            return items

        child, parent = self._names.inode[rows] + FIRST_INODE, self._names.parent[rows] + FIRST_INODE
        return ragged_rows(child, KeyType.INODE_REF, parent, columns(InodeRef), heads, text.length, lambda: [text])

    def _long_references(self, rows: I64) -> ItemRows:
        text = self._text.select(rows)
        hashes = extref_hashes_at(self._names.parent[rows] + FIRST_INODE, text.buffer, text.position, text.length)
        order = np.lexsort((hashes, self._names.inode[rows]))
        rows, hashes, text = rows[order], hashes[order], text.select(order)
        child, parent = self._names.inode[rows] + FIRST_INODE, self._names.parent[rows] + FIRST_INODE

        def heads() -> npt.NDArray[np.void]:
            items = np.zeros(len(rows), columns(InodeExtref))
            items["parent_objectid"] = parent
            items["index"] = self._index[rows]
            items["name_len"] = text.length
            return items

        return ragged_rows(
            child, KeyType.INODE_EXTREF, hashes, columns(InodeExtref), heads, text.length, lambda: [text]
        )

    def top_reference(self) -> ItemRows:
        """The INODE_REF ``..`` of the tree's top directory to itself."""

        def heads() -> npt.NDArray[np.void]:
            items = np.zeros(1, columns(InodeRef))
            items["name_len"] = 2
            return items

        top, text = np.array([FIRST_INODE]), Ragged(np.frombuffer(b"..", np.uint8), np.array([0]), np.array([2]))
        return ragged_rows(top, KeyType.INODE_REF, top, columns(InodeRef), heads, text.length, lambda: [text])
