"""Images damaged on purpose: one field, one item, one node at a time, with checksums mended so that it is reached.

    image = craft.copy(corpus.devices("default"), tmp_path)
    with craft.Editor(image) as edit:
        place = edit.find(ObjectId.FS_TREE, (257, KeyType.INODE_ITEM, 0))
        edit.set_fields(place, InodeItem, nlink=7)
    assert "inode.nlink-wrong" in craft.codes(image)

Edits go to every copy, parity included. Those of one `Editor` see the trees as they are after the edits before,
through the chunk map and the roots there were when it was opened. Nothing is locked or open once it is left.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import cowlib
from cowlib.btree import TreeRoot
from cowlib.checksum import checksum
from cowlib.filesystem import read_superblock, superblock_copies
from cowlib.format import (
    CSUM_SIZE,
    HEADER_SIZE,
    ITEM_SIZE,
    KEY_PTR_SIZE,
    CsumType,
    Header,
    Item,
    KeyPtr,
    Superblock,
    build_item,
    columns,
    parse_item,
)
from cowlib.volume import Volume, assemble
from fsck_cow.engine import check_filesystem
from fsck_cow.problems import Report
from tests import corpus
from tests.commands import environment

Key = tuple[int, int, int]

MIB = 1 << 20


# -- images ----------------------------------------------------------------------------------------------------


def copy(images: Sequence[Path] | Path, folder: Path) -> list[Path]:
    """Sparse copies of the devices of one filesystem, to be written to."""
    return [corpus.copy(image, folder) for image in ([images] if isinstance(images, Path) else images)]


def small(folder: Path, *options: str) -> list[Path]:
    """A copy of a fresh small filesystem with a few files: one device of 128 MiB, made by mkfs.cow with ``options``."""
    return copy(_small(options), folder)


def check(images: Sequence[Path], **options: Any) -> Report:
    """What fsck.cow finds, in this process."""
    return check_filesystem([str(image) for image in images], scan=False, **options)


def codes(images: Sequence[Path], **options: Any) -> set[str]:
    """The codes of all that fsck.cow finds, in this process."""
    return set(check(images, **options).counts)


@functools.cache
def _session_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cowtools-craft-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _small(options: tuple[str, ...]) -> Path:
    folder = _session_folder()
    tree = folder / "tree"
    if not tree.exists():
        _fill(tree)
    image = Path(tempfile.mkstemp(suffix=".img", dir=folder)[1])
    with image.open("wb") as file:
        file.truncate(128 * MIB)
    source: list[str | Path] = [] if "--rootdir" in options else ["--rootdir", tree]
    command: list[str | Path] = [sys.executable, "-m", "mkfs_cow", "-q", *source, *options, image]
    subprocess.run(command, check=True, env=environment())
    return image


def _fill(tree: Path) -> None:
    (tree / "folder" / "below").mkdir(parents=True)
    (tree / "inline").write_bytes(b"a few bytes")
    (tree / "data").write_bytes(bytes(range(256)) * 512)
    (tree / "folder" / "other").write_bytes(b"other " * 5000)
    (tree / "folder" / "link").hardlink_to(tree / "data")
    (tree / "symlink").symlink_to("data")
    for number in range(80):  # more than one item holds
        (tree / f"{number:02}-{'n' * 240}").hardlink_to(tree / "inline")
    for number in range(300):
        (tree / "folder" / "below" / f"file-{number:03}").write_bytes(b"%d" % number * 50)


# -- editing ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """An item in its leaf: ``path`` are the nodes from the root to the leaf with the slot taken in each.

    ``position`` is where the payload begins in the leaf, ``size`` its bytes.
    """

    tree: TreeRoot
    path: tuple[tuple[int, int], ...]
    key: Key
    position: int
    size: int

    @property
    def leaf(self) -> int:
        """The logical address of the leaf."""
        return self.path[-1][0]

    @property
    def slot(self) -> int:
        """The item's number in the leaf."""
        return self.path[-1][1]


