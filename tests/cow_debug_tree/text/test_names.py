"""Names and values of any bytes and length."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cow_debug_tree.text.names import escape, lines
from cow_debug_tree.text.page import Page

PLAIN = st.text("abcXYZ09._-", max_size=40).map(str.encode)
NAMES = st.lists(st.one_of(PLAIN, st.binary(max_size=40)), min_size=1, max_size=20)


def printed(names: list[bytes], *, escaped: bool, room: int = 0) -> bytes:
    """The lines that end in these names, which stand one after another with nothing behind them."""
    buffer = np.frombuffer(b"".join(names) + bytes(room), np.uint8)
    lengths = np.array([len(name) for name in names], np.int64)
    page = Page(len(names))
    page.put_lines(np.arange(len(names)), lines(buffer, np.cumsum(lengths) - lengths, lengths, escaped=escaped))
    return bytes(page.text())


@given(names=NAMES)
def test_escaped_names(names: list[bytes]) -> None:
    expected = b"".join(b"".join(map(escape, name)) + b"\n" for name in names)
    assert printed(names, escaped=True) == expected


@given(names=NAMES, room=st.integers(0, 16))
def test_names_as_they_are(names: list[bytes], room: int) -> None:
    expected = b"".join(name.partition(b"\0")[0] + b"\n" for name in names)
    assert printed(names, escaped=False, room=room) == expected


def test_escapes() -> None:
    assert b"".join(map(escape, b"a b\\\n\t\x1b\x7f\xc3\0")) == rb"a\ b\\\n\t\e\177\303\000"
