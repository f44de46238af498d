"""The free-space tree: one form for each block group, well formed, and free is just what no extent takes.

Whole stripes that cover a superblock copy are never allocated: whether they count as free differs between writers, so
they are left out on both sides.

Facts: btrfs on-disk format documentation, what the kernel expects when it loads a block group's free space.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cowlib.btree import Items
from cowlib.btree.nodes import I64, U64, Bytes, Mask, ragged_index
from cowlib.format import CompatRoFeature, FreeSpaceFlag, FreeSpaceInfo, KeyType, ObjectId, columns
from fsck_cow.batch import LeafBatch
from fsck_cow.checks.block_groups import block_groups
from fsck_cow.checks.extents import EXTENT, EXTENTS
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context, Rows
from fsck_cow.intervals import Ranges, holding, layered, merged
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.space import block_group_tree, find_pairs, is_whole, rows_where, strangers, wrong_sizes

_TREE = int(ObjectId.FREE_SPACE_TREE)

#: Gathered as "free-space-infos": the FREE_SPACE_INFOs.
INFO = np.dtype([("bytenr", "<u8"), ("length", "<u8"), ("item", columns(FreeSpaceInfo))])

#: Gathered as "free-space-items": what each extent or bitmap item stands for.
PART = np.dtype([("start", "<u8"), ("length", "<u8"), ("bitmap", "?")])

#: Gathered as "free-space-runs": the free ranges in bitmaps; those of neighbouring bitmaps may touch.
RUN = np.dtype([("start", "<u8"), ("end", "<u8")])

#: Bytes of bitmaps unpacked in one go: each becomes eight.
_BITMAP_BYTES = 1 << 18


@leaf_check(
    "free-space",
    Kind.FREE_SPACE,
    codes=("free-space.stranger", "free-space.item-size", "free-space.unaligned"),
)
def gather_free_space(ctx: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Items by themselves: sizes, alignment; bitmaps are taken apart."""
    kinds = (KeyType.FREE_SPACE_INFO, KeyType.FREE_SPACE_EXTENT, KeyType.FREE_SPACE_BITMAP)
    yield from strangers(batch, kinds, "free-space.stranger")
    infos, extents, bitmaps = (batch.items.of_type(kind) for kind in kinds)
    sector = ctx.fs.sectorsize
    yield from wrong_sizes(batch, infos, columns(FreeSpaceInfo).itemsize, "free-space.item-size")
    yield from wrong_sizes(batch, extents, 0, "free-space.item-size")
    wanted = (bitmaps.offset // np.uint64(sector) + np.uint64(7)) // np.uint64(8)
    yield from wrong_sizes(batch, bitmaps, wanted.astype(np.int64), "free-space.item-size")
    for items in (extents, bitmaps):
        wrong = _misplaced(items, sector)
        message = "free space does not begin or end at a sector, or is empty"
        yield from report_items("free-space.unaligned", message, items, wrong, tree=batch.tree)
        parts = np.zeros(len(items), PART)
        parts["start"], parts["length"], parts["bitmap"] = items.objectid, items.offset, items is bitmaps
        ctx.gather("free-space-items", parts[~wrong])
    heads = batch.heads(FreeSpaceInfo, KeyType.FREE_SPACE_INFO)
    rows = np.zeros(len(heads.items), INFO)
    rows["bytenr"], rows["length"], rows["item"] = heads.items.objectid, heads.items.offset, heads.rows
    ctx.gather("free-space-infos", rows)
    usable = bitmaps.in_bounds & (bitmaps.size == wanted.astype(np.int64)) & ~_misplaced(bitmaps, sector)
    bitmaps = bitmaps.select(usable)
    ctx.gather("free-space-runs", bitmap_runs(bitmaps.select(_decodable(ctx, bitmaps)), sector))


def _misplaced(items: Items, sector: int) -> Mask:
    start, length = items.objectid, items.offset
    wrong: Mask = (start | length) & np.uint64(sector - 1) > 0
    wrong |= (length == 0) | (length > np.uint64(2**64 - 1) - start)
    return wrong


def _decodable(ctx: Context, bitmaps: Items) -> Mask:
    """Bitmaps of mapped addresses that no bitmap before them covers: there are no more of those than space for them."""
    start, end = bitmaps.objectid, bitmaps.objectid + bitmaps.offset
    good: Mask = ctx.fs.volume.chunks.locate(start) >= 0
    good[1:] &= start[1:] >= np.maximum.accumulate(end)[:-1]
    return good


def bitmap_runs(bitmaps: Items, sector: int) -> Rows:
    """The free ranges of bitmap items, as rows of `RUN`."""
    length = (bitmaps.offset // np.uint64(sector)).astype(np.int64)
    start, end, owner = runs_of_bits(bitmaps.buffer, bitmaps.position, bitmaps.size, length)
    runs = np.zeros(len(start), RUN)
    base = bitmaps.objectid[owner]
    runs["start"] = base + (start * sector).astype(np.uint64)
    runs["end"] = base + (end * sector).astype(np.uint64)
    return runs


def runs_of_bits(buffer: Bytes, position: I64, size: I64, length: I64) -> tuple[I64, I64, I64]:
    """Runs of set bits in several bitmaps, lowest bit first: first bit, bit after the last, and which bitmap; i8 each.

    Bitmap i has ``size[i]`` bytes (at least one) from ``position[i]``, of which the first ``length[i]`` bits count.
    """
    portion = np.cumsum(size) // _BITMAP_BYTES
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(portion)) + 1, [len(size)]])
    found = [(np.empty(0, np.int64),) * 3]
    for first, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        which = slice(first, stop)
        start, end, owner = _runs(buffer[ragged_index(position[which], size[which])], size[which] * 8)
        limit = length[which][owner]
        counts = start < limit
        found.append((start[counts], np.minimum(end, limit)[counts], owner[counts] + first))
    starts, ends, owners = (np.concatenate(column) for column in zip(*found, strict=True))
    return starts, ends, owners