class Editor:
    """Changes one filesystem in place. A tree is named by its object id, or by its `TreeRoot`."""

    def __init__(self, images: Sequence[Path]) -> None:
        self.images = list(images)
        with cowlib.open([str(image) for image in images], scan=False) as fs:
            self.superblock = fs.superblock
            self.nodesize = fs.nodesize
            self.csum_type = fs.csum_type
            self.chunks = fs.volume.chunks
            self.roots = [fs.root_tree, fs.chunk_tree, *fs.roots]
            if fs.log_root is not None:
                self.roots += [fs.log_root, *fs.roots_in(fs.log_root)]
        self._opened = ExitStack()
        self._before: dict[int, bytes] = {}
        self._superblocks: dict[tuple[str, int], bytes] = {}
        self.volume: Volume

    def __enter__(self) -> Editor:
        paths = [str(image) for image in self.images]
        _, devices = assemble(paths, read_superblock, scan=False, write=True)
        self.volume = self._opened.enter_context(Volume(devices, self.chunks))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def restore(self) -> None:
        """Undoes what was written to nodes, to all copies at once, and to superblocks; only once the editor is left."""
        for (path, offset), data in self._superblocks.items():
            with open(path, "r+b") as device:
                device.seek(offset)
                device.write(data)
        with self:
            for bytenr, node in self._before.items():
                self.volume.write(bytenr, node)

    # nodes

    def read_node(self, bytenr: int, mirror: int = 0) -> bytearray:
        """The bytes of a tree block."""
        return bytearray(self.volume.read(bytenr, self.nodesize, mirror))

    def write_node(self, bytenr: int, node: bytes | bytearray, *, mend: bool = True, mirror: int = 0) -> None:
        """Writes a tree block: all copies of it or one, with its checksum made right or left as it is."""
        data = bytearray(node)
        if mend:
            digest = checksum(self.csum_type, bytes(data[CSUM_SIZE:]))
            data[:CSUM_SIZE] = digest.ljust(CSUM_SIZE, b"\0")
        if not mirror:
            self._before.setdefault(bytenr, bytes(self.read_node(bytenr)))
            self.volume.write(bytenr, bytes(data))
            return
        self.write_copy(bytenr, bytes(data), mirror)

    def write_copy(self, logical: int, data: bytes, mirror: int) -> None:
        """Writes one copy of a range that lies in one stripe, as it stands on its device; parity stays as it is."""
        devid, physical = self.chunks.map_block(np.array([logical], np.uint64), mirror)
        device = self.volume.devices[int(devid[0])]
        assert device is not None
        device.write(int(physical[0]), data)

    def set_header(self, bytenr: int, /, **fields: Any) -> None:
        """Changes fields of a tree block's header (`Header`)."""
        node = self.read_node(bytenr)
        put_fields(node, 0, Header, fields)
        self.write_node(bytenr, node)

    def set_item(self, place: Place, /, **fields: Any) -> None:
        """Changes the item itself (`Item`: key.objectid, key.type, key.offset, offset, size), not its payload."""
        node = self.read_node(place.leaf)
        put_fields(node, HEADER_SIZE + place.slot * ITEM_SIZE, Item, fields)
        self.write_node(place.leaf, node)

    def set_pointer(self, bytenr: int, slot: int, /, **fields: Any) -> None:
        """Changes a key pointer (`KeyPtr`) of an inner node."""
        node = self.read_node(bytenr)
        put_fields(node, HEADER_SIZE + slot * KEY_PTR_SIZE, KeyPtr, fields)
        self.write_node(bytenr, node)

    # items

    def root(self, tree: int | TreeRoot) -> TreeRoot:
        """Where a tree starts."""
        if isinstance(tree, TreeRoot):
            return tree
        return next(root for root in self.roots if root.objectid == tree)

    def places(self, tree: int | TreeRoot) -> Iterator[Place]:
        """Every item of a tree, in key order."""
        root = self.root(tree)
        yield from self._places(root, root.bytenr, ())

    def _places(self, root: TreeRoot, bytenr: int, above: tuple[tuple[int, int], ...]) -> Iterator[Place]:
        node = self.read_node(bytenr)
        head = np.frombuffer(node, columns(Header), 1)[0]
        count = int(head["nritems"])
        if int(head["level"]):
            for slot, pointer in enumerate(np.frombuffer(node, columns(KeyPtr), count, HEADER_SIZE)):
                yield from self._places(root, int(pointer["blockptr"]), (*above, (bytenr, slot)))
            return
        for slot, item in enumerate(np.frombuffer(node, columns(Item), count, HEADER_SIZE)):
            path = (*above, (bytenr, slot))
            yield Place(root, path, _key_of(item["key"]), HEADER_SIZE + int(item["offset"]), int(item["size"]))

    def find(self, tree: int | TreeRoot, key: Key) -> Place:
        """The item with this key; LookupError where there is none."""
        return self.first(tree, lambda place: place.key == key)

    def first(self, tree: int | TreeRoot, wanted: int | Callable[[Place], bool]) -> Place:
        """The first item of a key type, or that a function accepts; LookupError where there is none."""
        for place in self.places(tree):
            if place.key[1] == wanted if isinstance(wanted, int) else wanted(place):
                return place
        raise LookupError(f"no such item in tree {self.root(tree).objectid}: {wanted}")

    def payload(self, place: Place) -> bytes:
        """The payload of an item."""
        return bytes(self.read_node(place.leaf)[place.position : place.position + place.size])

    def parsed(self, place: Place) -> Any:
        """The payload of an item, taken apart (`parse_item`)."""
        return parse_item(*place.key, self.payload(place))

    def patch(self, place: Place, at: int, data: bytes) -> None:
        """Overwrites bytes of a payload from byte ``at`` on."""
        assert at + len(data) <= place.size, (at, len(data), place)
        node = self.read_node(place.leaf)
        node[place.position + at : place.position + at + len(data)] = data
        self.write_node(place.leaf, node)

    def set_fields(self, place: Place, struct: Any, at: int = 0, /, **fields: Any) -> None:
        """Changes fields of a structure that stands at byte ``at`` of a payload, named as for `put_fields`."""
        assert at + columns(struct).itemsize <= place.size, (at, struct, place)
        payload = bytearray(self.payload(place))
        put_fields(payload, at, struct, fields)
        self.patch(place, 0, bytes(payload))

    def rebuild(self, place: Place, change: Callable[[Any], None]) -> None:
        """Takes a payload apart, lets ``change`` change it, and puts it back: it may be of another size then."""
        value = self.parsed(place)
        change(value)
        self.replace(place, build_item(*place.key, value))

    def replace(self, place: Place, payload: bytes) -> None:
        """Another payload for an item, of any size that the leaf has room for."""
        items = self.leaf_items(place.leaf)
        items[place.slot] = (place.key, payload)
        self.write_leaf(place, items)

    def delete(self, place: Place) -> None:
        """Takes an item out of its leaf, which must hold another one."""
        items = self.leaf_items(place.leaf)
        del items[place.slot]
        self.write_leaf(place, items)

    def insert(self, tree: int | TreeRoot, key: Key, payload: bytes) -> None:
        """Puts an item where its key belongs; the leaf must have room for it."""
        before = None
        for place in self.places(tree):
            if before is not None and place.key > key:
                break
            before = place
        assert before is not None, "the tree is empty"
        items = self.leaf_items(before.leaf)
        items.append((key, payload))
        items.sort(key=lambda item: item[0])
        self.write_leaf(before, items)

    def leaf_items(self, bytenr: int) -> list[tuple[Key, bytes]]:
        """Keys and payloads of a leaf."""
        node = self.read_node(bytenr)
        count = int(np.frombuffer(node, columns(Header), 1)[0]["nritems"])
        found = []
        for item in np.frombuffer(node, columns(Item), count, HEADER_SIZE):
            start = HEADER_SIZE + int(item["offset"])
            found.append((_key_of(item["key"]), bytes(node[start : start + int(item["size"])])))
        return found

    def write_leaf(self, place: Place, items: list[tuple[Key, bytes]]) -> None:
        """Fills a leaf anew with these items, and tells its parents of its first key."""
        assert items, "an empty leaf has no place in a tree"
        node = self.read_node(place.leaf)
        end = self.nodesize
        node[HEADER_SIZE:] = bytes(self.nodesize - HEADER_SIZE)
        put_fields(node, 0, Header, {"nritems": len(items)})
        for slot, (key, payload) in enumerate(items):
            end -= len(payload)
            node[end : end + len(payload)] = payload
            put_fields(
                node,
                HEADER_SIZE + slot * ITEM_SIZE,
                Item,
                {**_key_fields(key), "offset": end - HEADER_SIZE, "size": len(payload)},
            )
        assert end >= HEADER_SIZE + len(items) * ITEM_SIZE, "the leaf is full"
        self.write_node(place.leaf, node)
        for bytenr, slot in reversed(place.path[:-1]):
            self.set_pointer(bytenr, slot, **_key_fields(items[0][0]))
            if slot:
                break

    # superblocks

    def set_superblock(self, *, copies: Sequence[int] = (0, 1, 2), mend: bool = True, **fields: Any) -> None:
        """Changes fields of the superblock, on all devices, in these of its copies."""
        for device in self.volume.devices.values():
            assert device is not None
            for found in superblock_copies(device):
                if found.data is None or found.index not in copies:
                    continue
                self._superblocks.setdefault((device.path, found.offset), found.data)
                data = bytearray(found.data)
                put_fields(data, 0, Superblock, fields)
                device.write(found.offset, mended_superblock(data) if mend else bytes(data))


