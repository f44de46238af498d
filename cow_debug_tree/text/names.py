"""Names and other bytes of any length as text: copied a word at a time, escaped where that is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import ragged_index

I64 = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_WORD = 8

#: For 0 to 8 bytes of a word in use: the bits of those bytes, ...
_MASK = np.array([(1 << 8 * used) - 1 for used in range(_WORD + 1)], np.uint64)
#: ... a one after them, ...
_AFTER = np.array([1 << 8 * used for used in range(_WORD)] + [0], np.uint64)
#: ... and harmless characters in place of the rest.
_FILL = np.array([int.from_bytes(b"a" * _WORD, "little") & ~int(mask) for mask in _MASK], np.uint64)


@dataclass
class Pieces:
    """Texts of different lengths for n rows, as words: ``counts`` (n,) words each, one after another in
    ``words``.

    NUL bytes fill the last word of each.
    """

    counts: I64
    words: Words

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Pieces:
        """Texts that stand ready."""
        padded = [text + bytes(-len(text) % _WORD) for text in texts]
        return cls(
            np.array([len(text) // _WORD for text in padded], np.int64),
            np.frombuffer(b"".join(padded), "<u8"),
        )


@dataclass(frozen=True, eq=False)
class Quoting:
    """How bytes are shown. ``special`` (256,) bool: not as themselves, but as in ``shown`` (256,): up to four
    or eight characters. What follows each text is ``end``, one character.
    """

    special: npt.NDArray[np.bool_]
    shown: npt.NDArray[Any]
    end: int

    @classmethod
    def of(cls, shown: Callable[[int], bytes], size: int, end: bytes) -> Quoting:
        """Made from a function that shows one byte, as at most ``size`` (4 or 8) characters."""
        texts = [shown(byte) for byte in range(256)]
        special = np.array([text != bytes([byte]) for byte, text in enumerate(texts)])
        table = np.frombuffer(b"".join(text.ljust(size, b"\0") for text in texts), f"<u{size}")
        return cls(special, table, end[0])


_SHORT = {7: "a", 8: "b", 27: "e", 12: "f", 10: "n", 13: "r", 9: "t", 11: "v", 32: " ", 92: "\\"}


def escape(byte: int) -> bytes:
    """One byte as in C: itself if it is printable ASCII, else with a backslash, some of them in octal."""
    if byte in _SHORT:
        return b"\\" + _SHORT[byte].encode()
    return b"%c" % byte if 32 < byte < 127 else b"\\%03o" % byte


#: Printable ASCII and a newline.
ESCAPED_LINE = Quoting.of(escape, 4, b"\n")

#: All bytes as they are and a newline.
PLAIN_LINE = Quoting.of(lambda byte: b"%c" % byte if byte else b"", 4, b"\n")


def until_nul(buffer: Bytes, starts: I64, lengths: I64) -> I64:
    """Lengths of the same texts as C sees them: up to the first NUL byte."""
    ends = [buffer[s : s + n].tobytes().find(b"\0") for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    found = np.array(ends, np.int64)
    return np.where(found < 0, lengths, found)


def quote(buffer: Bytes, starts: I64, lengths: I64, quoting: Quoting) -> Pieces:
    """``buffer[starts[i] : starts[i] + lengths[i]]`` for each i; all these ranges lie inside ``buffer``."""
    counts = lengths // _WORD + 1
    ends = np.cumsum(counts)
    count = int(ends[-1]) if len(ends) else 0
    positions = _WORD * np.arange(count) + np.repeat(starts - _WORD * (ends - counts), counts)
    used = np.clip(np.repeat(starts + lengths, counts) - positions, 0, _WORD)
    raw = _load(buffer, positions) & _MASK[used]
    if quoting.special[(raw | _FILL[used]).view(np.uint8)].any():
        return _quote_bytes(buffer, starts, lengths, quoting)
    return Pieces(counts, raw | _AFTER[used] * np.uint64(quoting.end))


def _load(buffer: Bytes, positions: I64) -> Words:
    """Eight bytes from every position; where those would cross the buffer's end, as many as there are."""
    room = buffer.size - _WORD
    if room < 0:
        return _load(np.concatenate([buffer, np.zeros(_WORD, np.uint8)]), positions)
    windows: npt.NDArray[Any] = np.ndarray((room + 1,), "V8", buffer.data, strides=(1,))
    if len(positions) and int(positions.max()) > room:
        inside = np.minimum(positions, room)
        shift = np.minimum(8 * (positions - inside), 63).astype(np.uint64)
        shifted: Words = windows[inside].view("<u8") >> shift
        return shifted
    words: Words = windows[positions].view("<u8")
    return words


def _quote_bytes(buffer: Bytes, starts: I64, lengths: I64, quoting: Quoting) -> Pieces:
    """Every byte as four or eight, which hold it as shown."""
    each = quoting.shown.dtype.itemsize
    counts = lengths * each // _WORD + 1
    place = (np.cumsum(counts) - counts) * (_WORD // each)
    text = np.zeros(int(counts.sum()) * (_WORD // each), quoting.shown.dtype)
    text[ragged_index(place, lengths)] = quoting.shown[buffer[ragged_index(starts, lengths)]]
    text[place + lengths] = quoting.end
    return Pieces(counts, text.view(np.uint64))
