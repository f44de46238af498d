"""Lines that users write: words, quotes, continuations, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowlib.errors import UsageError
from mkfs_cow.source.definitions import Line, read_definitions


def lines(tmp_path: Path, data: bytes) -> list[tuple[int, bytes]]:
    path = tmp_path / "file"
    path.write_bytes(data)
    return [(line.number, line.text) for line in read_definitions(path)]


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    data = b"# about\n\n  one 1\t\r\ntwo \\\n   2 \\\n3\n\\\\\nfour\\\\\nlast"
    assert lines(tmp_path, data) == [(3, b"one 1"), (4, b"two    2 3"), (7, b"\\\\"), (8, b"four\\\\"), (9, b"last")]


def test_a_backslash_at_the_very_end(tmp_path: Path) -> None:
    assert lines(tmp_path, b"a \\") == [(1, b"a")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "defines nothing"),
        (b"# only words\n\n", "defines nothing"),
        (b"one\ntwo\n\0\n", ":3: a NUL byte"),
        (b"\x7fELF\x02\x01\0\0", ":1: a NUL byte"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        lines(tmp_path, data)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: No such file or directory"):
        read_definitions(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="Is a directory"):
        read_definitions(tmp_path)


def test_words() -> None:
    line = Line(Path("f"), 7, rb'plain "two words" two\ more q"uo"ted \"\\ 12 rest  as it \is ')
    assert [line.word("it") for _ in range(5)] == [b"plain", b"two words", b"two more", b"quoted", b'"\\']
    assert line.number_of("count", 12) == 12
    assert line.rest("it") == rb"rest  as it \is"
    line.end()


def test_errors_name_the_line() -> None:
    with pytest.raises(UsageError, match=r"^f:7: the path: a quote is not closed$"):
        Line(Path("f"), 7, b'"a b').word("the path")
    with pytest.raises(UsageError, match=r"^f:7: the path is missing$"):
        Line(Path("f"), 7, b"").word("the path")
    for text in (b"13", b"-1", b"0x1", b"9" * 30):
        with pytest.raises(UsageError, match=r"^f:7: it '.*' is not a number from 0 to 12$"):
            Line(Path("f"), 7, text).number_of("it", 12)
    with pytest.raises(UsageError, match=r"^f:7: 'more' is too much$"):
        Line(Path("f"), 7, b"more").end()