def _runs(packed: Bytes, total: I64) -> tuple[I64, I64, I64]:
    """Runs of set bits in bitmaps of ``total`` bits each, one behind the other: as `runs_of_bits`."""
    bits = np.unpackbits(packed, bitorder="little").view(np.bool_)
    base = np.cumsum(total) - total
    begins, stops = bits.copy(), bits.copy()
    begins[1:] &= ~bits[:-1]
    stops[:-1] &= ~bits[1:]
    begins[base], stops[base + total - 1] = bits[base], bits[base + total - 1]
    first, last = np.flatnonzero(begins), np.flatnonzero(stops)
    owner = np.searchsorted(base, first, "right") - 1
    return first - base[owner], last + 1 - base[owner], owner


def _problem(row: Any, code: str, message: str, **more: Any) -> Problem:
    """A problem of the block group at ``row`` (with bytenr and length)."""
    key = (int(row["bytenr"]), int(KeyType.FREE_SPACE_INFO), int(row["length"]))
    return Problem(code, message, logical=int(row["bytenr"]), tree=_TREE, key=key, **more)


def _is_valid(ctx: Context) -> bool:
    wanted = CompatRoFeature.FREE_SPACE_TREE | CompatRoFeature.FREE_SPACE_TREE_VALID
    return int(ctx.fs.superblock.compat_ro_flags) & wanted == wanted


@final_check("free-space", codes=("free-space.tree-missing", "free-space.tree-unused"), order=33)
def tree(ctx: Context) -> Iterator[Problem]:
    """There is a free-space tree if, and only if, the superblock says so."""
    there = any(objectid == _TREE for objectid, _ in ctx.walked)
    said = bool(int(ctx.fs.superblock.compat_ro_flags) & CompatRoFeature.FREE_SPACE_TREE)
    if said and not there and is_whole(ctx, ObjectId.ROOT_TREE):
        yield Problem("free-space.tree-missing", "there is no free-space tree, but the superblock tells of one")
    elif there and not _is_valid(ctx):
        message = "the free-space tree is not valid and will be built again at the next mount"
        yield Problem("free-space.tree-unused", message, Severity.NOTE, tree=_TREE)


