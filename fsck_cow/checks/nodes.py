"""Nodes by themselves: owner, flags, key order inside and against the parent's promise, item places and sizes.

Checksum, address, filesystem id, level and generation are verified while reading: what fails there comes as damage.
Facts: btrfs on-disk format documentation, and what the kernel's tree checker refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import Items, Nodes, Pointers
from cowlib.btree.nodes import I64
from cowlib.format import BACKREF_REV_SHIFT, MIXED_BACKREF_REV, HeaderFlag, ObjectId
from fsck_cow.problems import Problem, Severity
from fsck_cow.walk import Rows

Mask = npt.NDArray[np.bool_]

#: Flags a header may have; a written node has the first.
_KNOWN_FLAGS = np.uint64(HeaderFlag.WRITTEN | HeaderFlag.RELOC)

CODES = (
    "node.owner-wrong",
    "node.flags-wrong",
    "node.chunk-tree-uuid-wrong",
    "node.empty",
    "node.key-order",
    "node.first-key-wrong",
    "node.last-key-wrong",
    "node.item-outside",
    "node.item-misplaced",
    "node.pointer-unaligned",
    "node.pointer-generation",
)


def key_at(columns: Items | Pointers | Rows, i: int) -> tuple[int, int, int]:
    """Key ``i`` of items, pointers or key rows as plain integers."""
    if isinstance(columns, Items | Pointers):
        return int(columns.objectid[i]), int(columns.type[i]), int(columns.offset[i])
    return int(columns["objectid"][i]), int(columns["type"][i]), int(columns["offset"][i])


def precedes(a: Any, b: Any) -> Mask:
    """Which keys of ``a`` sort before those of ``b`` at the same index; both have objectid, type and offset columns."""
    same_object = a[0] == b[0]
    same_type = same_object & (a[1] == b[1])
    before = (a[0] < b[0]) | (same_object & (a[1] < b[1])) | (same_type & (a[2] < b[2]))
    return np.asarray(before, np.bool_)


def _key(columns: Items | Pointers, which: I64 | slice) -> tuple[Any, Any, Any]:
    return columns.objectid[which], columns.type[which], columns.offset[which]


def _row_key(rows: Rows) -> tuple[Any, Any, Any]:
    return rows["objectid"], rows["type"], rows["offset"]


def check_headers(nodes: Nodes, blocks: Rows, chunk_tree_uuid: bytes | None) -> Iterator[Problem]:
    """Owner, flags and chunk tree UUID of a batch of nodes of one tree; ``blocks`` are their rows (`walk.BLOCK`).

    A block of a snapshot keeps the owner it was written for, so among subvolumes any may be named.
    """
    header = nodes.header
    tree = int(blocks["tree"][0])
    reloc = (header["flags"] & np.uint64(HeaderFlag.RELOC)) > 0
    if _is_subvolume(tree):
        owner = header["owner"]
        wrong = ~((owner == ObjectId.FS_TREE) | ((owner >= ObjectId.FIRST_FREE) & (owner <= ObjectId.LAST_FREE)))
        wrong &= owner != np.uint64(tree)
    else:
        wrong = header["owner"] != np.uint64(tree)
    for i in np.flatnonzero(wrong & ~reloc).tolist():
        yield Problem(
            "node.owner-wrong",
            "block belongs to another tree than the one it was reached from",
            logical=int(nodes.bytenr[i]),
            tree=tree,
            found=int(header["owner"][i]),
            expected=tree,
        )
    revision = header["flags"] >> np.uint64(BACKREF_REV_SHIFT)
    low = header["flags"] & np.uint64((1 << BACKREF_REV_SHIFT) - 1)
    wrong = (revision != MIXED_BACKREF_REV) | (low & ~_KNOWN_FLAGS > 0) | (low & np.uint64(HeaderFlag.WRITTEN) == 0)
    for i in np.flatnonzero(wrong).tolist():
        yield Problem(
            "node.flags-wrong",
            "header flags are none that a written block has",
            logical=int(nodes.bytenr[i]),
            tree=tree,
            found=hex(int(header["flags"][i])),
        )
    if chunk_tree_uuid is not None:
        for i in np.flatnonzero(header["chunk_tree_uuid"] != np.void(chunk_tree_uuid)).tolist():
            yield Problem(
                "node.chunk-tree-uuid-wrong",
                "block names another chunk tree; nobody minds",
                Severity.NOTE,
                logical=int(nodes.bytenr[i]),
                tree=tree,
                found=bytes(header["chunk_tree_uuid"][i]).hex(),
                expected=chunk_tree_uuid.hex(),
            )


def _is_subvolume(tree: int) -> bool:
    return tree == ObjectId.FS_TREE or int(ObjectId.FIRST_FREE) <= tree <= int(ObjectId.LAST_FREE)


def check_keys(columns: Items | Pointers, nodes: Nodes, blocks: Rows) -> Iterator[Problem]:
    """Keys rise inside each node, begin where the parent says and end before the parent's next pointer."""
    tree = int(blocks["tree"][0])
    count = np.bincount(columns.node, minlength=len(nodes))
    if len(columns) > 1:
        rising = precedes(_key(columns, slice(None, -1)), _key(columns, slice(1, None)))
        for i in np.flatnonzero(~rising & (columns.node[1:] == columns.node[:-1])).tolist():
            yield Problem(
                "node.key-order",
                f"key is not after the one before it in slot {int(columns.slot[i])}",
                logical=int(nodes.bytenr[columns.node[i]]),
                tree=tree,
                key=key_at(columns, i + 1),
                found=key_at(columns, i + 1),
                expected=f"more than {key_at(columns, i)}",
            )
    for i in np.flatnonzero((count == 0) & (blocks["next_key"]["type"] != 255)).tolist():
        yield Problem("node.empty", "holds nothing", logical=int(nodes.bytenr[i]), tree=tree)
    filled = np.flatnonzero(count)
    first = (np.cumsum(count) - count)[filled]
    promised = blocks["key"][filled]
    rooted = (promised["objectid"] == 0) & (promised["type"] == 0) & (promised["offset"] == 0)
    same = np.ones(len(filled), bool)
    for column, wanted in zip(_key(columns, first), _row_key(promised), strict=True):
        same &= column == wanted
    for i in np.flatnonzero(~same & ~rooted).tolist():
        yield Problem(
            "node.first-key-wrong",
            "first key is not the one that its parent gives",
            logical=int(nodes.bytenr[filled[i]]),
            tree=tree,
            key=key_at(columns, int(first[i])),
            found=key_at(columns, int(first[i])),
            expected=key_at(promised, i),
        )
    last = first + count[filled] - 1
    limit = blocks["next_key"][filled]
    inside = precedes(_key(columns, last), _row_key(limit))
    for i in np.flatnonzero(~inside).tolist():
        yield Problem(
            "node.last-key-wrong",
            "last key is not before the first of the next block",
            logical=int(nodes.bytenr[filled[i]]),
            tree=tree,
            key=key_at(columns, int(last[i])),
            found=key_at(columns, int(last[i])),
            expected=f"less than {key_at(limit, i)}",
        )


