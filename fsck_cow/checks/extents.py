"""Extent items and the references recorded with them, each by itself: shapes, flags, bounds, order.

What is referred to, and by whom, is compared in `fsck_cow.checks.backrefs`; this gathers the columns for it.
Facts: the on-disk format documentation, and what the kernel's tree checker and btrfs check refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import Items, gather
from cowlib.btree.nodes import I64, U64
from cowlib.checksum import extent_data_ref_hash
from cowlib.format import (
    MAX_LEVEL,
    STRIPE_LEN,
    BlockGroupFlag,
    ExtentDataRef,
    ExtentFlag,
    ExtentItem,
    IncompatFeature,
    KeyType,
    ObjectId,
    SharedDataRef,
    TreeBlockInfo,
    columns,
)
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.extent_refs import BLOCK_INFO, DATA_REFS, HEAD, REF, TREE_REFS, InlineRefs, inline_refs, keyed_refs
from fsck_cow.checks.reporting import report_addresses, report_items
from fsck_cow.checks.roots import is_subvolume
from fsck_cow.context import Context
from fsck_cow.ledger import mix, times
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.walk import LOST

Mask = npt.NDArray[np.bool_]

#: The names under which rows are gathered. `EXTENT`: all extents in key order.
EXTENTS = "extents"
#: `REF`: the inline references to tree blocks, and all keyed references.
INLINE_BLOCK_REFS, KEYED_REFS = "extent-inline-block-refs", "extent-keyed-refs"
#: `SUM`: of the hashes of inline references to data, by batch.
INLINE_DATA_SUMS = "extent-inline-data-sums"
#: `ADDRESS`: the tree blocks with FULL_BACKREF.
FULL_BACKREFS = "extent-full-backrefs"
#: `OWNER`: who pays for a data extent, with simple quotas.
OWNERS = "extent-owners"

#: An extent item, 34 bytes: where, how long, who made it when, and how often it is referred to.
#: ``flags`` has the bits `DATA`, `TREE_BLOCK` and `FULL_BACKREF` below, none where the item is too short. ``refs`` is
#: what the item says, ``counted`` the sum of its inline references, both at most 2^32-1. ``level`` is a tree block's.
EXTENT = np.dtype(
    [
        ("bytenr", "<u8"),
        ("num_bytes", "<u8"),
        ("generation", "<u8"),
        ("refs", "<u4"),
        ("counted", "<u4"),
        ("flags", "u1"),
        ("level", "u1"),
    ]
)
DATA, TREE_BLOCK, FULL_BACKREF = 1, 2, 128

#: A sum of hashes of data references: see `data_ref_hashes`.
SUM = np.dtype([("sum", "<u8")])

ADDRESS = np.dtype([("bytenr", "<u8")])

OWNER = np.dtype([("bytenr", "<u8"), ("root", "<u8")])

_MOST = np.uint64(2**32 - 1)
_KNOWN_FLAGS = np.uint64(ExtentFlag.DATA | ExtentFlag.TREE_BLOCK | ExtentFlag.FULL_BACKREF)

CODES = (
    "extent.item-size",
    "extent.skinny-without-feature",
    "extent.unaligned",
    "extent.length-wrong",
    "extent.flags-wrong",
    "extent.generation-wrong",
    "extent.level-wrong",
    "extent.refs-zero",
    "extent.inline-broken",
    "extent.inline-type",
    "extent.inline-order",
    "extent.inline-duplicate",
    "extent.ref-unaligned",
    "extent.ref-count-zero",
    "extent.ref-root-wrong",
    "extent.ref-objectid-wrong",
    "extent.owner-ref-without-feature",
    "extent.keyed-size",
    "extent.keyed-hash",
)


def data_ref_hashes(refs: Rows, num_bytes: U64) -> U64:
    """One hash for each data reference, times its count: rows of `REF` and the lengths of their extents."""
    hashes = mix(refs["bytenr"], num_bytes, refs["type"], refs["root"], refs["objectid"], refs["offset"])
    return times(hashes, refs["count"])


@leaf_check("extent", Kind.EXTENTS, codes=CODES)
def extent_items(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Extent items of a batch of leaves, and the references inside and beside them."""
    items = batch.items.of_type(KeyType.EXTENT_ITEM, KeyType.METADATA_ITEM)
    rows, heads, long = _rows(context, items)
    yield from report_items(
        "extent.item-size", "item is too short", items, ~long, found=items.size, expected=f">= {HEAD}"
    )
    whole = items if long.all() else items.select(long)
    yield from _heads(context, whole, heads, rows[long])
    is_block = (heads["flags"] & np.uint64(ExtentFlag.TREE_BLOCK)) > 0
    start = whole.position + HEAD
    start[is_block & (whole.type == KeyType.EXTENT_ITEM)] += BLOCK_INFO
    refs = inline_refs(whole, start)
    rows["counted"][long] = np.minimum(refs.counted(len(whole)), _MOST)
    yield from _inline(context, whole, is_block, refs)
    yield from _keyed(context, batch)
    context.gather(EXTENTS, rows)
    context.gather(FULL_BACKREFS, rows["bytenr"][rows["flags"] & FULL_BACKREF > 0].astype(ADDRESS))
    _gather_refs(context, batch, refs, rows["num_bytes"][long])


