"""What reaches from one leaf of a subvolume into the next: inodes whose items do not all stand in one leaf.

Each leaf gathers one row, its two ends; they are joined in the order in which a subvolume has its leaves. So snapshots
that share leaves are each looked at with their own neighbours. Where a tree is damaged nothing can be said of this.

Without the feature NO_HOLES, ranges of a file that nothing stands for need an extent of their own that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64, U64
from cowlib.format import FileType, IncompatFeature, InodeFlag, KeyType, ObjectId
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.checksums import HEAD, NONE
from fsck_cow.checks.file_extents import extent_ends
from fsck_cow.checks.inodes import file_types, is_inode, whole_subvolumes
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context
from fsck_cow.problems import Problem
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.walk import Walked

_NONE = np.uint64(NONE)

#: The two ends of a leaf. ``row`` is its row in the block table; ``first`` the key of its first item, ``last`` the
#: object id of its last. ``head_*``: extents at its beginning whose inode stands in an earlier leaf: where the first
#: starts, the last ends, the first gap between them starts (all `NONE` where there is none). ``tail_*``: extents of the
#: inode ``last``, if it stands in this leaf (``has_inode``), and what of the inode is asked for: its ``size`` where no
#: hole may be left out (else 0), whether its data have no checksums.
LEAF_BOUNDARY = np.dtype(
    [
        ("row", "<i8"),
        ("first", [("objectid", "<u8"), ("type", "u1"), ("offset", "<u8")]),
        ("last", "<u8"),
        ("head_start", "<u8"),
        ("head_end", "<u8"),
        ("head_gap", "<u8"),
        ("tail_start", "<u8"),
        ("tail_end", "<u8"),
        ("size", "<u8"),
        ("has_inode", "?"),
        ("unsummed", "?"),
    ]
)


def _filled_sizes(batch: LeafBatch) -> U64:
    """Up to where each inode's extents must reach without a gap: u8, 0 for what has no extents or no name."""
    heads = batch.inodes
    kind = file_types(heads.rows["mode"])
    file = ((kind == FileType.REG_FILE) | (kind == FileType.SYMLINK)) & (heads.rows["nlink"] > 0)
    return np.where(file & is_inode(heads.items.objectid), heads.rows["size"], np.uint64(0))


def _previous_ends(batch: LeafBatch, end: U64) -> U64:
    """Where the extent before each one ends: 0 for the first of an inode, `NONE` for the first of a leaf's head."""
    items, owner = batch.file_extents.items, batch.extent_inodes
    same = (items.objectid[1:] == items.objectid[:-1]) & (items.node[1:] == items.node[:-1])
    before = np.where(owner >= 0, np.uint64(0), _NONE)
    before[1:] = np.where(same, end[:-1], before[1:])
    return before


