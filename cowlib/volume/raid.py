"""Parity over GF(256): what raid5 and raid6 stripes hold, and how lost ones come back.

P is the xor of the data columns, Q the sum of g**i * column i, in the field of the polynomial 0x11d with g 2:
H. P. Anvin, "The mathematics of RAID-6". Arrays are (columns, bytes) uint8; they may be views, with any stride
between the columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bytes1 = NDArray[np.uint8]

_POLYNOMIAL = 0x11D
_BLOCK = 1 << 16  # bytes of each column worked on at a time: stays in the cache


def _tables() -> tuple[Bytes1, Bytes1]:
    power = np.zeros(255, np.uint8)
    log = np.zeros(256, np.uint8)
    value = 1
    for exponent in range(255):
        power[exponent] = value
        log[value] = exponent
        value <<= 1
        if value & 0x100:
            value ^= _POLYNOMIAL
    return power, log


_POWER, _LOG = _tables()


def gf_mul_table(factor: int) -> Bytes1:
    """uint8[256]: ``factor`` times every element."""
    table = np.zeros(256, np.uint8)
    if factor:
        table[1:] = _POWER[(_LOG[1:].astype(np.int64) + int(_LOG[factor])) % 255]
    return table


def gf_pow(exponent: int) -> int:
    """g to any power, also negative."""
    return int(_POWER[exponent % 255])


def gf_inverse(value: int) -> int:
    """The element that makes 1 when multiplied with ``value`` (not 0)."""
    return gf_pow(-int(_LOG[value]))


def xor_columns(columns: Sequence[Bytes1] | Bytes1, out: Bytes1) -> None:
    """``out`` becomes the xor of all columns (at least one); it may not be one of them."""
    out[:] = columns[0]
    for column in columns[1:]:
        np.bitwise_xor(out, column, out=out)


def gen_p(data: Bytes1, out: Bytes1) -> None:
    """P of data columns (k, n) into ``out`` (n)."""
    for start in range(0, data.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        xor_columns(data[:, block], out[block])


def gen_q(data: Bytes1, out: Bytes1) -> None:
    """Q of data columns (k, n) into ``out`` (n)."""
    carry = np.empty(min(_BLOCK, data.shape[1]), np.uint8)
    for start in range(0, data.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        target = out[block]
        target[:] = data[-1, block]
        for column in data[-2::-1, block]:
            _double(target, carry[: len(target)])
            np.bitwise_xor(target, column, out=target)


def gen_pq(data: Bytes1) -> tuple[Bytes1, Bytes1]:
    """(P, Q) of data columns (k, n): uint8[n] each."""
    p, q = np.empty_like(data[0]), np.empty_like(data[0])
    gen_p(data, p)
    gen_q(data, q)
    return p, q


def fill_parity(stripes: Bytes1, parity: int) -> None:
    """Compute the last ``parity`` rows (P, or P and Q) of ``stripes`` from the rows before them."""
    data = stripes[: len(stripes) - parity]
    gen_p(data, stripes[len(data)])
    if parity == 2:
        gen_q(data, stripes[len(data) + 1])


def recover(stripes: Bytes1, parity: int, lost: Sequence[int]) -> None:
    """Compute the ``lost`` rows of ``stripes`` (data columns + parity, n) in place from the others.

    Rows are the data columns in order, then P, then Q (``parity`` 2). At most ``parity`` rows, each once.
    """
    if len(lost) > parity:
        raise ValueError(f"{len(lost)} lost stripes, but only {parity} of parity")
    width = len(stripes) - parity
    data_lost = sorted(index for index in lost if index < width)
    if len(data_lost) == 2:
        _recover_two(stripes, *data_lost)
    elif data_lost and width in lost:
        _recover_from_q(stripes, data_lost[0])
    elif data_lost:
        others = [row for index, row in enumerate(stripes[: width + 1]) if index != data_lost[0]]
        xor_columns(others, stripes[data_lost[0]])
    if width in lost:
        gen_p(stripes[:width], stripes[width])
    if width + 1 in lost:
        gen_q(stripes[:width], stripes[width + 1])


def _recover_from_q(stripes: Bytes1, lost: int) -> None:
    """One data column from the other data and Q: what Q lacks, divided by the column's coefficient."""
    data, q = stripes[:-2], stripes[-1]
    data[lost] = 0
    partial = np.empty_like(q)
    gen_q(data, partial)
    np.bitwise_xor(partial, q, out=partial)
    np.take(gf_mul_table(gf_pow(-lost)), partial, out=data[lost])


def _recover_two(stripes: Bytes1, first: int, second: int) -> None:
    """Two data columns x, y from P and Q: solve Dx + Dy = P', g**x Dx + g**y Dy = Q'."""
    data, p, q = stripes[:-2], stripes[-2], stripes[-1]
    data[first] = 0
    data[second] = 0
    p_lack, q_lack = gen_pq(data)
    np.bitwise_xor(p_lack, p, out=p_lack)
    np.bitwise_xor(q_lack, q, out=q_lack)
    ratio = gf_pow(second - first)
    scale = gf_inverse(ratio ^ 1)
    from_p = gf_mul_table(int(gf_mul_table(scale)[ratio]))
    from_q = gf_mul_table(int(gf_mul_table(scale)[gf_pow(-first)]))
    np.bitwise_xor(from_p[p_lack], from_q[q_lack], out=data[first])
    np.bitwise_xor(p_lack, data[first], out=data[second])


def _double(values: Bytes1, carry: Bytes1) -> None:
    """Multiply by g in place. ``carry``: scratch of the same length."""
    np.right_shift(values, 7, out=carry)
    np.multiply(carry, _POLYNOMIAL & 0xFF, out=carry)
    np.left_shift(values, 1, out=values)
    np.bitwise_xor(values, carry, out=values)
