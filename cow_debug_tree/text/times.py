"""Columns of times as text, in the local time zone."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cow_debug_tree.text.cells import Cells, Segment, each_value, overlay
from cow_debug_tree.text.digits import number

I64 = npt.NDArray[np.int64]

_DAY = 86400

#: From the year 1000 to 9999 a date has ten characters; a day is left for the zone.
_PLAIN_FROM, _PLAIN_TO = -30610224000 + _DAY, 253402300800 - _DAY


def timespec(values: npt.NDArray[Any]) -> list[Segment]:
    """A column of `Timespec`: ``seconds.nanoseconds (date and time)``, both numbers unsigned and unpadded."""
    seconds = np.ascontiguousarray(values["sec"])
    nanoseconds = np.ascontiguousarray(values["nsec"])
    return [number(seconds.view(np.uint64)), b".", number(nanoseconds), b" (", local_time(seconds), b")"]


def seconds_since_1970(values: npt.NDArray[np.uint64]) -> list[Segment]:
    """A column of unsigned seconds: ``seconds (date and time)``."""
    return [number(values), b" (", local_time(values.view(np.int64)), b")"]


def local_time(seconds: I64) -> Segment:
    """``YYYY-MM-DD HH:MM:SS`` in the local zone."""
    low, high = int(seconds.min()), int(seconds.max())
    if low == high:
        return slow_local_time(low)
    plain = (seconds >= _PLAIN_FROM) & (seconds < _PLAIN_TO)
    if plain.all():
        return _plain(seconds)
    return overlay(_plain(np.where(plain, seconds, 0)), ~plain, each_value(seconds[~plain], slow_local_time))


def slow_local_time(seconds: int) -> bytes:
    """The same for one time, any year. A year that the C library cannot tell is said to be out of range."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)).encode()
    except (OverflowError, ValueError, OSError):
        return b"out of range"


def _plain(seconds: I64) -> Segment:
    days, index = _distinct(seconds // _DAY)
    zones = np.array([_zone(day) for day in days.tolist()], np.int64).reshape(-1, 3)
    before, change, after = zones.T
    if (before == before[0]).all() and (after == before[0]).all():
        local = seconds + before[0]
    else:
        local = seconds + np.where(seconds < change[index], before[index], after[index])
    day = local // _DAY
    clock = (local - day * _DAY).astype(np.uint32)
    days, index = _distinct(day)
    minutes = clock // np.uint32(60)
    stores = [
        (0, _dates(days).view("V16").reshape(-1)[index]),
        (11, _CLOCK[minutes.astype(np.intp)]),
        (16, _SECONDS[(clock - minutes * np.uint32(60)).astype(np.intp)]),
    ]
    return Cells(20, list(stores))


def _distinct(values: I64) -> tuple[I64, npt.NDArray[np.intp]]:
    """The different values in order, and where each row's stands: `numpy.unique`, fast where they lie close
    together.
    """
    low, high = int(values.min()), int(values.max())
    if high - low > 100_000:
        found, inverse = np.unique(values, return_inverse=True)
        return found, inverse.astype(np.intp, copy=False)
    offset = (values - low).astype(np.intp)
    present = np.zeros(high - low + 1, np.bool_)
    present[offset] = True
    place = np.cumsum(present, dtype=np.intp) - 1
    return np.flatnonzero(present).astype(np.int64) + low, place[offset]


@lru_cache(maxsize=100_000)
def _zone(day: int) -> tuple[int, int, int]:
    """The local zone on one day of UTC: seconds east of UTC until a moment, that moment, seconds east from
    then on.
    """
    start, end = day * _DAY, (day + 1) * _DAY
    before, after = _offset(start), _offset(end)
    if before == after:
        return before, end, after
    while end - start > 1:
        middle = (start + end) // 2
        if _offset(middle) == before:
            start = middle
        else:
            end = middle
    return before, end, after


def _offset(seconds: int) -> int:
    return time.localtime(seconds).tm_gmtoff


def _dates(days: I64) -> npt.NDArray[np.uint8]:
    """``YYYY-MM-DD`` and a blank, and then rubbish up to 16 bytes, of days since 1970: shape (n, 16)."""
    dates = np.datetime_as_string(days.astype("datetime64[D]")).astype("S10")
    text = np.zeros((len(days), 16), np.uint8)
    text[:, :10] = dates.view(np.uint8).reshape(-1, 10)
    text[:, 10] = ord(" ")
    return text


def _clock_tables() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    minutes = b"".join(b"%02d:%02d\0\0\0" % divmod(minute, 60) for minute in range(24 * 60))
    seconds = b"".join(b":%02d\0" % second for second in range(60))
    return np.frombuffer(minutes, "<u8"), np.frombuffer(seconds, "<u4")


_CLOCK, _SECONDS = _clock_tables()
