"""Every field there is on disk, and where an image has one to be corrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cowlib.format import (
    BalanceItem,
    BlockGroupItem,
    Chunk,
    DevExtent,
    DevItem,
    DevReplaceItem,
    DevStatsItem,
    DirItem,
    ExtentDataRef,
    ExtentInlineRef,
    ExtentItem,
    FileExtentHead,
    FileExtentItem,
    FileType,
    FreeSpaceHeader,
    FreeSpaceInfo,
    Header,
    InodeExtref,
    InodeItem,
    InodeRef,
    Item,
    KeyPtr,
    KeyType,
    QgroupInfoItem,
    QgroupLimitItem,
    QgroupStatusItem,
    QgroupStatusItemV0,
    RootItem,
    RootRef,
    SharedDataRef,
    Stripe,
    Superblock,
    TreeBlockInfo,
    VerityDescriptorItem,
    columns,
    inline_ref_struct,
)
from tests.fsck_cow.craft import Editor, Place

#: Says of a place and its parsed payload whether it is the one to corrupt.
Pick = Callable[[Editor, Place], bool]


@dataclass(frozen=True)
class Kind:
    """A structure that stands at byte ``at`` of some items' payloads (None: the items have no payload to speak of).

    The first item of ``type`` in ``tree`` of ``image`` that ``pick`` takes has it.
    """

    name: str
    image: str
    tree: int
    type: int
    struct: Any = None
    at: int = 0
    pick: Pick = lambda edit, place: True

    def place(self, edit: Editor) -> Place:
        """The item to corrupt."""
        return edit.first(self.tree, lambda place: place.key[1] == self.type and self.pick(edit, place))


def flat(dtype: np.dtype[Any], prefix: str = "") -> Iterator[str]:
    """The names of all fields of a structure, nested ones with dots; of arrays the first element."""
    for name in dtype.names or ():
        assert dtype.fields is not None
        inner = dtype.fields[name][0]
        path = f"{prefix}{name}"
        if inner.subdtype is not None:
            inner, path = inner.subdtype[0], f"{path}.0"
        if inner.names:
            yield from flat(inner, f"{path}.")
        else:
            yield path


def _parsed(test: Callable[[Any], bool]) -> Pick:
    return lambda edit, place: test(edit.parsed(place))


def _file_extent(kind: int) -> Pick:
    def pick(edit: Editor, place: Place) -> bool:
        value = edit.parsed(place)
        return value.type == kind and (kind == 0 or value.disk_bytenr > 0)

    return pick


def _inline_ref(type: int) -> Pick:
    return _parsed(lambda value: bool(value.inline_refs) and value.inline_refs[0].type == type)


def _data_extent(edit: Editor, place: Place) -> bool:
    return edit.parsed(place).flags == 1


def _subvolume(edit: Editor, place: Place) -> bool:
    return 256 <= place.key[0] < 2**63


def _plain_file(edit: Editor, place: Place) -> bool:
    value = edit.parsed(place)
    return value.mode & 0o170000 == 0o100000 and value.size > 5000 and value.nlink == 1


def _of_a_file(edit: Editor, place: Place) -> bool:
    return edit.parsed(place)[0].type == FileType.REG_FILE


def _directory(edit: Editor, place: Place) -> bool:
    return edit.parsed(place).mode & 0o170000 == 0o040000 and place.key[0] > 256


_HEAD = columns(ExtentItem).itemsize

KINDS = (
    Kind("INODE_ITEM of a file", "default", 5, KeyType.INODE_ITEM, InodeItem, 0, _plain_file),
    Kind("INODE_ITEM of a directory", "default", 5, KeyType.INODE_ITEM, InodeItem, 0, _directory),
    Kind("INODE_REF", "default", 5, KeyType.INODE_REF, InodeRef, 0, lambda edit, place: place.key[0] > 256),
    Kind("INODE_EXTREF", "small", 5, KeyType.INODE_EXTREF, InodeExtref),
    Kind("DIR_ITEM", "default", 5, KeyType.DIR_ITEM, DirItem, 0, _of_a_file),
    Kind("DIR_INDEX", "default", 5, KeyType.DIR_INDEX, DirItem, 0, _of_a_file),
    Kind("XATTR_ITEM", "default", 5, KeyType.XATTR_ITEM, DirItem),
    Kind("EXTENT_DATA inline", "small", 5, KeyType.EXTENT_DATA, FileExtentHead, 0, _file_extent(0)),
    Kind("EXTENT_DATA regular", "default", 5, KeyType.EXTENT_DATA, FileExtentItem, 0, _file_extent(1)),
    Kind("EXTENT_DATA prealloc", "default", 5, KeyType.EXTENT_DATA, FileExtentItem, 0, _file_extent(2)),
    Kind("EXTENT_CSUM", "default", 7, KeyType.EXTENT_CSUM),
    Kind("ORPHAN_ITEM", "default", 1, KeyType.ORPHAN_ITEM),
    Kind("ROOT_ITEM of a subvolume", "default", 1, KeyType.ROOT_ITEM, RootItem, 0, _subvolume),
    Kind("ROOT_ITEM of a tree", "default", 1, KeyType.ROOT_ITEM, RootItem),
    Kind("ROOT_REF", "default", 1, KeyType.ROOT_REF, RootRef),
    Kind("ROOT_BACKREF", "default", 1, KeyType.ROOT_BACKREF, RootRef),
    Kind("EXTENT_ITEM of data", "default", 2, KeyType.EXTENT_ITEM, ExtentItem, 0, _data_extent),
    Kind("METADATA_ITEM", "default", 2, KeyType.METADATA_ITEM, ExtentItem),
    Kind(
        "EXTENT_ITEM of a tree block", "noskinny", 2, KeyType.EXTENT_ITEM, ExtentItem, 0, _parsed(lambda v: v.flags & 2)
    ),
    Kind("tree block info", "noskinny", 2, KeyType.EXTENT_ITEM, TreeBlockInfo, _HEAD, _parsed(lambda v: v.flags & 2)),
    Kind(
        "inline TREE_BLOCK_REF",
        "default",
        2,
        KeyType.METADATA_ITEM,
        ExtentInlineRef,
        _HEAD,
        _inline_ref(KeyType.TREE_BLOCK_REF),
    ),
    Kind(
        "inline SHARED_BLOCK_REF",
        "grown",
        2,
        KeyType.METADATA_ITEM,
        ExtentInlineRef,
        _HEAD,
        _inline_ref(KeyType.SHARED_BLOCK_REF),
    ),
    Kind(
        "inline EXTENT_DATA_REF",
        "default",
        2,
        KeyType.EXTENT_ITEM,
        inline_ref_struct(KeyType.EXTENT_DATA_REF),
        _HEAD,
        _inline_ref(KeyType.EXTENT_DATA_REF),
    ),
    Kind(
        "inline SHARED_DATA_REF",
        "balanced",
        2,
        KeyType.EXTENT_ITEM,
        inline_ref_struct(KeyType.SHARED_DATA_REF),
        _HEAD,
        _inline_ref(KeyType.SHARED_DATA_REF),
    ),
    Kind(
        "inline EXTENT_OWNER_REF",
        "squota",
        2,
        KeyType.EXTENT_ITEM,
        inline_ref_struct(KeyType.EXTENT_OWNER_REF),
        _HEAD,
        _inline_ref(KeyType.EXTENT_OWNER_REF),
    ),
    Kind("EXTENT_DATA_REF", "mixed", 2, KeyType.EXTENT_DATA_REF, ExtentDataRef),
    Kind("SHARED_DATA_REF", "mixed", 2, KeyType.SHARED_DATA_REF, SharedDataRef),
    Kind("BLOCK_GROUP_ITEM", "noskinny", 2, KeyType.BLOCK_GROUP_ITEM, BlockGroupItem),
    Kind("BLOCK_GROUP_ITEM in a tree of their own", "default", 11, KeyType.BLOCK_GROUP_ITEM, BlockGroupItem),
    Kind("FREE_SPACE_INFO", "default", 10, KeyType.FREE_SPACE_INFO, FreeSpaceInfo),
    Kind("FREE_SPACE_EXTENT", "default", 10, KeyType.FREE_SPACE_EXTENT),
    Kind("FREE_SPACE_BITMAP", "default", 10, KeyType.FREE_SPACE_BITMAP),
    Kind("DEV_EXTENT", "raid1", 4, KeyType.DEV_EXTENT, DevExtent),
    Kind("DEV_STATS", "raid1", 4, KeyType.DEV_STATS, DevStatsItem),
    Kind("DEV_ITEM", "raid1", 3, KeyType.DEV_ITEM, DevItem),
    Kind("CHUNK_ITEM", "raid1", 3, KeyType.CHUNK_ITEM, Chunk),
    Kind("stripe of a CHUNK_ITEM", "raid1", 3, KeyType.CHUNK_ITEM, Stripe, columns(Chunk).itemsize),
    Kind("QGROUP_STATUS", "quota", 8, KeyType.QGROUP_STATUS, QgroupStatusItemV0),
    Kind("QGROUP_STATUS of simple quotas", "squota", 8, KeyType.QGROUP_STATUS, QgroupStatusItem),
    Kind("QGROUP_INFO", "quota", 8, KeyType.QGROUP_INFO, QgroupInfoItem, 0, lambda edit, place: place.key[2] >= 256),
    Kind("QGROUP_INFO of simple quotas", "squota", 8, KeyType.QGROUP_INFO, QgroupInfoItem),
    Kind("QGROUP_LIMIT", "quota", 8, KeyType.QGROUP_LIMIT, QgroupLimitItem),
    Kind("old free-space cache", "space-cache", 1, KeyType.UNTYPED, FreeSpaceHeader),
    Kind("BALANCE", "paused-balance", 1, KeyType.BALANCE_ITEM, BalanceItem),
    Kind("UUID_KEY_RECEIVED_SUBVOL", "enriched", 9, KeyType.UUID_KEY_RECEIVED_SUBVOL),
    Kind("QGROUP_RELATION", "enriched", 8, KeyType.QGROUP_RELATION),
    Kind("DEV_REPLACE", "enriched", 4, KeyType.DEV_REPLACE, DevReplaceItem),
    Kind("VERITY_DESC_ITEM", "enriched", 5, KeyType.VERITY_DESC_ITEM, VerityDescriptorItem),
    Kind("VERITY_MERKLE_ITEM", "enriched", 5, KeyType.VERITY_MERKLE_ITEM),
    Kind("TREE_BLOCK_REF", "enriched", 2, KeyType.TREE_BLOCK_REF),
    Kind("UUID_KEY_SUBVOL", "default", 9, KeyType.UUID_KEY_SUBVOL),
)
"""Items, each kind once; of those with several shapes each shape once."""


@dataclass(frozen=True)
class Field:
    """One field of one kind of structure: ``kind`` names it, ``name`` is as for `craft.put_fields`."""

    kind: str
    name: str
    image: str
    corrupt: Callable[[Editor, str], None]

    @property
    def id(self) -> str:
        """Kind and name."""
        return f"{self.kind}: {self.name}"


def changed(old: bytes, dtype: np.dtype[Any], how: str) -> bytes:
    """Another value for a field: ``next`` (one more; the first byte turned over) or ``most`` (all ones, or none)."""
    if dtype.kind == "V":
        return bytes([old[0] ^ 1]) + old[1:] if how == "next" else bytes(byte ^ 255 for byte in old)
    value = int.from_bytes(old, "little")
    top = (1 << 8 * len(old)) - 1
    new = (value + 1) & top if how == "next" else (top if value != top else 0)
    return new.to_bytes(len(old), "little")


def all_fields() -> Iterator[Field]:
    """Every field of every item, header, key pointer and superblock."""
    for kind in KINDS:
        for name in ("objectid", "offset"):
            yield Field(kind.name, f"key {name}", kind.image, _of_key(kind, name))
        if kind.struct is None:
            yield Field(kind.name, "payload", kind.image, _of_payload(kind))
        else:
            for name in flat(columns(kind.struct)):
                yield Field(kind.name, name, kind.image, _of_struct(kind, name))
    for name in flat(columns(Header)):
        yield Field("header of a leaf", name, "default", _of_header(name, inner=False))
        yield Field("header of an inner node", name, "default", _of_header(name, inner=True))
    for name in flat(columns(Item)):
        yield Field("item", name, "default", _of_item(name))
    for name in flat(columns(KeyPtr)):
        yield Field("key pointer", name, "default", _of_pointer(name))
    for name in flat(columns(Superblock)):
        yield Field("superblock", name, "default", _of_superblock(name))


def _new(data: bytes | bytearray, at: int, struct: Any, name: str, how: str) -> Any:
    from tests.fsck_cow.craft import field_place

    offset, dtype = field_place(columns(struct), name)
    value = changed(bytes(data[at + offset : at + offset + dtype.itemsize]), dtype, how)
    return value if dtype.kind == "V" else np.frombuffer(value, dtype)[0]


def _of_struct(kind: Kind, name: str) -> Callable[[Editor, str], None]:
    def corrupt(edit: Editor, how: str) -> None:
        place = kind.place(edit)
        value = _new(edit.payload(place), kind.at, kind.struct, name, how)
        edit.set_fields(place, kind.struct, kind.at, **{name: value})

    return corrupt


def _of_payload(kind: Kind) -> Callable[[Editor, str], None]:
    def corrupt(edit: Editor, how: str) -> None:
        place = kind.place(edit)
        payload = edit.payload(place)
        if payload:
            edit.patch(place, 0, changed(payload, np.dtype(f"V{len(payload)}"), how))
        else:
            edit.replace(place, b"\1" if how == "next" else bytes(300))

    return corrupt


def _of_key(kind: Kind, name: str) -> Callable[[Editor, str], None]:
    def corrupt(edit: Editor, how: str) -> None:
        place = kind.place(edit)
        items = edit.leaf_items(place.leaf)
        payload = items.pop(place.slot)[1]
        key = list(place.key)
        at = ("objectid", "type", "offset").index(name)
        key[at] = (key[at] + 1) % 2**64 if how == "next" else 2**64 - 1
        items.append(((key[0], key[1], key[2]), payload))
        items.sort(key=lambda item: item[0])
        edit.write_leaf(place, items)

    return corrupt


def _a_leaf(edit: Editor) -> Place:
    """An item in the second leaf of the filesystem's first subvolume, not the first one there."""
    leaves: list[int] = []
    for place in edit.places(5):
        if place.leaf not in leaves:
            leaves.append(place.leaf)
        if len(leaves) == 2 and place.slot == 3:
            return place
    raise LookupError("there is one leaf only")


