"""Every reference found in the trees against every reference recorded in the extent tree, both ways.

What a block refers to is recorded by the block's address (SHARED_*_REF) where its extent item has FULL_BACKREF, by its
owner otherwise.  Sums of hashes are compared first; only where they differ are references listed and joined one by one.
A reference that is recorded but not found says nothing while blocks are lost: it may stand in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import gather
from cowlib.btree.nodes import I64, U64
from cowlib.format import BlockGroupFlag, ExtentFlag, ExtentItem, KeyType, ObjectId, columns
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.extent_refs import BLOCK_INFO, DATA_REFS, HEAD, REF, inline_refs, keyed_refs
from fsck_cow.checks.extents import (
    ADDRESS,
    DATA,
    EXTENT,
    EXTENTS,
    FULL_BACKREF,
    FULL_BACKREFS,
    INLINE_BLOCK_REFS,
    INLINE_DATA_SUMS,
    KEYED_REFS,
    SUM,
    TREE_BLOCK,
    data_ref_hashes,
    extent_tree_whole,
    find,
)
from fsck_cow.checks.reporting import report_addresses
from fsck_cow.checks.roots import is_subvolume
from fsck_cow.context import Context
from fsck_cow.ledger import mix
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.walk import LOST, READ

Mask = npt.NDArray[np.bool_]

#: The name under which a `SUM` of the hashes of the data references in each batch of leaves is gathered.
FOUND_DATA_SUMS = "data-reference-sums"

JOIN_CODES = (
    "extent.missing",
    "extent.backref-missing",
    "extent.backref-wrong-count",
    "extent.unreferenced",
    "extent.reference-unknown",
)


@dataclass(frozen=True)
class DataRefs:
    """References to data found in leaves, as columns of length n: as the extent tree should record each of them.

    ``bytenr``, ``root``, ``objectid``, ``offset`` u8 and ``type`` as in `REF`; ``num_bytes`` u8: the length that the
    file extent takes its extent to have.
    """

    bytenr: U64
    num_bytes: U64
    type: npt.NDArray[np.uint8]
    root: U64
    objectid: U64
    offset: U64

    @classmethod
    def of(cls, batch: LeafBatch, full_backref: U64) -> DataRefs:
        """Those of a batch; ``full_backref``: addresses of the leaves whose references are recorded by address."""
        extents = batch.regular_extents
        bytenr = np.ascontiguousarray(extents.rows["disk_bytenr"])
        # What has no address is a hole.
        which: Any = slice(None) if (bytenr > 0).all() else np.flatnonzero(bytenr)
        items, rows = extents.items, extents.rows
        node, objectid = items.node[which], items.objectid[which]
        kind = np.full(len(node), KeyType.EXTENT_DATA_REF, np.uint8)
        root = batch.nodes.header["owner"][node]
        offset = items.offset[which] - rows["offset"][which]
        shared = np.isin(batch.nodes.bytenr, full_backref)[node]
        if shared.any():
            kind[shared] = KeyType.SHARED_DATA_REF
            root[shared] = batch.nodes.bytenr[node[shared]]
            objectid, offset = np.where(shared, np.uint64(0), objectid), np.where(shared, np.uint64(0), offset)
        return cls(bytenr[which], rows["disk_num_bytes"][which], kind, root, objectid, offset)

    def hashes(self) -> U64:
        """The numbers that `data_ref_hashes` gives the same references where they are recorded."""
        return mix(self.bytenr, self.num_bytes, self.type, self.root, self.objectid, self.offset)

    def rows(self) -> Rows:
        """The references as rows of `REF`."""
        refs = np.zeros(len(self.bytenr), REF)
        refs["count"] = 1
        for name in ("bytenr", "type", "root", "objectid", "offset"):
            refs[name] = getattr(self, name)
        return refs


@leaf_check("extent", Kind.FILES, Kind.ROOTS)
def sum_data_refs(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Adds up the references to data in a batch of leaves; the root tree has some for its free-space cache."""
    total = np.zeros(1, SUM)
    total["sum"] = DataRefs.of(batch, _full_backrefs(context)).hashes().sum(dtype=np.uint64)
    context.gather(FOUND_DATA_SUMS, total)
    yield from ()


