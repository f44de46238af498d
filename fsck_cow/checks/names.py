"""Names by themselves: directory entries, references from inodes back to them, extended attributes.

That all of them agree with each other and with link counts and directory sizes is for `links`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64
from cowlib.checksum import extref_hashes_at, name_hashes_of
from cowlib.format import DirItem, FileType, FileTypeFlag, InodeExtref, InodeRef, KeyType, ObjectId, columns
from fsck_cow.batch import Entries, LeafBatch
from fsck_cow.checks.inodes import is_inode
from fsck_cow.checks.reporting import at
from fsck_cow.context import Context
from fsck_cow.fingerprint import unlawful
from fsck_cow.problems import Problem
from fsck_cow.registry import Kind, leaf_check

Mask = npt.NDArray[np.bool_]

#: The first index of a directory's entries.
_FIRST_INDEX = 2
_LONGEST_NAME = 255
_DOT = ord(".")
_NOT_ENCRYPTED = np.uint8(0xFF ^ FileTypeFlag.ENCRYPTED)


def of_entries(
    code: str,
    message: str,
    entries: Entries,
    wrong: Any,
    tree: int,
    found: Any = None,
    expected: Any = None,
) -> Iterator[Problem]:
    """A problem for each name where ``wrong`` (bool, shape (n,), or False) holds."""
    for i in np.flatnonzero(wrong).tolist():
        told = at(found, i)
        name = entries.name(i)
        yield Problem(
            code,
            f"{message}: {name[:_LONGEST_NAME]!r}",
            tree=tree,
            key=entries.items.key(int(entries.item[i])),
            found=name if told is None else told,
            expected=at(expected, i),
        )


def _malformed(entries: Entries, struct: Any) -> I64:
    """The items, as indices, that their entries do not fill exactly."""
    used = columns(struct).itemsize + entries.length + entries.data_length
    total = used
    if len(entries) != len(entries.items) or (len(entries) and (np.diff(entries.item) != 1).any()):
        total = np.bincount(entries.item, weights=used, minlength=len(entries.items)).astype(np.int64)
    return np.flatnonzero((total != entries.items.size) & entries.items.in_bounds)


def _check_shape(entries: Entries, struct: Any, tree: int, subject: str) -> Iterator[Problem]:
    """Items are filled with entries exactly; names have 1 to 255 bytes."""
    for i in _malformed(entries, struct).tolist():
        size = int(entries.items.size[i])
        message = f"names do not fill their item of {size} bytes"
        yield Problem(f"{subject}.malformed", message, tree=tree, key=entries.items.key(i), found=size)
    wrong = (entries.length == 0) | (entries.length > _LONGEST_NAME)
    message = "length of a name"
    yield from of_entries(
        f"{subject}.length-wrong", message, entries, wrong, tree, found=entries.length, expected="1 to 255"
    )


@leaf_check(
    "name",
    Kind.FILES,
    Kind.ROOTS,
    Kind.LOG,
    codes=(
        "name.malformed",
        "name.length-wrong",
        "name.hash-wrong",
        "name.unlawful",
        "name.duplicate",
        "name.type-unknown",
        "name.data-odd",
        "name.location-wrong",
        "name.index-wrong",
    ),
)
def check_entries(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Every directory entry by itself."""
    tree = batch.tree
    for entries in (batch.dir_items, batch.dir_indexes):
        yield from _check_shape(entries, DirItem, tree, "name")
        yield from _check_entry_fields(entries, tree)
    items, indexes = batch.dir_items, batch.dir_indexes
    if len(items):
        yield from _check_hashes(items, tree, "name")
        bad = unlawful(len(items), items.words) | _is_dots(items)
        yield from of_entries("name.unlawful", "no file may have this name", items, bad, tree)
        yield from _check_duplicates(items, tree, "name")
    if len(indexes):
        wrong = indexes.offset < _FIRST_INDEX
        message = "index of a directory entry is one that is not given out"
        yield from of_entries("name.index-wrong", message, indexes, wrong, tree, found=indexes.offset)
        if len(indexes) > len(indexes.items):
            second = np.zeros(len(indexes), bool)
            second[1:] = indexes.item[1:] == indexes.item[:-1]
            yield from of_entries("name.duplicate", "second name under one index", indexes, second, tree)


def _check_entry_fields(entries: Entries, tree: int) -> Iterator[Problem]:
    if not len(entries):
        return
    rows = entries.rows
    kind = rows["type"] & _NOT_ENCRYPTED
    wrong = (kind == FileType.UNKNOWN) | (kind >= FileType.XATTR)
    wrong |= (rows["location"]["type"] == KeyType.ROOT_ITEM) & (kind != FileType.DIR)
    yield from of_entries("name.type-unknown", "type of a directory entry", entries, wrong, tree, found=rows["type"])
    wrong = entries.data_length != 0
    yield from of_entries("name.data-odd", "directory entry with data", entries, wrong, tree, entries.data_length, 0)
    location = rows["location"]
    target, place, offset = location["objectid"], location["type"], location["offset"]
    good = (place == KeyType.INODE_ITEM) & (offset == 0) & is_inode(target)
    if not good.all():
        good |= (place == KeyType.ROOT_ITEM) & (is_inode(target) | (target == ObjectId.FS_TREE))
        message = "directory entry points to what is neither a file nor a subvolume"
        yield from of_entries("name.location-wrong", message, entries, ~good, tree)


