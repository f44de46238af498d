"""`ItemRows` in the two forms that the items of files have: one structure each, or a head and byte strings after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cowlib.btree import ItemRows, copy_ragged, scatter

if TYPE_CHECKING:
    from cowlib.btree.nodes import I64, U64, Bytes
    from mkfs_cow.source.tables import Blobs

#: Makes the structures of some rows: shape (n,).
Heads: TypeAlias = Callable[[], npt.NDArray[Any]]


@dataclass(frozen=True)
class Ragged:
    """Byte strings: string i is ``buffer[position[i] : position[i] + length[i]]``, both i8 of shape (n,)."""

    buffer: Bytes
    position: I64
    length: I64

    @classmethod
    def of(cls, blobs: Blobs) -> Ragged:
        """All of ``blobs``, without a copy."""
        return cls(np.frombuffer(blobs.data, np.uint8), blobs.start[:-1], blobs.lengths)

    def select(self, rows: I64 | slice) -> Ragged:
        """Some of the strings, over the same buffer."""
        return Ragged(self.buffer, self.position[rows], self.length[rows])


def fixed_rows(objectid: I64, kind: int, offset: npt.NDArray[Any], dtype: np.dtype[Any], heads: Heads) -> ItemRows:
    """Items that are one structure of ``dtype`` each."""

    def put(buffer: Bytes, at: I64) -> None:
        scatter(buffer, at, heads())

    size = np.full(len(objectid), dtype.itemsize, np.int64)
    return ItemRows(objectid.astype(np.uint64), kind, _unsigned(offset), size, put)


def ragged_rows(
    objectid: I64,
    kind: int,
    offset: npt.NDArray[Any],
    dtype: np.dtype[Any],
    heads: Heads,
    length: I64,
    strings: Callable[[], Sequence[Ragged]],
) -> ItemRows:
    """Items that are a structure of ``dtype`` each, then byte ``strings`` of together ``length`` bytes (i8)."""

    def put(buffer: Bytes, at: I64) -> None:
        scatter(buffer, at, heads())
        at = at + dtype.itemsize
        for part in strings():
            copy_ragged(buffer, at, part.buffer, part.position, part.length)
            at = at + part.length

    return ItemRows(objectid.astype(np.uint64), kind, _unsigned(offset), dtype.itemsize + length, put)


def _unsigned(offset: npt.NDArray[Any]) -> U64:
    return offset.astype(np.uint64, copy=False)
