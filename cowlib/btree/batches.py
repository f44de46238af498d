"""Items told batch by batch: what a tree too large for one table is packed from.

A batch knows keys and sizes; payloads are made when there is a place for them, straight into the leaves.  So a source
is asked twice, first for the shape of the tree and then for its bytes, and neither time is all of it in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64, U64, Bytes
from cowlib.format import KeyPtr, columns

#: A key as it stands on the disk: objectid u8, type u1, offset u8.
KEY = columns(KeyPtr)["key"]


class ItemSource(Protocol):
    """Whatever has the items of a tree."""

    def batches(self) -> Iterator[ItemBatch]:
        """All items in key order, in bounded batches, none of an item's parts in the next one.

        May be called any number of times and always tells the same.
        """
        ...


@dataclass(eq=False)
class ItemRows:
    """Parts of items of one kind, n of them in key order, as columns.

    ``objectid`` u8, ``type`` u1 or one number for all, ``offset`` u8: the key.  ``size`` i8: bytes of payload.
    ``put(buffer, at)`` writes every payload to its byte position: ``at`` i8 of shape (n,).
    """

    objectid: U64
    type: npt.NDArray[np.uint8] | int
    offset: U64
    size: I64
    put: Callable[[Bytes, I64], None]

    def __len__(self) -> int:
        return len(self.size)


class ItemBatch:
    """Some items of a tree in key order: ``keys`` (dtype `KEY`) and ``sizes`` (i8), both of shape (items,).

    Parts with equal keys make up one item; those of one kind stay in their order.
    """

    def __init__(self, kinds: Sequence[ItemRows]) -> None:
        """``kinds`` are merged by key; each of a type of its own must already be in order."""
        self._kinds = [rows for rows in kinds if len(rows)]
        keys = np.empty(sum(map(len, self._kinds)), KEY)
        size = np.empty(len(keys), np.int64)
        end = 0
        for rows in self._kinds:
            here = slice(end, end + len(rows))
            keys["objectid"][here], keys["type"][here], keys["offset"][here] = rows.objectid, rows.type, rows.offset
            size[here] = rows.size
            end = here.stop
        self._order: I64 | None = None
        if len(self._kinds) > 1:
            self._order = _merged(keys["objectid"], keys["type"])
            keys, size = keys[self._order], size[self._order]
        new = np.ones(len(keys), bool)
        new[1:] = np.any([keys[name][1:] != keys[name][:-1] for name in ("offset", "objectid", "type")], axis=0)
        first = np.flatnonzero(new)
        self._size, self._first = size, first
        several = len(first) < len(keys)
        self.keys = keys[first] if several else keys
        self.sizes: I64 = np.add.reduceat(size, first) if several else size

    def __len__(self) -> int:
        return len(self.sizes)

    def put(self, buffer: Bytes, at: I64) -> None:
        """Writes the payload of every item to its byte position: ``at`` i8 of shape (items,)."""
        if len(self._first) < len(self._size):
            parts = np.diff(self._first, append=len(self._size))
            before = np.cumsum(self._size) - self._size
            at = np.repeat(at - before[self._first], parts) + before
        if self._order is not None:
            unsorted = np.empty_like(at)
            unsorted[self._order] = at
            at = unsorted
        end = 0
        for rows in self._kinds:
            rows.put(buffer, at[end : end + len(rows)])
            end += len(rows)


def _merged(objectid: U64, kind: npt.NDArray[Any]) -> I64:
    """The order by object id and type; rows equal in both keep theirs."""
    above = objectid - objectid.min()
    if int(above.max()) >> 55:
        return np.lexsort((kind, objectid))
    # A few sorted runs in one column of numbers: what a stable sort merges in almost no time.
    return np.argsort((above << np.uint64(8) | kind).astype(np.int64), kind="stable")
