"""The superblock: where everything begins. At 64 KiB, 64 MiB and 256 GiB of every device."""

from construct import Array, Bytes

from cowlib.format.constants import (
    CSUM_SIZE,
    FSID_SIZE,
    LABEL_SIZE,
    NUM_BACKUP_ROOTS,
    SYSTEM_CHUNK_ARRAY_SIZE,
)
from cowlib.format.declare import Struct, u8, u16, u32, u64
from cowlib.format.device import DevItem

RootBackup = Struct(
    "tree_root" / u64 * "logical address in bytes, as every *_root here",
    "tree_root_gen" / u64 * "generation of that root node, as every *_gen here",
    "chunk_root" / u64,
    "chunk_root_gen" / u64,
    "extent_root" / u64,
    "extent_root_gen" / u64,
    "fs_root" / u64,
    "fs_root_gen" / u64,
    "dev_root" / u64,
    "dev_root_gen" / u64,
    "csum_root" / u64,
    "csum_root_gen" / u64,
    "total_bytes" / u64 * "bytes, as in the superblock of that time",
    "bytes_used" / u64 * "bytes",
    "num_devices" / u64,
    "unused_64" / Array(4, u64),
    "tree_root_level" / u8,
    "chunk_root_level" / u8,
    "extent_root_level" / u8,
    "fs_root_level" / u8,
    "dev_root_level" / u8,
    "csum_root_level" / u8,
    "unused_8" / Bytes(10),
)
"""The roots of one of the last four transactions, written round robin."""

Superblock = Struct(
    "csum" / Bytes(CSUM_SIZE) * "checksum of everything after this field, padded with zeros",
    "fsid" / Bytes(FSID_SIZE) * "the filesystem's UUID, as people see it",
    "bytenr" / u64 * "byte offset on the device of this very copy",
    "flags" / u64 * "SuperFlag",
    "magic" / Bytes(8) * "SUPERBLOCK_MAGIC",
    "generation" / u64 * "last committed transaction",
    "root" / u64 * "logical address in bytes of the root tree's root node",
    "chunk_root" / u64 * "logical address in bytes of the chunk tree's root node",
    "log_root" / u64 * "logical address in bytes of the log root tree's root node; 0: nothing to replay",
    "log_root_transid" / u64 * "never used: 0",
    "total_bytes" / u64 * "bytes of all devices together",
    "bytes_used" / u64 * "bytes of all extents together, each counted once whatever its profile",
    "root_dir_objectid" / u64 * "ROOT_TREE_DIR",
    "num_devices" / u64,
    "sectorsize" / u32 * "bytes; the unit of data extents",
    "nodesize" / u32 * "bytes of every node",
    "leafsize" / u32 * "bytes; equal to nodesize, no longer read",
    "stripesize" / u32 * "bytes; equal to sectorsize",
    "sys_chunk_array_size" / u32 * "bytes of sys_chunk_array in use",
    "chunk_root_generation" / u64 * "generation of the chunk tree's root node",
    "compat_flags" / u64 * "none is defined",
    "compat_ro_flags" / u64 * "CompatRoFeature",
    "incompat_flags" / u64 * "IncompatFeature",
    "csum_type" / u16 * "CsumType",
    "root_level" / u8,
    "chunk_root_level" / u8,
    "log_root_level" / u8,
    "dev_item" / DevItem * "the device this copy stands on",
    "label" / Bytes(LABEL_SIZE) * "ends with a zero byte",
    "cache_generation" / u64 * "generation the old free-space cache is valid for; 0 or 2**64-1: none",
    "uuid_tree_generation" / u64 * "generation the UUID tree is valid for",
    "metadata_uuid" / Bytes(FSID_SIZE) * "what nodes hold as fsid, if the METADATA_UUID feature is set",
    "nr_global_roots" / u64 * "number of extent trees with EXTENT_TREE_V2",
    "remap_root" / u64 * "logical address in bytes, with REMAP_TREE",
    "remap_root_generation" / u64,
    "remap_root_level" / u8,
    "reserved" / Bytes(199),
    "sys_chunk_array" / Bytes(SYSTEM_CHUNK_ARRAY_SIZE) * "keys and chunks, one after the other",
    "super_roots" / Array(NUM_BACKUP_ROOTS, RootBackup),
    "padding" / Bytes(565),
)
"""All 4096 bytes of a superblock copy."""
