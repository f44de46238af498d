"""One leaf with an item of every kind that is rarely met, and `kinds.txt`: what btrfs-progs 6.19 prints of it.

Run as a program it writes that, which takes btrfs-progs (`COW_BTRFS_PROGS`) and is due whenever the image is made anew.
"""

from __future__ import annotations

import struct
from pathlib import Path

from cowlib.format import (
    BalanceItem,
    DevReplaceItem,
    DirItem,
    DirLogItem,
    DiskBalanceArgs,
    ExtentDataRef,
    ExtentItem,
    ExtentOwnerRef,
    FileExtentHead,
    FileExtentItem,
    FreeSpaceHeader,
    InodeExtref,
    InodeItem,
    InodeRef,
    KeyType,
    ObjectId,
    QgroupLimitItem,
    RaidStride,
    RemapItem,
    RootItemV0,
    SharedDataRef,
    TreeBlockInfo,
)
from tests.cow_debug_tree.crafted import Crafted

TEXT = Path(__file__).with_name("kinds.txt")

_NOTHING = 2**64 - 1
_KEY = {"objectid": 0, "type": 0, "offset": 0}


def _inode() -> dict[str, object]:
    numbers = dict.fromkeys(("generation", "transid", "size", "nbytes", "block_group", "sequence"), 1)
    times = {name: {"sec": 60 * nth, "nsec": nth} for nth, name in enumerate(("atime", "ctime", "mtime", "otime"))}
    times["atime"] = {"sec": -1, "nsec": 999_999_999}
    return {
        **numbers,
        **times,
        "nlink": 0,
        "uid": 2**32 - 1,
        "gid": 100,
        "mode": 0o100644,
        "rdev": 2**64 - 1,
        "flags": 1 << 31 | 1 << 32 | 0b101,
        "reserved": [0] * 4,
    }


def _entry(name: bytes, data: bytes, kind: int, location: dict[str, int] = _KEY) -> bytes:
    head = {"location": location, "transid": 9, "data_len": len(data), "name_len": len(name), "type": kind}
    return bytes(DirItem.build(head)) + name + data


def _balance() -> bytes:
    filters: dict[str, object] = dict.fromkeys((field.name for field in DiskBalanceArgs.subcons), 0)
    filters |= {"profiles": 1 << 48, "usage": 90 << 32 | 10, "limit": 7 << 32 | 5, "unused": [0] * 6}
    return bytes(BalanceItem.build({"flags": 7, "data": filters, "meta": filters, "sys": filters, "unused": [0] * 4}))


def _refs() -> bytes:
    return (
        bytes([KeyType.EXTENT_OWNER_REF]) + ExtentOwnerRef.build({"root_id": 257})
        + bytes([KeyType.TREE_BLOCK_REF]) + struct.pack("<Q", ObjectId.DATA_RELOC_TREE)
        + bytes([KeyType.SHARED_BLOCK_REF]) + struct.pack("<Q", 30_408_704)
        + bytes([KeyType.EXTENT_DATA_REF])
        + ExtentDataRef.build({"root": 5, "objectid": 257, "offset": 2**64 - 4096, "count": 3})
        + bytes([KeyType.SHARED_DATA_REF]) + struct.pack("<Q", 30_408_704) + SharedDataRef.build({"count": 2})
    )  # fmt: skip


