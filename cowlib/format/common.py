"""Structures that others are made of."""

from cowlib.format.declare import Struct, s64, u8, u32, u64

DiskKey = Struct(
    "objectid" / u64 * "whose item: an inode, a tree, an address, ...",
    "type" / u8 * "KeyType",
    "offset" / u64 * "its meaning depends on the type",
)
"""The key of an item. Items stand in the order (objectid, type, offset), compared as unsigned numbers."""

Timespec = Struct(
    "sec" / s64 * "seconds since 1970, negative before",
    "nsec" / u32 * "nanoseconds, below 10**9",
)
"""A point in time."""
