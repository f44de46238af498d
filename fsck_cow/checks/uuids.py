"""The UUID tree against the root items: which subvolume has, or was received from, which UUID.

The kernel trusts the tree if the superblock's ``uuid_tree_generation`` is its generation, and makes it anew otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from cowlib.btree import ragged_index
from cowlib.format import KeyType, ObjectId
from fsck_cow.batch import LeafBatch, Rows
from fsck_cow.checks.reporting import report_items
from fsck_cow.checks.roots import ROOT, ROOTS, is_subvolume
from fsck_cow.context import Context
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check

#: The name under which `UUID` rows are gathered.
UUIDS = "uuid-entries"

#: One subvolume with one UUID: ``high`` and ``low`` are the key's, ``type`` says which UUID of its it is.
UUID = np.dtype([("high", "<u8"), ("low", "<u8"), ("subvolume", "<u8"), ("type", "u1")])

_NUMBER = 8


@leaf_check("root", Kind.UUIDS, codes=("root.uuid-malformed",))
def gather_uuids(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Takes the items of the UUID tree apart: each holds the subvolumes that share a UUID."""
    items = batch.items.of_type(KeyType.UUID_KEY_SUBVOL, KeyType.UUID_KEY_RECEIVED_SUBVOL)
    items = items.select(items.in_bounds)
    wrong = (items.size == 0) | (items.size % _NUMBER != 0)
    yield from report_items(
        "root.uuid-malformed",
        "is no list of subvolumes",
        items,
        wrong,
        tree=ObjectId.UUID_TREE,
        found=items.size,
        expected="a multiple of 8",
    )
    count = items.size // _NUMBER
    position = np.repeat(items.position, count) + _NUMBER * ragged_index(np.zeros(len(count), np.int64), count)
    numbers = np.ndarray(max(items.buffer.size - _NUMBER + 1, 0), "<u8", items.buffer.data, strides=(1,))
    rows = np.zeros(len(position), UUID)
    for name, column in (("high", items.objectid), ("low", items.offset), ("type", items.type)):
        rows[name] = np.repeat(column, count)
    rows["subvolume"] = numbers[position]
    context.gather(UUIDS, rows)


def _wanted(roots: Rows) -> Rows:
    """What the root items of subvolumes ask for: rows of `UUID`."""
    item = roots["item"]
    # A deleted subvolume's entries go before it does.
    roots = roots[is_subvolume(roots["objectid"]) & (item["refs"] > 0) & (item["generation_v2"] == item["generation"])]
    parts = []
    for name, kind in (("uuid", KeyType.UUID_KEY_SUBVOL), ("received_uuid", KeyType.UUID_KEY_RECEIVED_SUBVOL)):
        uuids = np.ascontiguousarray(roots["item"][name]).view("<u8").reshape(-1, 2)
        part = np.zeros(len(roots), UUID)
        part["high"], part["low"] = uuids[:, 0], uuids[:, 1]
        part["subvolume"], part["type"] = roots["objectid"], kind
        parts.append(part[(part["high"] > 0) | (part["low"] > 0)])
    return np.concatenate(parts)


@final_check("root", ("root.uuid-missing", "root.uuid-unknown", "root.uuid-twice"), order=14)
def uuid_tree(context: Context) -> Iterator[Problem]:
    """Every subvolume's UUIDs stand in the UUID tree, and nothing else does."""
    lost = context.lost_trees()
    if lost & {ObjectId.ROOT_TREE, ObjectId.UUID_TREE}:
        return
    roots = context.columns(ROOTS, ROOT)
    superblock = context.fs.superblock
    trusted = int(superblock.uuid_tree_generation) == int(superblock.generation)
    severity = Severity.ERROR if trusted else Severity.NOTE
    present = bool((roots["objectid"] == np.uint64(ObjectId.UUID_TREE)).any())
    if not present and not trusted:
        return
    entries = context.columns(UUIDS, UUID)
    wanted = {row.item() for row in _wanted(roots)}
    found = [row.item() for row in entries]
    for row in sorted(wanted.difference(found)):
        yield _problem("root.uuid-missing", "UUID of a subvolume is not in the UUID tree", row, severity)
    for row in sorted(set(found) - wanted):
        yield _problem("root.uuid-unknown", "UUID in the UUID tree is not the subvolume's", row, severity)
    for row, count in Counter(found).items():
        if count > 1:
            yield _problem("root.uuid-twice", "UUID stands twice in the UUID tree", row, severity)


def _problem(code: str, message: str, row: tuple[int, int, int, int], severity: Severity) -> Problem:
    high, low, subvolume, kind = row
    return Problem(code, message, severity, tree=int(ObjectId.UUID_TREE), key=(high, kind, low), found=subvolume)