def _full_backrefs(context: Context) -> U64:
    addresses: U64 = context.columns(FULL_BACKREFS, ADDRESS)["bytenr"]
    return addresses


@final_check("extent", ("extent.not-compared",), order=29)
def comparable(context: Context) -> Iterator[Problem]:
    """Says once what cannot be compared because blocks are lost."""
    if not extent_tree_whole(context):
        yield Problem(
            "extent.not-compared",
            "references are not compared: the extent tree is not whole",
            Severity.NOTE,
            tree=ObjectId.EXTENT_TREE,
        )
    elif _anything_lost(context):
        yield Problem(
            "extent.not-compared",
            "recorded references that are not found are not judged: they may stand in unreadable blocks",
            Severity.NOTE,
            tree=ObjectId.EXTENT_TREE,
        )


def _anything_lost(context: Context) -> bool:
    return bool((context.blocks.blocks["state"] == LOST).any())


@final_check(
    "extent",
    (
        *JOIN_CODES,
        "extent.kind-wrong",
        "extent.level-mismatch",
        "extent.generation-mismatch",
        "extent.system-chunk-wrong",
        "extent.full-backref-wrong",
    ),
    order=30,
)
def block_refs(context: Context) -> Iterator[Problem]:
    """Tree blocks: what points to them, and what their extent items say of them."""
    if not extent_tree_whole(context):
        return
    extents = context.columns(EXTENTS, EXTENT)
    bytenr = extents["bytenr"].copy()
    blocks = context.blocks.blocks
    row, known = find(bytenr, blocks["bytenr"].copy())
    # The log has no extent items; replaying it makes them.
    described = np.flatnonzero(known & (blocks["tree"] != np.uint64(ObjectId.TREE_LOG)))
    items = extents[row[described]]
    yield from _described(context, described, items)
    full = np.zeros(len(blocks), bool)
    full[described] = items["flags"] & FULL_BACKREF > 0
    found, recorded = _found_block_refs(context, full), _recorded_block_refs(context)
    if len(found) == len(recorded) and _block_sum(found) == _block_sum(recorded):
        return
    yield from _joined(bytenr, found, recorded, not _anything_lost(context))


def _block_sum(refs: Rows) -> int:
    return int(mix(refs["bytenr"], refs["type"], refs["root"]).sum(dtype=np.uint64))


def _recorded_block_refs(context: Context) -> Rows:
    keyed = context.columns(KEYED_REFS, REF)
    keyed = keyed[(keyed["type"] == KeyType.TREE_BLOCK_REF) | (keyed["type"] == KeyType.SHARED_BLOCK_REF)]
    return np.concatenate([context.columns(INLINE_BLOCK_REFS, REF), keyed])


def _found_block_refs(context: Context, full: Mask) -> Rows:
    """Every pointer to a block as the extent tree should record it: rows of `REF`.

    ``full`` bool: the rows of the block table whose references are recorded by address.
    """
    edges = context.blocks.edges
    tree, parent, child = edges["tree"].copy(), edges["parent"].copy(), edges["child"].copy()
    blocks = context.blocks.blocks
    inner = parent >= 0
    kind = np.full(len(edges), KeyType.TREE_BLOCK_REF, np.uint8)
    root = np.where(inner, blocks["owner"][parent], tree)
    shared = inner & full[parent]
    root[shared], kind[shared] = blocks["bytenr"][parent[shared]], KeyType.SHARED_BLOCK_REF
    # The root of a relocation tree is its own parent.
    own = ~inner & (tree == np.uint64(ObjectId.TREE_RELOC))
    root[own], kind[own] = child[own], KeyType.SHARED_BLOCK_REF
    logged = tree == np.uint64(ObjectId.TREE_LOG)
    refs = np.zeros(len(edges), REF)
    refs["bytenr"], refs["root"], refs["type"], refs["count"] = child, root, kind, 1
    return refs[~logged] if logged.any() else refs