def check_item_places(items: Items, nodes: Nodes, tree: int) -> Iterator[Problem]:
    """Payloads lie inside their leaf, one right before the other, from its end downwards: no holes, no overlaps."""
    for i in np.flatnonzero(~items.in_bounds).tolist():
        yield Problem(
            "node.item-outside",
            f"payload of slot {int(items.slot[i])} lies outside of the leaf",
            logical=int(nodes.bytenr[items.node[i]]),
            tree=tree,
            key=items.key(i),
            found=f"offset {int(items.position[i] - items.node[i] * nodes.nodesize)}, size {int(items.size[i])}",
            expected=f"inside {nodes.nodesize} bytes",
        )
    expected_end = (items.node + 1) * nodes.nodesize
    follows = np.zeros(len(items), bool)
    follows[1:] = items.node[1:] == items.node[:-1]
    expected_end[1:] = np.where(follows[1:], items.position[:-1], expected_end[1:])
    for i in np.flatnonzero((items.position + items.size != expected_end) & items.in_bounds).tolist():
        yield Problem(
            "node.item-misplaced",
            f"payload of slot {int(items.slot[i])} does not end where the one before it begins",
            logical=int(nodes.bytenr[items.node[i]]),
            tree=tree,
            key=items.key(i),
            found=int(items.position[i] + items.size[i] - items.node[i] * nodes.nodesize),
            expected=int(expected_end[i] - items.node[i] * nodes.nodesize),
        )


def check_pointers(pointers: Pointers, nodes: Nodes, tree: int, sectorsize: int) -> Iterator[Problem]:
    """Children are aligned, and none is newer than its parent."""
    for i in np.flatnonzero((pointers.blockptr % np.uint64(sectorsize) != 0) | (pointers.blockptr == 0)).tolist():
        yield Problem(
            "node.pointer-unaligned",
            f"pointer of slot {int(pointers.slot[i])} is not the address of a block",
            logical=int(nodes.bytenr[pointers.node[i]]),
            tree=tree,
            key=key_at(pointers, i),
            found=int(pointers.blockptr[i]),
        )
    newest = nodes.header["generation"][pointers.node]
    for i in np.flatnonzero(pointers.generation > newest).tolist():
        yield Problem(
            "node.pointer-generation",
            f"child of slot {int(pointers.slot[i])} is newer than its parent",
            logical=int(nodes.bytenr[pointers.node[i]]),
            tree=tree,
            key=key_at(pointers, i),
            found=int(pointers.generation[i]),
            expected=f"at most {int(newest[i])}",
        )
