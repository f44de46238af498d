"""Damaged filesystems, each by one edit of a sound one, and all that fsck.cow says of it.

They are of the kinds that users have reported of btrfs over the years, and that programs which read it have crashed on.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cowlib.checksum import name_hash
from cowlib.format import (
    HEADER_SIZE,
    BlockGroupItem,
    DirItem,
    ExtentItem,
    FileExtentHead,
    FileExtentItem,
    InodeFlag,
    InodeItem,
    KeyPtr,
    KeyType,
    ObjectId,
    RootItem,
    columns,
)
from tests import corpus
from tests.fsck_cow import craft
from tests.fsck_cow.checks import named

Edit = Callable[[craft.Editor], Any]

FILES, ROOTS, EXTENTS, CHUNKS = ObjectId.FS_TREE, ObjectId.ROOT_TREE, ObjectId.EXTENT_TREE, ObjectId.CHUNK_TREE


@dataclass(frozen=True)
class Damage:
    """An edit of a copy of a filesystem: a small one, or the kernel image called ``base``.

    ``codes`` are all that are found but notes; none if the filesystem is sound after all. ``unseen`` says why
    `btrfs check` does not find it, where that is so.
    """

    edit: Edit
    codes: frozenset[str]
    base: str = "small"
    unseen: str = ""


def names() -> list[str]:
    """All of them."""
    return list(DAMAGES)


@functools.cache
def image(name: str) -> Path:
    """The one device of a damaged filesystem, made once a session. It is shared: who writes takes a copy."""
    damage = DAMAGES[name]
    folder = Path(tempfile.mkdtemp(dir=_session_folder()))
    images = craft.small(folder) if damage.base == "small" else craft.copy(corpus.devices(damage.base), folder)
    with craft.Editor(images) as edit:
        damage.edit(edit)
    return images[0]


@functools.cache
def _session_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cowtools-damaged-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# -- nodes -----------------------------------------------------------------------------------------------------


def _a_leaf(edit: craft.Editor) -> craft.Place:
    """An item in the second leaf of the files' tree, the fourth one there."""
    leaves: list[int] = []
    for place in edit.places(FILES):
        if place.leaf not in leaves:
            leaves.append(place.leaf)
        if len(leaves) == 2 and place.slot == 3:
            return place
    raise LookupError("there is one leaf only")


def _pointer(**fields: int) -> Edit:
    """Changes the second pointer of the files' tree by these differences."""

    def edit(edit: craft.Editor) -> None:
        bytenr, slot = _a_leaf(edit).path[0]
        old = np.frombuffer(edit.read_node(bytenr), columns(KeyPtr), slot + 1, HEADER_SIZE)[slot]
        edit.set_pointer(bytenr, slot, **{name: int(old[name]) + by for name, by in fields.items()})

    return edit


def _header(**fields: Any) -> Edit:
    return lambda edit: edit.set_header(_a_leaf(edit).leaf, **fields)


def _item(**fields: int) -> Edit:
    return lambda edit: edit.set_item(_a_leaf(edit), **fields)


def _shift_offsets(edit: craft.Editor) -> None:
    """All payloads of a leaf are said to be eight bytes further down."""
    leaf = _a_leaf(edit).leaf
    for place in list(edit.places(FILES)):
        if place.leaf == leaf:
            edit.set_item(place, offset=place.position - HEADER_SIZE - 8)


def _swap_items(edit: craft.Editor) -> None:
    items = edit.leaf_items(_a_leaf(edit).leaf)
    items[3], items[4] = items[4], items[3]
    edit.write_leaf(_a_leaf(edit), items)


def _garble(tree: int) -> Edit:
    """One bit of a leaf, in all its copies, and the checksum as it was."""

    def edit(edit: craft.Editor) -> None:
        leaf = next(edit.places(tree)).leaf
        node = edit.read_node(leaf)
        node[200] ^= 1
        edit.write_node(leaf, node, mend=False)

    return edit


