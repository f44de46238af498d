"""The superblocks of a new filesystem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cowlib.checksum import checksum, csum_size
from cowlib.format import (
    CSUM_SIZE,
    SUPERBLOCK_MAGIC,
    SUPERBLOCK_OFFSETS,
    SUPERBLOCK_SIZE,
    CompatRoFeature,
    CsumType,
    IncompatFeature,
    KeyType,
    ObjectId,
    Superblock,
    SuperFlag,
    columns,
)
from cowlib.volume import Volume
from mkfs_cow.chunks import DeviceSpace, NewChunk
from mkfs_cow.identity import GENERATION, Identity
from mkfs_cow.trees.system import TreeLocation, chunk_payload, device_row

#: `cache_generation` of a filesystem whose old free-space cache is to be taken for void.
_NO_CACHE = 2**64 - 1

#: The trees that a backup root names, by field.
_BACKUP_TREES = {
    "tree_root": ObjectId.ROOT_TREE,
    "chunk_root": ObjectId.CHUNK_TREE,
    "extent_root": ObjectId.EXTENT_TREE,
    "fs_root": ObjectId.FS_TREE,
    "dev_root": ObjectId.DEV_TREE,
    "csum_root": ObjectId.CSUM_TREE,
}


@dataclass(frozen=True)
class SuperblockFacts:
    """What a superblock says, apart from which device it stands on."""

    identity: Identity
    label: bytes
    nodesize: int
    sectorsize: int
    csum_type: CsumType
    incompat: IncompatFeature
    compat_ro: CompatRoFeature
    trees: dict[int, TreeLocation]
    system_chunks: list[NewChunk]
    bytes_used: int


def system_array(chunks: list[NewChunk], devices: dict[int, DeviceSpace], sectorsize: int) -> bytes:
    """The superblock's own copy of the system chunks: key and chunk, one after another."""
    head = bytearray()
    for chunk in chunks:
        head += int(ObjectId.FIRST_CHUNK_TREE).to_bytes(8, "little")
        head += bytes([KeyType.CHUNK_ITEM]) + chunk.logical.to_bytes(8, "little")
        head += chunk_payload(chunk, devices, sectorsize)
    return bytes(head)


def superblock_row(facts: SuperblockFacts, devices: list[DeviceSpace]) -> Any:
    """A superblock without place, device or checksum: shape (1,), dtype ``columns(Superblock)``."""
    row = np.zeros(1, columns(Superblock))
    trees = facts.trees
    root, chunk_root = trees[ObjectId.ROOT_TREE], trees[ObjectId.CHUNK_TREE]
    row["fsid"] = np.void(facts.identity.fsid.bytes)
    row["flags"] = SuperFlag.WRITTEN
    row["magic"] = np.void(SUPERBLOCK_MAGIC)
    row["generation"] = row["chunk_root_generation"] = row["uuid_tree_generation"] = GENERATION
    row["root"], row["root_level"] = root.root, root.level
    row["chunk_root"], row["chunk_root_level"] = chunk_root.root, chunk_root.level
    row["total_bytes"] = sum(device.total_bytes for device in devices)
    row["bytes_used"] = facts.bytes_used
    row["root_dir_objectid"] = ObjectId.ROOT_TREE_DIR
    row["num_devices"] = len(devices)
    row["sectorsize"] = row["stripesize"] = facts.sectorsize
    row["nodesize"] = row["leafsize"] = facts.nodesize
    row["compat_ro_flags"] = facts.compat_ro
    row["incompat_flags"] = facts.incompat
    row["csum_type"] = facts.csum_type
    row["label"] = np.void(facts.label.ljust(256, b"\0"))
    row["cache_generation"] = 0 if CompatRoFeature.FREE_SPACE_TREE in facts.compat_ro else _NO_CACHE
    array = system_array(facts.system_chunks, {d.devid: d for d in devices}, facts.sectorsize)
    row["sys_chunk_array_size"] = len(array)
    row["sys_chunk_array"] = np.void(array.ljust(2048, b"\0"))
    backup = row["super_roots"][:, 0]
    for field, tree in _BACKUP_TREES.items():
        backup[field], backup[f"{field}_level"] = trees[tree].root, trees[tree].level
        backup[f"{field}_gen"] = GENERATION
    backup["total_bytes"], backup["bytes_used"] = row["total_bytes"], row["bytes_used"]
    backup["num_devices"] = len(devices)
    return row


def write_superblocks(volume: Volume, facts: SuperblockFacts, devices: list[DeviceSpace]) -> None:
    """Writes every copy on every device, the ones away from the front first: the first copy makes it mountable."""
    row = superblock_row(facts, devices)
    size = csum_size(facts.csum_type)
    for offset in reversed(SUPERBLOCK_OFFSETS):
        for space in devices:
            device = volume.devices[space.devid]
            if device is None or offset + SUPERBLOCK_SIZE > space.total_bytes:
                continue
            row["bytenr"] = offset
            row["dev_item"] = device_row(space, facts.identity.fsid.bytes, facts.sectorsize)
            data = bytearray(row.tobytes())
            data[:size] = checksum(facts.csum_type, memoryview(data)[CSUM_SIZE:])
            device.write(offset, data)
