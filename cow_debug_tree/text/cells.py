"""What a column of a row matrix is made of, and the plainest ways to fill it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[Any]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass
class Cells:
    """Text of one field for n rows: ``width`` bytes a row, filled up with NUL bytes.

    ``stores`` are (byte offset, array of shape (n,)): the bytes of each element are put there, in this order,
    so a later one may overwrite the end of an earlier one. All bytes of the width that no store covers are
    NUL.
    """

    width: int
    stores: list[tuple[int, Column]]

    def __len__(self) -> int:
        return len(self.stores[0][1])

    def matrix(self) -> npt.NDArray[np.uint8]:
        """The same text as a matrix of bytes, shape (n, width)."""
        rows = np.zeros((len(self), self.width), np.uint8)
        for offset, values in self.stores:
            store(rows, offset, values)
        return rows


#: A piece of a row: the same bytes in every row, or cells.
Segment = bytes | Cells


def store(rows: npt.NDArray[np.uint8], offset: int, values: Column) -> None:
    """Puts the bytes of ``values[i]`` at ``rows[i, offset:]``; ``rows`` is C-contiguous."""
    target: Column = np.ndarray((len(rows),), values.dtype, rows.data, offset, (rows.shape[1],))
    target[...] = values


def from_matrix(rows: npt.NDArray[np.uint8]) -> Cells:
    """Cells of a C-contiguous matrix of bytes, shape (n, width)."""
    width = rows.shape[1]
    return Cells(width, [(0, np.ndarray((len(rows),), f"V{width}", rows.data))])


def table(texts: Sequence[bytes]) -> Column:
    """A lookup table for `pick`: one element a text, dtype void, padded with NUL bytes."""
    return np.array(texts, dtype=np.bytes_).view(f"V{max(1, *map(len, texts))}")


def pick(texts: Column, index: Column) -> Cells:
    """``texts[index[i]]`` in row i; ``texts`` comes from `table`."""
    return Cells(texts.dtype.itemsize, [(0, texts[index])])


def each_value(values: Column, text: Callable[[int], bytes]) -> Segment:
    """``text(values[i])`` in row i, for a column with few different values: asks once for each of them."""
    if values[0] == values[-1] and (values == values[0]).all():
        return text(int(values[0]))
    different, index = np.unique(values, return_inverse=True)
    return pick(table([text(int(value)) for value in different]), index)


def overlay(under: Segment, where: Mask, over: Segment) -> Segment:
    """``over`` (its rows are those of ``where``, in order) in place of ``under`` in the rows of ``where``."""
    below, above = (as_matrix(under, len(where)), as_matrix(over, int(where.sum())))
    rows = np.zeros((len(where), max(below.shape[1], above.shape[1])), np.uint8)
    rows[:, : below.shape[1]] = below
    rows[where] = 0
    rows[where, : above.shape[1]] = above
    return from_matrix(rows)


def join(segments: Iterable[Segment], n: int, multiple: int = 1) -> npt.NDArray[np.uint8]:
    """Segments side by side in n rows, whose width is filled up to a multiple of ``multiple``: shape (n,
    width).
    """
    skeleton = bytearray()
    stores: list[tuple[int, Column]] = []
    for segment in segments:
        if isinstance(segment, bytes):
            skeleton += segment
        else:
            stores += [(len(skeleton) + offset, values) for offset, values in segment.stores]
            skeleton += bytes(segment.width)
    skeleton += bytes(-len(skeleton) % multiple)
    rows = np.empty((n, len(skeleton)), np.uint8)
    whole = f"V{len(skeleton)}"
    rows.view(whole)[...] = np.frombuffer(skeleton, whole)
    for offset, values in stores:
        store(rows, offset, values)
    return rows


def as_matrix(segment: Segment, n: int) -> npt.NDArray[np.uint8]:
    """Any segment as a matrix of bytes with n rows."""
    if isinstance(segment, bytes):
        return np.broadcast_to(np.frombuffer(segment, np.uint8), (n, len(segment)))
    return segment.matrix()