def _of_header(name: str, *, inner: bool) -> Callable[[Editor, str], None]:
    def corrupt(edit: Editor, how: str) -> None:
        place = _a_leaf(edit)
        bytenr = place.path[0][0] if inner else place.leaf
        node = edit.read_node(bytenr)
        if name == "csum":
            node[0] ^= 255
            edit.write_node(bytenr, node, mend=False)
        else:
            edit.set_header(bytenr, **{name: _new(node, 0, Header, name, how)})

    return corrupt


def _of_item(name: str) -> Callable[[Editor, str], None]:
    def corrupt(edit: Editor, how: str) -> None:
        place = _a_leaf(edit)
        at = 101 + 25 * place.slot
        edit.set_item(place, **{name: _new(edit.read_node(place.leaf), at, Item, name, how)})

    return corrupt


def _of_pointer(name: str) -> Callable[[Editor, str], None]:
    def corrupt(edit: Editor, how: str) -> None:
        bytenr, slot = _a_leaf(edit).path[0]
        edit.set_pointer(bytenr, slot, **{name: _new(edit.read_node(bytenr), 101 + 33 * slot, KeyPtr, name, how)})

    return corrupt


def _of_superblock(name: str) -> Callable[[Editor, str], None]:
    def corrupt(edit: Editor, how: str) -> None:
        device = next(iter(edit.volume.devices.values()))
        assert device is not None
        data = device.read(65536, 4096).tobytes()
        value = _new(data, 0, Superblock, name, how)
        edit.set_superblock(mend=name != "csum", **{name: value})

    return corrupt
