"""Keys as text: object ids and key types by name, offsets as their key types mean them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cow_debug_tree.text.cells import (
    Column,
    Segment,
    each_value,
    from_matrix,
    join,
    overlay,
)
from cow_debug_tree.text.digits import number, padded_hex
from cow_debug_tree.text.template import writer
from cowlib.format import QGROUP_LEVEL_SHIFT, KeyType, ObjectId

_NONE = 2**64 - 1

_UNNAMED = (ObjectId.LAST_FREE, ObjectId.FIRST_FREE, ObjectId.DEV_STATS)

#: Object ids that have a name whatever stands beside them.
NAMED_OBJECTS = {int(known): known.name for known in ObjectId if known not in _UNNAMED} | {
    int(ObjectId.TREE_LOG_FIXUP): "LOG_FIXUP",
    _NONE: "-1",
}
_LOW_NAMES = int(ObjectId.REMAP_TREE)
_HIGH_NAMES = int(ObjectId.MULTIPLE)

#: A type of checksum items that only the earliest filesystems had.
OLD_CSUM_ITEM = 120

TYPE_NAMES = {int(kind): kind.name for kind in KeyType if kind != KeyType.UNTYPED} | {OLD_CSUM_ITEM: "CSUM_ITEM"}

_UUID_TYPES = (KeyType.UUID_KEY_SUBVOL, KeyType.UUID_KEY_RECEIVED_SUBVOL)
_QGROUP_TYPES = (KeyType.QGROUP_RELATION, KeyType.QGROUP_INFO, KeyType.QGROUP_LIMIT)


@dataclass(frozen=True)
class Keys:
    """Keys as three columns of one length, for `key`."""

    objectid: Column
    type: Column
    offset: Column

    def __len__(self) -> int:
        return len(self.type)

    def __getitem__(self, name: str) -> Column:
        column: Column = getattr(self, name)
        return column


def objectid(values: Column, kind: int = 0) -> Segment:
    """A column of object ids that stand in keys of one type (0: in no key)."""
    values = np.ascontiguousarray(values)
    if kind == KeyType.PERSISTENT_ITEM:
        return _with_names(values, values == 0, lambda _: b"DEV_STATS")
    if kind == KeyType.DEV_EXTENT:
        return number(values)
    if kind == KeyType.QGROUP_RELATION:
        return _qgroup(values)
    low, high = int(values.min()), int(values.max())
    if low > ObjectId.FIRST_CHUNK_TREE and high < _HIGH_NAMES:
        return number(values)
    named = (values - np.uint64(1) < _LOW_NAMES) | (values >= np.uint64(_HIGH_NAMES))
    if kind == KeyType.CHUNK_ITEM:
        named |= values == ObjectId.FIRST_CHUNK_TREE
    return _with_names(values, named, lambda value: objectid_name(value, kind).encode())


def objectid_name(value: int, kind: int = 0) -> str:
    """One object id: its name, or the number. ``kind`` is the type of the key it stands in."""
    if kind == KeyType.DEV_ITEM and value == ObjectId.DEV_ITEMS:
        return "DEV_ITEMS"
    if kind == KeyType.CHUNK_ITEM and value == ObjectId.FIRST_CHUNK_TREE:
        return "FIRST_CHUNK_TREE"
    return NAMED_OBJECTS.get(value, str(value))


def type_name(kind: int, untyped: bool = False) -> str:
    """One key type; ``untyped`` says that type 0 is meant, not missing."""
    return "UNTYPED" if untyped else TYPE_NAMES.get(kind, f"UNKNOWN.{kind}")


@writer("objectid")
def _plain_objectid(column: Column) -> Segment:
    return objectid(column)


@writer("key")
def key(column: Keys | npt.NDArray[np.void]) -> Segment | list[Segment]:
    """A column of keys, in brackets: anything that gives columns objectid, type and offset by name."""
    kind = np.ascontiguousarray(column["type"]).astype(np.uint16)
    owner = np.ascontiguousarray(column["objectid"])
    offset = np.ascontiguousarray(column["offset"])
    # Relocation trees and old free-space caches are told apart by their object id.
    kind += np.uint16(256) * (
        ((kind == KeyType.ROOT_ITEM) & (owner == ObjectId.TREE_RELOC))
        | ((kind == KeyType.UNTYPED) & (owner == ObjectId.FREE_SPACE))
    )
    if (kind == kind[0]).all():
        return _same_type(owner, int(kind[0]), offset)
    rows = []
    for one in np.unique(kind).tolist():
        where = np.flatnonzero(kind == one)
        rows.append((where, join(_same_type(owner[where], one, offset[where]), len(where))))
    text = np.zeros((len(kind), max(part.shape[1] for _, part in rows)), np.uint8)
    for where, part in rows:
        text[where, : part.shape[1]] = part
    return from_matrix(text)


def key_text(owner: int, kind: int, offset: int) -> bytes:
    """One key, in brackets."""
    one = Keys(np.array([owner], np.uint64), np.array([kind], np.uint8), np.array([offset], np.uint64))
    written = key(one)
    return join(written if isinstance(written, list) else [written], 1).tobytes()


def _same_type(owner: Column, special_kind: int, offset: Column) -> list[Segment]:
    special, kind = divmod(special_kind, 256)
    name = type_name(kind, untyped=bool(special) and kind == KeyType.UNTYPED)
    if kind in _UUID_TYPES:
        return [b"key (0x", padded_hex(owner), f" {name} 0x".encode(), padded_hex(offset), b")"]
    return [b"key (", objectid(owner, kind), f" {name} ".encode(), _offset(offset, kind, bool(special)), b")"]


def _offset(values: Column, kind: int, special: bool) -> Segment:
    if kind in _QGROUP_TYPES:
        return _qgroup(values)
    if kind == KeyType.ROOT_ITEM:
        return objectid(values, kind) if special else number(values)
    return _with_names(values, values == np.uint64(_NONE), lambda _: b"-1")


def _with_names(values: Column, named: npt.NDArray[np.bool_], text: Callable[[int], bytes]) -> Segment:
    """Numbers, but ``text(value)`` in the rows that are ``named``."""
    if not named.any():
        return number(values)
    if named.all():
        return each_value(values, text)
    plain = number(np.where(named, values[np.argmin(named)], values))
    return overlay(plain, named, each_value(values[named], text))


def _qgroup(values: Column) -> Segment:
    """``level/id``"""
    level = values >> np.uint64(QGROUP_LEVEL_SHIFT)
    below = values & np.uint64((1 << QGROUP_LEVEL_SHIFT) - 1)
    return from_matrix(join([number(level), b"/", number(below)], len(values)))