def _rows(context: Context, items: Items) -> tuple[Rows, Rows, Mask]:
    """The `EXTENT` rows of extent items, the heads of those that are long enough, and which those are."""
    skinny = items.type == KeyType.METADATA_ITEM
    rows = np.zeros(len(items), EXTENT)
    rows["bytenr"] = items.objectid
    rows["num_bytes"] = np.where(skinny, np.uint64(context.fs.nodesize), items.offset)
    long = items.in_bounds & (items.size >= HEAD)
    heads = gather(items.buffer, items.position[long], columns(ExtentItem))
    flags = heads["flags"]
    rows["generation"][long] = heads["generation"]
    rows["refs"][long] = np.minimum(heads["refs"], _MOST)
    rows["flags"][long] = (flags & np.uint64(3)) | ((flags & np.uint64(ExtentFlag.FULL_BACKREF)) >> np.uint64(1))
    fat = long & ~skinny & (rows["flags"] & TREE_BLOCK > 0)
    too_short = fat & (items.size < HEAD + BLOCK_INFO)
    if too_short.any():
        rows["flags"][too_short] = 0
        heads = heads[~too_short[long]]
        long, fat = long & ~too_short, fat & ~too_short
    rows["level"][skinny] = np.minimum(items.offset[skinny], np.uint64(255))
    rows["level"][fat] = gather(items.buffer, items.position[fat] + HEAD, columns(TreeBlockInfo))["level"]
    return rows, heads, long


def _heads(context: Context, items: Items, heads: Rows, rows: Rows) -> Iterator[Problem]:
    """What the key and the head of an extent item say."""
    sector, nodesize = np.uint64(context.fs.sectorsize), context.fs.nodesize
    newest = int(context.fs.superblock.generation)
    skinny = items.type == KeyType.METADATA_ITEM
    block = (heads["flags"] & np.uint64(ExtentFlag.TREE_BLOCK)) > 0
    data = (heads["flags"] & np.uint64(ExtentFlag.DATA)) > 0
    full = (heads["flags"] & np.uint64(ExtentFlag.FULL_BACKREF)) > 0
    if not int(context.fs.superblock.incompat_flags) & IncompatFeature.SKINNY_METADATA:
        yield from report_items(
            "extent.skinny-without-feature", "METADATA_ITEM on a filesystem without skinny metadata", items, skinny
        )
    wrong = items.objectid % sector != 0
    yield from report_items("extent.unaligned", "address is not a multiple of the sector size", items, wrong)
    wrong = ~skinny & np.where(block, items.offset != np.uint64(nodesize), items.offset % sector != 0)
    wrong |= ~skinny & (items.offset == 0)
    yield from report_items(
        "extent.length-wrong", "length is none that such an extent has", items, wrong, found=items.offset
    )
    wrong = (block == data) | (full & data) | (skinny & data) | (heads["flags"] & ~_KNOWN_FLAGS > 0)
    yield from report_items(
        "extent.flags-wrong",
        "flags must be DATA, or TREE_BLOCK and nothing but FULL_BACKREF beside it",
        items,
        wrong,
        found=heads["flags"],
    )
    # btrfs-convert writes no generation for the data it finds.
    wrong = (block & (heads["generation"] == 0)) | (heads["generation"] > np.uint64(newest))
    yield from report_items(
        "extent.generation-wrong",
        "generation is not one that has been",
        items,
        wrong,
        found=heads["generation"],
        expected=f"at most {newest}",
    )
    level = np.where(skinny, items.offset, rows["level"].astype(np.uint64))
    wrong = (skinny | block) & (level >= MAX_LEVEL)
    yield from report_items(
        "extent.level-wrong", "level is too high", items, wrong, found=level, expected=f"0 to {MAX_LEVEL - 1}"
    )
    yield from report_items("extent.refs-zero", "nothing refers to it", items, heads["refs"] == 0, found=0)


