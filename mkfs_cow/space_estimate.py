"""How much room the contents of a new filesystem need, from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cowlib.btree.nodes import I64
from cowlib.format import (
    HEADER_SIZE,
    ITEM_SIZE,
    KEY_PTR_SIZE,
    Chunk,
    DevItem,
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
    Stripe,
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

#: The least of them with which it makes files at all.
_FIRST_FILE_NODES = 620

#: What is left free for the kernel's own writes in any case, as a part of what the files' metadata takes.
_HEADROOM = 8

#: The same where there is to be as little as possible: so many nodes, and a part of those in use. That is enough to
#: mount, to delete, and to make the filesystem larger.
_SPARE_NODES, _SPARE = 32, 32

#: The kernel makes a second system chunk unless the first has so many nodes free for each device it is on, and for two
#: devices more.
_SYSTEM_NODES = 8

#: Bytes of file data for which there is one byte of room for metadata, of the room that is asked for.
_DATA_TO_METADATA = 8


@dataclass(frozen=True)
class SpaceEstimate:
    """What has to fit: bytes of ``data``, of ``metadata`` (nodes) and of ``system`` chunks (0: as is usual).

    Of every run of free space up to ``loss`` bytes may stay unused, as an extent that is not divided did not fit.
    ``slack`` bytes of the data are room for more of it; how much of the metadata is, `spare_nodes` tells.
    """

    data: int
    metadata: int
    loss: int = 0
    system: int = 0
    slack: int = 0

    @property
    def contents(self) -> int:
        """Bytes of data that there is already."""
        return self.data - self.slack


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


def with_first_files(metadata: int, nodesize: int) -> int:
    """Bytes of nodes with so much beside them that the kernel makes a new file at all."""
    return metadata + _FIRST_FILE_NODES * nodesize


def with_slack(estimate: SpaceEstimate, slack: int, nodesize: int) -> SpaceEstimate:
    """The same with room for ``slack`` more bytes of file data, and for the metadata of that."""
    if not slack:
        return estimate
    metadata = with_comfort(estimate.metadata, nodesize) + slack // _DATA_TO_METADATA
    return replace(estimate, data=estimate.data + slack, metadata=metadata, slack=slack)


def spare_nodes(used: int, slack: int, nodesize: int) -> int:
    """Bytes for nodes that stay free in a filesystem without needless room, ``used`` nodes beside."""
    spare = (_SPARE_NODES + used // _SPARE) * nodesize
    return spare + (with_comfort(0, nodesize) + slack // _DATA_TO_METADATA if slack else 0)


def system_estimate(chunks: int, stripes: int, devices: int, nodesize: int) -> int:
    """Bytes of a system chunk on ``stripes`` stripes that lists so many chunks and devices, without needless room.

    A chunk is taken to have a stripe on every device.
    """
    items = chunks * (ITEM_SIZE + Chunk.sizeof() + devices * Stripe.sizeof()) + devices * (ITEM_SIZE + DevItem.sizeof())
    leaves: int = -(-items // (nodesize // 2))
    return (2 * (leaves + 1) + _SYSTEM_NODES * (stripes + 2)) * nodesize