def _check_hashes(entries: Entries, tree: int, subject: str) -> Iterator[Problem]:
    """The offset of the key is the hash of the name."""
    hashes = name_hashes_of(len(entries), entries.words)
    offset = entries.offset
    message = "hash of the name is not the offset of its key"
    yield from of_entries(
        f"{subject}.hash-wrong", message, entries, hashes != offset, tree, found=offset, expected=hashes
    )


def _is_dots(entries: Entries) -> Mask:
    """Which names are "." or ".."."""
    dots = np.zeros(len(entries), bool)
    short = np.flatnonzero((entries.length <= 2) & (entries.length > 0))
    first, last = entries.position[short], entries.position[short] + entries.length[short] - 1
    dots[short] = (entries.buffer[first] == _DOT) & (entries.buffer[last] == _DOT)
    return dots


def _check_duplicates(entries: Entries, tree: int, subject: str) -> Iterator[Problem]:
    """Names that share an item, because their hashes collide, differ."""
    if len(entries) == len(entries.items):
        return
    crowd = np.bincount(entries.item, minlength=len(entries.items))
    again = np.zeros(len(entries), bool)
    place = np.flatnonzero(crowd[entries.item] > 1)
    order = np.lexsort((place, entries.fingerprint[place], entries.item[place]))
    item, mark = entries.item[place][order], entries.fingerprint[place][order]
    again[place[order[1:]]] = (item[1:] == item[:-1]) & (mark[1:] == mark[:-1])
    yield from of_entries(f"{subject}.duplicate", "name stands twice in one item", entries, again, tree)


@leaf_check(
    "xattr",
    Kind.FILES,
    Kind.LOG,
    codes=(
        "xattr.malformed",
        "xattr.length-wrong",
        "xattr.hash-wrong",
        "xattr.duplicate",
        "xattr.type-wrong",
        "xattr.location-wrong",
    ),
)
def check_xattrs(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Every extended attribute by itself."""
    entries, tree = batch.xattrs, batch.tree
    yield from _check_shape(entries, DirItem, tree, "xattr")
    if not len(entries):
        return
    yield from _check_hashes(entries, tree, "xattr")
    yield from _check_duplicates(entries, tree, "xattr")
    rows = entries.rows
    wrong = rows["type"] & _NOT_ENCRYPTED != FileType.XATTR
    yield from of_entries(
        "xattr.type-wrong", "type of an attribute", entries, wrong, tree, rows["type"], FileType.XATTR
    )
    location = rows["location"]
    wrong = (location["objectid"] != 0) | (location["type"] != 0) | (location["offset"] != 0)
    yield from of_entries("xattr.location-wrong", "attribute points somewhere", entries, wrong, tree)


@leaf_check(
    "name",
    Kind.FILES,
    Kind.LOG,
    codes=(
        "name.malformed",
        "name.length-wrong",
        "name.hash-wrong",
        "name.parent-wrong",
        "name.index-wrong",
        "name.top-wrong",
    ),
)
def check_references(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Every reference from an inode back to one of its names, by itself."""
    refs, extrefs, tree = batch.inode_refs, batch.inode_extrefs, batch.tree
    yield from _check_shape(refs, InodeRef, tree, "name")
    yield from _check_shape(extrefs, InodeExtref, tree, "name")
    if len(extrefs):
        parent = extrefs.rows["parent_objectid"]
        hashes = extref_hashes_at(parent, extrefs.buffer, extrefs.position, extrefs.length)
        message = "hash of parent and name is not the offset of its key"
        yield from of_entries(
            "name.hash-wrong", message, extrefs, hashes != extrefs.offset, tree, extrefs.offset, hashes
        )
        yield from _check_parents(extrefs, parent, tree)
    if not len(refs):
        return
    parent = refs.offset
    own = parent == refs.objectid
    top = refs.objectid == ObjectId.FIRST_FREE
    if own.any() or top.any():
        for i in np.flatnonzero(own | top).tolist():
            good = own[i] and top[i] and refs.rows["index"][i] == 0 and refs.name(i) == b".."
            if not good:
                message = "only the top directory refers to itself, as '..' with index 0"
                key = refs.items.key(int(refs.item[i]))
                yield Problem("name.top-wrong", message, tree=tree, key=key, found=refs.name(i))
    yield from _check_parents(refs, np.where(own, np.uint64(ObjectId.FIRST_FREE), parent), tree)
    wrong = (refs.rows["index"] < _FIRST_INDEX) & ~own
    message = "index in a reference is one that is not given out"
    yield from of_entries("name.index-wrong", message, refs, wrong, tree, found=refs.rows["index"])


def _check_parents(entries: Entries, parent: Any, tree: int) -> Iterator[Problem]:
    message = "parent of an inode is out of range"
    yield from of_entries("name.parent-wrong", message, entries, ~is_inode(parent), tree, found=parent)
