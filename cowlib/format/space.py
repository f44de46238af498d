"""Block groups and their free space."""

from cowlib.format.common import DiskKey
from cowlib.format.declare import BySize, Struct, u8, u32, u64

BlockGroupItem = Struct(
    "used" / u64 * "bytes allocated",
    "chunk_objectid" / u64 * "object id in the chunk's key; with EXTENT_TREE_V2 the global root",
    "flags" / u64 * "BlockGroupFlag; equal to the chunk's type",
)
"""The use of one chunk.

Extent tree, or block group tree if there is one, key (logical address, BLOCK_GROUP_ITEM, bytes).
"""

BlockGroupItemV2 = Struct(
    *BlockGroupItem.subcons,
    "remap_bytes" / u64 * "bytes of other block groups remapped into this one",
    "identity_remap_count" / u32 * "number of ranges that are remapped onto themselves",
)
"""A block group item on filesystems with a remap tree."""

BlockGroupPayload = BySize(BlockGroupItem, BlockGroupItemV2)

RemapItem = Struct(
    "address" / u64 * "the other logical address in bytes",
)
"""Where a relocated range is now (REMAP) or was before (REMAP_BACKREF).

Remap tree, key (logical address, type, bytes).
"""

FreeSpaceInfo = Struct(
    "extent_count" / u32 * "number of free ranges",
    "flags" / u32 * "FreeSpaceFlag",
)
"""How a block group's free space is kept. Free-space tree, key (logical address, FREE_SPACE_INFO, bytes).

With keys (logical address, FREE_SPACE_EXTENT, bytes) follow the free ranges, without payload, or with
(logical address, FREE_SPACE_BITMAP, bytes) bitmaps: one bit a sector, lowest bit first, set if free.
"""

FreeSpaceHeader = Struct(
    "location" / DiskKey * "key of the inode that holds the cache",
    "generation" / u64 * "transaction the cache was written in",
    "num_entries" / u64,
    "num_bitmaps" / u64,
)
"""The old free-space cache of a block group. Root tree, key (FREE_SPACE, UNTYPED, logical address)."""

FreeSpaceEntry = Struct(
    "offset" / u64 * "logical address in bytes",
    "bytes" / u64 * "bytes free",
    "type" / u8 * "FreeSpaceEntryType",
)
"""One range or bitmap in the pages of an old free-space cache file."""
