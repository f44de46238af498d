"""Items that are to be written: sorted columns, before they have a place in a leaf.

A table row is one *part* of an item.  Rows with equal keys become one item, whose payload is their payloads in row
order: names that share a hash share a DIR_ITEM, names of one inode in one directory share an INODE_REF.

A table has all of a tree's items at once.  Where they are too many for that, whatever can tell them batch by batch is
an `ItemSource` (see `cowlib.btree.batches`), of which a table is the simplest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.batches import ItemBatch, ItemRows
from cowlib.btree.nodes import I64, U64, Bytes, gather
from cowlib.format import ITEM_SIZE

Column = npt.NDArray[Any] | int

#: A batch of a table is about as many items as fill so many bytes of leaves.
_BATCH_BYTES = 8 << 20

#: Ranges of one length that are worth a gather and a scatter of their own; fewer are copied one by one.
_WORTH_GROUPING = 12

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
    counts = np.diff(bounds)
    for first, count in zip(bounds[:-1].tolist(), counts.tolist(), strict=True):
        width = int(ordered[first])
        if width and count >= _WORTH_GROUPING:
            group = order[first : first + count]
            rows = gather(source, source_at[group], np.dtype((np.void, width)))
            scatter(target, target_at[group], rows)
    rare = order[np.repeat(counts < _WORTH_GROUPING, counts)]
    if len(rare):
        _copy_each(target, target_at[rare], source, source_at[rare], size[rare])


def _copy_each(target: Bytes, target_at: I64, source: Bytes, source_at: I64, size: I64) -> None:
    """The same, range by range: lengths that are all different leave nothing to group."""
    if min(int(target_at.min()), int(source_at.min())) < 0:
        raise IndexError("range outside of its buffer")
    into, out = target.data, source.data
    spans = (target_at, target_at + size, source_at, source_at + size)
    for to, to_end, at, at_end in zip(*(span.tolist() for span in spans), strict=True):
        into[to:to_end] = out[at:at_end]


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

    def batches(self) -> Iterator[ItemBatch]:
        """The items of a sorted table in bounded batches, as `ItemSource` has it."""
        starts = self.item_starts
        ends = np.cumsum(self.item_sizes + ITEM_SIZE)
        first = 0
        while first < len(starts):
            filled = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, filled + _BATCH_BYTES, side="right")))
            rows = slice(int(starts[first]), int(starts[last]) if last < len(starts) else len(self))
            yield ItemBatch(
                [
                    ItemRows(
                        self.objectid[rows],
                        self.type[rows],
                        self.offset[rows],
                        self.size[rows],
                        partial(self._put, rows),
                    )
                ]
            )
            first = last

    def _put(self, rows: slice, target: Bytes, at: I64) -> None:
        copy_ragged(target, at, self.buffer, self.position[rows], self.size[rows])