@final_check(
    "free-space",
    codes=("free-space.info-missing", "free-space.info-orphan", "free-space.flags-unknown", "free-space.form-wrong"),
    order=34,
)
def infos(ctx: Context) -> Iterator[Problem]:
    """Every block group has its FREE_SPACE_INFO, which says whether extents or bitmaps follow."""
    if not _is_valid(ctx) or not is_whole(ctx, _TREE, block_group_tree(ctx)):
        return
    groups, rows = block_groups(ctx), _infos(ctx)
    places = (rows["bytenr"], rows["length"])
    for i in rows_where(find_pairs(places, (groups["bytenr"], groups["length"])) < 0):
        message = "block group has no FREE_SPACE_INFO"
        yield _problem(groups[i], "free-space.info-missing", message)
    for i in rows_where(find_pairs((groups["bytenr"], groups["length"]), places) < 0):
        # mkfs.btrfs leaves those of its first block groups behind: no kernel minds, but `btrfs check` does.
        message = "free space of a block group that there is not (any more)"
        yield _problem(rows[i], "free-space.info-orphan", message)
    flags = rows["item"]["flags"]
    for i in rows_where(flags & ~np.uint32(FreeSpaceFlag.USING_BITMAPS) > 0):
        yield _problem(rows[i], "free-space.flags-unknown", "flags have unknown bits", found=hex(int(flags[i])))
    parts = ctx.columns("free-space-items", PART)
    owner = _owners(rows, parts["start"])
    known = np.flatnonzero(owner >= 0)
    bitmap = flags[owner[known]] & np.uint32(FreeSpaceFlag.USING_BITMAPS) > 0
    for i in sorted(set(owner[known][bitmap != parts["bitmap"][known]].tolist())):
        uses = "bitmaps" if flags[i] & FreeSpaceFlag.USING_BITMAPS else "extents"
        message = f"free space is said to be kept as {uses}, but there are items of the other form"
        yield _problem(rows[i], "free-space.form-wrong", message)


def _infos(ctx: Context) -> Rows:
    """The FREE_SPACE_INFOs in order of address: rows of `INFO`."""
    rows = ctx.columns("free-space-infos", INFO)
    ordered: Rows = rows[np.argsort(rows["bytenr"], kind="stable")]
    return ordered


def _owners(infos: Rows, start: U64) -> I64:
    """Which FREE_SPACE_INFO is of the block group that each address is in, -1 for none."""
    return holding(infos["bytenr"], infos["bytenr"] + infos["length"], start)


@final_check(
    "free-space",
    codes=("free-space.outside", "free-space.overlap", "free-space.touching", "free-space.extent-count"),
    order=35,
)
def places(ctx: Context) -> Iterator[Problem]:
    """The items of a block group lie inside of it, apart from each other, and there are as many ranges as it says."""
    if not _is_valid(ctx) or not is_whole(ctx, _TREE):
        return
    rows, items = _infos(ctx), ctx.columns("free-space-items", PART)
    items = items[np.argsort(items["start"], kind="stable")]
    start, end = items["start"], items["start"] + items["length"]
    owner = _owners(rows, start)
    group_end = np.where(owner >= 0, (rows["bytenr"] + rows["length"])[owner], 0) if len(rows) else np.zeros_like(end)
    for i in rows_where((owner < 0) | (end > group_end)):
        yield _part_problem(items[i], "free-space.outside", "free space lies in no block group, or reaches out of it")
    late = np.zeros(len(items), bool)
    late[1:] = start[1:] < np.maximum.accumulate(end)[:-1]
    for i in rows_where(late):
        yield _part_problem(items[i], "free-space.overlap", "free space begins inside the one before it")
    touching = np.zeros(len(items), bool)
    touching[1:] = (start[1:] == end[:-1]) & (owner[1:] == owner[:-1]) & ~items["bitmap"][1:] & ~items["bitmap"][:-1]
    for i in rows_where(touching):
        message = "free extent begins where the one before it ends: they should be one"
        yield _part_problem(items[i], "free-space.touching", message)
    counted = np.bincount(owner[(owner >= 0) & ~items["bitmap"]], minlength=len(rows)) + _runs_of(ctx, rows)
    groups = block_groups(ctx)
    # Of a block group that is not there the count says nothing.
    wrong = find_pairs((groups["bytenr"], groups["length"]), (rows["bytenr"], rows["length"])) >= 0
    wrong &= rows["item"]["extent_count"] != counted
    for i in rows_where(wrong):
        message = "extent_count is not the number of free ranges"
        found = int(rows["item"]["extent_count"][i])
        yield _problem(rows[i], "free-space.extent-count", message, found=found, expected=int(counted[i]))


