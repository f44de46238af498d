"""What a format string may say after a field's name: ``{size}``, ``{mode:o}``, ``{fsid:uuid}``,
``{ctime:time}``, ...
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cow_debug_tree.text import digits, times
from cow_debug_tree.text.cells import Cells, Column, Segment, from_matrix
from cow_debug_tree.text.template import writer

_HEX_PAIRS = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), "<u2")

#: Where the hexadecimal digits of a UUID go between its dashes: first digit, end, place in the text.
_UUID_GROUPS = ((0, 8, 0), (8, 12, 9), (12, 16, 14), (16, 20, 19), (20, 32, 24))


@writer("")
def decimal(column: Column) -> Segment:
    """Unsigned, without padding."""
    return digits.number(np.ascontiguousarray(column))


@writer("x")
def hexadecimal(column: Column) -> Segment:
    """Unsigned, without padding or prefix."""
    return digits.number(np.ascontiguousarray(column), 16)


@writer("016x")
def padded_hexadecimal(column: Column) -> Segment:
    """Unsigned 64 bit, always sixteen digits."""
    return digits.padded_hex(np.ascontiguousarray(column))


@writer("o")
def octal(column: Column) -> Segment:
    """Unsigned, without padding or prefix."""
    return digits.number(np.ascontiguousarray(column), 8)


@writer("d")
def signed(column: Column) -> Segment:
    """Two's complement: signed numbers, or unsigned 64-bit ones taken for signed."""
    return digits.signed(np.ascontiguousarray(column).astype(np.int64).view(np.uint64))


@writer("time")
def time(column: Column) -> list[Segment]:
    """A `Timespec`: seconds.nanoseconds and the local time."""
    return times.timespec(column)


@writer("seconds")
def seconds(column: Column) -> list[Segment]:
    """Seconds since 1970 and the local time."""
    return times.seconds_since_1970(np.ascontiguousarray(column))


@writer("hexbytes")
def hex_bytes(column: Column) -> Segment:
    """Bytes (a void column) as two hexadecimal digits each."""
    return from_matrix(_hex_digits(_bytes(column)))


@writer("cells")
def cells(column: Cells) -> Segment:
    """Text that stands ready."""
    return column


@writer("text")
def text(column: bytes) -> Segment:
    """The same bytes in every row."""
    return column


@writer("uuid")
def uuid(column: Column) -> Segment:
    """Sixteen bytes as 8-4-4-4-12 hexadecimal digits."""
    data = _bytes(column)
    if (data == data[0]).all():
        return uuid_text(data[0].tobytes())
    pairs = _hex_digits(data)
    rows = np.full((len(data), 36), ord("-"), np.uint8)
    for start, end, place in _UUID_GROUPS:
        rows[:, place : place + end - start] = pairs[:, start:end]
    return from_matrix(rows)


def uuid_text(data: bytes) -> bytes:
    """The same for one UUID."""
    text = data.hex().encode()
    return b"-".join(text[start:end] for start, end, _ in _UUID_GROUPS)


def _bytes(column: Column) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(column).view(np.uint8).reshape(len(column), column.dtype.itemsize)


def _hex_digits(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return _HEX_PAIRS[data].view(np.uint8)
