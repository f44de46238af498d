"""File extents: each by itself, each with the one before it in the same leaf, and their sum against the inode's.

What reaches from one leaf into the next is for `boundaries`. The rules are those of the kernel's tree checker and of
``btrfs check``, in bytes throughout.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import U64
from cowlib.format import (
    MAX_COMPRESSED,
    Compression,
    FileExtentHead,
    FileExtentItem,
    FileExtentType,
    FileType,
    InodeFlag,
    KeyType,
    ObjectId,
    columns,
)
from fsck_cow.batch import Heads, LeafBatch
from fsck_cow.checks.inodes import file_types, is_inode
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context
from fsck_cow.ledger import Posting, ledger, minus, mix, times
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, leaf_check

Mask = npt.NDArray[np.bool_]

_HEAD = columns(FileExtentHead).itemsize
_WHOLE = columns(FileExtentItem).itemsize
_NOTHING = np.uint64(0)


def extent_ends(batch: LeafBatch, sectorsize: int) -> U64:
    """Where each of `LeafBatch.file_extents` ends in its file: u8, shape (n,). Inline data fills its last sector."""
    heads = batch.file_extents
    mask = np.uint64(sectorsize - 1)
    length = (heads.rows["ram_bytes"] + mask) & ~mask
    length[batch.regular_places] = batch.regular_extents.rows["num_bytes"]
    end: U64 = heads.items.offset + length
    return end


@leaf_check(
    "file-extent",
    Kind.FILES,
    Kind.ROOTS,
    Kind.LOG,
    codes=(
        "file-extent.item-size",
        "file-extent.type-unknown",
        "file-extent.compression-unknown",
        "file-extent.encoded",
        "file-extent.unaligned",
        "file-extent.generation-wrong",
    ),
)
def check_heads(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """What extents of all types have: shape, type, compression, place, generation."""
    tree, newest = batch.tree, int(context.fs.superblock.generation) + 1
    items, rows = batch.file_extents.items, batch.file_extents.rows
    if len(items) != np.count_nonzero(batch.items.type == KeyType.EXTENT_DATA):
        short = batch.items.of_type(KeyType.EXTENT_DATA)
        yield from report_items(
            "file-extent.item-size", "file extent is too short", short, short.size < _HEAD, tree=tree, found=short.size
        )
    if not len(items):
        return
    kind = rows["type"]
    regular = kind != FileExtentType.INLINE
    for code, message, wrong, found in (
        ("item-size", "file extent has an odd size", regular & (items.size != _WHOLE), items.size),
        ("type-unknown", "type of a file extent", kind > FileExtentType.PREALLOC, kind),
        (
            "compression-unknown",
            "compression of a file extent",
            rows["compression"] > Compression.ZSTD,
            rows["compression"],
        ),
        ("encoded", "file extent is encrypted or encoded", rows["encryption"] > 0, rows["encryption"]),
        ("encoded", "file extent is encrypted or encoded", rows["other_encoding"] > 0, rows["other_encoding"]),
        ("unaligned", "file extent begins inside a sector", items.offset % context.fs.sectorsize > 0, items.offset),
        ("generation-wrong", "file extent is from the future", rows["generation"] > newest, rows["generation"]),
    ):
        yield from report_items(f"file-extent.{code}", message, items, wrong, tree=tree, found=found)


@leaf_check(
    "file-extent", Kind.FILES, Kind.ROOTS, Kind.LOG, codes=("file-extent.inline-size", "file-extent.inline-place")
)
def check_inline(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Inline extents: at the beginning of the file, as long as they say, no longer than allowed."""
    heads, tree, sectorsize = batch.file_extents, batch.tree, context.fs.sectorsize
    inline = np.flatnonzero(heads.rows["type"] == FileExtentType.INLINE)
    if not len(inline):
        return
    items, rows = heads.items.select(inline), heads.rows[inline]
    size, ram = items.size - _HEAD, rows["ram_bytes"]
    message = "inline extent does not stand at the beginning of its file"
    yield from report_items(
        "file-extent.inline-place", message, items, items.offset != 0, tree=tree, found=items.offset
    )
    packed = rows["compression"] != Compression.NONE
    most = sectorsize - 1
    message = "inline extent is not as long as it says"
    wrong = ~packed & (ram != size.astype(np.uint64))
    yield from report_items("file-extent.inline-size", message, items, wrong, tree=tree, found=ram, expected=size)
    wrong = (ram == 0) | (ram > np.where(packed, sectorsize, most).astype(np.uint64)) | (size > most)
    message = "inline extent is empty, or longer than allowed"
    yield from report_items("file-extent.inline-size", message, items, wrong, tree=tree, found=ram)


