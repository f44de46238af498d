"""Items that are to be written: sorted columns, before they have a place in a leaf.

A table row is one *part* of an item.  Rows with equal keys become one item, whose payload is their payloads in row
order: names that share a hash share a DIR_ITEM, names of one inode in one directory share an INODE_REF.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64, U64, Bytes, gather

Column = npt.NDArray[Any] | int

_COLUMNS = ("objectid", "type", "offset", "position", "size")


def scatter(buffer: Bytes, positions: I64, rows: npt.NDArray[Any]) -> None:
    """Writes one structure at every byte position: the reverse of `cowlib.btree.nodes.gather`.

    ``rows`` has shape (n,) and any packed dtype; every position must leave its size inside ``buffer``.
    """
    size = rows.dtype.itemsize
    if len(rows) == 0 or size == 0:
        return
    void = np.dtype((np.void, size))
    windows = np.ndarray(shape=(buffer.size - size + 1,), dtype=void, buffer=buffer.data, strides=(1,))
    windows[positions] = np.ascontiguousarray(rows).view(void)


def copy_ragged(target: Bytes, target_at: I64, source: Bytes, source_at: I64, size: I64) -> None:
    """Copies n byte ranges of their own lengths: one gather and scatter for each *distinct* length, not each range.

    ``target_at``, ``source_at``, ``size`` are i8 arrays of shape (n,); all ranges must lie inside their buffers.
    """
    if not len(size):
        return
    order = np.argsort(size, kind="stable")
    ordered = size[order]
    bounds = np.append(np.flatnonzero(np.diff(ordered, prepend=-1)), len(ordered))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        width = int(ordered[first])
        if width:
            group = order[first:last]
            rows = gather(source, source_at[group], np.dtype((np.void, width)))
            scatter(target, target_at[group], rows)


def full(value: Column, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """``value`` as a column of ``count`` rows: an array is converted, a single number repeated."""
    if isinstance(value, np.ndarray):
        return value.astype(dtype, copy=False)
    return np.full(count, value, dtype)


@dataclass(eq=False)
class ItemTable:
    """Parts of items as columns of length n.

    ``objectid`` u8, ``type`` u1, ``offset`` u8: the key.  ``buffer`` u1: bytes of all payloads; part i's are
    ``buffer[position[i] : position[i] + size[i]]`` (both i8).
    """

    buffer: Bytes
    objectid: U64
    type: npt.NDArray[np.uint8]
    offset: U64
    position: I64
    size: I64

    def __len__(self) -> int:
        return len(self.objectid)

    @classmethod
    def of(cls, objectid: Column, type: Column, offset: Column, payload: npt.NDArray[Any]) -> ItemTable:
        """A table of n items with payloads of one size: ``payload`` is a structured (or void) array of shape (n,)."""
        count, width = len(payload), payload.dtype.itemsize
        return cls(
            np.ascontiguousarray(payload).view(np.uint8).reshape(-1),
            full(objectid, count, np.uint64),
            full(type, count, np.uint8),
            full(offset, count, np.uint64),
            np.arange(count, dtype=np.int64) * width,
            np.full(count, width, np.int64),
        )

    @classmethod
    def ragged(
        cls,
        objectid: Column,
        type: Column,
        offset: Column,
        heads: npt.NDArray[Any],
        *parts: tuple[Bytes, I64, I64],
    ) -> ItemTable:
        """A table of n items, each a head of one size followed by its own byte ranges: a name, then a value.

        Each part is (buffer, position, length), the latter two i8 of shape (n,).
        """
        count, width = len(heads), heads.dtype.itemsize
        size = np.full(count, width, np.int64)
        for _, _, length in parts:
            size += length
        position = np.cumsum(size) - size
        buffer = np.empty(int(size.sum()), np.uint8)
        scatter(buffer, position, heads)
        at = position + width
        for source, start, length in parts:
            copy_ragged(buffer, at, source, start, length)
            at += length
        return cls(
            buffer,
            full(objectid, count, np.uint64),
            full(type, count, np.uint8),
            full(offset, count, np.uint64),
            position,
            size,
        )

    @classmethod
    def empty(cls) -> ItemTable:
        """A table without rows."""
        return cls.of(0, 0, 0, np.empty(0, "V1"))

    @classmethod
    def concat(cls, tables: list[ItemTable]) -> ItemTable:
        """All rows of several tables, in order. Empties the list, so that no payload is in memory twice for long."""
        if len(tables) < 2:
            return tables.pop() if tables else cls.empty()
        buffer = np.empty(sum(table.buffer.size for table in tables), np.uint8)
        columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _COLUMNS}
        end = 0
        tables.reverse()
        while tables:
            table = tables.pop()
            buffer[end : end + table.buffer.size] = table.buffer
            for name in _COLUMNS:
                columns[name].append(getattr(table, name))
            columns["position"][-1] = table.position + end
            end += table.buffer.size
        return cls(buffer, **{name: np.concatenate(columns.pop(name)) for name in _COLUMNS})

    def sorted(self) -> ItemTable:
        """The rows in key order; rows with equal keys keep their order."""
        order = np.lexsort((self.offset, self.type, self.objectid))
        return ItemTable(
            self.buffer,
            self.objectid[order],
            self.type[order],
            self.offset[order],
            self.position[order],
            self.size[order],
        )

    @cached_property
    def item_starts(self) -> I64:
        """The first row of each item of a sorted table: i8, shape (number of items,)."""
        if not len(self):
            return np.empty(0, np.int64)
        new = np.ones(len(self), bool)
        new[1:] = self.objectid[1:] != self.objectid[:-1]
        new[1:] |= self.type[1:] != self.type[:-1]
        new[1:] |= self.offset[1:] != self.offset[:-1]
        return np.flatnonzero(new)

    @cached_property
    def item_sizes(self) -> I64:
        """The payload bytes of each item of a sorted table: i8, shape (number of items,)."""
        if not len(self):
            return np.empty(0, np.int64)
        return np.add.reduceat(self.size, self.item_starts)
