"""How much room the contents of a new filesystem need, from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cowlib.btree.nodes import I64
from cowlib.format import (
    HEADER_SIZE,
    ITEM_SIZE,
    KEY_PTR_SIZE,
    DirItem,
    FileExtentHead,
    FileExtentItem,
    InodeExtref,
    InodeFlag,
    InodeItem,
    InodeRef,
    QgroupInfoItem,
    QgroupLimitItem,
    RootItem,
    RootRef,
)
from mkfs_cow.source.tables import Tree

if TYPE_CHECKING:
    from mkfs_cow.data.write import DataEstimate
    from mkfs_cow.options import ResolvedOptions

#: Bytes of an extent item with one data reference and an owner, and of a tree block's.
_DATA_EXTENT, _TREE_BLOCK = 62, 51

_NAME_MAX = 255

#: What a subvolume has outside its own tree: a root with two references, a UUID, two items of its quota. In bytes.
_SUBVOLUME_ITEMS = 6
_SUBVOLUME = (
    RootItem.sizeof() + 2 * (RootRef.sizeof() + _NAME_MAX) + 8 + QgroupInfoItem.sizeof() + QgroupLimitItem.sizeof()
)

#: Every tree of an empty filesystem has one node, and the next few transactions want as many again.
_BASE_NODES = 64

#: What the kernel sets aside for itself, and what it wants to make one file, both together. It counts in nodes.
_KERNEL_NODES = 700

#: What is left free for the kernel's own writes in any case, as a part of what the files' metadata takes.
_HEADROOM = 8


@dataclass(frozen=True)
class SpaceEstimate:
    """What has to fit: bytes of ``data`` and of ``metadata`` (nodes).

    Of every run of free space up to ``loss`` bytes may stay unused, as an extent that is not divided did not fit.
    ``tight`` makes the chunks for data no longer than they have to be.
    """

    data: int
    metadata: int
    loss: int = 0
    tight: bool = False


class _Leaves:
    """Items on their way to leaves, counted. A leaf stays empty by less than the item that did not fit any more: an
    eighth of it is taken for lost, and for longer items as much again as they take."""

    def __init__(self, nodesize: int) -> None:
        self._nodesize = nodesize
        self._lost = nodesize // 8
        self._total = 0

    def add(self, count: int, nbytes: int) -> None:
        """So many items of ``nbytes`` together, none of which is long."""
        self._total += nbytes + count * ITEM_SIZE

    def add_each(self, size: I64) -> None:
        """Items of these sizes in bytes: i8 (n,)."""
        whole = size + ITEM_SIZE
        self._total += int(whole.sum() + whole[whole > self._lost].sum())

    def nodes(self) -> int:
        """How many nodes hold them, inner nodes and the items about the nodes themselves with them."""
        room = self._nodesize - HEADER_SIZE - (_TREE_BLOCK + ITEM_SIZE) - 2 * KEY_PTR_SIZE - self._lost
        return -(-self._total // room)


def metadata_estimate(trees: Sequence[Tree], data: DataEstimate, options: ResolvedOptions, csum_size: int) -> int:
    """Bytes of nodes that the trees will take, from above: names, inodes, extents, checksums, inline data."""
    nodesize = options.nodesize
    leaves = _Leaves(nodesize)
    leaves.add(2 * data.extents, data.extents * (FileExtentItem.sizeof() + _DATA_EXTENT))
    leaves.add_each(FileExtentHead.sizeof() + data.inline)
    sums = data.data // options.sectorsize * csum_size
    # Items of checksums fill their leaves, unless data that has none stands between.
    gaps = any((tree.flags & np.uint64(InodeFlag.NODATASUM)).any() for tree in trees)
    leaves.add(0, 2 * sums if gaps else sums)
    for tree in trees:
        _count_tree(tree, leaves)
    # Each tree has a root, and a leaf that is not full.
    return (leaves.nodes() + 2 * len(trees) + _BASE_NODES) * nodesize


def _count_tree(tree: Tree, leaves: _Leaves) -> None:
    """Adds the items of one subvolume, but for the data of its files."""
    names = tree.names.name.lengths
    count, text = len(names), int(names.sum())
    leaves.add(len(tree), len(tree) * InodeItem.sizeof())
    leaves.add(_SUBVOLUME_ITEMS, _SUBVOLUME)
    leaves.add(3 * count, count * (2 * DirItem.sizeof() + InodeExtref.sizeof()) + 3 * text)
    # All names that a file has in one directory may be one long item.
    linked = tree.nlink[np.maximum(tree.names.inode, 0)] > 1
    leaves.add(0, int((InodeRef.sizeof() + names)[linked].sum()))
    leaves.add_each(DirItem.sizeof() + tree.xattrs.name.lengths + tree.xattrs.value.lengths)
    leaves.add_each(FileExtentHead.sizeof() + tree.symlinks.target.lengths)


def with_headroom(metadata: int) -> int:
    """Bytes of nodes with the least that the kernel needs beside them for its own writes."""
    return metadata + metadata // _HEADROOM


def with_comfort(metadata: int, nodesize: int) -> int:
    """Bytes of nodes with as much beside them as lets the kernel make new files at once."""
    return metadata + _KERNEL_NODES * nodesize
