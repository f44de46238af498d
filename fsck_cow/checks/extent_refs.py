"""References as the extent tree records them: inline ones taken apart in rounds, keyed ones from their items.

Inline references stand one after the other behind an extent item's head, each of a size that its type tells: the first
of all items is read in one go, then the second of those that have more, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cowlib.btree import Items, gather
from cowlib.btree.nodes import I64, U64
from cowlib.checksum import extent_data_ref_hash
from cowlib.format import (
    ExtentDataRef,
    ExtentItem,
    KeyType,
    SharedDataRef,
    TreeBlockInfo,
    columns,
    inline_ref_struct,
)
from fsck_cow.batch import Rows

#: A reference to an extent. ``root`` is a tree's object id, or the address of the block that refers to it (shared
#: references); ``objectid`` and ``offset`` are only there for EXTENT_DATA_REF.
REF = np.dtype(
    [
        ("bytenr", "<u8"),
        ("root", "<u8"),
        ("objectid", "<u8"),
        ("offset", "<u8"),
        ("count", "<u4"),
        ("type", "u1"),
    ]
)

TREE_REFS = (KeyType.TREE_BLOCK_REF, KeyType.SHARED_BLOCK_REF)
DATA_REFS = (KeyType.EXTENT_DATA_REF, KeyType.SHARED_DATA_REF)


def _sizes() -> I64:
    """Bytes of an inline reference by its type; 0 where there is no such type."""
    sizes = np.zeros(256, np.int64)
    for kind in (KeyType.EXTENT_OWNER_REF, *TREE_REFS, *DATA_REFS):
        declared = inline_ref_struct(kind)
        sizes[kind] = declared.sizeof() if declared else 0
    return sizes


_SIZES = _sizes()

HEAD = columns(ExtentItem).itemsize
BLOCK_INFO = columns(TreeBlockInfo).itemsize


@dataclass(frozen=True)
class InlineRefs:
    """Inline references of a batch of extent items, in the order in which they stand.

    ``item`` i8 index of the extent item, ``refs`` rows of `REF`. ``broken`` i8: items with a reference of unknown type,
    or that ends outside of its item; what stood before it is there.
    """

    item: I64
    refs: Rows
    broken: I64

    @cached_property
    def sequence(self) -> U64:
        """By what references of one type are ordered inside an item, the largest first."""
        refs = self.refs
        order = refs["root"].copy()
        data = np.flatnonzero(refs["type"] == KeyType.EXTENT_DATA_REF)
        # Hashes cost; only the order of neighbours needs them.
        follows = np.zeros(len(refs), bool)
        follows[1:] = self.item[1:] == self.item[:-1]
        follows[:-1] |= follows[1:]
        data = data[follows[data]]
        order[data] = extent_data_ref_hash(refs["root"][data], refs["objectid"][data], refs["offset"][data])
        return order

    def counted(self, items: int) -> U64:
        """How many references each of so many items records inline: u8. An EXTENT_OWNER_REF is not one."""
        count = np.where(self.refs["type"] == KeyType.EXTENT_OWNER_REF, 0, self.refs["count"]).astype(np.float64)
        return np.bincount(self.item, count, items).astype(np.uint64)


def inline_refs(items: Items, start: I64) -> InlineRefs:
    """Takes apart what stands from ``start`` (i8, position in the buffer) to the end of each item."""
    index: I64 = np.arange(len(items), dtype=np.int64)
    position, end = start, items.position + items.size
    found: list[tuple[I64, I64, Rows]] = []
    broken = []
    more = position < end
    while more.any():
        if not more.all():
            index, position, end = index[more], position[more], end[more]
        kind = items.buffer[position]
        size = _SIZES[kind]
        good = (size > 0) & (position + size <= end)
        if not good.all():
            broken.append(index[~good])
            index, position, end, kind, size = index[good], position[good], end[good], kind[good], size[good]
        found.append((index, position, _round(items, index, position, kind)))
        position = position + size
        more = position < end
    nothing = np.empty(0, np.int64)
    lost = np.concatenate(broken) if broken else nothing
    if not found:
        return InlineRefs(nothing, np.empty(0, REF), lost)
    if len(found) == 1:
        return InlineRefs(found[0][0], found[0][2], lost)
    item, place, refs = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((place, item))
    return InlineRefs(item[order], refs[order], lost)


def _round(items: Items, index: I64, position: I64, kind: Any) -> Rows:
    """One inline reference of each item: rows of `REF`."""
    refs = np.zeros(len(index), REF)
    refs["bytenr"], refs["type"], refs["count"] = items.objectid[index], kind, 1
    data = kind == KeyType.EXTENT_DATA_REF
    if data.all():
        return _put_data_ref(refs, slice(None), gather(items.buffer, position + 1, columns(ExtentDataRef)))
    which = np.flatnonzero(data)
    _put_data_ref(refs, which, gather(items.buffer, position[which] + 1, columns(ExtentDataRef)))
    which = np.flatnonzero(~data)
    refs["root"][which] = gather(items.buffer, position[which] + 1, np.dtype("<u8"))
    which = np.flatnonzero(kind == KeyType.SHARED_DATA_REF)
    refs["count"][which] = gather(items.buffer, position[which] + 9, np.dtype("<u4"))
    return refs


def _put_data_ref(refs: Rows, which: Any, heads: Rows) -> Rows:
    for name in ("root", "objectid", "offset", "count"):
        refs[name][which] = heads[name]
    return refs


def keyed_refs(items: Items) -> Rows:
    """The references that stand as items of their own, as far as they are whole: rows of `REF`."""
    size = np.zeros(256, np.int64)
    size[KeyType.EXTENT_DATA_REF] = columns(ExtentDataRef).itemsize
    size[KeyType.SHARED_DATA_REF] = columns(SharedDataRef).itemsize
    keyed = items.of_type(*TREE_REFS, *DATA_REFS)
    keyed = keyed.select(keyed.in_bounds & (keyed.size >= size[keyed.type]))
    refs = np.zeros(len(keyed), REF)
    refs["bytenr"], refs["type"], refs["root"], refs["count"] = keyed.objectid, keyed.type, keyed.offset, 1
    which = np.flatnonzero(keyed.type == KeyType.EXTENT_DATA_REF)
    _put_data_ref(refs, which, gather(keyed.buffer, keyed.position[which], columns(ExtentDataRef)))
    which = np.flatnonzero(keyed.type == KeyType.SHARED_DATA_REF)
    refs["count"][which] = gather(keyed.buffer, keyed.position[which], columns(SharedDataRef))["count"]
    return refs
