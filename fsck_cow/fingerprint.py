"""Names as numbers: 64 bits for each, and whether it holds a byte that no name may; all names at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64, U64
from cowlib.checksum import Words

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_LOW_BITS = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_SLASHES = np.uint64(0x2F2F2F2F2F2F2F2F)


def fingerprints(length: I64, rounds: Iterable[Words]) -> U64:
    """A well-mixed number of each name: u8, shape (n,); ``rounds`` is what `cowlib.checksum.words_at` says of them.

    Equal names have equal numbers; different ones share theirs by a chance of one in 2^64.
    """
    state = length.astype(np.uint64) * _MULTIPLIER
    for rows, words, _ in rounds:
        part = state[rows] ^ words
        part *= _MULTIPLIER
        part ^= part >> _SHIFT
        state[rows] = part
    return state


def unlawful(count: int, rounds: Iterable[Words]) -> npt.NDArray[np.bool_]:
    """Which of ``count`` names hold a NUL or a slash: bool, shape (count,)."""
    found = np.zeros(count, bool)
    for rows, words, some in rounds:
        if some is not None:
            words = words | ~np.uint64(0) << (some << 3).astype(np.uint64)
        marks = _zero_bytes(words) | _zero_bytes(words ^ _SLASHES)
        if marks.any():
            found[np.arange(count)[rows][marks > 0]] = True
    return found


def _zero_bytes(words: U64) -> U64:
    """Not zero where one of the eight bytes is."""
    marks: U64 = (words - _LOW_BITS) & ~words & _HIGH_BITS
    return marks