def _zero(edit: craft.Editor) -> None:
    """A leaf that was never written."""
    edit.write_node(_a_leaf(edit).leaf, bytes(edit.nodesize), mend=False)


# -- files -----------------------------------------------------------------------------------------------------


def _delete(name: bytes, kind: int) -> Edit:
    """Takes the first item of a type that a file has."""
    return lambda edit: edit.delete(named.item(edit, name, kind))


def _delete_entry(name: bytes, kind: int) -> Edit:
    return lambda edit: edit.delete(named.entry(edit, name, kind))


def _inode(name: bytes, **fields: int) -> Edit:
    return lambda edit: edit.set_fields(named.inode(edit, name), InodeItem, 0, **fields)


def _extent_of(name: bytes, struct: Any = FileExtentItem, **fields: int) -> Edit:
    return lambda edit: edit.set_fields(named.item(edit, name, KeyType.EXTENT_DATA), struct, 0, **fields)


def _rename_entry(name: bytes, kind: int) -> Edit:
    """Another first letter for a name in one of the two places where a directory has it."""

    def edit(edit: craft.Editor) -> None:
        edit.patch(named.entry(edit, name, kind), columns(DirItem).itemsize, b"\x7f")

    return edit


def _link_a_directory(edit: craft.Editor) -> None:
    """A second name for a folder, complete."""
    top, number = named.TOP, named.number(edit, b"folder")
    edit.set_fields(named.inode(edit, b"folder"), InodeItem, 0, nlink=2)
    index = edit.find(FILES, named.entry(edit, b"folder").key)
    edit.insert(FILES, (top, int(KeyType.DIR_INDEX), 5000), edit.payload(index).replace(b"folder", b"second"))
    edit.insert(FILES, (top, int(KeyType.DIR_ITEM), int(name_hash(b"second"))), edit.payload(index)[:-6] + b"second")
    reference = edit.find(FILES, (number, KeyType.INODE_REF, top))
    more = (5000).to_bytes(8, "little") + (6).to_bytes(2, "little") + b"second"
    edit.replace(reference, edit.payload(reference) + more)
    edit.set_fields(named.inode(edit, b""), InodeItem, 0, size=int(edit.parsed(named.inode(edit, b"")).size) + 12)


def _name_twice(edit: craft.Editor) -> None:
    """The same name with two numbers."""
    place = named.entry(edit, b"data")
    edit.insert(FILES, (named.TOP, int(KeyType.DIR_INDEX), 5000), edit.payload(place))


def _orphan(edit: craft.Editor) -> None:
    """A file without names, which the next mount takes away: all as it should be."""
    number = named.number(edit, b"data")
    edit.insert(FILES, (int(ObjectId.ORPHAN), int(KeyType.ORPHAN_ITEM), number), b"")


# -- extents, chunks, devices, roots, free space ---------------------------------------------------------------


def _data_extent(edit: craft.Editor) -> craft.Place:
    return edit.first(
        EXTENTS, lambda place: place.key[1] == KeyType.EXTENT_ITEM and edit.parsed(place).flags == 1 and place.slot > 0
    )


def _extent(**fields: int) -> Edit:
    return lambda edit: edit.set_fields(_data_extent(edit), ExtentItem, 0, **fields)


def _backref(edit: craft.Editor) -> None:
    """The inline reference of an extent names a file that there is not."""

    def change(value: Any) -> None:
        value.inline_refs[0].objectid = 999_999

    edit.rebuild(_data_extent(edit), change)


def _delete_extent(edit: craft.Editor) -> None:
    edit.delete(_data_extent(edit))


def _block_group(**fields: int) -> Edit:
    def edit(edit: craft.Editor) -> None:
        tree = next(root for root in edit.roots if root.objectid == ObjectId.BLOCK_GROUP_TREE)
        edit.set_item(list(edit.places(tree))[1], **fields)

    return edit


def _used(edit: craft.Editor) -> None:
    tree = next(root for root in edit.roots if root.objectid == ObjectId.BLOCK_GROUP_TREE)
    edit.set_fields(edit.first(tree, KeyType.BLOCK_GROUP_ITEM), BlockGroupItem, 0, used=4096)


