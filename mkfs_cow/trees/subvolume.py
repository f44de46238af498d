"""The items of a subvolume's tree, told in batches of neighbouring inodes; all from columns.

Every key begins with an inode number, so the items of a few thousand inodes are some rows of each table, and merging
those is merging a small part of the tree. What has no end in one inode, the entries of a directory and the extents of a
file, is divided further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import ItemBatch, ItemRows
from cowlib.btree.nodes import I64
from cowlib.checksum import name_hashes_at
from cowlib.format import (
    DirItem,
    FileExtentHead,
    FileExtentItem,
    FileExtentType,
    FileType,
    InodeItem,
    KeyType,
    columns,
)
from mkfs_cow.source.tables import Tree
from mkfs_cow.trees.entries import FIRST_INODE, Entries
from mkfs_cow.trees.rows import Ragged, fixed_rows, ragged_rows

if TYPE_CHECKING:
    from mkfs_cow.data.extents import Extents

#: About so many bytes of leaves are made at a time.
_BATCH_BYTES = 8 << 20

#: What an inode, an entry of a directory, and an extent weigh at least: their items, in bytes.
_INODE_BYTES, _ENTRY_BYTES, _EXTENT_BYTES = 250, 160, 78

#: Entries or extents that are told apart from the rest of their inode, and how many of them at a time.
_MANY = 1 << 15


@dataclass(frozen=True)
class _Part:
    """Rows of the tables whose items stand together in the tree: inodes, entries by hash and by index, extents."""

    inodes: slice
    by_hash: slice
    by_index: slice
    extents: slice


class SubvolumeItems:
    """All items of one subvolume's tree, an `ItemSource`."""

    def __init__(
        self,
        tree: Tree,
        tree_ids: list[int],
        nbytes: npt.NDArray[np.uint64],
        extents: Extents,
        number: int,
        generation: int,
        nodesize: int,
    ) -> None:
        """``tree_ids`` are the tree ids of the subvolumes that `Names` refers to by number, ``nbytes`` u8 (rows,);
        ``number`` says which of the trees in ``extents`` this one is.
        """
        self._tree = tree
        self._nbytes = nbytes
        self._extents = extents
        self._generation = generation
        self._entries = Entries(tree, tree_ids, generation, nodesize)
        self._first_extent, self._end_extent = np.searchsorted(extents.tree, [number, number + 1]).tolist()
        self._parts = list(self._divided())

    def batches(self) -> Iterator[ItemBatch]:
        """The items in key order, as `ItemSource` has it."""
        for part in self._parts:
            first, last = part.inodes.start, part.inodes.stop
            yield ItemBatch(
                [
                    self._inodes(part.inodes),
                    *self._entries.references(first, last),
                    *([self._entries.top_reference()] if first == 0 and last else []),
                    self._xattrs(part.inodes),
                    self._entries.by_hash(part.by_hash),
                    self._entries.by_index(part.by_index),
                    self._symlinks(part.inodes),
                    *self._file_extents(part.extents),
                ]
            )

    def _divided(self) -> Iterator[_Part]:
        """The tree in parts of bounded size, in key order."""
        tree, extents = self._tree, self._extents
        count = len(tree)
        inode = extents.inode[self._first_extent : self._end_extent]
        entries = np.bincount(tree.names.parent, minlength=count)
        files = np.bincount(inode, minlength=count)
        stored = np.where(extents.payload >= 0, extents.disk_num_bytes, np.uint64(0))
        weight = _INODE_BYTES + _ENTRY_BYTES * entries + _EXTENT_BYTES * files
        weight += np.bincount(inode, stored[self._first_extent : self._end_extent], minlength=count).astype(np.int64)
        weight += np.bincount(tree.xattrs.inode, tree.xattrs.value.lengths, minlength=count).astype(np.int64)
        many = np.flatnonzero((entries > _MANY) | (files > _MANY))
        filled = np.cumsum(weight)
        borders = np.searchsorted(filled, np.arange(_BATCH_BYTES, int(filled[-1]), _BATCH_BYTES))
        large = set(many.tolist())
        stops = np.unique(np.concatenate([borders, many + 1, [count]])).tolist()
        begin = 0
        for stop in stops:
            if stop <= begin:
                continue
            yield from self._part(begin, stop, large)
            begin = stop

    def _part(self, begin: int, stop: int, large: set[int]) -> Iterator[_Part]:
        """The inodes ``begin`` to ``stop``; if the last one is a large one, what it has follows by itself."""
        own = stop - (stop - 1 in large)
        names, extents = self._tree.names.parent, self._extents.inode[self._first_extent : self._end_extent]
        first, last, end = np.searchsorted(names, [begin, own, stop]).tolist()
        here = slice(first, last)
        data = [row + self._first_extent for row in np.searchsorted(extents, [begin, own, stop]).tolist()]
        nothing = slice(0, 0)
        yield _Part(slice(begin, stop), here, here, slice(data[0], data[1]))
        for cut in self._entries.hash_cuts(last, end, _MANY):
            yield _Part(nothing, cut, nothing, nothing)
        for row in range(last, end, _MANY):
            yield _Part(nothing, nothing, slice(row, min(row + _MANY, end)), nothing)
        for row in range(data[1], data[2], _MANY):
            yield _Part(nothing, nothing, nothing, slice(row, min(row + _MANY, data[2])))

    def _inodes(self, rows: slice) -> ItemRows:
        """INODE_ITEMs. A row without names was lost while it was read: nothing refers to its number."""
        tree = self._tree
        kept = rows.start + np.flatnonzero(tree.nlink[rows])

        def heads() -> npt.NDArray[np.void]:
            items = np.zeros(len(kept), columns(InodeItem))
            items["generation"] = items["transid"] = self._generation
            items["nbytes"] = self._nbytes[kept]
            for name in ("mode", "uid", "gid", "nlink", "size", "rdev", "flags"):
                items[name] = getattr(tree, name)[kept]
            for name in ("atime", "ctime", "mtime", "otime"):
                times = getattr(tree, name)
                items[name]["sec"], items[name]["nsec"] = times.sec[kept], times.nsec[kept]
            return items

        return fixed_rows(kept + FIRST_INODE, KeyType.INODE_ITEM, np.zeros(len(kept)), columns(InodeItem), heads)

    def _xattrs(self, inodes: slice) -> ItemRows:
        xattrs = self._tree.xattrs
        first, last = np.searchsorted(xattrs.inode, [inodes.start, inodes.stop]).tolist()
        inode = xattrs.inode[first:last]
        name, value = (Ragged.of(blobs).select(slice(first, last)) for blobs in (xattrs.name, xattrs.value))
        hashes = name_hashes_at(name.buffer, name.position, name.length)
        order = np.lexsort((hashes, inode))
        name, value = name.select(order), value.select(order)

        def heads() -> npt.NDArray[np.void]:
            items = np.zeros(len(order), columns(DirItem))
            items["transid"] = self._generation
            items["name_len"] = name.length
            items["data_len"] = value.length
            items["type"] = FileType.XATTR
            return items

        return ragged_rows(
            inode[order] + FIRST_INODE,
            KeyType.XATTR_ITEM,
            hashes[order],
            columns(DirItem),
            heads,
            name.length + value.length,
            lambda: [name, value],
        )

    def _symlinks(self, inodes: slice) -> ItemRows:
        """A symbolic link's target stands in an inline extent."""
        links = self._tree.symlinks
        first, last = np.searchsorted(links.inode, [inodes.start, inodes.stop]).tolist()
        target = Ragged.of(links.target).select(slice(first, last))
        plain = np.zeros(last - first, np.uint8)
        return self._inline(links.inode[first:last], target.length, plain, target.length, lambda: [target])

    def _file_extents(self, rows: slice) -> list[ItemRows]:
        """EXTENT_DATA of regular files: what has an address of its own, explicit holes, and inline data."""
        extents = self._extents
        is_inline = extents.type[rows] == FileExtentType.INLINE
        regular, inline = (rows.start + np.flatnonzero(which) for which in (~is_inline, is_inline))

        def heads() -> npt.NDArray[np.void]:
            items = np.zeros(len(regular), columns(FileExtentItem))
            items["generation"] = self._generation
            items["type"] = FileExtentType.REG
            for name in ("disk_bytenr", "disk_num_bytes", "num_bytes", "ram_bytes", "compression"):
                items[name] = getattr(extents, name)[regular]
            return items

        inode, offset = extents.inode[regular] + FIRST_INODE, extents.file_offset[regular]
        payload = extents.payload[inline]
        return [
            fixed_rows(inode, KeyType.EXTENT_DATA, offset, columns(FileExtentItem), heads),
            self._inline(
                extents.inode[inline],
                extents.ram_bytes[inline],
                extents.compression[inline],
                extents.disk_num_bytes[inline].astype(np.int64),
                lambda: [Ragged(*extents.inline.read(payload))],
            ),
        ]

    def _inline(
        self,
        inode: I64,
        ram_bytes: npt.NDArray[Any],
        compression: npt.NDArray[np.uint8],
        length: I64,
        data: Callable[[], list[Ragged]],
    ) -> ItemRows:
        """EXTENT_DATA of what stands whole in its leaf: inodes by row, bytes before compression, `Compression`, and
        the bytes as they are stored.
        """
        head = columns(FileExtentHead)

        def heads() -> npt.NDArray[np.void]:
            items = np.zeros(len(inode), head)
            items["generation"] = self._generation
            items["ram_bytes"] = ram_bytes
            items["compression"] = compression
            items["type"] = FileExtentType.INLINE
            return items

        nothing = np.zeros(len(inode))
        return ragged_rows(inode + FIRST_INODE, KeyType.EXTENT_DATA, nothing, head, heads, length, data)
