"""Extents and what refers to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cow_debug_tree.printers.keys import OLD_CSUM_ITEM
from cow_debug_tree.printers.listing import I64, Group, Listing, Structs, declare, printer, remark
from cow_debug_tree.text.template import Fields
from cowlib.btree import gather
from cowlib.checksum import extent_data_ref_hash
from cowlib.format import (
    ExtentDataRef,
    ExtentFlag,
    ExtentInlineRef,
    ExtentItem,
    ExtentOwnerRef,
    KeyType,
    SharedDataRef,
    TreeBlockInfo,
    columns,
)

declare(
    KeyType.EXTENT_DATA_REF,
    ExtentDataRef,
    "\t\textent data backref root {root:objectid} objectid {objectid} offset {offset} count {count}\n",
)
declare(KeyType.SHARED_DATA_REF, SharedDataRef, "\t\tshared data backref count {count}\n")
declare(KeyType.EXTENT_OWNER_REF, ExtentOwnerRef, "\t\textent owner root {root_id}\n")
remark(KeyType.TREE_BLOCK_REF, "\t\ttree block backref\n")
remark(KeyType.SHARED_BLOCK_REF, "\t\tshared block backref\n")
remark(KeyType.EXTENT_REF_V0, "\t\textent ref v0 (deprecated)\n")
remark(OLD_CSUM_ITEM, "\t\tcsum item\n")

_EXTENT = "\t\trefs {refs} gen {generation} flags {flags:extent_flags}\n"


@printer(KeyType.EXTENT_ITEM)
def extent_item(listing: Listing, group: Group) -> None:
    """An allocated extent, data or a node, with its inline references."""
    group = listing.whole(group, ExtentItem.sizeof())
    if not len(group):
        return
    heads = group.items.view(ExtentItem)
    listing.put(group, _EXTENT, Fields(heads))
    nodes, blocks, start = tree_blocks(listing, group, heads)
    if len(nodes):
        listing.put(nodes, "\t\ttree block {key:key} level {level}\n", Fields(blocks), first=False)
    for ref in inline_refs(listing, group, start):
        listing.put(ref.group, _INLINE[ref.kind], ref.fields, first=False)


@printer(KeyType.METADATA_ITEM)
def metadata_item(listing: Listing, group: Group) -> None:
    """A node, whose level stands in the key."""
    group = listing.whole(group, ExtentItem.sizeof())
    if not len(group):
        return
    fields = Fields(group.items.view(ExtentItem), level=skinny_level(group))
    listing.put(group, _EXTENT + "\t\ttree block skinny level {level:d}\n", fields)
    for ref in inline_refs(listing, group, group.items.position + ExtentItem.sizeof()):
        listing.put(ref.group, _INLINE[ref.kind], ref.fields, first=False)


#: Inline references by type.
_INLINE: dict[int, str] = {
    KeyType.TREE_BLOCK_REF: "\t\t(176 0x{offset:x}) tree block backref root {offset:objectid}\n",
    KeyType.SHARED_BLOCK_REF: "\t\t(182 0x{offset:x}) shared block backref parent {offset}\n",
    KeyType.EXTENT_DATA_REF: "\t\t(178 0x{hash:x}) extent data backref root {root:objectid}"
    " objectid {objectid} offset {offset} count {count}\n",
    KeyType.SHARED_DATA_REF: "\t\t(184 0x{offset:x}) shared data backref parent {offset} count {count}\n",
    KeyType.EXTENT_OWNER_REF: "\t(172 0x{offset:x}) textent owner root {offset}\n",
}


def skinny_level(group: Group) -> npt.NDArray[np.int32]:
    """The level that metadata items have in their keys."""
    return group.items.offset.astype(np.uint32).view(np.int32)


def tree_blocks(listing: Listing, group: Group, heads: Structs) -> tuple[Group, Structs, I64]:
    """What extent items say about the nodes they stand for.

    Returns the items of nodes, what they say, and for all items of the group where their references begin.
    """
    start, end = group.items.position + ExtentItem.sizeof(), group.items.position + group.items.size
    is_node = (heads["flags"] & np.uint64(ExtentFlag.TREE_BLOCK)) != 0
    size = columns(TreeBlockInfo).itemsize
    short = is_node & (start + size > end)
    listing.complain(group, short, "is too short to say which node it stands for")
    whole = is_node & ~short
    blocks = gather(group.items.buffer, start[whole], columns(TreeBlockInfo))
    return group.select(whole), blocks, start + np.where(is_node, size, 0)


@dataclass(frozen=True, eq=False)
class InlineRef:
    """One inline reference of each item in ``group``, all of the type ``kind``. ``first``: of their items."""

    kind: int
    group: Group
    fields: Fields
    first: bool


def inline_refs(listing: Listing, group: Group, start: I64) -> Iterator[InlineRef]:
    """All first references, by type, then all second ones, and so on; ``start`` (n,) says where the first
    ones begin.
    """
    end = group.items.position + group.items.size
    first = True
    while True:
        more = start < end
        if not more.all():
            group, start, end = group.select(more), start[more], end[more]
        if not len(group):
            return
        kind = group.items.buffer[start]
        size = _INLINE_SIZES[kind]
        unknown, cut_short = size == 0, start + size > end
        listing.complain(group, unknown, "has an inline reference of an unknown type")
        listing.complain(group, cut_short, "its last inline reference is cut short")
        usable = ~unknown & ~cut_short
        for one in np.flatnonzero(np.bincount(kind[usable])).tolist():
            where = np.flatnonzero(usable & (kind == one))
            fields = _fields_of(one, group.items.buffer, start[where])
            yield InlineRef(one, group.select(where), fields, first)
        start = np.where(usable, start + size, end)
        first = False


_HEAD_SIZE = ExtentInlineRef.sizeof()

_INLINE_SIZES = np.zeros(256, np.int64)
_INLINE_SIZES[[KeyType.TREE_BLOCK_REF, KeyType.SHARED_BLOCK_REF, KeyType.EXTENT_OWNER_REF]] = _HEAD_SIZE
_INLINE_SIZES[KeyType.SHARED_DATA_REF] = _HEAD_SIZE + SharedDataRef.sizeof()
_INLINE_SIZES[KeyType.EXTENT_DATA_REF] = 1 + ExtentDataRef.sizeof()


def _fields_of(kind: int, buffer: npt.NDArray[np.uint8], start: I64) -> Fields:
    """The columns of inline references of one type."""
    if kind == KeyType.EXTENT_DATA_REF:
        refs = gather(buffer, start + 1, columns(ExtentDataRef))
        parts = (np.ascontiguousarray(refs[name]) for name in ("root", "objectid", "offset"))
        return Fields(refs, hash=extent_data_ref_hash(*parts))
    heads = gather(buffer, start, columns(ExtentInlineRef))
    if kind == KeyType.SHARED_DATA_REF:
        return Fields(heads, count=gather(buffer, start + _HEAD_SIZE, columns(SharedDataRef))["count"])
    return Fields(heads)