def leaf() -> list[Crafted]:
    """The items, in order of their keys."""
    extent = ExtentItem.build({"refs": 5, "generation": 7, "flags": 1})
    node = ExtentItem.build({"refs": 1, "generation": 7, "flags": 2 | 256})
    info = TreeBlockInfo.build({"key": {"objectid": 256, "type": KeyType.DIR_ITEM, "offset": 1}, "level": 1})
    file_extent = {"generation": 7, "ram_bytes": 4096, "compression": 3, "encryption": 0, "other_encoding": 0}
    on_disk = {"disk_bytenr": 4096, "disk_num_bytes": 4096, "offset": 0, "num_bytes": 4096}
    root_item = {"inode": _inode(), "drop_progress": {"objectid": 257, "type": 1, "offset": 0}, "drop_level": 1}
    numbers = ("generation", "root_dirid", "bytenr", "byte_limit", "bytes_used", "last_snapshot", "refs", "level")
    old_root = RootItemV0.build({**root_item, **dict.fromkeys(numbers, 3), "flags": 1})
    replace = dict.fromkeys((field.name for field in DevReplaceItem.subcons), 1)
    subvolume = {"objectid": 300, "type": KeyType.ROOT_ITEM, "offset": _NOTHING}
    names = (b"a b", b"tab\t", b"\xc3\xa4\n", b"\\", b"", b"plain")
    items = {
        (0, KeyType.PERSISTENT_ITEM, 1): struct.pack("<7Q", 1, 2, 3, 4, 5, 6, 7),
        (0, KeyType.DEV_REPLACE, 0): bytes(DevReplaceItem.build({**replace, "src_devid": _NOTHING})),
        (0, KeyType.QGROUP_LIMIT, 1 << 48 | 5): bytes(
            QgroupLimitItem.build(
                {"flags": 0x21, "max_rfer": _NOTHING, "max_excl": 1 << 30, "rsv_rfer": 0, "rsv_excl": 0}
            )
        ),
        (5, KeyType.QGROUP_RELATION, 1 << 48 | 5): b"",
        (2 << 48 | 7, KeyType.QGROUP_RELATION, 1 << 48 | 5): b"",
        (3, KeyType.PERSISTENT_ITEM, 0): b"who knows",
        (256, KeyType.INODE_ITEM, 0): bytes(InodeItem.build(_inode())),
        (256, KeyType.INODE_REF, 256): b"".join(
            InodeRef.build({"index": nth, "name_len": len(name)}) + name for nth, name in enumerate(names)
        ),
        (256, KeyType.INODE_EXTREF, 77): b"".join(
            InodeExtref.build({"parent_objectid": 257, "index": 2, "name_len": len(name)}) + name for name in names[:2]
        ),
        (256, KeyType.XATTR_ITEM, 1): _entry(b"user.long", b"v" * 300, 8),
        (256, KeyType.VERITY_DESC_ITEM, 0): bytes(25),
        (256, KeyType.VERITY_MERKLE_ITEM, 0): bytes(range(32)),
        (256, KeyType.ORPHAN_ITEM, 300): b"",
        (256, KeyType.DIR_LOG_ITEM, 0): bytes(DirLogItem.build({"end": _NOTHING})),
        (256, KeyType.DIR_LOG_INDEX, 2): bytes(DirLogItem.build({"end": 9})),
        (256, KeyType.DIR_ITEM, 1): _entry(b"one", b"", 1)
        + _entry(b"sub vol", b"", 2, subvolume)
        + _entry(b"x", b"", 99),
        (256, KeyType.EXTENT_DATA, 0): bytes(FileExtentHead.build({**file_extent, "type": 0})) + b"inline",
        (256, KeyType.EXTENT_DATA, 4096): bytes(FileExtentItem.build({**file_extent, **on_disk, "type": 2})),
        (256, KeyType.EXTENT_DATA, 8192): bytes(
            FileExtentItem.build({**file_extent, **on_disk, "type": 7, "compression": 9})
        ),
        (4096, KeyType.EXTENT_ITEM, 4096): bytes(extent) + _refs(),
        (8192, KeyType.EXTENT_ITEM, 16384): bytes(node) + bytes(info) + _refs()[9:18],
        (24576, KeyType.METADATA_ITEM, 2): bytes(node) + _refs()[9:18],
        (24576, KeyType.EXTENT_OWNER_REF, 0): bytes(ExtentOwnerRef.build({"root_id": 257})),
        (24576, KeyType.TREE_BLOCK_REF, 5): b"",
        (24576, KeyType.EXTENT_REF_V0, 5): b"",
        (24576, KeyType.SHARED_BLOCK_REF, 30_408_704): b"",
        (24576, KeyType.RAID_STRIPE, 4096): b"".join(
            RaidStride.build({"devid": devid, "physical": devid << 20}) for devid in (1, 2)
        ),
        (24576, KeyType.REMAP, 4096): bytes(RemapItem.build({"address": 5 << 20})),
        (24576, 7, 4096): b"unknown",
        (ObjectId.CSUM_CHANGE, KeyType.TEMPORARY_ITEM, 3): b"",
        (ObjectId.CSUM_CHANGE, KeyType.TEMPORARY_ITEM, 4): b"",
        (ObjectId.FREE_SPACE, KeyType.UNTYPED, 1 << 20): bytes(
            FreeSpaceHeader.build(
                {"location": {**_KEY, "objectid": 260, "type": 1}, "generation": 7, "num_entries": 8, "num_bitmaps": 0}
            )
        ),
        (ObjectId.TREE_RELOC, KeyType.ROOT_ITEM, ObjectId.FS_TREE): bytes(old_root),
        (ObjectId.BALANCE, KeyType.TEMPORARY_ITEM, 0): _balance(),
        (_NOTHING, KeyType.STRING_ITEM, _NOTHING): b"text\nand\0more",
    }
    return sorted((tuple(map(int, key)), payload) for key, payload in items.items())  # type: ignore[misc]


if __name__ == "__main__":
    import tempfile

    from tests.cow_debug_tree.crafted import CraftedImage
    from tests.cow_debug_tree.test_dump import asked

    with tempfile.TemporaryDirectory() as folder:
        image = CraftedImage(Path(folder))
        image.put(leaf())
        TEXT.write_text(asked("-b", str(image.bytenr), image.path), encoding="utf-8")
