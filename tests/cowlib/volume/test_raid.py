"""GF(256): parity as the definition says, and every loss that can be survived is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cowlib.volume import raid

elements = st.integers(0, 255)


def multiply(a: int, b: int) -> int:
    """Schoolbook multiplication in the field."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


@st.composite
def stripes(draw: st.DrawFn, parity: int) -> NDArray[np.uint8]:
    """Data columns with true parity below them."""
    width = draw(st.integers(1, 9))
    length = draw(st.sampled_from([1, 7, 64, 4096, (64 << 10) + 3]))
    seed = draw(st.integers(0, 1000))
    found = np.random.default_rng(seed).integers(0, 256, (width + parity, length), np.uint8)
    raid.fill_parity(found, parity)
    return found


@given(elements, elements)
def test_multiplication(a: int, b: int) -> None:
    assert raid.gf_mul_table(a)[b] == multiply(a, b)


def test_powers_and_inverses() -> None:
    assert [raid.gf_pow(n) for n in range(9)] == [1, 2, 4, 8, 16, 32, 64, 128, 0x1D]
    for value in range(1, 256):
        assert multiply(value, raid.gf_inverse(value)) == 1
    assert multiply(raid.gf_pow(-7), raid.gf_pow(7)) == 1


@given(st.lists(elements, min_size=1, max_size=20))
def test_parity_is_what_the_definition_says(column: list[int]) -> None:
    p, q = raid.gen_pq(np.array(column, np.uint8)[:, np.newaxis])
    expected_p = expected_q = 0
    for index, value in enumerate(column):
        expected_p ^= value
        expected_q ^= multiply(raid.gf_pow(index), value)
    assert (p[0], q[0]) == (expected_p, expected_q)


@pytest.mark.parametrize("parity", [1, 2])
@given(st.data())
def test_every_survivable_loss_is_recovered(parity: int, data: st.DataObject) -> None:
    original = data.draw(stripes(parity))
    for count in range(parity + 1):
        for lost in combinations(range(len(original)), count):
            damaged = original.copy()
            damaged[list(lost)] = 0xA5
            raid.recover(damaged, parity, lost)
            assert (damaged == original).all(), lost


def test_the_widest_raid6() -> None:
    original = np.random.default_rng(3).integers(0, 256, (257, 8), np.uint8)
    raid.fill_parity(original, 2)
    for lost in ((0, 254), (253, 254), (254, 255), (0, 1), (100, 256)):
        damaged = original.copy()
        damaged[list(lost)] = 0
        raid.recover(damaged, 2, lost)
        assert (damaged == original).all()


def test_more_losses_than_parity_are_refused() -> None:
    with pytest.raises(ValueError, match="2 lost stripes"):
        raid.recover(np.zeros((3, 4), np.uint8), 1, [0, 1])
