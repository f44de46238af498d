"""Leaves made by hand: items of any kind, put in the place of a real leaf in a copy of an image."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cowlib
from cowlib.checksum import checksum
from cowlib.device import Device
from cowlib.format import CSUM_SIZE, HEADER_SIZE, Header, Item, KeyType, ObjectId
from cowlib.volume import Volume
from tests import corpus

Key = tuple[int, int, int]
Crafted = tuple[Key, bytes]


class CraftedImage:
    """A copy of an image with one leaf to write to: that of the UUID tree, at `bytenr`."""

    def __init__(self, folder: Path) -> None:
        self.path = corpus.copy(corpus.devices("default")[0], folder)
        with cowlib.open(self.path, scan=False) as fs:
            self.nodesize = fs.nodesize
            self.bytenr = fs.root(ObjectId.UUID_TREE).bytenr
            self.header: dict[str, Any] = Header.parse(fs.volume.read(self.bytenr, self.nodesize).tobytes())
            self._chunks = fs.volume.chunks

    def put(self, items: Sequence[Crafted], places: Sequence[tuple[int, int]] | None = None) -> None:
        """Fill the leaf with items, in this order. `places` are other (offset, size) to claim for payloads."""
        payloads = b"".join(payload for _, payload in reversed(items))
        entries, at = b"", self.nodesize - HEADER_SIZE
        for nth, ((objectid, kind, offset), payload) in enumerate(items):
            at -= len(payload)
            place, size = places[nth] if places else (at, len(payload))
            key = {"objectid": objectid, "type": kind, "offset": offset}
            entries += Item.build({"key": key, "offset": place, "size": size})
        room = self.nodesize - HEADER_SIZE - len(entries) - len(payloads)
        assert room >= 0, "more than a leaf holds"
        head = Header.build({**self.header, "nritems": len(items)})
        self.write(head + entries + bytes(room) + payloads)

    def write(self, node: bytes) -> None:
        """Put a whole node there, with the checksum it should have."""
        summed = checksum(0, node[CSUM_SIZE:]).ljust(CSUM_SIZE, b"\0") + node[CSUM_SIZE:]
        with Device.open(self.path, write=True) as device:
            volume = Volume({1: device}, self._chunks)
            volume.write(self.bytenr, np.frombuffer(summed, np.uint8))


# -- random items of all kinds -------------------------------------------------------------------------------

_OBJECTS = [*range(15), 255, 256, 257, 10**12, 2**63, *(2**64 - low for low in (*range(1, 15), 255, 256))]
_PLAIN_SIZES = {
    KeyType.VERITY_DESC_ITEM: 25,
    KeyType.VERITY_MERKLE_ITEM: 30,
    KeyType.ORPHAN_ITEM: 0,
    KeyType.DIR_LOG_ITEM: 8,
    KeyType.DIR_LOG_INDEX: 8,
    KeyType.EXTENT_OWNER_REF: 8,
    KeyType.TREE_BLOCK_REF: 0,
    KeyType.EXTENT_DATA_REF: 28,
    KeyType.EXTENT_REF_V0: 10,
    KeyType.SHARED_BLOCK_REF: 0,
    KeyType.SHARED_DATA_REF: 4,
    KeyType.BLOCK_GROUP_ITEM: 24,
    KeyType.FREE_SPACE_INFO: 8,
    KeyType.FREE_SPACE_EXTENT: 0,
    KeyType.FREE_SPACE_BITMAP: 64,
    KeyType.DEV_EXTENT: 48,
    KeyType.DEV_ITEM: 98,
    KeyType.IDENTITY_REMAP: 0,
    KeyType.REMAP: 8,
    KeyType.REMAP_BACKREF: 8,
    KeyType.QGROUP_INFO: 40,
    KeyType.QGROUP_LIMIT: 40,
    KeyType.QGROUP_RELATION: 0,
    KeyType.UUID_KEY_RECEIVED_SUBVOL: 12,
    120: 0,  # checksum items of long ago
    7: 9,
    255: 3,
}


class RandomItems:
    """Items of all kinds with random contents, as whole as their kinds demand."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._payloads: dict[int, Callable[[int], bytes]] = {
            KeyType.INODE_ITEM: lambda _: self._inode(),
            KeyType.INODE_REF: lambda _: self._named("<Q", 1),
            KeyType.INODE_EXTREF: lambda _: self._named("<QQ", 2),
            KeyType.XATTR_ITEM: lambda _: self._dir_entries(),
            KeyType.DIR_ITEM: lambda _: self._dir_entries(),
            KeyType.DIR_INDEX: lambda _: self._dir_entries(),
            KeyType.EXTENT_DATA: lambda _: self._file_extent(),
            KeyType.EXTENT_CSUM: lambda _: self.random.randbytes(4 * self.random.randrange(30)),
            KeyType.ROOT_ITEM: lambda _: self._root(),
            KeyType.ROOT_REF: lambda _: self._root_ref(),
            KeyType.ROOT_BACKREF: lambda _: self._root_ref(),
            KeyType.EXTENT_ITEM: self._extent,
            KeyType.METADATA_ITEM: self._extent,
            KeyType.CHUNK_ITEM: lambda _: self._chunk(),
            KeyType.RAID_STRIPE: lambda _: self.random.randbytes(16 * self.random.randrange(4)),
            KeyType.QGROUP_STATUS: lambda _: struct.pack("<QQQQQ", 1, 5, self._bits(5), self._bits(20), 4),
            KeyType.TEMPORARY_ITEM: lambda _: self.random.randbytes(448),
            KeyType.PERSISTENT_ITEM: lambda _: self.random.randbytes(40 + 8 * self.random.randrange(3)),
            KeyType.DEV_REPLACE: lambda _: self._replace(),
            KeyType.UUID_KEY_SUBVOL: lambda _: self.random.randbytes(8 * self.random.randrange(3)),
            KeyType.STRING_ITEM: lambda _: self._name() + self.random.choice([b"", b"\0zzz"]),
            KeyType.UNTYPED: lambda _: self._key() + struct.pack("<QQQ", 7, 8, 9),
        }

    def leaf(self, room: int) -> list[Crafted]:
        """Items in order of their keys, of at most `room` bytes."""
        items: dict[Key, bytes] = {}
        while True:
            kind = self.random.choice([*self._payloads, *_PLAIN_SIZES])
            key = (self._objectid(kind), int(kind), self._offset(kind))
            payload = self._payloads.get(kind, self._plain)(kind)
            room -= Item.sizeof() + len(payload)
            if room < 0:
                return sorted(items.items())
            items.setdefault(key, payload)

    def _bits(self, most: int) -> int:
        return self.random.getrandbits(self.random.randrange(1, most + 1))

    def _objectid(self, kind: int) -> int:
        special: dict[KeyType | None, list[int]] = {
            KeyType.UNTYPED: [ObjectId.FREE_SPACE, 5],
            KeyType.TEMPORARY_ITEM: [ObjectId.BALANCE, ObjectId.CSUM_CHANGE, 5],
            KeyType.PERSISTENT_ITEM: [0, 3],
        }
        return int(
            self.random.choice(special.get(KeyType(kind) if kind in _KINDS else None, [*_OBJECTS, self._bits(50)]))
        )

    def _offset(self, kind: int) -> int:
        if kind == KeyType.METADATA_ITEM:  # a level is 32 bits wide to those who print it
            return self.random.choice([0, 1, 7, 2**31, 2**32 - 1])
        return self.random.choice([*_OBJECTS, self._bits(50)])

    def _key(self) -> bytes:
        kind = self.random.choice([*self._payloads, *_PLAIN_SIZES])
        return struct.pack("<QBQ", self.random.choice(_OBJECTS), kind, self.random.choice(_OBJECTS))

    def _plain(self, kind: int) -> bytes:
        return self.random.randbytes(_PLAIN_SIZES[kind])

    def _name(self) -> bytes:
        length = self.random.randrange(40)
        return bytes(self.random.choices(b"abc./ -_~\\\n\xc3\xa4", k=length)) if length % 2 else b"x" * length

    def _time(self) -> bytes:
        return struct.pack("<qI", self.random.randrange(-(2**31), 2**33), self.random.randrange(10**9))

    def _inode(self) -> bytes:
        numbers = [self._bits(64) for _ in range(5)]
        rest = (self._bits(32), self._bits(32), self._bits(32), self._bits(32), *(self._bits(64) for _ in range(3)))
        return struct.pack("<QQQQQIIIIQQQ", *numbers, *rest) + bytes(32) + b"".join(self._time() for _ in range(4))

    def _named(self, head: str, numbers: int) -> bytes:
        entries = b""
        for _ in range(self.random.randrange(1, 4)):
            name = self._name()
            entries += struct.pack(head, *(self._bits(64) for _ in range(numbers)))
            entries += struct.pack("<H", len(name)) + name
        return entries

    def _dir_entries(self) -> bytes:
        entries = b""
        for _ in range(self.random.randrange(1, 3)):
            name, data = self._name(), self._name() * self.random.randrange(12)
            kind = self.random.randrange(11)
            entries += self._key() + struct.pack("<QHHB", self._bits(64), len(data), len(name), kind) + name + data
        return entries

    def _file_extent(self) -> bytes:
        kind = self.random.randrange(4)
        head = struct.pack("<QQBBHB", self._bits(64), self._bits(64), self.random.randrange(6), 0, 0, kind)
        return head + self.random.randbytes(32 if kind else self.random.randrange(50))

    def _root(self) -> bytes:
        generation = self._bits(40)
        numbers = struct.pack("<QQQQQQ", generation, 256, self._bits(64), 0, self._bits(64), self._bits(64))
        old = self._inode() + numbers + struct.pack("<QI", self.random.choice([0, 1, 2**48]), 1)
        old += self._key() + struct.pack("<BB", self.random.randrange(8), self.random.randrange(8))
        if not self.random.randrange(5):
            return old
        newer = struct.pack("<Q", self.random.choice([generation, 0])) + self.random.randbytes(48)
        newer += struct.pack("<QQQQ", 1, 2, 3, 4) + b"".join(self._time() for _ in range(4)) + bytes(64)
        return old + newer

    def _root_ref(self) -> bytes:
        name = self._name().replace(b"\n", b"")
        return struct.pack("<QQH", self._bits(64), self._bits(64), len(name)) + name

    def _extent(self, kind: int) -> bytes:
        flags = self.random.choice([1, 2, 3, 1 | 256, 2 | 256, 0])
        extent = struct.pack("<QQQ", self._bits(64), self._bits(64), flags)
        if kind == KeyType.EXTENT_ITEM and flags & 2:
            extent += self._key() + bytes([self.random.randrange(8)])
        for _ in range(self.random.randrange(5)):
            ref = self.random.choice([172, 176, 178, 182, 184])
            size = {178: 28, 184: 12}.get(ref, 8)
            root = struct.pack("<Q", self.random.choice([*_OBJECTS, self._bits(64)]))
            extent += bytes([ref]) + root + self.random.randbytes(size - 8)
        return extent

    def _chunk(self) -> bytes:
        stripes = self.random.randrange(1, 4)
        kind = self.random.choice([self._bits(13), 1, 2, 4 | 32])
        numbers = (self._bits(64), 2, 65536, kind, 4096, 4096, 4096, stripes, 1)
        return struct.pack("<QQQQIIIHH", *numbers) + self.random.randbytes(32 * stripes)

    def _replace(self) -> bytes:
        states = (self.random.randrange(3), self.random.randrange(6))
        times = (self._bits(33), self._bits(33))
        return struct.pack("<QQQQQQQQQ", self._bits(64), self._bits(64), 1, *states, *times, 4, 5)


_KINDS = set(KeyType)
