"""Sizes, places and limits that the on-disk format fixes."""

SUPERBLOCK_SIZE = 4096
"""Bytes of one superblock copy."""

SUPERBLOCK_OFFSETS = (64 << 10, 64 << 20, 256 << 30)
"""Byte offsets of the superblock copies on every device large enough to hold them."""

SUPERBLOCK_MAGIC = b"_BHRfS_M"
"""The eight bytes at offset 64 of a superblock."""

SYSTEM_CHUNK_ARRAY_SIZE = 2048
"""Bytes the superblock reserves for its own copy of the system chunks."""

NUM_BACKUP_ROOTS = 4
"""Root pointers of this many past transactions stand in the superblock."""

LABEL_SIZE = 256
"""Bytes of the label field; the label itself is at most 255 and ends with a zero."""

DEVICE_RANGE_RESERVED = 1 << 20
"""The first bytes of every device that no chunk may use."""

CSUM_SIZE = 32
"""Bytes a checksum field reserves in a superblock or node, whatever the checksum's own size."""

UUID_SIZE = 16
FSID_SIZE = 16

HEADER_SIZE = 101
"""Bytes of a node's header."""

ITEM_SIZE = 25
"""Bytes of an item's entry (key, place, size) in a leaf."""

KEY_PTR_SIZE = 33
"""Bytes of a child pointer in an inner node."""

MAX_LEVEL = 8
"""Levels of a tree: 0 (leaves) to 7."""

MAX_METADATA_BLOCKSIZE = 65536
"""Largest node, in bytes."""

STRIPE_LEN = 65536
"""Bytes written to one device before a striped profile goes on to the next; the only value kernels accept."""

MAX_MIRRORS = 4
"""Most copies any profile keeps of one byte (raid1c4)."""

NAME_LEN = 255
"""Longest name of a directory entry or extended attribute, in bytes."""

LINK_MAX = 65535
"""Most names one inode may have."""

MAX_EXTENT_SIZE = 128 << 20
"""Most bytes of data in one extent."""

MAX_COMPRESSED = 128 << 10
"""Most bytes of data, before compression, in one compressed extent."""

BACKREF_REV_SHIFT = 56
"""A node header's `flags` hold the revision of its back references from this bit up."""

MIXED_BACKREF_REV = 1
"""The only back reference revision today's kernels accept."""

AVAIL_ALLOC_BIT_SINGLE = 1 << 48
"""Stands for the profile "single" in balance filters; never set in a chunk or block group."""

QGROUP_LEVEL_SHIFT = 48
"""A quota group's id is `level << 48 | id`; at level 0 the id is the subvolume's."""

QGROUP_STATUS_VERSION = 1

ROOT_ITEM_V0_SIZE = 239
"""Bytes of a root item before subvolumes had UUIDs and times."""
