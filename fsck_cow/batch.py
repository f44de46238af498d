"""A batch of leaves and what checks want of it: payload heads by kind, names one by one, all as columns.

Everything is decoded at most once a batch, and only if a check asks.  Payloads that are too short for their kind, or
lie outside of their leaf, are left out of the columns: `fsck_cow.checks.nodes` is the one that reports them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import Items, Nodes, gather
from cowlib.btree.nodes import I64, U64, Bytes
from cowlib.checksum import Words, words_at
from cowlib.format import (
    DirItem,
    FileExtentHead,
    FileExtentItem,
    FileExtentType,
    InodeExtref,
    InodeItem,
    InodeRef,
    KeyType,
    columns,
)
from fsck_cow.fingerprint import fingerprints

Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class Heads:
    """Items of one kind: the items, and the heads of their payloads, both of length n."""

    items: Items
    rows: Rows


@dataclass(frozen=True)
class Entries:
    """Names inside items (directory entries, inode references, attributes): several may share one item.

    ``item`` i8 is the index in ``items``; ``rows`` the fixed heads; the name is ``buffer[position : position +
    length]``, and what follows it (an attribute's value) ``data_length`` bytes more. All of length n.
    """

    items: Items
    item: I64
    rows: Rows
    position: I64
    length: I64
    data_length: I64

    def __len__(self) -> int:
        return len(self.item)

    @property
    def buffer(self) -> Bytes:
        """What positions count in."""
        return self.items.buffer

    @property
    def objectid(self) -> U64:
        """The object id of each entry's key."""
        return self.items.objectid[self.item]

    @property
    def offset(self) -> U64:
        """The offset of each entry's key."""
        return self.items.offset[self.item]

    @property
    def node(self) -> I64:
        """The leaf of each entry, as an index in the batch."""
        return self.items.node[self.item]

    @cached_property
    def words(self) -> list[Words]:
        """The names eight bytes at a time."""
        return list(words_at(self.buffer, self.position, self.length))

    @cached_property
    def fingerprint(self) -> U64:
        """A 64-bit number for each name."""
        return fingerprints(self.length, self.words)

    def name(self, i: int) -> bytes:
        """The name of entry ``i``."""
        start = int(self.position[i])
        return self.buffer[start : start + int(self.length[i])].tobytes()


@dataclass(eq=False)
class LeafBatch:
    """Leaves of one tree: ``tree`` is its object id, ``rows`` i8 their rows in the block table, in key order."""

    tree: int
    nodes: Nodes
    rows: I64

    @cached_property
    def items(self) -> Items:
        """All items, in order."""
        return self.nodes.items()

    def heads(self, struct: Any, *types: int) -> Heads:
        """Items of these types whose payload is long enough for ``struct``, with their heads."""
        items = self.items.of_type(*types)
        size = columns(struct).itemsize
        whole = items.in_bounds & (items.size >= size)
        if not whole.all():
            items = items.select(whole)
        return Heads(items, gather(items.buffer, items.position, columns(struct)))

    @cached_property
    def inodes(self) -> Heads:
        """INODE_ITEMs."""
        return self.heads(InodeItem, KeyType.INODE_ITEM)

    @cached_property
    def file_extents(self) -> Heads:
        """EXTENT_DATA items of any type, as far as their heads go (21 bytes)."""
        return self.heads(FileExtentHead, KeyType.EXTENT_DATA)

    @cached_property
    def regular_places(self) -> I64:
        """Which of `file_extents` are not inline, and whole."""
        heads = self.file_extents
        long_enough = heads.items.size >= columns(FileExtentItem).itemsize
        return np.flatnonzero((heads.rows["type"] != FileExtentType.INLINE) & long_enough)

    @cached_property
    def regular_extents(self) -> Heads:
        """EXTENT_DATA items that are not inline, whole (53 bytes), in the order of `regular_places`."""
        items = self.file_extents.items.select(self.regular_places)
        return Heads(items, gather(items.buffer, items.position, columns(FileExtentItem)))

    @cached_property
    def extent_inodes(self) -> I64:
        """The index in `inodes` of the inode of each of `file_extents`, -1 where it does not stand in the same leaf."""
        inodes, items = self.inodes.items, self.file_extents.items
        if not len(inodes):
            return np.full(len(items), -1, np.int64)
        room = np.int64(1 << 20)
        before = np.searchsorted(inodes.node * room + inodes.slot, items.node * room + items.slot) - 1
        same = (inodes.objectid[before] == items.objectid) & (inodes.node[before] == items.node) & (before >= 0)
        return np.where(same, before, -1)

    @cached_property
    def dir_items(self) -> Entries:
        """Entries of DIR_ITEMs."""
        return self.entries(DirItem, KeyType.DIR_ITEM)

    @cached_property
    def dir_indexes(self) -> Entries:
        """Entries of DIR_INDEX items."""
        return self.entries(DirItem, KeyType.DIR_INDEX)

    @cached_property
    def xattrs(self) -> Entries:
        """Extended attributes."""
        return self.entries(DirItem, KeyType.XATTR_ITEM)

    @cached_property
    def inode_refs(self) -> Entries:
        """Names in INODE_REFs."""
        return self.entries(InodeRef, KeyType.INODE_REF)

    @cached_property
    def inode_extrefs(self) -> Entries:
        """Names in INODE_EXTREFs."""
        return self.entries(InodeExtref, KeyType.INODE_EXTREF)

    def entries(self, struct: Any, kind: int) -> Entries:
        """The entries of all items of a kind: a round for each entry that the fullest item holds.

        An entry that does not lie inside its item ends the item there.
        """
        items = self.items.of_type(kind)
        dtype = columns(struct)
        has_data = "data_len" in (dtype.names or ())
        found: list[tuple[I64, Rows, I64, I64, I64]] = []
        index = np.flatnonzero(items.in_bounds)
        position, end = items.position[index], (items.position + items.size)[index]
        while len(index):
            fits = position + dtype.itemsize <= end
            index, position, end = index[fits], position[fits], end[fits]
            rows = gather(items.buffer, position, dtype)
            length = rows["name_len"].astype(np.int64)
            data = rows["data_len"].astype(np.int64) if has_data else np.zeros(len(rows), np.int64)
            start = position + dtype.itemsize
            fits = start + length + data <= end
            if not fits.all():
                index, rows, start, end = index[fits], rows[fits], start[fits], end[fits]
                length, data = length[fits], data[fits]
            found.append((index, rows, start, length, data))
            position = start + length + data
            more = position < end
            index, position, end = index[more], position[more], end[more]
        if len(found) == 1:
            return Entries(items, *found[0])
        if not found:
            nothing = np.empty(0, np.int64)
            return Entries(items, nothing, np.empty(0, dtype), nothing, nothing, nothing)
        item, rows, start, length, data = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((start, item))
        return Entries(items, item[order], rows[order], start[order], length[order], data[order])
