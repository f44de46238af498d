"""Block groups, their free space, and relocated ranges."""

from __future__ import annotations

from cow_debug_tree.printers.listing import Group, Listing, declare, printer, remark
from cow_debug_tree.text.template import Fields
from cowlib.format import (
    BlockGroupItem,
    FreeSpaceHeader,
    FreeSpaceInfo,
    KeyType,
    ObjectId,
    RemapItem,
)

declare(
    KeyType.BLOCK_GROUP_ITEM,
    BlockGroupItem,
    "\t\tblock group used {used} chunk_objectid {chunk_objectid} flags {flags:block_group_flags}\n",
)
declare(
    KeyType.FREE_SPACE_INFO,
    FreeSpaceInfo,
    "\t\tfree space info extent count {extent_count} flags {flags}\n",
)
remark(KeyType.FREE_SPACE_EXTENT, "\t\tfree space extent\n")
remark(KeyType.FREE_SPACE_BITMAP, "\t\tfree space bitmap\n")
declare(KeyType.REMAP, RemapItem, "\t\taddress {address}\n")
declare(KeyType.REMAP_BACKREF, RemapItem, "\t\taddress {address}\n")

_CACHE = "\t\tlocation {location:key}\n\t\tcache generation {generation} entries {num_entries} bitmaps {num_bitmaps}\n"


@printer(KeyType.UNTYPED)
def untyped(listing: Listing, group: Group) -> None:
    """Old free-space caches; anything else without a type is unknown."""
    cache = group.items.objectid == ObjectId.FREE_SPACE
    listing.heads(group.select(~cache))
    group = listing.whole(group.select(cache), FreeSpaceHeader.sizeof())
    if len(group):
        listing.put(group, _CACHE, Fields(group.items.view(FreeSpaceHeader)))