def mended_superblock(data: bytes | bytearray) -> bytes:
    """A superblock with the checksum that its bytes give, of the type that it names if there is such a type."""
    kind = int(np.frombuffer(data, columns(Superblock), 1)[0]["csum_type"])
    kind = kind if kind in CsumType.__members__.values() else CsumType.CRC32
    return checksum(kind, bytes(data[CSUM_SIZE:])).ljust(CSUM_SIZE, b"\0") + bytes(data[CSUM_SIZE:])


def put_fields(data: bytearray, at: int, struct: Any, fields: dict[str, Any]) -> None:
    """Sets fields of a structure at byte ``at``. ``inode.size`` is a nested one, ``values.0`` an element."""
    for name, value in fields.items():
        offset, dtype = field_place(columns(struct), name)
        encoded = bytes(value) if dtype.kind == "V" else np.array(value, dtype).tobytes()
        assert len(encoded) == dtype.itemsize, (name, value)
        data[at + offset : at + offset + dtype.itemsize] = encoded


def field_place(dtype: np.dtype[Any], name: str) -> tuple[int, np.dtype[Any]]:
    """Where a field stands in a structure, as (byte offset, dtype)."""
    offset = 0
    for part in name.split("."):
        if part.isdigit():
            assert dtype.subdtype is not None and int(part) < dtype.shape[0], name
            dtype = dtype.subdtype[0]
            offset += int(part) * dtype.itemsize
        else:
            assert dtype.fields is not None, name
            dtype, inner = dtype.fields[part][:2]
            offset += inner
    return offset, dtype


def _key_of(row: Any) -> Key:
    return int(row["objectid"]), int(row["type"]), int(row["offset"])


def _key_fields(key: Key) -> dict[str, int]:
    return dict(zip(("key.objectid", "key.type", "key.offset"), key, strict=True))