def _inline(context: Context, items: Items, is_block: Mask, inline: InlineRefs) -> Iterator[Problem]:
    """Inline references: of a known type that suits the extent, in order, none twice."""
    broken = np.zeros(len(items), bool)
    broken[inline.broken] = True
    yield from report_items(
        "extent.inline-broken", "holds an inline reference of unknown type, or part of one", items, broken
    )
    refs, item = inline.refs, inline.item
    kind = refs["type"]
    tree_ref = (kind == KeyType.TREE_BLOCK_REF) | (kind == KeyType.SHARED_BLOCK_REF)
    wrong = tree_ref != is_block[item]
    message = "inline reference is of a type for another kind of extent"
    yield from report_items("extent.inline-type", message, items, wrong, row=item, found=kind)
    same_item = item[1:] == item[:-1]
    if same_item.any():
        yield from _order(items, inline, same_item)
    if not int(context.fs.superblock.incompat_flags) & IncompatFeature.SIMPLE_QUOTA:
        wrong = kind == KeyType.EXTENT_OWNER_REF
        message = "EXTENT_OWNER_REF on a filesystem without simple quotas"
        yield from report_items("extent.owner-ref-without-feature", message, items, wrong, row=item)
    yield from _ref_fields(context, items, item, refs)


def _order(items: Items, inline: InlineRefs, same_item: Mask) -> Iterator[Problem]:
    """Neighbours in one item: types rise; inside a type hashes, trees or parents fall."""
    refs, item, sequence = inline.refs, inline.item, inline.sequence
    kind = refs["type"]
    later = np.zeros(len(refs), bool)
    same_kind = kind[1:] == kind[:-1]
    later[1:] = same_item & ((kind[1:] < kind[:-1]) | (same_kind & (sequence[1:] > sequence[:-1])))
    message = "inline references are out of order"
    yield from report_items("extent.inline-order", message, items, later, row=item, found=kind)
    twice = np.zeros(len(refs), bool)
    twice[1:] = same_item & same_kind
    for name in ("root", "objectid", "offset"):
        twice[1:] &= refs[name][1:] == refs[name][:-1]
    message = "two inline references are the same"
    yield from report_items("extent.inline-duplicate", message, items, twice, row=item, found=kind)


def _ref_fields(context: Context, items: Items, item: I64, refs: Rows) -> Iterator[Problem]:
    """Fields of references, inline or keyed; ``item`` says in which of the items each stands."""

    def tell(code: str, message: str, wrong: Mask, found: Any) -> Iterator[Problem]:
        return report_items(code, message, items, wrong, row=item, found=found)

    sector = np.uint64(context.fs.sectorsize)
    kind = refs["type"]
    data = kind == KeyType.EXTENT_DATA_REF
    shared = (kind == KeyType.SHARED_BLOCK_REF) | (kind == KeyType.SHARED_DATA_REF)
    place = np.where(shared, refs["root"], refs["offset"])
    message = "reference names an offset or parent that is not a multiple of the sector size"
    yield from tell("extent.ref-unaligned", message, place % sector != 0, place)
    yield from tell("extent.ref-count-zero", "reference counts nothing", refs["count"] == 0, 0)
    root, inode = refs["root"], refs["objectid"]
    files = is_subvolume(root) | (root == ObjectId.ROOT_TREE) | (root == ObjectId.DATA_RELOC_TREE)
    yield from tell("extent.ref-root-wrong", "reference names a tree that holds no files", data & ~files, root)
    ordinary = (inode >= ObjectId.FIRST_FREE) & (inode <= ObjectId.LAST_FREE)
    wrong = data & ~ordinary & (inode != ObjectId.FREE_INO)
    yield from tell("extent.ref-objectid-wrong", "reference names an inode that cannot be", wrong, inode)