def _chunk_in_root_tree(edit: craft.Editor) -> None:
    chunk = edit.first(CHUNKS, KeyType.CHUNK_ITEM)
    edit.insert(ROOTS, chunk.key, edit.payload(chunk))


def _root(**fields: Any) -> Edit:
    return lambda edit: edit.set_fields(edit.find(ROOTS, (FILES, KeyType.ROOT_ITEM, 0)), RootItem, 0, **fields)


def _root_generation(edit: craft.Editor) -> None:
    _root(generation=int(edit.superblock.generation) + 5)(edit)


def _device_extent(edit: craft.Editor) -> None:
    """One that no chunk knows of."""
    tree = ObjectId.DEV_TREE
    place = [place for place in edit.places(tree) if place.key[1] == KeyType.DEV_EXTENT][-1]
    value = edit.parsed(place)
    start = place.key[2] + int(value.length)
    edit.insert(tree, (place.key[0], place.key[1], start), edit.payload(place))


def _free_space(edit: craft.Editor) -> None:
    """Some of it is said to be longer."""
    place = edit.first(ObjectId.FREE_SPACE_TREE, KeyType.FREE_SPACE_EXTENT)
    edit.set_item(place, **{"key.offset": place.key[2] + 4096})


def _superblock(**fields: Any) -> Edit:
    return lambda edit: edit.set_superblock(**fields)


def _system_chunk(at: int, data: bytes) -> Edit:
    """Bytes of the first chunk in the superblock's array, after its key."""

    def edit(edit: craft.Editor) -> None:
        array = bytearray(edit.superblock.sys_chunk_array)
        array[17 + at : 17 + at + len(data)] = data
        edit.set_superblock(sys_chunk_array=bytes(array))

    return edit


def _move_across_stripes(edit: craft.Editor) -> None:
    """The checksum tree's only node moves to where a boundary of 64 KiB runs through it."""
    root = edit.root(ObjectId.CSUM_TREE)
    chunk = int(edit.chunks.locate(np.array([root.bytenr], np.uint64))[0])
    end = int(edit.chunks.logical[chunk]) + int(edit.chunks.length[chunk])
    moved = end - end % 65536 - 65536 - 8192
    edit.write_node(moved, edit.read_node(root.bytenr))
    edit.set_header(moved, bytenr=moved)
    edit.set_fields(edit.find(ROOTS, (ObjectId.CSUM_TREE, KeyType.ROOT_ITEM, 0)), RootItem, 0, bytenr=moved)
    place = edit.find(EXTENTS, (root.bytenr, KeyType.METADATA_ITEM, 0))
    payload = edit.payload(place)
    edit.delete(place)
    edit.insert(EXTENTS, (moved, int(KeyType.METADATA_ITEM), 0), payload)


def _said(*codes: str) -> frozenset[str]:
    return frozenset(codes)