def _described(context: Context, which: I64, extents: Rows) -> Iterator[Problem]:
    """Blocks against their extent items: kind, level, generation, flags, and in which kind of chunk they lie.

    ``which`` i8 are rows of the block table, ``extents`` their extent items.
    """
    blocks = context.blocks.blocks
    bytenr, tree, level, generation = (
        blocks[name][which] for name in ("bytenr", "tree", "level", "expected_generation")
    )
    block, data = extents["flags"] & TREE_BLOCK > 0, extents["flags"] & DATA > 0
    yield from report_addresses(
        "extent.kind-wrong", "extent of a tree block says that it is data", bytenr, data & ~block
    )
    yield from report_addresses(
        "extent.level-mismatch",
        "extent item has another level than the tree block",
        bytenr,
        block & (extents["level"] != level),
        found=extents["level"],
        expected=level,
    )
    yield from report_addresses(
        "extent.generation-mismatch",
        "extent item has another generation than the tree block",
        bytenr,
        block & (extents["generation"] != generation),
        found=extents["generation"],
        expected=generation,
    )
    # In a subvolume the flag cannot be judged by itself: a relocation that is under way leaves either. Where it is
    # wrong, the references of the block's children do not agree.
    files = is_subvolume(tree) | (tree == ObjectId.TREE_RELOC) | (tree == ObjectId.DATA_RELOC_TREE)
    yield from report_addresses(
        "extent.full-backref-wrong",
        "FULL_BACKREF on a block that cannot be shared",
        bytenr,
        ~files & (extents["flags"] & FULL_BACKREF > 0),
    )
    chunks = context.fs.volume.chunks
    if not len(chunks):
        return
    chunk = chunks.locate(bytenr)
    system = tree == np.uint64(ObjectId.CHUNK_TREE)
    wanted = np.where(system, np.uint64(BlockGroupFlag.SYSTEM), np.uint64(BlockGroupFlag.METADATA))
    yield from report_addresses(
        "extent.system-chunk-wrong",
        "blocks of the chunk tree, and only they, stand in system chunks",
        bytenr,
        (chunk >= 0) & (chunks.type[chunk] & wanted == 0),
        found=chunks.type[chunk],
    )


@final_check("extent", (*JOIN_CODES, "extent.length-mismatch"), order=31)
def data_refs(context: Context) -> Iterator[Problem]:
    """References to data, and the lengths they take their extents to have."""
    if not extent_tree_whole(context):
        return
    extents = context.columns(EXTENTS, EXTENT)
    bytenr = extents["bytenr"].copy()
    keyed = context.columns(KEYED_REFS, REF)
    keyed = keyed[np.isin(keyed["type"], DATA_REFS)]
    row, known = find(bytenr, keyed["bytenr"])
    hashes = data_ref_hashes(keyed[known], extents["num_bytes"][row[known]])
    recorded = np.concatenate([hashes, context.columns(INLINE_DATA_SUMS, SUM)["sum"]]).sum(dtype=np.uint64)
    if recorded == context.columns(FOUND_DATA_SUMS, SUM)["sum"].sum(dtype=np.uint64):
        return
    refs, lengths = _all_found(context)
    row, known = find(bytenr, refs["bytenr"])
    expected = lengths.copy()
    expected[known] = extents["num_bytes"][row[known]]
    yield from report_addresses(
        "extent.length-mismatch",
        "file extent takes its extent to be of another length",
        refs["bytenr"],
        lengths != expected,
        found=lengths,
        expected=expected,
    )
    yield from _joined(bytenr, refs, _all_recorded(context), not _anything_lost(context))


def _all_found(context: Context) -> tuple[Rows, U64]:
    """Every reference to data, and the lengths: reads the leaves of all file trees once more."""
    blocks = context.blocks.blocks
    special = [
        tree for tree in ObjectId if tree < ObjectId.FIRST_FREE and tree not in (ObjectId.ROOT_TREE, ObjectId.FS_TREE)
    ]
    leaves = (blocks["level"] == 0) & (blocks["state"] == READ)
    leaves &= ~np.isin(blocks["tree"], np.array([*special, ObjectId.TREE_LOG], np.uint64))
    full = _full_backrefs(context)
    parts = [DataRefs.of(batch, full) for batch in context.batches(0, np.flatnonzero(leaves))]
    lengths = [np.empty(0, np.uint64), *(part.num_bytes for part in parts)]
    return np.concatenate([np.empty(0, REF), *(part.rows() for part in parts)]), np.concatenate(lengths)


