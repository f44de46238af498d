"""The items of a subvolume's tree: inodes, names, extended attributes, symbolic links; all from columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import ItemTable
from cowlib.btree.nodes import I64, Bytes
from cowlib.checksum import extref_hashes_at, name_hashes_at
from cowlib.format import (
    DirItem,
    FileExtentHead,
    FileExtentType,
    FileType,
    InodeExtref,
    InodeItem,
    InodeRef,
    KeyType,
    ObjectId,
    columns,
)
from mkfs_cow.source.tables import Blobs, Tree
from mkfs_cow.trees.limits import beyond, item_room

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


def _part(blobs: Blobs) -> tuple[Bytes, I64, I64]:
    """Byte strings as `ItemTable.ragged` takes them."""
    return np.frombuffer(blobs.data, np.uint8), blobs.start[:-1], blobs.lengths


def entry_indices(parent: I64) -> I64:
    """Each directory entry's index in its directory, from 2; entries of a directory stand together: i8, (n,)."""
    order = np.arange(len(parent), dtype=np.int64)
    new = np.ones(len(order), bool)
    new[1:] = parent[1:] != parent[:-1]
    return order - np.maximum.accumulate(np.where(new, order, 0)) + _FIRST_INDEX


def subvolume_items(
    tree: Tree,
    tree_ids: list[int],
    nbytes: npt.NDArray[np.uint64],
    generation: int,
    nodesize: int,
) -> list[ItemTable]:
    """Everything in a subvolume's tree but its regular files' extents.

    ``tree_ids`` are the tree ids of the subvolumes that `Names` refers to by number; ``nbytes`` u8 (rows,).
    """
    return [
        _inode_items(tree, nbytes, generation),
        *_name_items(tree, tree_ids, generation, nodesize),
        _root_reference(),
        _xattr_items(tree, generation),
        _symlink_items(tree, generation),
    ]


def _inode_items(tree: Tree, nbytes: npt.NDArray[np.uint64], generation: int) -> ItemTable:
    rows = np.zeros(len(tree), columns(InodeItem))
    rows["generation"] = generation
    rows["transid"] = generation
    rows["nbytes"] = nbytes
    for name in ("mode", "uid", "gid", "nlink", "size", "rdev", "flags"):
        rows[name] = getattr(tree, name)
    for name in ("atime", "ctime", "mtime", "otime"):
        times = getattr(tree, name)
        rows[name]["sec"], rows[name]["nsec"] = times.sec, times.nsec
    # A row without names was lost while it was read: nothing refers to its number.
    kept = np.flatnonzero(tree.nlink)
    return ItemTable.of(kept + FIRST_INODE, KeyType.INODE_ITEM, 0, rows[kept])


def _name_items(tree: Tree, tree_ids: list[int], generation: int, nodesize: int) -> list[ItemTable]:
    """DIR_ITEM, DIR_INDEX, INODE_REF and INODE_EXTREF of all names."""
    names = tree.names
    parent, is_subvolume = names.parent + FIRST_INODE, names.inode < 0
    child = names.inode + FIRST_INODE
    child[is_subvolume] = np.array(tree_ids, np.int64)[~names.inode[is_subvolume]]
    heads = np.zeros(len(names), columns(DirItem))
    heads["location"]["objectid"] = child
    heads["location"]["type"] = np.where(is_subvolume, KeyType.ROOT_ITEM, KeyType.INODE_ITEM)
    heads["location"]["offset"] = np.where(is_subvolume, _ANY_SNAPSHOT, np.uint64(0))
    heads["transid"] = generation
    heads["name_len"] = names.name.lengths
    modes = tree.mode[np.where(is_subvolume, 0, names.inode)]
    heads["type"] = _FILE_TYPES[(modes >> np.uint32(12)) & np.uint32(15)]
    text = _part(names.name)
    index = entry_indices(parent)
    return [
        ItemTable.ragged(parent, KeyType.DIR_ITEM, name_hashes_at(*text), heads, text),
        ItemTable.ragged(parent, KeyType.DIR_INDEX, index, heads, text),
        *_reference_items(child, parent, index, ~is_subvolume, text, nodesize),
    ]


def _root_reference() -> ItemTable:
    """The INODE_REF ``..`` of a tree's top directory to itself."""
    head = np.zeros(1, columns(InodeRef))
    head["name_len"] = 2
    return ItemTable.ragged(FIRST_INODE, KeyType.INODE_REF, FIRST_INODE, head, _part(Blobs.of([b".."])))


def _reference_items(
    child: I64,
    parent: I64,
    index: I64,
    is_inode: npt.NDArray[np.bool_],
    text: tuple[Bytes, I64, I64],
    nodesize: int,
) -> list[ItemTable]:
    """Back references of inodes to their names; what one INODE_REF can't hold goes to INODE_EXTREF."""
    order = np.flatnonzero(is_inode)
    order = order[np.lexsort((index[order], parent[order], child[order]))]
    size = text[2][order] + columns(InodeRef).itemsize
    over = beyond(item_room(nodesize), size, child[order], parent[order])
    tables = []
    for struct, kind, rows in (
        (InodeRef, KeyType.INODE_REF, order[~over]),
        (InodeExtref, KeyType.INODE_EXTREF, order[over]),
    ):
        heads = np.zeros(len(rows), columns(struct))
        heads["index"] = index[rows]
        heads["name_len"] = text[2][rows]
        where = (text[0], text[1][rows], text[2][rows])
        offset: npt.NDArray[Any] = parent[rows]
        if kind == KeyType.INODE_EXTREF:
            heads["parent_objectid"] = parent[rows]
            offset = extref_hashes_at(parent[rows], *where)
        tables.append(ItemTable.ragged(child[rows], kind, offset, heads, where))
    return tables


def _xattr_items(tree: Tree, generation: int) -> ItemTable:
    xattrs = tree.xattrs
    heads = np.zeros(len(xattrs), columns(DirItem))
    heads["transid"] = generation
    heads["name_len"] = xattrs.name.lengths
    heads["data_len"] = xattrs.value.lengths
    heads["type"] = FileType.XATTR
    name = _part(xattrs.name)
    inode = xattrs.inode + FIRST_INODE
    return ItemTable.ragged(inode, KeyType.XATTR_ITEM, name_hashes_at(*name), heads, name, _part(xattrs.value))


def _symlink_items(tree: Tree, generation: int) -> ItemTable:
    """A symbolic link's target stands in an inline extent."""
    links = tree.symlinks
    return inline_items(links.inode, links.target.lengths, 0, _part(links.target), generation)


def inline_items(
    inode: I64, ram_bytes: npt.NDArray[Any], compression: Any, data: tuple[Bytes, I64, I64], generation: int
) -> ItemTable:
    """EXTENT_DATA of what stands whole in its leaf: inodes by row, bytes before compression, `Compression`, bytes."""
    heads = np.zeros(len(inode), columns(FileExtentHead))
    heads["generation"] = generation
    heads["ram_bytes"] = ram_bytes
    heads["compression"] = compression
    heads["type"] = FileExtentType.INLINE
    return ItemTable.ragged(inode + FIRST_INODE, KeyType.EXTENT_DATA, 0, heads, data)