def _part_problem(row: Any, code: str, message: str) -> Problem:
    kind = KeyType.FREE_SPACE_BITMAP if row["bitmap"] else KeyType.FREE_SPACE_EXTENT
    key = (int(row["start"]), int(kind), int(row["length"]))
    return Problem(code, message, logical=key[0], tree=_TREE, key=key)


def _runs_of(ctx: Context, infos: Rows) -> I64:
    """How many free ranges the bitmaps of each block group hold: one may go on from a bitmap into the next."""
    runs = ctx.columns("free-space-runs", RUN)
    runs = runs[np.argsort(runs["start"], kind="stable")]
    owner = _owners(infos, runs["start"])
    new = owner >= 0
    new[1:] &= (runs["start"][1:] != runs["end"][:-1]) | (owner[1:] != owner[:-1])
    return np.bincount(owner[new], minlength=len(infos))


@final_check("free-space", codes=("free-space.missing", "free-space.allocated"), order=36)
def against_extents(ctx: Context) -> Iterator[Problem]:
    """Every byte of a block group is free or belongs to an extent, never both."""
    if not _is_valid(ctx) or not is_whole(ctx, _TREE, ObjectId.EXTENT_TREE, block_group_tree(ctx)):
        return
    infos = _infos(ctx)
    groups = block_groups(ctx)
    groups = groups[find_pairs((infos["bytenr"], infos["length"]), (groups["bytenr"], groups["length"])) >= 0]
    items, runs = ctx.columns("free-space-items", PART), ctx.columns("free-space-runs", RUN)
    extents = items[~items["bitmap"]]
    start = np.concatenate([extents["start"], runs["start"]])
    end = np.concatenate([extents["start"] + extents["length"], runs["end"]])
    for code, message, row, first, count in differences(ctx, groups, merged(start, end)):
        yield _problem(row, f"free-space.{code}", f"{message}: {count} ranges, the first at {first[0]}", found=first)


def differences(ctx: Context, groups: Rows, free: Ranges) -> Iterator[tuple[str, str, Any, tuple[int, int], int]]:
    """Where recorded free space is not what the extents leave of some block groups, superblock stripes aside.

    Gives (code, message, block group, first range as (start, length), number of ranges), one for each block group and
    code.
    """
    extents = ctx.columns(EXTENTS, EXTENT)
    used = merged(extents["bytenr"], extents["bytenr"] + extents["num_bytes"])
    inside = merged(groups["bytenr"], groups["bytenr"] + groups["length"])
    reserved = merged(*ctx.fs.volume.chunks.superblock_ranges())
    start, end, covered = layered([inside, reserved, used, free])
    looked_at = covered[:, 0] & ~covered[:, 1]
    kinds = (
        ("missing", "neither free nor part of an extent", ~covered[:, 2] & ~covered[:, 3]),
        ("allocated", "recorded as free, but part of an extent", covered[:, 2] & covered[:, 3]),
    )
    for code, message, wrong in kinds:
        found = np.flatnonzero(looked_at & wrong)
        owner = np.searchsorted(groups["bytenr"], start[found], "right") - 1
        for group, first, count in zip(*np.unique(owner, return_index=True, return_counts=True), strict=True):
            piece = found[first]
            place = (int(start[piece]), int(end[piece] - start[piece]))
            yield code, message, groups[group], place, int(count)
