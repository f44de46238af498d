"""The old free-space cache: files of the root tree that say what is free in a block group, where they are up to date.

A cache file begins with a checksum for each of its pages and the transaction that wrote it. Entries follow, free ranges
and bitmaps, none across a page's end; then, a page each, the bitmaps. A page is a sector here, as it was on the machine
that wrote it.

Facts: what the kernel expects of a cache before it trusts one, and what ``btrfs check`` compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cowlib.btree import gather
from cowlib.btree.nodes import I64, Bytes
from cowlib.checksum import csum_blocks
from cowlib.format import (
    CompatRoFeature,
    CsumType,
    FileExtentItem,
    FileExtentType,
    FreeSpaceEntry,
    FreeSpaceEntryType,
    FreeSpaceHeader,
    InodeItem,
    KeyType,
    ObjectId,
    columns,
)
from fsck_cow.batch import Heads, LeafBatch
from fsck_cow.checks.block_groups import block_groups
from fsck_cow.checks.free_space import RUN, differences, runs_of_bits
from fsck_cow.checks.superblock_fields import NO_CACHE
from fsck_cow.context import Context, Rows
from fsck_cow.intervals import merged
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.space import block_group_tree, is_whole, keyed, wrong_sizes

_TREE = int(ObjectId.ROOT_TREE)

#: Gathered as "cache-headers", "cache-inodes" and "cache-extents", of the root tree.
HEADER = np.dtype([("objectid", "<u8"), ("bytenr", "<u8"), ("item", columns(FreeSpaceHeader))])
INODE = np.dtype([("objectid", "<u8"), ("offset", "<u8"), ("item", columns(InodeItem))])
EXTENT = np.dtype([("objectid", "<u8"), ("offset", "<u8"), ("item", columns(FileExtentItem))])

_ENTRY = columns(FreeSpaceEntry)


class _Broken(Exception):
    """A cache that nobody can use; the text says why."""


def _is_kept(ctx: Context) -> bool:
    """Whether there may be caches: where there is a free-space tree nobody looks at them."""
    return not int(ctx.fs.superblock.compat_ro_flags) & CompatRoFeature.FREE_SPACE_TREE


@leaf_check("free-space", Kind.ROOTS, codes=("free-space.item-size",))
def gather_caches(ctx: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Cache headers have their size; the files that they name are gathered."""
    if not _is_kept(ctx):
        return
    heads = batch.heads(FreeSpaceHeader, KeyType.UNTYPED)
    mine = heads.items.objectid == ObjectId.FREE_SPACE
    items = batch.items.of_type(KeyType.UNTYPED)
    items = items.select(items.objectid == ObjectId.FREE_SPACE)
    yield from wrong_sizes(batch, items, columns(FreeSpaceHeader).itemsize, "free-space.item-size")
    headers = Heads(heads.items.select(mine), heads.rows[mine])
    ctx.gather("cache-headers", keyed(HEADER, headers, "objectid", "bytenr"))
    ctx.gather("cache-inodes", keyed(INODE, batch.inodes, "objectid", "offset"))
    ctx.gather("cache-extents", keyed(EXTENT, batch.regular_extents, "objectid", "offset"))


def _problem(row: Any, code: str, message: str, severity: Severity = Severity.ERROR, **more: Any) -> Problem:
    key = (int(ObjectId.FREE_SPACE), int(KeyType.UNTYPED), int(row["bytenr"]))
    return Problem(code, message, severity, logical=key[2], tree=_TREE, key=key, **more)


@final_check(
    "free-space",
    codes=(
        "free-space.cache-outdated",
        "free-space.cache-broken",
        "free-space.cache-missing",
        "free-space.cache-allocated",
    ),
    order=37,
)
def caches(ctx: Context) -> Iterator[Problem]:
    """A cache that says it is up to date is whole, and tells of just the space that no extent takes."""
    if not _is_kept(ctx):
        return
    superblock = ctx.fs.superblock
    found, expected = int(superblock.cache_generation), int(superblock.generation)
    if found != expected:
        if found != NO_CACHE:
            message = "the free-space cache is of another transaction than the superblock and will be built again"
            yield Problem(
                "free-space.cache-outdated", message, Severity.NOTE, tree=_TREE, found=found, expected=expected
            )
        return
    if not is_whole(ctx, ObjectId.ROOT_TREE, ObjectId.EXTENT_TREE, block_group_tree(ctx)):
        return
    headers, groups = ctx.columns("cache-headers", HEADER), block_groups(ctx)
    files = _Files(ctx)
    usable, runs = [], [np.empty(0, RUN)]
    for header in headers:
        group = int(np.searchsorted(groups["bytenr"], header["bytenr"]))
        if group == len(groups) or groups["bytenr"][group] != header["bytenr"]:
            yield _problem(header, "free-space.cache-outdated", "cache of a block group that is gone", Severity.NOTE)
            continue
        try:
            found_runs = files.free_runs(header)
        except _Broken as error:
            yield _problem(header, "free-space.cache-broken", str(error))
            continue
        if found_runs is not None:
            usable.append(group)
            runs.append(found_runs)
    free = np.concatenate(runs)
    for code, message, row, first, count in differences(
        ctx, groups[np.unique(np.array(usable, np.int64))], merged(free["start"], free["end"])
    ):
        yield _problem(
            row, f"free-space.cache-{code}", f"{message}: {count} ranges, the first at {first[0]}", found=first
        )