@leaf_check(
    "file-extent",
    Kind.FILES,
    Kind.ROOTS,
    Kind.LOG,
    codes=("file-extent.unaligned", "file-extent.range-wrong", "file-extent.prealloc-odd", "file-extent.ram-bytes"),
)
def check_regular(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Regular and preallocated extents: all places whole sectors, ranges inside what they are ranges of."""
    heads, tree = batch.regular_extents, batch.tree
    items, rows = heads.items, heads.rows
    if not len(items):
        return
    ram, disk, disk_size = rows["ram_bytes"], rows["disk_bytenr"], rows["disk_num_bytes"]
    offset, size = rows["offset"], rows["num_bytes"]
    crooked = ((ram | disk | disk_size | offset | size) & np.uint64(context.fs.sectorsize - 1)) > 0
    yield from report_items(
        "file-extent.unaligned", "file extent is not made of whole sectors", items, crooked, tree=tree
    )
    packed = rows["compression"] != Compression.NONE
    hole = disk == 0
    end = offset + size
    wrong = (size == 0) | (end < offset) | (end > ram) | (items.offset + size < items.offset)
    message = "file extent is empty, or reaches beyond its extent or the largest file"
    yield from report_items("file-extent.range-wrong", message, items, wrong, tree=tree, found=end, expected=ram)
    wrong = (disk + disk_size < disk) | (~hole & (disk_size == 0)) | (~hole & ~packed & (end > disk_size))
    wrong |= packed & ((ram > MAX_COMPRESSED) | (disk_size > MAX_COMPRESSED))
    message = "length on disk does not fit the file extent"
    yield from report_items("file-extent.range-wrong", message, items, wrong, tree=tree, found=disk_size)
    odd = (rows["type"] == FileExtentType.PREALLOC) & (packed | hole)
    message = "preallocated extent is compressed, or has no place"
    yield from report_items("file-extent.prealloc-odd", message, items, odd, tree=tree)
    differ = ~packed & (ram != disk_size) & (~hole | (disk_size > 0))
    message = "ram_bytes of an extent that is not compressed are not its length on disk"
    yield from report_items(
        "file-extent.ram-bytes",
        message,
        items,
        differ,
        tree=tree,
        found=ram,
        expected=disk_size,
        severity=Severity.NOTE,
    )


@leaf_check("file-extent", Kind.FILES, codes=("file-extent.overlap",))
def check_neighbours(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """An extent begins where the one before it ends, or later."""
    items = batch.file_extents.items
    if len(items) < 2:
        return
    end = extent_ends(batch, context.fs.sectorsize)
    same = (items.objectid[1:] == items.objectid[:-1]) & (items.node[1:] == items.node[:-1])
    wrong = np.zeros(len(items), bool)
    wrong[1:] = same & (end[:-1] > items.offset[1:])
    before = np.zeros(len(items), np.uint64)
    before[1:] = end[:-1]
    message = "file extent begins before the one in front of it ends"
    yield from report_items(
        "file-extent.overlap", message, items, wrong, tree=batch.tree, found=items.offset, expected=before
    )


@leaf_check("file-extent", Kind.FILES, codes=("file-extent.not-a-file", "file-extent.compressed-odd"))
def check_owners(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Only files and symbolic links have extents, the latter inline ones; compression needs an inode with checksums."""
    owner, inodes = batch.extent_inodes, batch.inodes
    if not len(inodes.items):
        return
    known = owner >= 0
    kind = np.where(known, file_types(inodes.rows["mode"])[owner], FileType.REG_FILE)
    if (kind != FileType.REG_FILE).any():
        items, rows = batch.file_extents.items, batch.file_extents.rows
        link = kind == FileType.SYMLINK
        wrong = (kind != FileType.REG_FILE) & ~link
        yield from report_items("file-extent.not-a-file", "extent of what is no file", items, wrong, tree=batch.tree)
        wrong = link & (rows["type"] != FileExtentType.INLINE)
        message = "target of a symbolic link does not stand inline"
        yield from report_items("file-extent.not-a-file", message, items, wrong, tree=batch.tree)
        size = inodes.rows["size"][owner]
        wrong = link & (rows["type"] == FileExtentType.INLINE)
        # Some tools add a NUL to the target.
        wrong &= rows["ram_bytes"] - size > 1
        message = "target of a symbolic link is not as long as its inode says"
        yield from report_items(
            "file-extent.inline-size", message, items, wrong, tree=batch.tree, found=rows["ram_bytes"], expected=size
        )
    packed = batch.regular_extents.rows["compression"] != Compression.NONE
    if packed.any():
        place = batch.regular_places
        unsummed = inodes.rows["flags"][owner[place]] & np.uint64(InodeFlag.NODATASUM) > 0
        message = "compressed extent of an inode that has no checksums"
        yield from report_items(
            "file-extent.compressed-odd",
            message,
            batch.regular_extents.items,
            packed & unsummed & known[place],
            tree=batch.tree,
        )


def _counted_bytes(batch: LeafBatch) -> tuple[Heads, U64]:
    """All extents, and how many bytes each adds to `nbytes` of its inode: none where it is a hole."""
    heads = batch.file_extents
    counted = np.where(heads.rows["type"] == FileExtentType.INLINE, heads.rows["ram_bytes"], _NOTHING)
    regular = batch.regular_extents.rows
    counted[batch.regular_places] = np.where(regular["disk_bytenr"] == 0, _NOTHING, regular["num_bytes"])
    return heads, counted


def _has_bytes(batch: LeafBatch) -> Mask:
    """Which inodes have `nbytes` that are kept right: files and symbolic links that have names."""
    kind = file_types(batch.inodes.rows["mode"])
    file: Mask = ((kind == FileType.REG_FILE) | (kind == FileType.SYMLINK)) & (batch.inodes.rows["nlink"] > 0)
    return file & (batch.inodes.items.objectid <= np.uint64(ObjectId.LAST_FREE))


def explain(batch: LeafBatch) -> Iterator[Problem]:
    """Adds up the bytes of every inode's extents exactly."""
    inodes, rows = batch.inodes.items, batch.inodes.rows
    heads, counted = _counted_bytes(batch)
    numbers, index = np.unique(heads.items.objectid, return_inverse=True)
    total = np.zeros(len(numbers), np.uint64)
    np.add.at(total, index, counted)
    place = np.searchsorted(numbers, inodes.objectid)
    place = np.minimum(place, max(len(numbers) - 1, 0))
    sums = np.zeros(len(inodes), np.uint64)
    if len(numbers):
        sums = np.where(numbers[place] == inodes.objectid, total[place], _NOTHING)
    file = _has_bytes(batch)
    dropped = rows["nlink"] == 0
    message = "nbytes is not the sum of the inode's extents"
    nbytes = rows["nbytes"]
    wrong = file & (nbytes != sums)
    yield from report_items("inode.nbytes-wrong", message, inodes, wrong, tree=batch.tree, found=nbytes, expected=sums)
    message = "inode without a name still has extents: it is to be deleted at the next mount"
    noted = ~file & dropped & (sums > 0)
    yield from report_items(
        "inode.half-dropped", message, inodes, noted, tree=batch.tree, found=sums, severity=Severity.NOTE
    )
    lost = ~np.isin(numbers, inodes.objectid[file | dropped]) & (total > 0) & is_inode(numbers)
    for objectid, size in zip(numbers[lost].tolist(), total[lost].tolist(), strict=True):
        message = f"extents with {size} bytes belong to an inode that is no file, or is not there"
        yield Problem("file-extent.not-a-file", message, tree=batch.tree, key=(objectid, int(KeyType.EXTENT_DATA), 0))


@ledger("nbytes", ("inode.nbytes-wrong", "inode.half-dropped", "file-extent.not-a-file"), explain)
def bytes_agree(batch: LeafBatch) -> Iterator[Posting]:
    """An inode's `nbytes`, less the bytes that its extents stand for."""
    inodes, nbytes = batch.inodes.items, batch.inodes.rows["nbytes"]
    yield inodes.node, np.where(_has_bytes(batch), times(mix(inodes.objectid), nbytes), _NOTHING)
    heads, counted = _counted_bytes(batch)
    items = heads.items
    counted = np.where(items.objectid <= np.uint64(ObjectId.LAST_FREE), counted, _NOTHING)
    unnamed = batch.inodes.rows["nlink"] == 0
    if unnamed.any():
        # Most inodes that wait to be deleted stand in one leaf with their extents: no need to read the tree for them.
        owner = batch.extent_inodes
        counted[(owner >= 0) & unnamed[owner]] = 0
    yield items.node, minus(times(mix(items.objectid), counted))
