"""Files and directories: inodes, their names, extended attributes, and what is logged about directories."""

from construct import Array, Bytes, this

from cowlib.format.common import DiskKey, Timespec
from cowlib.format.declare import Struct, UntilEnd, counted, u8, u16, u32, u64

InodeItem = Struct(
    "generation" / u64 * "transaction that created it; also what NFS calls the inode's generation",
    "transid" / u64 * "transaction that last changed it",
    "size" / u64 * "bytes; of a directory twice the sum of its name lengths",
    "nbytes" / u64 * "bytes its extents refer to, holes aside, before compression",
    "block_group" / u64 * "always 0; for the old free-space cache a hint",
    "nlink" / u32 * "number of names",
    "uid" / u32,
    "gid" / u32,
    "mode" / u32 * "file type and permissions as in stat",
    "rdev" / u64 * "device number of a device node: minor in the low 20 bits, major above",
    "flags" / u64 * "InodeFlag",
    "sequence" / u64 * "counts changes, for NFS",
    "reserved" / Array(4, u64),
    "atime" / Timespec,
    "ctime" / Timespec,
    "mtime" / Timespec,
    "otime" / Timespec * "time of birth",
)
"""A file, directory or other inode. Subvolume trees, key (inode, INODE_ITEM, 0)."""

InodeRef = Struct(
    "index" / u64 * "offset of the DIR_INDEX key in the parent",
    "name_len" / u16 * "bytes",
)
"""One name of an inode, which follows. Key (inode, INODE_REF, parent inode); several names in one item."""

InodeRefPayload = UntilEnd(Struct(*counted(InodeRef, name_len="name"), "name" / Bytes(this.name_len)))
"""All names of an inode in one directory."""

InodeExtref = Struct(
    "parent_objectid" / u64 * "parent inode",
    "index" / u64 * "offset of the DIR_INDEX key in the parent",
    "name_len" / u16 * "bytes",
)
"""One name of an inode, which follows, that found no place in INODE_REF.

Key (inode, INODE_EXTREF, extref_hash(parent, name)); names whose hashes collide share an item.
"""

InodeExtrefPayload = UntilEnd(Struct(*counted(InodeExtref, name_len="name"), "name" / Bytes(this.name_len)))
"""All names of an inode that share one hash."""

DirItem = Struct(
    "location" / DiskKey * "key of the inode item, or of the root item of a subvolume; zeros in an attribute",
    "transid" / u64 * "transaction that created the entry",
    "data_len" / u16 * "bytes of an attribute's value; else 0",
    "name_len" / u16 * "bytes",
    "type" / u8 * "FileType",
)
"""One entry of a directory, or one extended attribute; the name follows, then the value.

Keys (directory, DIR_ITEM, name_hash(name)) and (directory, DIR_INDEX, index) for entries,
(inode, XATTR_ITEM, name_hash(name)) for attributes; names whose hashes collide share an item.
"""

DirItemPayload = UntilEnd(
    Struct(
        *counted(DirItem, data_len="data", name_len="name"),
        "name" / Bytes(this.name_len),
        "data" / Bytes(this.data_len) * "value of an attribute",
    )
)
"""All entries or attributes that share one hash; just one entry under a DIR_INDEX key."""

DirLogItem = Struct(
    "end" / u64 * "last index that the log is complete for",
)
"""In a log tree: a range of a directory, logged whole. Key (directory, DIR_LOG_INDEX, first index)."""

VerityDescriptorItem = Struct(
    "size" / u64 * "bytes of the descriptor, which stands in the items from offset 1 on",
    "reserved" / Array(2, u64),
    "encryption" / u8 * "always 0",
)
"""Describes a file's fs-verity descriptor. Key (inode, VERITY_DESC_ITEM, 0)."""
