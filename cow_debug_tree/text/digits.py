"""Columns of numbers as text: decimal, hexadecimal and octal, four digits a table lookup."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from cow_debug_tree.text.cells import U64, Cells, Segment, overlay, pick, table

Words = npt.NDArray[np.uint32]

#: Digits that one lookup gives; each is a byte of a 32-bit word.
GROUP = 4

_SPECS = {10: "d", 16: "x", 8: "o"}


def number(values: npt.NDArray[np.unsignedinteger], radix: int = 10) -> Segment:
    """Unsigned numbers without leading zeros: radix 10, 16 or 8.

    >>> number(np.array([7, 1234567], np.uint64)).matrix().tobytes()
    b'\\x00\\x00\\x00\\x00\\x00\\x007' + b'1234567'
    """
    low, high = int(values.min()), int(values.max())
    if low == high:
        return format(low, _SPECS[radix]).encode()
    digits = len(format(high, _SPECS[radix]))
    if digits <= GROUP:
        return _one_group(values, digits, radix)
    groups = -(-digits // GROUP)
    base = radix**GROUP
    rest = _narrow(values, high)
    words: list[Words] = []
    for group in range(groups - 1):
        above = rest // rest.dtype.type(base)
        index = (rest - above * rest.dtype.type(base)).astype(np.intp)
        if low < base ** (group + 1):  # some rows have nothing above: they take the table without leading zeros
            index += (above == 0) * base
        words.append(_tables(radix, group > 0)[index])
        rest = above
    first = digits - GROUP * (groups - 1)
    top = _tables(radix, True)[base:][rest.astype(np.intp)]
    if first < GROUP:  # flush left: the next word overwrites what is left over on the right
        top >>= np.uint32(8 * (GROUP - first))
    stores = [(0, top)]
    stores += [(first + GROUP * i, word) for i, word in enumerate(reversed(words))]
    return Cells(digits, [(offset, word) for offset, word in stores])


def padded_hex(values: U64, digits: int = 16) -> Segment:
    """Hexadecimal with leading zeros, always ``digits`` (a multiple of 4) long."""
    low, high = int(values.min()), int(values.max())
    if low == high:
        return format(low, f"0{digits}x").encode()
    full = _tables(16, False)
    last = digits // GROUP - 1
    stores = []
    for group in range(digits // GROUP):
        part = (values >> np.uint64(16 * (last - group))) & np.uint64(0xFFFF)
        stores.append((GROUP * group, full[part.astype(np.intp)]))
    return Cells(digits, list(stores))


def signed(values: U64) -> Segment:
    """64-bit numbers as two's complement."""
    negative = values >> np.uint64(63) != 0
    if not negative.any():
        return number(values)
    if negative.all():
        below: Segment = b""
    else:
        below = number(np.where(negative, np.uint64(0), values))
    # Rare, and seldom many different ones: plain formatting a value.
    different, index = np.unique(values[negative].view(np.int64), return_inverse=True)
    return overlay(below, negative, pick(table([b"%d" % value for value in different.tolist()]), index))


def _one_group(values: npt.NDArray[np.unsignedinteger], digits: int, radix: int) -> Cells:
    index = values.astype(np.intp)
    words = _tables(radix, False)[radix**GROUP :]
    if digits == 1:
        return Cells(1, [(0, _ones(radix)[index])])
    if digits == 2:
        return Cells(2, [(0, _twos(radix)[index])])
    return Cells(GROUP, [(0, words[index])])


def _narrow(values: npt.NDArray[np.unsignedinteger], high: int) -> npt.NDArray[np.unsignedinteger]:
    """Numpy divides 32-bit numbers much faster than 64-bit ones."""
    return values.astype(np.uint32 if high < 1 << 32 else np.uint64, copy=False)


@cache
def _tables(radix: int, blank_zero: bool) -> Words:
    """Two tables in one, 2 * radix**4 words: four digits with leading zeros, then the same with NUL instead
    of them.

    In the second half 0 is ``0``, or nothing at all if ``blank_zero``: it stands above digits that are shown.
    """
    numbers = np.arange(radix**GROUP, dtype=np.uint32)
    digits = np.empty((len(numbers), GROUP), np.uint8)
    for place in range(GROUP):
        digits[:, GROUP - 1 - place] = numbers // radix**place % radix
    text = np.frombuffer(b"0123456789abcdef", np.uint8)[digits]
    shown = np.logical_or.accumulate(digits != 0, axis=1)
    if not blank_zero:
        shown[:, -1] = True
    return np.concatenate([text, np.where(shown, text, 0)]).astype(np.uint8).view("<u4").reshape(-1)


@cache
def _ones(radix: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"0123456789abcdef"[:radix], np.uint8)


@cache
def _twos(radix: int) -> npt.NDArray[np.uint16]:
    words: npt.NDArray[np.uint16] = _tables(radix, False)[radix**GROUP :][: radix**2].view("<u2")[1::2]
    return np.ascontiguousarray(words)