class _Files:
    """The cache files of the root tree."""

    def __init__(self, ctx: Context) -> None:
        self._volume = ctx.fs.volume
        self._page = ctx.fs.sectorsize
        inodes = ctx.columns("cache-inodes", INODE)
        self._inodes: dict[int, Any] = {int(row["objectid"]): row["item"] for row in inodes}
        extents = ctx.columns("cache-extents", EXTENT)
        self._extents = extents[np.lexsort((extents["offset"], extents["objectid"]))]

    def free_runs(self, header: Any) -> Rows | None:
        """The free ranges that a cache tells of, as rows of `RUN`; None if it does not claim to be up to date."""
        number = int(header["item"]["location"]["objectid"])
        inode = self._inodes.get(number)
        if inode is None or header["item"]["location"]["type"] != KeyType.INODE_ITEM:
            raise _Broken(f"there is no inode {number}, where the cache should be")
        generation, count = int(header["item"]["generation"]), int(header["item"]["num_entries"])
        if generation == 0 or generation != int(inode["generation"]) or count == 0:
            return None
        pages = -(-int(inode["size"]) // self._page)
        if not pages or pages * 4 + 8 > self._page:
            raise _Broken(f"cache file of {int(inode['size'])} bytes")
        position, used = self._places(pages, count)
        data = self._read(number, pages * self._page)
        written = int(data[4 * pages : 4 * pages + 8].view("<u8")[0])
        if written != generation:
            raise _Broken(f"cache file is of transaction {written}, its header of {generation}")
        return self._parse(data, pages, position, used)

    def _read(self, number: int, size: int) -> Bytes:
        """The first ``size`` bytes of a file, which must be there without a hole."""
        low, high = np.searchsorted(self._extents["objectid"], np.array([number, number + 1], np.uint64)).tolist()
        item, offset = self._extents["item"][low:high], self._extents["offset"][low:high]
        used = offset < size
        item, offset = item[used], offset[used].astype(np.int64)
        length = np.minimum(item["num_bytes"], (size - offset).astype(np.uint64)).astype(np.int64)
        written = (item["type"] == FileExtentType.REG) & (item["compression"] == 0) & (item["disk_bytenr"] != 0)
        if not written.all() or length.sum() != size or (offset != np.cumsum(length) - length).any():
            raise _Broken("cache file is not written to its end")
        data, ok = self._volume.read_ranges(item["disk_bytenr"] + item["offset"], length)
        if not ok.all():
            raise _Broken("cache file cannot be read")
        return data[:size]

    def _places(self, pages: int, count: int) -> tuple[I64, int]:
        """Where entries stand in a cache file, i8, and how many of its pages they take."""
        begin = np.arange(pages, dtype=np.int64) * self._page
        begin[0] = 4 * pages + 8
        room = (np.arange(1, pages + 1) * self._page - begin) // _ENTRY.itemsize
        last = np.cumsum(room)
        if count > last[-1]:
            raise _Broken(f"cache file has no room for {count} entries")
        index = np.arange(count)
        page = np.searchsorted(last, index, "right")
        return begin[page] + (index - (last - room)[page]) * _ENTRY.itemsize, int(page[-1]) + 1

    def _verify(self, data: Bytes, pages: int, used: int) -> None:
        """Checksums of the pages that are in use: what the others' places hold is left from before."""
        rest = 4 * pages
        wanted = data[: 4 * used].reshape(used, 4)
        found = csum_blocks(CsumType.CRC32, data[: used * self._page], self._page)
        found = np.concatenate([csum_blocks(CsumType.CRC32, data[rest : self._page], self._page - rest), found[1:]])
        wrong = np.flatnonzero((found != wanted).any(axis=1))
        if len(wrong):
            raise _Broken(f"checksum of page {int(wrong[0])} of the cache file is wrong")

    def _parse(self, data: Bytes, pages: int, position: I64, used: int) -> Rows:
        """The free ranges of entries, which fill ``used`` pages, and of the bitmaps behind them."""
        entries = gather(data, position, _ENTRY)
        bitmap = entries["type"] == FreeSpaceEntryType.BITMAP
        maps, extents = entries[bitmap], entries[~bitmap]
        if used + len(maps) > pages:
            raise _Broken(f"cache file has no room for {len(maps)} bitmaps")
        self._verify(data, pages, used + len(maps))
        if (extents["type"] != FreeSpaceEntryType.EXTENT).any():
            raise _Broken("cache file has an entry of no known type")
        at: I64 = (used + np.arange(len(maps), dtype=np.int64)) * self._page
        size = np.full(len(maps), self._page, np.int64)
        start, end, owner = runs_of_bits(data, at, size, size * 8)
        runs = np.zeros(len(extents) + len(start), RUN)
        base, sector = maps["offset"][owner], np.uint64(self._page)
        runs["start"] = np.concatenate([extents["offset"], base + start.astype(np.uint64) * sector])
        extent_end = extents["offset"] + extents["bytes"]
        runs["end"] = np.concatenate([extent_end, base + end.astype(np.uint64) * sector])
        return runs