def _all_recorded(context: Context) -> Rows:
    """Every recorded reference to data: reads the extent tree once more."""
    walked = context.walked[(ObjectId.EXTENT_TREE, 0)]
    parts = [np.empty(0, REF)]
    for batch in context.batches(ObjectId.EXTENT_TREE, walked.leaves):
        items = batch.items.of_type(KeyType.EXTENT_ITEM)
        items = items.select(items.in_bounds & (items.size >= HEAD))
        flags = gather(items.buffer, items.position, columns(ExtentItem))["flags"]
        start = items.position + HEAD + BLOCK_INFO * (flags & np.uint64(ExtentFlag.TREE_BLOCK) > 0)
        for refs in (inline_refs(items, start).refs, keyed_refs(batch.items)):
            parts.append(refs[np.isin(refs["type"], DATA_REFS)])
    return np.concatenate(parts)


def _joined(bytenr: U64, found: Rows, recorded: Rows, judge: bool) -> Iterator[Problem]:
    """Joins references one by one; ``bytenr`` u8 are the addresses of all extent items, ``judge`` says whether a
    reference that was not found is wrong."""
    refs, times_found, times_recorded = _counted(found, recorded)
    _, known = find(bytenr, refs["bytenr"])
    stray = refs[~known & (times_found > 0)]
    addresses, first = np.unique(stray["bytenr"], return_index=True)
    for address, i in zip(addresses.tolist(), first.tolist(), strict=True):
        yield Problem("extent.missing", "extent in use has no extent item", logical=address, expected=_said(stray, i))
    for i in np.flatnonzero(known & (times_found > 0) & (times_found != times_recorded)).tolist():
        wanted = int(times_found[i])
        code = "extent.backref-wrong-count" if times_recorded[i] else "extent.backref-missing"
        message = "reference is recorded with a wrong count" if times_recorded[i] else "reference is not recorded"
        yield Problem(
            code,
            f"{message}: {_said(refs, i)}",
            logical=int(refs["bytenr"][i]),
            found=int(times_recorded[i]),
            expected=wanted,
        )
    if judge:
        yield from _not_found(refs, times_found, times_recorded)


def _not_found(refs: Rows, times_found: I64, times_recorded: I64) -> Iterator[Problem]:
    """References that are recorded but not there; an extent without any is named once."""
    used = np.unique(refs["bytenr"][times_found > 0])
    unknown = refs[(times_found == 0) & (times_recorded > 0)]
    partly = np.isin(unknown["bytenr"], used)
    for i in np.flatnonzero(partly).tolist():
        yield Problem(
            "extent.reference-unknown",
            "recorded reference is not there",
            logical=int(unknown["bytenr"][i]),
            found=_said(unknown, i),
        )
    unused = unknown[~partly]
    addresses, first = np.unique(unused["bytenr"], return_index=True)
    for address, i in zip(addresses.tolist(), first.tolist(), strict=True):
        yield Problem("extent.unreferenced", "nothing uses this extent", logical=address, found=_said(unused, i))


def _counted(found: Rows, recorded: Rows) -> tuple[Rows, I64, I64]:
    """Each different reference once, how often it was found and how often it is recorded: i8."""
    refs = np.concatenate([found, recorded])
    count = refs["count"].astype(np.int64)
    order = np.lexsort(tuple(refs[name] for name in ("offset", "objectid", "root", "type", "bytenr")))
    here = np.where(np.arange(len(refs)) < len(found), count, 0)[order]
    refs, count = refs[order], count[order]
    new = np.ones(len(refs), bool)
    if len(refs):
        same = [refs[name][1:] == refs[name][:-1] for name in ("bytenr", "type", "root", "objectid", "offset")]
        new[1:] = ~np.logical_and.reduce(same)
    starts = np.flatnonzero(new)
    if not len(starts):
        return refs, count, count
    times_found = np.add.reduceat(here, starts)
    return refs[starts], times_found, np.add.reduceat(count, starts) - times_found


def _said(refs: Rows, i: int) -> str:
    """A reference in words."""
    kind, root = KeyType(int(refs["type"][i])), int(refs["root"][i])
    if kind == KeyType.EXTENT_DATA_REF:
        inode, offset = int(refs["objectid"][i]), int(refs["offset"][i])
        return f"{kind.name} of root {root} inode {inode} offset {offset}"
    where: Any = f"root {root}" if kind == KeyType.TREE_BLOCK_REF else f"block {root}"
    return f"{kind.name} of {where}"
