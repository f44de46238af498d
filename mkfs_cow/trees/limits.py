"""What no leaf can hold: an item, its head included, has to fit into one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cowlib.btree.nodes import I64
from cowlib.checksum import name_hashes_at
from cowlib.errors import UsageError
from cowlib.format import HEADER_SIZE, ITEM_SIZE, DirItem, FileExtentHead, InodeRef
from mkfs_cow.source.contents import shown
from mkfs_cow.source.tables import Blobs, Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray


def item_room(nodesize: int) -> int:
    """The longest payload of an item, in bytes."""
    return nodesize - HEADER_SIZE - ITEM_SIZE


def beyond(room: int, size: I64, *keys: NDArray[Any]) -> NDArray[np.bool_]:
    """Which parts of items no longer fit into ``room`` bytes after those before them: bool (n,).

    Parts of ``size`` bytes with equal ``keys``, which stand together, make up one item.
    """
    if not len(size):
        return np.zeros(0, np.bool_)
    new = np.ones(len(size), np.bool_)
    new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    ends = np.cumsum(size)
    return np.asarray(ends - np.maximum.accumulate(np.where(new, ends - size, 0)) > room)


def fitting(tree: Tree, nodesize: int, *, extref: bool, warn: Callable[[str], None]) -> Tree:
    """The tree less what no leaf of ``nodesize`` bytes can hold; ``warn`` gets a line for each thing left out.

    Those are extended attributes and the targets of symbolic links. Raises UsageError for names, which must not get
    lost: too many hard links in one directory without ``extref``, or too many names with one hash.
    """
    room = item_room(nodesize)
    _refuse_names(tree, room, extref)
    long_links = FileExtentHead.sizeof() + tree.symlinks.target.lengths > room
    xattrs = tree.xattrs
    hashes = _hashes(xattrs.name)
    order = np.lexsort((hashes, xattrs.inode))
    size = (DirItem.sizeof() + xattrs.name.lengths + xattrs.value.lengths)[order]
    long_xattrs = np.sort(order[beyond(room, size, xattrs.inode[order], hashes[order])])
    if not long_links.any() and not len(long_xattrs):
        return tree
    first = tree.names.first_rows(len(tree))
    limit = f"too long for nodes of {nodesize} bytes, left out"
    for row in long_xattrs.tolist():
        path = tree.path(int(xattrs.inode[row]), first)
        warn(f"{shown(path)}: its attribute {shown(xattrs.name[row])} is {limit}")
    lost = np.zeros(len(tree), np.bool_)
    lost[tree.symlinks.inode[long_links]] = True
    for inode in np.flatnonzero(lost).tolist():
        warn(f"{shown(tree.path(inode, first))}: where the link points is {limit}")
    return tree.without_xattrs(long_xattrs).without(lost)


def _refuse_names(tree: Tree, room: int, extref: bool) -> None:
    names = tree.names
    hashes = _hashes(names.name)
    order = np.lexsort((hashes, names.parent))
    size = DirItem.sizeof() + names.name.lengths[order]
    crowded = order[beyond(room, size, names.parent[order], hashes[order])]
    if len(crowded):
        folder = shown(tree.path(int(names.parent[crowded[0]]), names.first_rows(len(tree))))
        raise UsageError(f"{folder}: more names have the same hash than a leaf holds", hint="use larger nodes")
    if extref:
        return
    order = np.lexsort((names.parent, names.inode))
    size = InodeRef.sizeof() + names.name.lengths[order]
    linked = order[beyond(room, size, names.inode[order], names.parent[order])]
    if len(linked):
        path = shown(tree.path(int(names.inode[linked[0]]), names.first_rows(len(tree))))
        text = f"{path}: has more names in one directory than an item holds"
        raise UsageError(text, hint="turn the feature extref on")


def _hashes(names: Blobs) -> NDArray[np.uint64]:
    return name_hashes_at(np.frombuffer(names.data, np.uint8), names.start[:-1], names.lengths)
