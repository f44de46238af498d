"""Columns of numbers against Python's own formatting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cow_debug_tree.text.cells import Segment, as_matrix, overlay
from cow_debug_tree.text.digits import number, padded_hex, signed

LIMITS = [10**digits + more for digits in range(20) for more in (-1, 0)] + [2**bits - 1 for bits in range(65)]
NUMBERS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from(LIMITS), st.integers(0, 20_000))


def texts(segment: Segment, n: int) -> list[str]:
    """Each row as it is printed: without NUL bytes."""
    return [row.tobytes().replace(b"\0", b"").decode() for row in as_matrix(segment, n)]


@pytest.mark.parametrize(("radix", "spec"), [(10, "d"), (16, "x"), (8, "o")])
@given(values=st.lists(NUMBERS, min_size=1))
def test_numbers(radix: int, spec: str, values: list[int]) -> None:
    column = np.array(values, np.uint64)
    assert texts(number(column, radix), len(values)) == [format(value, spec) for value in values]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64])
@given(data=st.data())
def test_narrow_columns(dtype: type[np.integer], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, int(np.iinfo(dtype).max)), min_size=1))
    assert texts(number(np.array(values, dtype)), len(values)) == [str(value) for value in values]


@given(values=st.lists(NUMBERS, min_size=1))
def test_padded_hexadecimal(values: list[int]) -> None:
    assert texts(padded_hex(np.array(values, np.uint64)), len(values)) == [f"{value:016x}" for value in values]


@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_signed_numbers(values: list[int]) -> None:
    column = np.array(values, np.int64).view(np.uint64)
    assert texts(signed(column), len(values)) == [str(value) for value in values]


@given(values=st.lists(NUMBERS, min_size=2), data=st.data())
def test_overlay_replaces_whole_rows(values: list[int], data: st.DataObject) -> None:
    where = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    rows = texts(overlay(number(np.array(values, np.uint64)), where, b"name"), len(values))
    assert rows == ["name" if named else str(value) for named, value in zip(where, values, strict=True)]