def _keyed(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """References that are items of their own: their sizes, and the hash in the key of an EXTENT_DATA_REF."""
    items = batch.items.of_type(*TREE_REFS, *DATA_REFS)
    if not len(items):
        return
    size = np.zeros(256, np.int64)
    size[KeyType.EXTENT_DATA_REF] = columns(ExtentDataRef).itemsize
    size[KeyType.SHARED_DATA_REF] = columns(SharedDataRef).itemsize
    size = size[items.type]
    wrong = items.in_bounds & (items.size != size)
    yield from report_items(
        "extent.keyed-size", "reference is of the wrong size", items, wrong, found=items.size, expected=size
    )
    whole = items.select(items.in_bounds & (items.size >= size))
    refs = keyed_refs(whole)
    yield from _ref_fields(context, whole, np.arange(len(whole)), refs)
    hashes = extent_data_ref_hash(refs["root"], refs["objectid"], refs["offset"])
    wrong = (whole.type == KeyType.EXTENT_DATA_REF) & (hashes != whole.offset)
    # A hash that is taken already makes the next reference move up by one.
    moved = np.zeros(len(whole), bool)
    moved[1:] = (whole.objectid[1:] == whole.objectid[:-1]) & (whole.type[1:] == whole.type[:-1])
    moved[1:] &= whole.offset[1:] == whole.offset[:-1] + np.uint64(1)
    yield from report_items(
        "extent.keyed-hash",
        "key is not the hash of the reference",
        whole,
        wrong & ~moved,
        found=whole.offset,
        expected=hashes,
    )


def _gather_refs(context: Context, batch: LeafBatch, inline: InlineRefs, num_bytes: U64) -> None:
    """Hands on what `fsck_cow.checks.backrefs` joins."""
    refs = inline.refs
    data = (refs["type"] == KeyType.EXTENT_DATA_REF) | (refs["type"] == KeyType.SHARED_DATA_REF)
    blocks = (refs["type"] == KeyType.TREE_BLOCK_REF) | (refs["type"] == KeyType.SHARED_BLOCK_REF)
    total = np.zeros(1, SUM)
    total["sum"] = data_ref_hashes(refs[data], num_bytes[inline.item[data]]).sum(dtype=np.uint64)
    context.gather(INLINE_DATA_SUMS, total)
    context.gather(INLINE_BLOCK_REFS, refs[blocks])
    if not (data | blocks).all():
        context.gather(OWNERS, refs[refs["type"] == KeyType.EXTENT_OWNER_REF][["bytenr", "root"]].astype(OWNER))
    keyed = keyed_refs(batch.items)
    if len(keyed):
        context.gather(KEYED_REFS, keyed)


@final_check(
    "extent",
    (
        "extent.overlap",
        "extent.outside-chunk",
        "extent.chunk-type-wrong",
        "extent.block-crosses-stripe",
        "extent.block-unaligned",
        "extent.keyed-without-extent",
        "extent.refs-wrong",
    ),
    order=20,
)
def extents_together(context: Context) -> Iterator[Problem]:
    """Extents against each other, against the chunks, and against the references that stand outside of their items."""
    extents = context.columns(EXTENTS, EXTENT)
    bytenr, num_bytes = extents["bytenr"].copy(), extents["num_bytes"].copy()
    wrong = np.zeros(len(extents), bool)
    wrong[1:] = bytenr[1:] - bytenr[:-1] < num_bytes[:-1]
    yield from report_addresses(
        "extent.overlap", "extent begins inside the one before it", bytenr, wrong, found=num_bytes
    )
    yield from _places(context, extents, bytenr, num_bytes)
    if extent_tree_whole(context):
        yield from _refs_total(context, extents, bytenr)


def extent_tree_whole(context: Context) -> bool:
    """Whether all of the extent tree could be read, its keys in order: else nothing can be missing from it."""
    blocks = context.blocks.blocks
    lost = (blocks["state"] == LOST) & (blocks["tree"] == np.uint64(ObjectId.EXTENT_TREE))
    bytenr = context.columns(EXTENTS, EXTENT)["bytenr"]
    walked = (ObjectId.EXTENT_TREE, 0) in context.walked and len(bytenr) > 0
    return walked and not lost.any() and bool((bytenr[1:] >= bytenr[:-1]).all())


def _places(context: Context, extents: Rows, bytenr: U64, num_bytes: U64) -> Iterator[Problem]:
    """Each extent in a chunk of its kind; tree blocks inside one stripe."""
    chunks = context.fs.volume.chunks
    if not len(chunks) or not len(extents):
        return
    chunk = chunks.locate(bytenr)
    mapped = chunk >= 0
    mapped[mapped] = num_bytes[mapped] <= chunks.end[chunk[mapped]] - bytenr[mapped]
    yield from report_addresses(
        "extent.outside-chunk", "extent does not lie inside one chunk", bytenr, ~mapped, found=num_bytes
    )
    kind = np.where(mapped, chunks.type[chunk], np.uint64(0))
    metadata = np.uint64(BlockGroupFlag.METADATA | BlockGroupFlag.SYSTEM)
    wrong = (extents["flags"] & DATA > 0) & (kind & np.uint64(BlockGroupFlag.DATA) == 0)
    block = extents["flags"] & TREE_BLOCK > 0
    wrong |= block & (kind & metadata == 0)
    yield from report_addresses(
        "extent.chunk-type-wrong",
        "extent lies in a chunk for another kind of extents",
        bytenr,
        wrong & mapped,
        found=kind,
    )
    nodesize = np.uint64(context.fs.nodesize)
    crossing = block & (bytenr % np.uint64(STRIPE_LEN) + nodesize > np.uint64(STRIPE_LEN))
    yield from report_addresses(
        "extent.block-crosses-stripe", "tree block lies across a 64 KiB boundary", bytenr, crossing
    )
    unaligned = block & (bytenr % nodesize != 0) & ~crossing
    yield from report_addresses(
        "extent.block-unaligned",
        "address of a tree block is not a multiple of the node size: kernels with larger pages will not read it",
        bytenr,
        unaligned,
        severity=Severity.NOTE,
    )


def _refs_total(context: Context, extents: Rows, bytenr: U64) -> Iterator[Problem]:
    """The number an extent item says is that of its references, inline and keyed."""
    counted = extents["counted"].astype(np.uint64)
    keyed = context.columns(KEYED_REFS, REF)
    if len(keyed):
        row, known = find(bytenr, keyed["bytenr"])
        np.add.at(counted, row[known], keyed["count"][known])
        yield from report_addresses(
            "extent.keyed-without-extent", "reference to an extent that has no item", keyed["bytenr"], ~known
        )
    # What has no flags could not be read.
    wrong = (np.minimum(counted, _MOST) != extents["refs"]) & (extents["flags"] > 0)
    yield from report_addresses(
        "extent.refs-wrong",
        "number of references is not that of the references recorded",
        bytenr,
        wrong,
        found=extents["refs"],
        expected=counted,
    )


def find(bytenr: U64, wanted: Any) -> tuple[I64, Mask]:
    """The row of each wanted address in a sorted column, and whether it is there: i8 and bool, shape (n,)."""
    if not len(bytenr):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    row = np.minimum(np.searchsorted(bytenr, wanted), len(bytenr) - 1)
    return row, bytenr[row] == wanted
