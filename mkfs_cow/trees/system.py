"""The items of the trees that describe the filesystem itself: chunks, devices, roots, UUIDs, quotas."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cowlib.btree import ItemTable
from cowlib.checksum import name_hash
from cowlib.format import (
    STRIPE_LEN,
    Chunk,
    DevExtent,
    DevItem,
    DevStatsItem,
    DirItem,
    FileType,
    InodeFlag,
    InodeItem,
    InodeRef,
    KeyType,
    ObjectId,
    QgroupInfoItem,
    QgroupLimitItem,
    QgroupStatusFlag,
    QgroupStatusItem,
    QgroupStatusItemV0,
    RootFlag,
    RootItem,
    RootRef,
    Stripe,
    columns,
)
from mkfs_cow.chunks import DeviceSpace, NewChunk
from mkfs_cow.source.tables import S_IFDIR

#: Quota items' key has this object id; so do device statistics.
_NO_OBJECT = 0


def _row(struct: Any) -> Any:
    """One zeroed structure, shape (1,)."""
    return np.zeros(1, columns(struct))


def _fixed(objectid: int, kind: int, offset: int, *parts: Any) -> ItemTable:
    """A table of one item whose payload is the bytes of several arrays, one after another."""
    payload = b"".join(part.tobytes() if isinstance(part, np.ndarray) else part for part in parts)
    return ItemTable.of(objectid, kind, offset, np.frombuffer(payload, np.dtype((np.void, len(payload)))))


def device_row(device: DeviceSpace, fsid: bytes, sectorsize: int) -> Any:
    """A device's DEV_ITEM, as it stands in the chunk tree and in the device's own superblock: shape (1,)."""
    row = _row(DevItem)
    row["devid"] = device.devid
    row["total_bytes"] = device.total_bytes
    row["bytes_used"] = device.bytes_used
    row["io_align"] = row["io_width"] = row["sector_size"] = sectorsize
    row["uuid"] = np.void(device.uuid.bytes)
    row["fsid"] = np.void(fsid)
    return row


def chunk_payload(chunk: NewChunk, devices: dict[int, DeviceSpace], sectorsize: int) -> bytes:
    """A CHUNK_ITEM with its stripes, as in the chunk tree and in the superblock's system array."""
    head = _row(Chunk)
    head["length"] = chunk.length
    head["owner"] = ObjectId.EXTENT_TREE
    head["stripe_len"] = head["io_align"] = head["io_width"] = STRIPE_LEN
    head["type"] = chunk.flags
    head["sector_size"] = sectorsize
    head["num_stripes"] = len(chunk.stripes)
    head["sub_stripes"] = chunk.profile.sub_stripes
    stripes = np.zeros(len(chunk.stripes), columns(Stripe))
    for i, (devid, physical) in enumerate(chunk.stripes):
        stripes[i] = (devid, physical, np.void(devices[devid].uuid.bytes))
    return bytes(head.tobytes() + stripes.tobytes())


def chunk_tree(devices: Sequence[DeviceSpace], chunks: Sequence[NewChunk], fsid: bytes, sectorsize: int) -> ItemTable:
    """DEV_ITEMs and CHUNK_ITEMs."""
    by_id = {device.devid: device for device in devices}
    tables = [
        _fixed(ObjectId.DEV_ITEMS, KeyType.DEV_ITEM, device.devid, device_row(device, fsid, sectorsize))
        for device in devices
    ]
    tables += [
        _fixed(
            ObjectId.FIRST_CHUNK_TREE,
            KeyType.CHUNK_ITEM,
            chunk.logical,
            chunk_payload(chunk, by_id, sectorsize),
        )
        for chunk in chunks
    ]
    return ItemTable.concat(tables).sorted()


def device_tree(devices: Sequence[DeviceSpace], chunks: Sequence[NewChunk], chunk_tree_uuid: bytes) -> ItemTable:
    """DEV_EXTENTs, and error counts of zero for every device."""
    tables = [_fixed(_NO_OBJECT, KeyType.PERSISTENT_ITEM, device.devid, _row(DevStatsItem)) for device in devices]
    for chunk in chunks:
        row = _row(DevExtent)
        row["chunk_tree"] = ObjectId.CHUNK_TREE
        row["chunk_objectid"] = ObjectId.FIRST_CHUNK_TREE
        row["chunk_offset"] = chunk.logical
        row["length"] = chunk.stripe_size
        row["chunk_tree_uuid"] = np.void(chunk_tree_uuid)
        tables += [_fixed(devid, KeyType.DEV_EXTENT, physical, row) for devid, physical in chunk.stripes]
    return ItemTable.concat(tables).sorted()


@dataclass(frozen=True)
class TreeLocation:
    """Where a finished tree is: its ``root`` node's address, its ``level``, and its ``node_count``."""

    root: int
    level: int
    node_count: int


@dataclass(frozen=True)
class Subvolume:
    """A subvolume of the new filesystem: its tree id, UUID, and where it hangs.

    ``parent_id`` is 0 for the top one; ``dirid`` is the directory's inode number in the parent, ``index`` the entry's
    index there, ``name`` its name.
    """

    tree_id: int
    uuid: uuid.UUID
    readonly: bool = False
    parent_id: int = 0
    dirid: int = 0
    index: int = 0
    name: bytes = b""


