"""Names and values of any bytes and length."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cow_debug_tree.text.names import ESCAPED_LINE, PLAIN_LINE, Pieces, Quoting, escape, quote, until_nul
from cow_debug_tree.text.page import Page

PLAIN = st.text("abcXYZ09._-", max_size=40).map(str.encode)
NAMES = st.lists(st.one_of(PLAIN, st.binary(max_size=40)), min_size=1, max_size=20)


def printed(names: list[bytes], quoting: Quoting, room: int = 0) -> bytes:
    """The lines that end in these names, which stand one after another with nothing behind them."""
    buffer = np.frombuffer(b"".join(names) + bytes(room), np.uint8)
    lengths = np.array([len(name) for name in names], np.int64)
    page = Page(len(names))
    page.put_pieces(np.arange(len(names)), quote(buffer, np.cumsum(lengths) - lengths, lengths, quoting))
    return bytes(page.text())


@given(names=NAMES)
def test_escaped_names(names: list[bytes]) -> None:
    expected = b"".join(b"".join(map(escape, name)) + b"\n" for name in names)
    assert printed(names, ESCAPED_LINE) == expected


@given(names=NAMES, room=st.integers(0, 16))
def test_names_as_they_are(names: list[bytes], room: int) -> None:
    assert printed(names, PLAIN_LINE, room) == b"".join(name.replace(b"\0", b"") + b"\n" for name in names)


@given(names=NAMES)
def test_until_nul(names: list[bytes]) -> None:
    lengths = np.array([len(name) for name in names], np.int64)
    cut = until_nul(np.frombuffer(b"".join(names), np.uint8), np.cumsum(lengths) - lengths, lengths)
    assert cut.tolist() == [len(name.partition(b"\0")[0]) for name in names]


@given(names=NAMES)
def test_pieces_that_stand_ready(names: list[bytes]) -> None:
    page = Page(len(names))
    page.put_pieces(np.arange(len(names)), Pieces.of(names))
    assert page.text() == b"".join(names).replace(b"\0", b"")


def test_escapes() -> None:
    assert b"".join(map(escape, b"a b\\\n\t\x1b\x7f\xc3\0")) == rb"a\ b\\\n\t\e\177\303\000"