@leaf_check("file-extent", Kind.FILES, codes=("file-extent.hole",))
def check_leaf(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Gathers the ends of leaves; without NO_HOLES, gaps of the inodes that stand in one leaf."""
    holes = not int(context.fs.superblock.incompat_flags) & IncompatFeature.NO_HOLES
    node = np.arange(len(batch.nodes))
    start = np.searchsorted(batch.items.node, node)
    stop = np.searchsorted(batch.items.node, node, "right")
    node, start, stop = node[stop > start], start[stop > start], stop[stop > start]
    items = batch.items
    boundaries = np.empty(len(node), LEAF_BOUNDARY)
    boundaries["row"] = batch.rows[node]
    for name in ("objectid", "type", "offset"):
        boundaries["first"][name] = getattr(items, name)[start]
    boundaries["last"] = items.objectid[stop - 1]
    tail = _put_inodes(batch, boundaries, node, holes)
    end = extent_ends(batch, context.fs.sectorsize)
    before = _previous_ends(batch, end)
    _put_heads(batch, boundaries, node, end, before)
    _put_tails(batch, boundaries, tail, end)
    context.gather("file-extent.boundaries", boundaries)
    if holes:
        yield from _check_holes(batch, tail, end, before)


def _put_inodes(batch: LeafBatch, boundaries: Rows, node: I64, holes: bool) -> I64:
    """What is asked of the inode at the end of each leaf; the index of each in `LeafBatch.inodes`, or -1."""
    inodes = batch.inodes.items
    tail = np.searchsorted(inodes.node, node, "right") - 1
    if len(inodes):
        same = (tail >= 0) & (inodes.node[tail] == node) & (inodes.objectid[tail] == boundaries["last"])
        tail = np.where(same, tail, -1)
    has = tail >= 0
    boundaries["has_inode"] = has
    boundaries["size"], boundaries["unsummed"] = 0, False
    which = tail[has]
    boundaries["unsummed"][has] = batch.inodes.rows["flags"][which] & np.uint64(InodeFlag.NODATASUM) > 0
    if holes:
        boundaries["size"][has] = _filled_sizes(batch)[which]
    return tail


def _put_heads(batch: LeafBatch, boundaries: Rows, node: I64, end: U64, before: U64) -> None:
    """The extents at the beginning of each leaf, of an inode in an earlier one."""
    for name in ("head_start", "head_end", "head_gap"):
        boundaries[name] = _NONE
    items = batch.file_extents.items
    place = np.searchsorted(node, items.node)
    head = np.flatnonzero((batch.extent_inodes < 0) & (items.objectid == boundaries["first"]["objectid"][place]))
    if not len(head):
        return
    leaf, first = np.unique(place[head], return_index=True)
    last = np.append(first[1:], len(head)) - 1
    boundaries["head_start"][leaf] = items.offset[head[first]]
    boundaries["head_end"][leaf] = end[head[last]]
    gap = np.where((before[head] != _NONE) & (items.offset[head] > before[head]), before[head], _NONE)
    boundaries["head_gap"][leaf] = np.minimum.reduceat(gap, first)


def _put_tails(batch: LeafBatch, boundaries: Rows, tail: I64, end: U64) -> None:
    """The extents of the inode at the end of each leaf that stand there with it."""
    boundaries["tail_start"], boundaries["tail_end"] = _NONE, _NONE
    owner = batch.extent_inodes
    known = np.flatnonzero(owner >= 0)
    if not len(known):
        return
    first = np.full(len(batch.inodes.items), -1, np.int64)
    last = first.copy()
    first[owner[known[::-1]]] = known[::-1]
    last[owner[known]] = known
    has = np.flatnonzero((tail >= 0) & (first[tail] >= 0))
    boundaries["tail_start"][has] = batch.file_extents.items.offset[first[tail[has]]]
    boundaries["tail_end"][has] = end[last[tail[has]]]


def _check_holes(batch: LeafBatch, tail: I64, end: U64, before: U64) -> Iterator[Problem]:
    """Gaps before extents whose inode stands in the same leaf, and after the last one unless more may follow."""
    items, owner, tree = batch.file_extents.items, batch.extent_inodes, batch.tree
    size = _filled_sizes(batch)
    if not len(size):
        return
    gap = (owner >= 0) & (items.offset > before) & (before < size[owner])
    message = "nothing stands for the bytes of the file before this extent"
    yield from report_items("file-extent.hole", message, items, gap, tree=tree, found=items.offset, expected=before)
    reach = np.zeros(len(size), np.uint64)
    reach[owner[owner >= 0]] = end[owner >= 0]
    short = reach < size
    short[tail[tail >= 0]] = False
    message = "nothing stands for the last bytes of the file"
    yield from report_items(
        "file-extent.hole", message, batch.inodes.items, short, tree=tree, found=reach, expected=size
    )


@final_check("inode", ("inode.missing", "inode.top-missing", "file-extent.overlap", "file-extent.hole"))
def check_boundaries(context: Context) -> Iterator[Problem]:
    """Joins the ends of neighbouring leaves, subvolume by subvolume."""
    gathered = context.columns("file-extent.boundaries", LEAF_BOUNDARY)
    heads = context.columns("checksum.heads", HEAD)
    place = np.full(len(context.blocks.blocks) + 1, -1, np.int64)
    place[gathered["row"]] = np.arange(len(gathered))
    summed = np.full(len(context.blocks.blocks) + 1, -1, np.int64)
    summed[heads["row"]] = np.arange(len(heads))
    for walked in whole_subvolumes(context):
        which = place[walked.leaves]
        boundaries = gathered[which[which >= 0]]
        yield from _check_first(walked, boundaries)
        if len(boundaries):
            yield from _Chain(walked, boundaries).problems(heads, summed[boundaries["row"]])


def _check_first(walked: Walked, boundaries: Rows) -> Iterator[Problem]:
    first = boundaries["first"][0] if len(boundaries) else None
    if first is None or (int(first["objectid"]), int(first["type"])) != (ObjectId.FIRST_FREE, KeyType.INODE_ITEM):
        message = "subvolume does not begin with inode 256, its top directory"
        yield Problem("inode.top-missing", message, tree=walked.root.objectid)


class _Chain:
    """The leaves of one subvolume in order: which of them go on with an inode, and in which leaf that inode stands."""

    def __init__(self, walked: Walked, boundaries: Rows) -> None:
        self.tree = walked.root.objectid
        self.boundaries = boundaries
        first = boundaries["first"]["objectid"]
        follows = np.zeros(len(boundaries), bool)
        follows[1:] = first[1:] == boundaries["last"][:-1]
        self.begins_inside = boundaries["first"]["type"] != KeyType.INODE_ITEM
        self.begins_inside &= first <= np.uint64(ObjectId.LAST_FREE)
        self.goes_on = self.begins_inside & follows
        # A leaf that only goes on with one inode leaves it to the same one as the leaf before.
        passes = self.goes_on & (first == boundaries["last"])
        origin = np.maximum.accumulate(np.where(passes, 0, np.arange(len(boundaries))))
        self.origin = np.concatenate([[0], origin[:-1]])
        self.owns = ~passes

    def problems(self, heads: Rows, summed: I64) -> Iterator[Problem]:
        """All that is wrong between leaves; ``summed`` i8 is the index in ``heads`` (`HEAD`) of each, or -1."""
        for i in np.flatnonzero(self.begins_inside & ~self.goes_on).tolist():
            key = self.boundaries["first"][i]
            yield Problem(
                "inode.missing",
                "items of an inode that has no inode item",
                tree=self.tree,
                key=(int(key["objectid"]), int(key["type"]), int(key["offset"])),
            )
        yield from self._extents()
        owner = self.boundaries[self.origin]
        known = self.goes_on & owner["has_inode"] & (summed >= 0)
        for name, unsummed, code, message in (
            ("missing", False, "checksum.missing", "extent of data has no checksums, or not for all of it"),
            ("found", True, "checksum.odd", "data of an inode that has no checksums has some"),
        ):
            offset = heads[name][summed] if len(heads) else np.full(len(summed), _NONE)
            for i in np.flatnonzero(known & (offset != _NONE) & (owner["unsummed"] == unsummed)).tolist():
                yield self._problem(code, message, int(owner["last"][i]), int(offset[i]))

    def _problem(self, code: str, message: str, objectid: int, offset: int, **values: Any) -> Problem:
        key = (objectid, int(KeyType.EXTENT_DATA), offset)
        return Problem(code, message, tree=self.tree, key=key, **values)

    def _extents(self) -> Iterator[Problem]:
        boundaries, number = self.boundaries, np.arange(len(self.boundaries))
        # Two pieces a leaf, its head and its tail, in order; only those that have extents.
        start = _interleaved(boundaries["head_start"], boundaries["tail_start"])
        end = _interleaved(boundaries["head_end"], boundaries["tail_end"])
        owner = _interleaved(self.origin, number)
        gap = _interleaved(boundaries["head_gap"], np.full(len(boundaries), _NONE))
        there = _interleaved(self.goes_on, self.owns & boundaries["has_inode"]) & (start != _NONE)
        start, end, owner, gap = start[there], end[there], owner[there], gap[there]
        before = np.zeros(len(start), np.uint64)
        same = owner[1:] == owner[:-1]
        before[1:] = np.where(same, end[:-1], np.uint64(0))
        objectid, size = boundaries["last"][owner], boundaries["size"][owner]
        for i in np.flatnonzero(start < before).tolist():
            message = "file extent begins before the one in front of it, in another leaf, ends"
            found, expected = int(start[i]), int(before[i])
            yield self._problem("file-extent.overlap", message, int(objectid[i]), found, found=found, expected=expected)
        inner = np.ones(len(start), bool)
        inner[1:] = same
        # A tail's gaps were looked at where it stands.
        inner &= owner != _interleaved(np.full(len(boundaries), -1), number)[there]
        gap = np.minimum(gap, np.where(inner & (start > before), before, _NONE))
        reach = np.zeros(len(boundaries), np.uint64)
        reach[owner] = end
        short = self.owns & boundaries["has_inode"] & (reach < boundaries["size"])
        message = "nothing stands for bytes of the file from here on"
        for i in np.flatnonzero(gap < size).tolist():
            yield self._problem("file-extent.hole", message, int(objectid[i]), int(gap[i]))
        for i in np.flatnonzero(short).tolist():
            yield self._problem("file-extent.hole", message, int(boundaries["last"][i]), int(reach[i]))


def _interleaved(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Elements of two columns in turn."""
    return np.stack([first, second], axis=1).reshape(-1)
