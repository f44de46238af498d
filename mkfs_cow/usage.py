"""Where the bytes of a new filesystem went: by kind, by tree, by subvolume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cowlib.format import Compression, FileExtentType, ObjectId
from mkfs_cow.chunks import describe_kind
from mkfs_cow.source.tables import S_IFREG

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.data.write import Written
    from mkfs_cow.tree_layout import TreeLayout


def usage(written: Written, layout: TreeLayout, paths: Sequence[bytes], sectorsize: int) -> dict[str, Any]:
    """A table for programs; everything named bytes is bytes, on disk before profiles make copies of it.

    ``paths`` are those of the subvolumes, the top one's (empty) first, in the order of ``written.trees``. ``data`` and
    ``inline`` are told by compression: ``bytes`` as stored, ``file_bytes`` as files have them. ``holes`` counts whole
    sectors. ``free`` is what can be allocated in block groups by kind, and ``unallocated`` on all devices outside.
    """
    extents, space = written.extents, layout.space
    inline = extents.type == FileExtentType.INLINE
    stored = ~inline & (extents.disk_bytenr != 0)
    return {
        "data": _by_compression(written, stored, "extents"),
        "inline": _by_compression(written, inline, "files"),
        "holes": _holes(written, stored, inline, sectorsize),
        "checksums": {"sectors": len(written.sums), "bytes": written.sums.csum.nbytes},
        "trees": _trees(layout),
        "subvolumes": _subvolumes(written, layout, stored, inline, paths),
        "free": {
            **{
                describe_kind(kind): sum(length for group in groups for _, length in group.free_ranges())
                for kind, groups in space.groups.items()
                if groups
            },
            "unallocated": sum(device.total_bytes - device.end for device in space.chunks.devices),
        },
    }


def _by_compression(written: Written, rows: NDArray[np.bool_], what: str) -> list[dict[str, Any]]:
    extents = written.extents
    found = []
    for algorithm in Compression:
        mine = np.flatnonzero(rows & (extents.compression == algorithm))
        if len(mine):
            found.append(
                {
                    "compression": algorithm.name.lower(),
                    what: len(mine),
                    "bytes": int(extents.disk_num_bytes[mine].sum()),
                    "file_bytes": int(extents.ram_bytes[mine].sum()),
                }
            )
    return found


def _holes(written: Written, stored: NDArray[np.bool_], inline: NDArray[np.bool_], sectorsize: int) -> int:
    """Bytes of files that nothing is stored for. In sectors, since together they may be more than 64 bits count."""
    sector = np.uint64(sectorsize)
    extents = written.extents
    sectors = -int((extents.num_bytes[stored] // sector).sum()) - int(np.count_nonzero(inline))
    for tree in written.trees:
        size = tree.size[tree.is_type(S_IFREG) & (tree.nlink > 0)]
        sectors += int((size // sector + (size % sector > 0)).sum())
    return sectors * sectorsize


def _trees(layout: TreeLayout) -> list[dict[str, Any]]:
    """Every tree with its nodes; names are those of the objects' ids."""
    nodesize = layout.style.nodes.nodesize
    found = []
    for owner, tree in sorted(layout.trees.items()):
        count = tree.shape.node_count
        found.append({"id": _signed(owner), "name": _name(owner), "nodes": count, "bytes": count * nodesize})
    return found


def _signed(owner: int) -> int:
    """Some trees have negative numbers, which the disk has as very large ones."""
    return owner - (1 << 64) if owner >= 1 << 63 else owner


def _name(owner: int) -> str:
    if ObjectId.FIRST_FREE <= owner < 1 << 63:
        return "subvolume"
    return ObjectId(owner).name.removesuffix("_TREE").lower().replace("_", "-")


def _subvolumes(
    written: Written,
    layout: TreeLayout,
    stored: NDArray[np.bool_],
    inline: NDArray[np.bool_],
    paths: Sequence[bytes],
) -> list[dict[str, Any]]:
    extents = written.extents
    count = len(written.trees)
    data, small = (
        [int(extents.disk_num_bytes[rows & (extents.tree == number)].sum()) for number in range(count)]
        for rows in (stored, inline)
    )
    ids = [int(ObjectId.FS_TREE), *range(ObjectId.FIRST_FREE, ObjectId.FIRST_FREE + count - 1)]
    nodesize = layout.style.nodes.nodesize
    return [
        {
            "id": ids[number],
            "path": os.fsdecode(paths[number]),
            "inodes": int(np.count_nonzero(tree.nlink)),
            "data_bytes": data[number],
            "inline_bytes": small[number],
            "tree_bytes": layout.trees[ids[number]].shape.node_count * nodesize,
        }
        for number, tree in enumerate(written.trees)
    ]
