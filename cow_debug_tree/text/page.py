"""A page: rows of many kinds, each put under its unit, laid out in order of the units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cow_debug_tree.text.names import Pieces
from cow_debug_tree.text.template import WORD, Fields, Rows, render
from cowlib.btree import ragged_index

I64 = npt.NDArray[np.int64]


@dataclass
class _Placed:
    """Rows, or the words of texts of different lengths, with the units they belong to and their places in the
    text of those units.
    """

    unit: I64
    place: I64
    rows: Rows
    counts: I64 | None = None


@dataclass
class Page:
    """Text of ``units`` units (a node's heading, an item, ...), in order; within a unit in the order of the
    calls.
    """

    units: int
    _length: I64 = field(init=False)
    _placed: list[_Placed] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._length = np.zeros(self.units, np.int64)  # in words

    def put(self, unit: I64, template: str, fields: Fields) -> None:
        """One row a unit: row i belongs to ``unit[i]``, which occurs once."""
        if not len(unit):
            return
        rows = render(template, fields)
        self._placed.append(_Placed(unit, self._length[unit], rows))
        self._length[unit] += rows.shape[1] // WORD

    def put_many(self, unit: I64, counts: I64, template: str, fields: Fields) -> None:
        """``counts[i]`` rows for ``unit[i]``, all of them one after another in ``fields``."""
        if not counts.any():
            return
        rows = render(template, fields)
        width = rows.shape[1] // WORD
        ends = np.cumsum(counts)
        place = np.arange(len(rows)) * width + np.repeat(self._length[unit] - (ends - counts) * width, counts)
        self._placed.append(_Placed(np.repeat(unit, counts), place, rows))
        self._length[unit] += counts * width

    def put_pieces(self, unit: I64, pieces: Pieces) -> None:
        """A text for each unit, of different lengths."""
        if not len(unit):
            return
        self._placed.append(_Placed(unit, self._length[unit], pieces.words.view(np.uint8), pieces.counts))
        self._length[unit] += pieces.counts

    def text(self) -> bytearray:
        """The finished text."""
        ends = np.cumsum(self._length)
        padded = bytearray(int(ends[-1]) * WORD if self.units else 0)
        words = np.frombuffer(padded, np.uint64)
        starts = ends - self._length
        for placed in self._placed:
            place = starts[placed.unit] + placed.place
            if placed.counts is not None:
                words[ragged_index(place, placed.counts)] = placed.rows.view(np.uint64)
                continue
            width = placed.rows.shape[1]
            whole: np.dtype[Any] = np.dtype((np.void, width))
            # Overlapping windows one word apart: a row is moved as one element.
            windows: npt.NDArray[Any] = np.ndarray((len(words) - width // WORD + 1,), whole, padded, strides=(WORD,))
            windows[place] = placed.rows.view(whole).reshape(-1)
        return padded.translate(None, b"\0")
