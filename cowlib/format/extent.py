"""Extents: every allocated range, and everything that refers to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cowlib.format.common import DiskKey
from cowlib.format.declare import Struct, Tagged, UntilEnd, u8, u32, u64
from cowlib.format.flags import ExtentFlag
from cowlib.format.keys import KeyType

if TYPE_CHECKING:
    from construct import Container

ExtentItem = Struct(
    "refs" / u64 * "number of references, inline and keyed together",
    "generation" / u64 * "transaction that allocated it",
    "flags" / u64 * "ExtentFlag",
)
"""The head of an allocated extent; inline references follow.

Extent tree, key (logical address, EXTENT_ITEM, bytes), or (logical address, METADATA_ITEM, level) for a node
with skinny metadata. A node without skinny metadata has its `TreeBlockInfo` before the references.
"""

TreeBlockInfo = Struct(
    "key" / DiskKey * "first key of the node",
    "level" / u8,
)
"""What a node's extent item says about the node, without skinny metadata."""

ExtentInlineRef = Struct(
    "type" / u8 * "KeyType: EXTENT_OWNER_REF, TREE_BLOCK_REF, EXTENT_DATA_REF, SHARED_*_REF",
    "offset" / u64 * "tree (TREE_BLOCK_REF, EXTENT_OWNER_REF) or parent node (SHARED_*_REF)",
)
"""The head of one reference inside an extent item.

For EXTENT_DATA_REF an `ExtentDataRef` stands in place of `offset`; for SHARED_DATA_REF a `SharedDataRef`
follows it.
"""

ExtentDataRef = Struct(
    "root" / u64 * "object id of the subvolume tree",
    "objectid" / u64 * "inode",
    "offset" / u64 * "byte offset in the file where the extent's first byte would stand, modulo 2**64",
    "count" / u32 * "number of such file extents",
)
"""File extents of one inode refer to an extent.

As an item of its own: key (logical address, EXTENT_DATA_REF, extent_data_ref_hash(root, objectid, offset)).
"""

SharedDataRef = Struct(
    "count" / u32 * "number of file extents in that leaf",
)
"""File extents of one shared leaf refer to an extent.

As an item of its own: key (logical address, SHARED_DATA_REF, logical address of the leaf).
"""

ExtentOwnerRef = Struct(
    "root_id" / u64 * "object id of the subvolume that pays for the extent under simple quotas",
)
"""Who owns a data extent; the first inline reference, and not counted among `refs`."""

_ref_type, _ref_offset = ExtentInlineRef.subcons
_INLINE_REFS: dict[int, Struct] = {
    KeyType.EXTENT_OWNER_REF: Struct(_ref_type, *ExtentOwnerRef.subcons),
    KeyType.TREE_BLOCK_REF: ExtentInlineRef,
    KeyType.EXTENT_DATA_REF: Struct(_ref_type, *ExtentDataRef.subcons),
    KeyType.SHARED_BLOCK_REF: ExtentInlineRef,
    KeyType.SHARED_DATA_REF: Struct(_ref_type, _ref_offset, *SharedDataRef.subcons),
}


def inline_ref_struct(key_type: int) -> Struct | None:
    """The structure of an inline reference, its `type` included; None if none of that type exists."""
    return _INLINE_REFS.get(key_type)


InlineRefs = UntilEnd(Tagged(Struct(_ref_type), lambda head: inline_ref_struct(head["type"])))
"""The references inside an extent item, in order of type."""

MetadataItemPayload = Struct(*ExtentItem.subcons, "inline_refs" / InlineRefs)
"""A whole METADATA_ITEM, or a whole EXTENT_ITEM of data."""

TreeBlockPayload = Struct(*ExtentItem.subcons, "tree_block_info" / TreeBlockInfo, "inline_refs" / InlineRefs)
"""A whole EXTENT_ITEM of a node."""


def _extent_item(head: Container) -> Struct:
    return TreeBlockPayload if head["flags"] & ExtentFlag.TREE_BLOCK else MetadataItemPayload


ExtentItemPayload = Tagged(ExtentItem, _extent_item)
"""A whole EXTENT_ITEM: `tree_block_info` is there if the extent is a node."""
