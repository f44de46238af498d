"""Checksum items, and what they cover: every extent of data that must have checksums, and none that must not.

Checksums are gathered as ranges of addresses, joined where they touch, so that they take little room. Batches of
subvolumes are compared with them. Where a leaf does not hold the inode of its first extents, `leaf_boundaries` knows
the inode.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import U64
from cowlib.checksum import csum_size
from cowlib.format import (
    HEADER_SIZE,
    ITEM_SIZE,
    Compression,
    FileExtentType,
    InodeFlag,
    KeyType,
    ObjectId,
    SuperFlag,
)
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.extents import DATA, EXTENT, EXTENTS
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context
from fsck_cow.intervals import layered, merged, overlaps
from fsck_cow.problems import Problem
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.space import is_whole

Mask = npt.NDArray[np.bool_]

#: Addresses of data with checksums, in bytes, in key order: gathered under "checksum.ranges".
RANGE = np.dtype([("start", "<u8"), ("end", "<u8")])

#: The same sorted and joined, ``before`` being how many bytes all earlier ones cover: kept under "checksum.covered".
COVERED = np.dtype([("start", "<u8"), ("end", "<u8"), ("before", "<u8")])

#: Extents at the beginning of a leaf whose inode stands in an earlier one: the row of the leaf, and the offset in the
#: file of the first that lacks checksums and of the first that has some (`NONE`: there is none).
HEAD = np.dtype([("row", "<i8"), ("missing", "<u8"), ("found", "<u8")])
NONE = 2**64 - 1

#: A preallocated extent with checksums: legal if some file has written to it. Its tree and key, and where it is.
WRITTEN = np.dtype([("tree", "<u8"), ("objectid", "<u8"), ("offset", "<u8"), ("bytenr", "<u8")])

_CHANGING = SuperFlag.CHANGING_DATA_CSUM | SuperFlag.CHANGING_META_CSUM


def _changing(context: Context) -> bool:
    """Whether checksums are being converted to another type, so that two kinds of them stand in one tree."""
    return bool(int(context.fs.superblock.flags) & _CHANGING)


@leaf_check(
    "checksum",
    Kind.CHECKSUMS,
    codes=("checksum.key-wrong", "checksum.unaligned", "checksum.item-size"),
)
def check_items(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Checksum items by themselves; gathers what they cover."""
    items, tree = batch.items.of_type(KeyType.EXTENT_CSUM), batch.tree
    if _changing(context):
        return
    sector, width = context.fs.sectorsize, csum_size(context.fs.csum_type)
    strange = items.objectid != np.uint64(ObjectId.EXTENT_CSUM)
    yield from report_items("checksum.key-wrong", "object of a checksum item", items, strange, tree=tree)
    unaligned = items.offset & np.uint64(sector - 1) > 0
    yield from report_items(
        "checksum.unaligned", "checksums of data that begin inside a sector", items, unaligned, tree=tree
    )
    # The kernel leaves room for another item and one checksum more.
    most = ((context.fs.nodesize - HEADER_SIZE - 2 * ITEM_SIZE) // width - 1) * width
    wrong = (items.size % width > 0) | (items.size == 0) | (items.size > most)
    message = "length of a checksum item"
    expected = f"a multiple of {width}, at most {most}"
    yield from report_items("checksum.item-size", message, items, wrong, tree=tree, found=items.size, expected=expected)
    context.gather("checksum.ranges", ranges(items.offset[~strange], items.size[~strange] // width * sector))


def ranges(start: U64, length: npt.NDArray[np.int64]) -> Rows:
    """Ranges in key order as rows of `RANGE`, joined where one ends at the start of the next."""
    end = start + length.astype(np.uint64)
    new = np.ones(len(start), bool)
    new[1:] = start[1:] != end[:-1]
    rows = np.empty(int(np.count_nonzero(new)), RANGE)
    rows["start"] = start[new]
    rows["end"] = end[np.append(new[1:], True)] if len(new) else end
    return rows


@final_check("checksum", ("checksum.overlap", "checksum.without-extent"))
def check_ranges(context: Context) -> Iterator[Problem]:
    """No sector has two checksums; all that have one belong to an extent of data, if only to one still in a log."""
    rows = context.columns("checksum.ranges", RANGE)
    if not len(rows):
        return
    for i in overlaps(rows["start"], rows["end"])[0].tolist():
        at = int(rows["start"][i])
        yield Problem("checksum.overlap", "checksums of this data stand twice", logical=at, tree=ObjectId.CSUM_TREE)
    if not is_whole(context, ObjectId.EXTENT_TREE):
        return
    extents = context.columns(EXTENTS, EXTENT)
    data = extents[extents["flags"] & DATA > 0]
    logged = context.columns("log.data", RANGE)
    summed = merged(rows["start"], rows["end"])
    known = merged(
        np.concatenate([data["bytenr"], logged["start"]]),
        np.concatenate([data["bytenr"] + data["num_bytes"], logged["end"]]),
    )
    place = np.searchsorted(known[0], summed[0], "right") - 1
    inside = place >= 0
    if len(known[1]):
        inside &= summed[1] <= known[1][place]
    if inside.all():
        return
    start, end, covered = layered([(summed[0][~inside], summed[1][~inside]), known])
    for i in np.flatnonzero(covered[:, 0] & ~covered[:, 1]).tolist():
        first, last = int(start[i]), int(end[i])
        message = f"checksums for {last - first} bytes that no extent of data holds"
        yield Problem("checksum.without-extent", message, logical=first, tree=ObjectId.CSUM_TREE, found=last - first)


def covered(context: Context) -> Rows | None:
    """What has checksums, as rows of `COVERED`; None where that cannot be told. Each process finds out once."""
    if (ready := context.gathered.get("checksum.covered")) is None:
        usable = is_whole(context, ObjectId.CSUM_TREE) and not _changing(context)
        ready = [joined(context.columns("checksum.ranges", RANGE))] if usable else []
        context.gathered["checksum.covered"] = ready
    return ready[0] if ready else None


def joined(rows: Rows) -> Rows:
    """Rows of `RANGE` as rows of `COVERED`."""
    start, end = merged(rows["start"], rows["end"])
    result = np.empty(len(start), COVERED)
    result["start"], result["end"] = start, end
    result["before"] = np.cumsum(end - start) - (end - start)
    return result


def covered_bytes(rows: Rows, start: U64, length: U64) -> U64:
    """How many bytes of each range have checksums: u8, shape (n,). ``rows`` are of `COVERED`."""
    if not len(rows) or not len(start):
        return np.zeros(len(start), np.uint64)
    starts, ends = np.ascontiguousarray(rows["start"]), np.ascontiguousarray(rows["end"])
    place = np.searchsorted(starts, start, "right") - 1
    end = start + length
    found = np.where((place >= 0) & (end <= ends[place]), length, np.uint64(0))
    partly = np.flatnonzero(found < length)
    if len(partly):
        found[partly] = _below(rows, end[partly]) - _below(rows, start[partly])
    return found


def _below(rows: Rows, address: U64) -> U64:
    """How many bytes have checksums before each address."""
    place = np.searchsorted(rows["start"], address, "right") - 1
    row = rows[place]
    total: U64 = np.where(place >= 0, row["before"] + np.minimum(address, row["end"]) - row["start"], np.uint64(0))
    return total


def summed_range(rows: Rows) -> tuple[U64, U64]:
    """Start and length of what must have checksums, for rows of regular extents: all of an extent if compressed."""
    packed = rows["compression"] != Compression.NONE
    start = np.where(packed, rows["disk_bytenr"], rows["disk_bytenr"] + rows["offset"])
    return start, np.where(packed, rows["disk_num_bytes"], rows["num_bytes"])


@leaf_check("checksum", Kind.FILES, codes=("checksum.missing", "checksum.odd"))
def check_coverage(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Extents of data have checksums, unless the inode says that they have none.

    Relocation copies extents without looking whether they were ever written, so its own tree is left out.
    """
    rows, items = batch.regular_extents.rows, batch.regular_extents.items
    summed = covered(context)
    if summed is None or not len(rows) or batch.tree == ObjectId.DATA_RELOC_TREE:
        return
    start, wanted = summed_range(rows)
    wanted = np.where(rows["disk_bytenr"] == 0, np.uint64(0), wanted)
    found = covered_bytes(summed, start, wanted)
    lacking = found < wanted
    has_some = found > 0
    regular = rows["type"] == FileExtentType.REG
    owner = batch.extent_inodes[batch.regular_places]
    flags = batch.inodes.rows["flags"]
    unsummed = (flags & np.uint64(InodeFlag.NODATASUM) > 0)[owner] if len(flags) else np.zeros(len(owner), bool)
    packed = rows["compression"] != Compression.NONE
    missing = regular & lacking & (packed | ~unsummed)
    odd = regular & has_some & unsummed
    known = owner >= 0
    message = "extent of data has no checksums, or not for all of it"
    yield from report_items(
        "checksum.missing", message, items, missing & known, tree=batch.tree, found=found, expected=wanted
    )
    message = "data of an inode that has no checksums has some"
    yield from report_items("checksum.odd", message, items, odd & known, tree=batch.tree, found=found, expected=0)
    if not known.all():
        _gather_heads(context, batch, regular & lacking & ~known, regular & has_some & ~known)
    written = np.flatnonzero((rows["type"] == FileExtentType.PREALLOC) & has_some)
    if len(written):
        told = np.empty(len(written), WRITTEN)
        told["tree"], told["objectid"], told["offset"] = batch.tree, items.objectid[written], items.offset[written]
        told["bytenr"] = rows["disk_bytenr"][written]
        context.gather("checksum.prealloc", told)


def _gather_heads(context: Context, batch: LeafBatch, missing: Mask, found: Mask) -> None:
    items = batch.regular_extents.items
    some = np.flatnonzero(missing | found)
    nodes, first = np.unique(items.node[some], return_index=True)
    if not len(nodes):
        return
    rows = np.empty(len(nodes), HEAD)
    rows["row"] = batch.rows[nodes]
    offset = items.offset[some]
    for name, which in (("missing", missing[some]), ("found", found[some])):
        rows[name] = np.minimum.reduceat(np.where(which, offset, np.uint64(NONE)), first)
    context.gather("checksum.heads", rows)


@final_check("checksum", ("checksum.odd",))
def check_preallocated(context: Context) -> Iterator[Problem]:
    """A preallocated extent has checksums only if another file extent refers to it as written."""
    told = context.columns("checksum.prealloc", WRITTEN)
    if not len(told):
        return
    wanted = np.unique(told["bytenr"])
    seen = np.zeros(len(wanted), bool)
    for (objectid, _), walked in list(context.walked.items()):
        if objectid in (ObjectId.FS_TREE, ObjectId.DATA_RELOC_TREE) or 256 <= objectid <= ObjectId.LAST_FREE:
            for batch in context.batches(objectid, walked.fresh):
                rows = batch.regular_extents.rows
                seen |= np.isin(wanted, rows["disk_bytenr"][rows["type"] == FileExtentType.REG])
    for row in told[np.isin(told["bytenr"], wanted[~seen])]:
        yield Problem(
            "checksum.odd",
            "preallocated extent that was never written has checksums",
            logical=int(row["bytenr"]),
            tree=int(row["tree"]),
            key=(int(row["objectid"]), int(KeyType.EXTENT_DATA), int(row["offset"])),
        )
