"""Ranges of addresses as columns, joined and laid over each other: (start, end), both u8, the end not included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64, U64

Ranges = tuple[U64, U64]


def overlaps(start: U64, end: U64) -> tuple[I64, I64]:
    """Ranges that begin before one that sorts before them has ended, and that one: two i8 arrays of row indices."""
    order = np.argsort(start, kind="stable")
    reached = np.maximum.accumulate(end[order])
    late = np.flatnonzero(start[order][1:] < reached[:-1]) + 1
    # Whichever reaches furthest of those before.
    furthest = np.maximum.accumulate(np.where(end[order] == reached, np.arange(len(order)), 0))
    return order[late], order[furthest[late - 1]]


def merged(start: U64, end: U64) -> Ranges:
    """Ranges sorted, and joined where they touch or overlap."""
    if len(start) > 1 and (start[1:] < start[:-1]).any():
        order = np.argsort(start, kind="stable")
        start, end = start[order], end[order]
    reached = np.maximum.accumulate(end)
    new = np.ones(len(start), bool)
    new[1:] = start[1:] > reached[:-1]
    last = np.append(new[1:], True) if len(new) else new
    return start[new], reached[last]


def layered(layers: Sequence[Ranges]) -> tuple[U64, U64, npt.NDArray[np.bool_]]:
    """All boundaries of several sets of ranges: the pieces between them, and which sets cover each.

    Gives (start u8, end u8, covered bool (pieces, layers)). Ranges of one set may not overlap: see `merged`.
    """
    at = np.concatenate([edge for layer in layers for edge in layer])
    step = np.zeros((len(at), len(layers)), np.int8)
    first = 0
    for number, (start, end) in enumerate(layers):
        middle = first + len(start)
        step[first:middle, number] = 1
        step[middle : middle + len(end), number] = -1
        first = middle + len(end)
    order = np.argsort(at, kind="stable")
    at, depth = at[order], np.cumsum(step[order], axis=0)
    piece = np.flatnonzero(at[1:] > at[:-1])
    return at[piece], at[piece + 1], depth[piece] > 0


def holding(start: U64, end: U64, wanted: U64) -> I64:
    """Index of the range that holds each address, -1 where none does; the ranges are sorted and do not overlap."""
    if not len(start):
        return np.full(len(wanted), -1, np.int64)
    found = np.searchsorted(start, wanted, "right").astype(np.int64) - 1
    found[(found >= 0) & (wanted >= end[found])] = -1
    return found
