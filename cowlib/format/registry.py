"""Which declaration an item's payload has: by the type in its key, now and then by the rest of the key."""

from __future__ import annotations

from typing import Any

from construct import Construct, GreedyBytes

from cowlib.errors import CowError
from cowlib.format.balance import BalanceItem
from cowlib.format.chunk import ChunkPayload, RaidStripePayload
from cowlib.format.declare import Struct, UntilEnd, build_whole, parse_whole, u64
from cowlib.format.device import DevExtent, DevItem, DevReplaceItem, DevStatsPayload
from cowlib.format.extent import ExtentDataRef, ExtentItemPayload, MetadataItemPayload, SharedDataRef
from cowlib.format.file_extent import FileExtentPayload
from cowlib.format.inode import (
    DirItemPayload,
    DirLogItem,
    InodeExtrefPayload,
    InodeItem,
    InodeRefPayload,
    VerityDescriptorItem,
)
from cowlib.format.keys import KeyType, ObjectId
from cowlib.format.quota import QgroupInfoItem, QgroupLimitItem, QgroupStatusPayload
from cowlib.format.root import RootItemPayload, RootRefPayload
from cowlib.format.space import BlockGroupPayload, FreeSpaceHeader, FreeSpaceInfo, RemapItem

EmptyPayload = Struct()
"""Items whose key says all: orphans, free extents, quota relations, keyed references to nodes."""

UuidPayload = UntilEnd(u64)
"""The subvolumes that have a UUID.

UUID tree, key (first half of the UUID, UUID_KEY_SUBVOL or UUID_KEY_RECEIVED_SUBVOL, second half), where each
half is a little-endian number.
"""

_PAYLOADS: dict[int, Construct] = {
    KeyType.INODE_ITEM: InodeItem,
    KeyType.INODE_REF: InodeRefPayload,
    KeyType.INODE_EXTREF: InodeExtrefPayload,
    KeyType.XATTR_ITEM: DirItemPayload,
    KeyType.VERITY_MERKLE_ITEM: GreedyBytes,
    KeyType.ORPHAN_ITEM: EmptyPayload,
    KeyType.DIR_LOG_ITEM: DirLogItem,
    KeyType.DIR_LOG_INDEX: DirLogItem,
    KeyType.DIR_ITEM: DirItemPayload,
    KeyType.DIR_INDEX: DirItemPayload,
    KeyType.EXTENT_DATA: FileExtentPayload,
    KeyType.EXTENT_CSUM: GreedyBytes,
    KeyType.ROOT_ITEM: RootItemPayload,
    KeyType.ROOT_BACKREF: RootRefPayload,
    KeyType.ROOT_REF: RootRefPayload,
    KeyType.EXTENT_ITEM: ExtentItemPayload,
    KeyType.METADATA_ITEM: MetadataItemPayload,
    KeyType.TREE_BLOCK_REF: EmptyPayload,
    KeyType.EXTENT_DATA_REF: ExtentDataRef,
    KeyType.SHARED_BLOCK_REF: EmptyPayload,
    KeyType.SHARED_DATA_REF: SharedDataRef,
    KeyType.BLOCK_GROUP_ITEM: BlockGroupPayload,
    KeyType.FREE_SPACE_INFO: FreeSpaceInfo,
    KeyType.FREE_SPACE_EXTENT: EmptyPayload,
    KeyType.FREE_SPACE_BITMAP: GreedyBytes,
    KeyType.DEV_EXTENT: DevExtent,
    KeyType.DEV_ITEM: DevItem,
    KeyType.CHUNK_ITEM: ChunkPayload,
    KeyType.RAID_STRIPE: RaidStripePayload,
    KeyType.IDENTITY_REMAP: EmptyPayload,
    KeyType.REMAP: RemapItem,
    KeyType.REMAP_BACKREF: RemapItem,
    KeyType.QGROUP_STATUS: QgroupStatusPayload,
    KeyType.QGROUP_INFO: QgroupInfoItem,
    KeyType.QGROUP_LIMIT: QgroupLimitItem,
    KeyType.QGROUP_RELATION: EmptyPayload,
    KeyType.DEV_REPLACE: DevReplaceItem,
    KeyType.UUID_KEY_SUBVOL: UuidPayload,
    KeyType.UUID_KEY_RECEIVED_SUBVOL: UuidPayload,
    KeyType.STRING_ITEM: GreedyBytes,
}

# Types that hold quite different things: the object id tells which.
_BY_OBJECTID: dict[tuple[int, int], Construct] = {
    (KeyType.UNTYPED, ObjectId.FREE_SPACE): FreeSpaceHeader,
    (KeyType.TEMPORARY_ITEM, ObjectId.BALANCE): BalanceItem,
    (KeyType.PERSISTENT_ITEM, ObjectId.DEV_STATS): DevStatsPayload,
}


def payload_struct(objectid: int, type: int, offset: int) -> Construct:
    """The declaration of the whole payload of an item with this key; plain bytes for a key of no known kind.

    Plain bytes too are checksums, free-space bitmaps, Merkle trees, verity descriptors and strings.
    """
    if type == KeyType.VERITY_DESC_ITEM:
        return VerityDescriptorItem if offset == 0 else GreedyBytes
    return _PAYLOADS.get(type) or _BY_OBJECTID.get((type, objectid), GreedyBytes)


def parse_item(objectid: int, type: int, offset: int, data: bytes) -> Any:
    """An item's payload, taken apart.

    A container of its fields; a list of containers for items that hold several entries (names, directory
    entries, attributes), a list of numbers for UUID items, or bytes where `payload_struct` says so.

    `build_item` of the result is `data` again. Raises DamagedError if the payload is not what its key
    promises.
    """
    try:
        return parse_whole(payload_struct(objectid, type, offset), data, _name(type))
    except CowError as error:
        error.key = (objectid, type, offset)
        raise


def build_item(objectid: int, type: int, offset: int, value: Any) -> bytes:
    """The payload of an item from what `parse_item` gives, or from dicts and lists of the same shape.

    Lengths and counts of what follows (`name_len`, `data_len`, `num_stripes`) are set, whatever the value
    says. Raises UsageError if fields are missing or out of range.
    """
    try:
        return build_whole(payload_struct(objectid, type, offset), value, _name(type))
    except CowError as error:
        error.key = (objectid, type, offset)
        raise


def _name(type: int) -> str:
    try:
        return KeyType(type).name
    except ValueError:
        return f"item of type {type}"
