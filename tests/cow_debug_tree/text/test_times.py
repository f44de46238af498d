"""Columns of times against the C library, in zones with all kinds of changes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cow_debug_tree.text import times
from cow_debug_tree.text.cells import as_matrix

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]


@pytest.fixture(params=ZONES, scope="module")
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The local time zone during a test."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    times._zone.cache_clear()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()
    times._zone.cache_clear()


@given(seconds=st.lists(st.one_of(st.integers(0, 2**32), st.integers(-(2**63), 2**63 - 1)), min_size=1))
@example([1325239199, 1325239200, 1301774399, 1301774400])  # a whole day left out; half an hour at Lord Howe
@example([0, 1, -1, -30610224000, 253402300799, 253402300800, 2**63 - 1, -(2**63)])
def test_local_times(zone: str, seconds: list[int]) -> None:
    written = times.local_time(np.array(seconds, np.int64))
    rows = [row.tobytes().replace(b"\0", b"").decode() for row in as_matrix(written, len(seconds))]
    assert rows == [times.slow_local_time(value).decode() for value in seconds]


def test_slow_local_time() -> None:
    assert len(times.slow_local_time(0)) == len("1970-01-01 00:00:00")
    assert times.slow_local_time(2**63 - 1) == b"out of range"
