"""Roots: where each tree begins, and where subvolumes hang."""

from construct import Array, Bytes, this

from cowlib.format.common import DiskKey, Timespec
from cowlib.format.constants import UUID_SIZE
from cowlib.format.declare import BySize, Struct, counted, u8, u16, u32, u64
from cowlib.format.inode import InodeItem

RootItemV0 = Struct(
    "inode" / InodeItem * "mostly unused; flags, nbytes and times mean nothing",
    "generation" / u64 * "generation of the root node",
    "root_dirid" / u64 * "inode of the top directory of a subvolume: 256",
    "bytenr" / u64 * "logical address in bytes of the root node",
    "byte_limit" / u64 * "bytes; always 0",
    "bytes_used" / u64 * "bytes of nodes",
    "last_snapshot" / u64 * "transaction of the last snapshot taken of it",
    "flags" / u64 * "RootFlag",
    "refs" / u32 * "0: deleted, being dropped",
    "drop_progress" / DiskKey * "of a deleted subvolume: what is before this key is dropped already",
    "drop_level" / u8 * "level drop_progress stands on",
    "level" / u8 * "of the root node",
)
"""A root item as it was before subvolumes had UUIDs and times."""

RootItem = Struct(
    *RootItemV0.subcons,
    "generation_v2" / u64 * "equal to generation, or else all below is void: an old kernel wrote this item",
    "uuid" / Bytes(UUID_SIZE) * "the subvolume's",
    "parent_uuid" / Bytes(UUID_SIZE) * "of the subvolume it is a snapshot of; zeros",
    "received_uuid" / Bytes(UUID_SIZE) * "of the subvolume it was received from; zeros",
    "ctransid" / u64 * "transaction of the last change",
    "otransid" / u64 * "transaction that created it",
    "stransid" / u64 * "transaction of the sent subvolume at its sender",
    "rtransid" / u64 * "transaction that finished receiving it",
    "ctime" / Timespec,
    "otime" / Timespec,
    "stime" / Timespec,
    "rtime" / Timespec,
    "reserved" / Array(8, u64),
)
"""A tree. Root tree, key (tree, ROOT_ITEM, 0).

Of a snapshot the offset is the transaction that took it, of a relocation tree the tree it relocates. Log
trees stand in a tree of their own, the superblock's `log_root`: key (TREE_LOG, ROOT_ITEM, subvolume).
"""

RootItemPayload = BySize(RootItem, RootItemV0)

RootRef = Struct(
    "dirid" / u64 * "inode of the directory that holds the subvolume",
    "sequence" / u64 * "offset of the DIR_INDEX key there",
    "name_len" / u16 * "bytes",
)
"""Where a subvolume hangs; its name follows.

Root tree, keys (parent tree, ROOT_REF, child tree) and (child tree, ROOT_BACKREF, parent tree).
"""

RootRefPayload = Struct(*counted(RootRef, name_len="name"), "name" / Bytes(this.name_len))
"""A whole reference: the place and the name."""