def _directory_row(generation: int, now: int, nodesize: int) -> Any:
    """The inode of a tree's own directory (the root tree's, the data relocation tree's)."""
    row = _row(InodeItem)
    row["generation"] = row["transid"] = generation
    row["nbytes"] = nodesize
    row["nlink"] = 1
    row["mode"] = S_IFDIR | 0o755
    for name in ("atime", "ctime", "mtime", "otime"):
        row[name]["sec"] = now
    return row


def _dot_dot(inode: int) -> ItemTable:
    head = _row(InodeRef)
    head["name_len"] = 2
    return _fixed(inode, KeyType.INODE_REF, inode, head, b"..")


def data_reloc_tree(generation: int, now: int, nodesize: int) -> ItemTable:
    """The tree that the kernel relocates data through: an empty directory."""
    top = int(ObjectId.FIRST_FREE)
    row = _directory_row(generation, now, nodesize)
    return ItemTable.concat([_fixed(top, KeyType.INODE_ITEM, 0, row), _dot_dot(top)]).sorted()


def root_item(
    tree_id: int,
    location: TreeLocation,
    subvolume: Subvolume | None,
    generation: int,
    now: int,
    nodesize: int,
) -> ItemTable:
    """A tree's ROOT_ITEM."""
    row = _row(RootItem)
    row["inode"]["generation"] = 1
    row["inode"]["size"] = 3
    row["inode"]["nlink"] = 1
    row["inode"]["nbytes"] = nodesize
    row["inode"]["mode"] = S_IFDIR | 0o755
    row["generation"] = row["generation_v2"] = generation
    row["bytenr"] = location.root
    row["bytes_used"] = location.node_count * nodesize
    row["level"] = location.level
    row["refs"] = 1
    if subvolume is not None or tree_id == ObjectId.DATA_RELOC_TREE:
        row["root_dirid"] = ObjectId.FIRST_FREE
    if subvolume is not None:
        row["inode"]["flags"] = InodeFlag.ROOT_ITEM_INIT
        row["flags"] = RootFlag.SUBVOL_RDONLY if subvolume.readonly else 0
        row["uuid"] = np.void(subvolume.uuid.bytes)
        row["ctransid"] = row["otransid"] = generation
        row["ctime"]["sec"] = row["otime"]["sec"] = now
    return _fixed(tree_id, KeyType.ROOT_ITEM, 0, row)


def root_tree_directory(default_subvolume: int, generation: int, now: int, nodesize: int) -> ItemTable:
    """The root tree's directory, whose entry ``default`` names the subvolume that is mounted."""
    directory = int(ObjectId.ROOT_TREE_DIR)
    name = b"default"
    entry = _row(DirItem)
    entry["location"]["objectid"] = default_subvolume
    entry["location"]["type"] = KeyType.ROOT_ITEM
    entry["location"]["offset"] = 2**64 - 1
    entry["transid"] = generation
    entry["name_len"] = len(name)
    entry["type"] = FileType.DIR
    reference = _row(InodeRef)
    reference["name_len"] = len(name)
    return ItemTable.concat(
        [
            _fixed(directory, KeyType.INODE_ITEM, 0, _directory_row(generation, now, nodesize)),
            _dot_dot(directory),
            _fixed(directory, KeyType.DIR_ITEM, name_hash(name), entry, name),
            _fixed(ObjectId.FS_TREE, KeyType.INODE_REF, directory, reference, name),
        ]
    )


def subvolume_references(subvolume: Subvolume) -> ItemTable:
    """ROOT_REF and ROOT_BACKREF between a subvolume and the one it hangs in."""
    row = _row(RootRef)
    row["dirid"] = subvolume.dirid
    row["sequence"] = subvolume.index
    row["name_len"] = len(subvolume.name)
    return ItemTable.concat(
        [
            _fixed(subvolume.parent_id, KeyType.ROOT_REF, subvolume.tree_id, row, subvolume.name),
            _fixed(subvolume.tree_id, KeyType.ROOT_BACKREF, subvolume.parent_id, row, subvolume.name),
        ]
    )


def uuid_tree(subvolumes: Sequence[Subvolume]) -> ItemTable:
    """From UUIDs to subvolumes: the key holds the UUID's two halves, each little endian."""
    tables = []
    for subvolume in subvolumes:
        low, high = np.frombuffer(subvolume.uuid.bytes, "<u8").tolist()
        tables.append(_fixed(low, KeyType.UUID_KEY_SUBVOL, high, np.array([subvolume.tree_id], "<u8")))
    return ItemTable.concat(tables).sorted()


def quota_tree(usage: dict[int, int], generation: int, simple: bool) -> ItemTable:
    """Quota status, and for each subvolume what it uses in bytes: all of it is its own, nothing is shared yet."""
    status = _row(QgroupStatusItem if simple else QgroupStatusItemV0)
    status["version"] = 1
    status["generation"] = generation
    status["flags"] = QgroupStatusFlag.ON | (QgroupStatusFlag.SIMPLE_MODE if simple else QgroupStatusFlag(0))
    if simple:
        status["enable_gen"] = generation
    tables = [_fixed(_NO_OBJECT, KeyType.QGROUP_STATUS, 0, status)]
    for tree_id, used in sorted(usage.items()):
        info = _row(QgroupInfoItem)
        info["generation"] = generation
        for name in ("rfer", "rfer_cmpr", "excl", "excl_cmpr"):
            info[name] = used
        tables.append(_fixed(_NO_OBJECT, KeyType.QGROUP_INFO, tree_id, info))
        tables.append(_fixed(_NO_OBJECT, KeyType.QGROUP_LIMIT, tree_id, _row(QgroupLimitItem)))
    return ItemTable.concat(tables).sorted()