DAMAGES: Mapping[str, Damage] = {
    # nodes
    "transid": Damage(
        _pointer(generation=7), _said("extent.generation-mismatch", "node.pointer-generation", "node.unreadable")
    ),
    "transid-old": Damage(_header(generation=0), _said("node.unreadable")),
    "pointer-key": Damage(
        lambda edit: edit.set_pointer(*_a_leaf(edit).path[0], **{"key.offset": 1}),
        _said("node.first-key-wrong", "node.last-key-wrong"),
    ),
    "pointer-nowhere": Damage(_pointer(blockptr=1 << 45), _said("extent.missing", "node.unreadable")),
    "pointer-unaligned": Damage(
        _pointer(blockptr=512), _said("extent.missing", "node.pointer-unaligned", "node.unreadable")
    ),
    "level": Damage(_header(level=3), _said("node.unreadable")),
    "level-huge": Damage(_header(level=200), _said("node.unreadable")),
    "owner": Damage(_header(owner=77), _said("node.owner-wrong")),
    "items-none": Damage(
        _header(nritems=0), _said("inode.directory-size", "name.no-dir-index", "name.no-dir-item", "node.empty")
    ),
    "items-too-many": Damage(_header(nritems=100_000), _said("node.unreadable")),
    "other-fsid": Damage(_header(fsid=bytes(16)), _said("node.unreadable")),
    "other-address": Damage(_header(bytenr=1 << 20), _said("node.unreadable")),
    "item-offset": Damage(
        _item(offset=5), _said("inode.directory-size", "name.no-dir-item", "node.item-misplaced", "node.item-outside")
    ),
    "item-outside": Damage(
        _item(offset=1 << 30),
        _said("inode.directory-size", "name.no-dir-item", "node.item-misplaced", "node.item-outside"),
    ),
    "item-size": Damage(_item(size=60_000), _said("inode.directory-size", "name.no-dir-item", "node.item-outside")),
    "items-shifted": Damage(
        _shift_offsets,
        _said(
            "inode.directory-size",
            "inode.missing",
            "name.data-odd",
            "name.hash-wrong",
            "name.length-wrong",
            "name.location-wrong",
            "name.malformed",
            "name.no-dir-index",
            "name.no-dir-item",
            "name.no-inode-ref",
            "name.twice",
            "name.type-unknown",
            "node.item-misplaced",
        ),
    ),
    "items-swapped": Damage(_swap_items, _said("node.key-order")),
    "leaf-garbled": Damage(_garble(FILES), _said("node.unreadable")),
    "leaf-zeros": Damage(_zero, _said("node.unreadable")),
    "chunk-tree-garbled": Damage(_garble(CHUNKS), _said("node.unreadable")),
    "root-tree-garbled": Damage(_garble(ROOTS), _said("node.unreadable")),
    "extent-tree-garbled": Damage(_garble(EXTENTS), _said("node.unreadable")),
    # files
    "no-dir-index": Damage(
        _delete_entry(b"data", KeyType.DIR_INDEX), _said("inode.directory-size", "name.no-dir-index")
    ),
    "no-dir-item": Damage(_delete_entry(b"data", KeyType.DIR_ITEM), _said("inode.directory-size", "name.no-dir-item")),
    "no-inode-item": Damage(_delete(b"data", KeyType.INODE_ITEM), _said("file-extent.not-a-file", "inode.missing")),
    "no-inode-ref": Damage(_delete(b"symlink", KeyType.INODE_REF), _said("name.no-inode-ref")),
    "no-file-extent": Damage(_delete(b"data", KeyType.EXTENT_DATA), _said("extent.unreferenced", "inode.nbytes-wrong")),
    "dir-index-name": Damage(
        _rename_entry(b"data", KeyType.DIR_INDEX),
        _said("inode.nlink-wrong", "name.no-dir-index", "name.no-dir-item", "name.no-inode-ref"),
    ),
    "dir-item-name": Damage(
        _rename_entry(b"data", KeyType.DIR_ITEM),
        _said("inode.nlink-wrong", "name.hash-wrong", "name.no-dir-index", "name.no-dir-item", "name.no-inode-ref"),
    ),
    "name-twice": Damage(_name_twice, _said("inode.directory-size", "name.twice")),
    "directory-linked": Damage(_link_a_directory, _said("inode.directory-links")),
    "link-count": Damage(_inode(b"data", nlink=9), _said("inode.nlink-wrong")),
    "inode-flags": Damage(
        _inode(b"data", flags=1 << 20), _said("inode.flags-unknown"), unseen="it does not look at flags of inodes"
    ),
    "inode-mode": Damage(_inode(b"folder", mode=0o100644), _said("name.not-in-directory", "name.type-differs")),
    "inode-size": Damage(_inode(b"folder", size=1), _said("inode.directory-size")),
    "orphan-with-names": Damage(_orphan, _said()),
    "inline-bytes": Damage(
        _extent_of(b"inline", FileExtentHead, ram_bytes=12), _said("file-extent.inline-size", "inode.nbytes-wrong")
    ),
    "compressed-without-sums": Damage(
        lambda edit: (
            _extent_of(b"data", compression=1)(edit),
            _inode(b"data", flags=int(InodeFlag.NODATASUM))(edit),
        ),
        _said("checksum.odd", "file-extent.compressed-odd"),
    ),
    "compression-unknown": Damage(
        _extent_of(b"data", compression=9),
        _said("file-extent.compression-unknown"),
        unseen="it does not look at how data is compressed",
    ),
    "extent-elsewhere": Damage(
        _extent_of(b"data", disk_bytenr=1 << 40), _said("checksum.missing", "extent.missing", "extent.unreferenced")
    ),
    # extents and the rest
    "no-extent-item": Damage(
        _delete_extent,
        _said("block-group.used-wrong", "checksum.without-extent", "extent.missing", "free-space.missing"),
    ),
    "extent-generation": Damage(_extent(generation=1 << 40), _said("extent.generation-wrong")),
    "extent-references": Damage(_extent(refs=5), _said("extent.refs-wrong")),
    "backref": Damage(_backref, _said("extent.backref-missing", "extent.reference-unknown")),
    "across-stripes": Damage(
        _move_across_stripes, _said("extent.block-crosses-stripe", "free-space.allocated", "free-space.missing")
    ),
    "block-group-offset": Damage(
        _block_group(**{"key.offset": 1 << 62}),
        _said(
            "block-group.chunk-missing",
            "block-group.missing",
            "block-group.overlap",
            "block-group.used-wrong",
            "free-space.info-missing",
            "free-space.info-orphan",
        ),
    ),
    "block-group-used": Damage(_used, _said("block-group.used-wrong", "superblock.bytes-used-wrong")),
    "chunk-in-root-tree": Damage(
        _chunk_in_root_tree, _said("node.key-unexpected"), unseen="it says so, and exits with 0"
    ),
    "root-generation": Damage(
        _root_generation,
        _said("extent.generation-mismatch", "node.unreadable", "root.generation-wrong", "root.uuid-unknown"),
    ),
    "root-level": Damage(_root(level=7), _said("extent.level-mismatch", "node.unreadable")),
    "root-address": Damage(_root(bytenr=1 << 50), _said("extent.missing", "node.unreadable")),
    "device-extent": Damage(_device_extent, _said("chunk.device-extent-orphan", "device.bytes-used-wrong")),
    "free-space": Damage(_free_space, _said("free-space.allocated", "free-space.outside")),
    # superblocks
    "devices-counted": Damage(_superblock(num_devices=3), _said("superblock.num-devices-wrong")),
    "total-bytes-none": Damage(
        _superblock(total_bytes=0), _said("superblock.field-wrong", "superblock.total-bytes-wrong")
    ),
    "nodesize-none": Damage(
        _superblock(nodesize=0), _said("superblock.copy-bad", "superblock.field-wrong", "superblock.unusable")
    ),
    "sectorsize-none": Damage(
        _superblock(sectorsize=0), _said("superblock.copy-bad", "superblock.field-wrong", "superblock.unusable")
    ),
    "system-array-size": Damage(
        _superblock(sys_chunk_array_size=4000), _said("superblock.system-array-broken", "superblock.unusable")
    ),
    "stripe-length": Damage(
        _system_chunk(16, bytes(8)),
        _said("node.unreadable", "superblock.address-unmapped", "superblock.system-array-broken"),
    ),
    "sub-stripes": Damage(
        _system_chunk(46, bytes(2)), _said("superblock.system-array-differs"), unseen="it trusts the chunk tree"
    ),
    "stripes-none": Damage(_system_chunk(44, bytes(2)), _said("superblock.system-array-broken", "superblock.unusable")),
    "superblock-checksum": Damage(
        lambda edit: edit.set_superblock(mend=False, generation=5), _said("superblock.copy-bad", "superblock.unusable")
    ),
}
"""By name."""
