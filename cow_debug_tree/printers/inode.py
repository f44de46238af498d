"""Inodes, their names, directories and extended attributes."""

from __future__ import annotations

import numpy as np

from cow_debug_tree.printers.listing import I64, Entries, Group, Listing, Structs, declare, printer, remark
from cow_debug_tree.text.template import Fields
from cowlib.format import DirItem, DirLogItem, InodeExtref, InodeItem, InodeRef, KeyType

INODE_FIELDS = (
    "\t\tgeneration {generation} transid {transid} size {size} nbytes {nbytes}\n"
    "\t\tblock group {block_group} mode {mode:o} links {nlink} uid {uid} gid {gid} rdev {rdev}\n"
    "\t\tsequence {sequence} flags 0x{flags:x}({flags:inode_flags})\n"
    "\t\tatime {atime:time}\n"
    "\t\tctime {ctime:time}\n"
    "\t\tmtime {mtime:time}\n"
    "\t\totime {otime:time}\n"
)

declare(KeyType.INODE_ITEM, InodeItem, INODE_FIELDS)
declare(KeyType.DIR_LOG_ITEM, DirLogItem, "\t\tdir log end {end}\n")
declare(KeyType.DIR_LOG_INDEX, DirLogItem, "\t\tdir log end {end}\n")
remark(KeyType.ORPHAN_ITEM, "\t\torphan item\n")


def _name_len(entries: Structs) -> I64:
    lengths: I64 = entries["name_len"].astype(np.int64)
    return lengths


def _name_and_data_len(entries: Structs) -> I64:
    lengths: I64 = _name_len(entries) + entries["data_len"]
    return lengths


@printer(KeyType.INODE_REF)
def inode_ref(listing: Listing, group: Group) -> None:
    """Names of an inode in one directory."""
    _names(listing, group, InodeRef, "\t\tindex {index} namelen {name_len} name: ")


@printer(KeyType.INODE_EXTREF)
def inode_extref(listing: Listing, group: Group) -> None:
    """Names of an inode that found no place among the others."""
    _names(listing, group, InodeExtref, "\t\tindex {index} parent {parent_objectid} namelen {name_len} name: ")


def _names(listing: Listing, group: Group, struct: object, text: str) -> None:
    hide = listing.style.hide_names
    for entry in listing.entries(group, struct, _name_len):
        listing.put(entry.group, text + "HIDDEN\n" if hide else text, Fields(entry.heads), first=entry.first)
        if not hide:
            listing.names(entry.group, entry.start, _name_len(entry.heads), entry.room)


@printer(KeyType.DIR_ITEM, KeyType.DIR_INDEX, KeyType.XATTR_ITEM)
def dir_item(listing: Listing, group: Group) -> None:
    """Entries of a directory, or extended attributes."""
    for entry in listing.entries(group, DirItem, _name_and_data_len):
        too_long = _name_and_data_len(entry.heads) > entry.room
        if too_long.any():
            odd = entry.select(too_long)
            listing.put(odd.group, _LOCATION, Fields(odd.heads), first=odd.first)
            listing.complain(entry.group, too_long, "name and value are longer than the item")
            entry = entry.select(~too_long)
        if len(entry.group):
            _dir_entry(listing, entry)


_LOCATION = "\t\tlocation {location:key} type {type:file_type}\n"
_NAME = "\t\ttransid {transid} data_len {data_len} name_len {name_len}\n\t\tname: "


def _dir_entry(listing: Listing, entry: Entries) -> None:
    hide = "HIDDEN\n" if listing.style.hide_names else ""
    name_len = _name_len(entry.heads)
    listing.put(entry.group, _LOCATION + _NAME + hide, Fields(entry.heads), first=entry.first)
    if not hide:
        listing.names(entry.group, entry.start, name_len, entry.room)
    with_data = entry.heads["data_len"] > 0
    if not with_data.any():
        return
    start = entry.start + name_len
    group, start, length = entry.group.select(with_data), start[with_data], entry.heads["data_len"][with_data]
    listing.put(group, "\t\tdata " + hide, first=False)
    if not hide:
        listing.names(group, start, length.astype(np.int64), length.astype(np.int64))
