"""Devices: what they are, which parts of them are allocated, and what went wrong with them."""

from construct import Array, Bytes

from cowlib.format.constants import FSID_SIZE, UUID_SIZE
from cowlib.format.declare import Struct, UntilEnd, u8, u32, u64
from cowlib.format.enums import DevStat

DevItem = Struct(
    "devid" / u64 * "number within the filesystem, from 1; 0: the target of a running replacement",
    "total_bytes" / u64 * "bytes of the device that the filesystem may use",
    "bytes_used" / u64 * "bytes allocated to chunks",
    "io_align" / u32 * "bytes",
    "io_width" / u32 * "bytes",
    "sector_size" / u32 * "bytes",
    "type" / u64 * "always 0",
    "generation" / u64 * "always 0",
    "start_offset" / u64 * "bytes; always 0",
    "dev_group" / u32 * "always 0",
    "seek_speed" / u8 * "always 0",
    "bandwidth" / u8 * "always 0",
    "uuid" / Bytes(UUID_SIZE) * "the device's own UUID",
    "fsid" / Bytes(FSID_SIZE) * "the filesystem's UUID; for a seed device its own",
)
"""A device. Chunk tree, key (DEV_ITEMS, DEV_ITEM, devid); a superblock holds that of its own device too."""

DevExtent = Struct(
    "chunk_tree" / u64 * "object id of the chunk tree",
    "chunk_objectid" / u64 * "object id in the chunk's key (FIRST_CHUNK_TREE)",
    "chunk_offset" / u64 * "logical address in bytes of the chunk",
    "length" / u64 * "bytes",
    "chunk_tree_uuid" / Bytes(UUID_SIZE) * "the chunk tree's UUID",
)
"""A range of a device that belongs to a chunk. Device tree, key (devid, DEV_EXTENT, bytes on the device)."""

DevStatsItem = Struct(
    "values" / Array(len(DevStat), u64) * "error counts, indexed by DevStat",
)
"""Errors a device has had. Device tree, key (DEV_STATS, PERSISTENT_ITEM, devid)."""

DevStatsPayload = Struct("values" / UntilEnd(u64) * "error counts, indexed by DevStat")
"""`DevStatsItem` with as many counters as its writer knew of."""

DevReplaceItem = Struct(
    "src_devid" / u64 * "device being replaced",
    "cursor_left" / u64 * "bytes on the device",
    "cursor_right" / u64 * "bytes on the device",
    "cont_reading_from_srcdev_mode" / u64 * "0: read the old device always, 1: only if no other copy is good",
    "replace_state" / u64 * "DevReplaceState",
    "time_started" / u64 * "seconds since 1970",
    "time_stopped" / u64 * "seconds since 1970",
    "num_write_errors" / u64,
    "num_uncorrectable_read_errors" / u64,
)
"""The last replacement of a device, running or over. Device tree, key (DEV_REPLACE, DEV_REPLACE, 0)."""
