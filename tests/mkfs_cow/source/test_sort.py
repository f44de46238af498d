"""Priorities of data: what goes down, and what is wrong with a file of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowlib.errors import UsageError
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.sort import read_sort, with_priorities
from mkfs_cow.source.subvolumes import partition
from mkfs_cow.source.tables import Tree
from tests.mkfs_cow.source.compared import paths_of


def never(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "root"
    for path in ("a", "boot/kernel", "boot/a b", "usr/lib/x", "usr/lib/deep/y", "usr/z"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"data")
    return scan_directory(root, warn=never)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sort"
    path.write_text(text)
    return path


def given(tree: Tree) -> dict[bytes, int]:
    return {path: int(tree.priority[i]) for path, i in paths_of(tree).items() if i >= 0 and tree.priority[i]}


def test_priorities_go_down(tmp_path: Path, tree: Tree) -> None:
    text = '# first\n/usr -5\nusr/lib/deep/y 32767\n./usr/lib/* +7\nboot/a\\ b -32768\n"boot/kernel" 0\nusr -5\n'
    done, missing = with_priorities(tree, read_sort(written(tmp_path, text)))
    assert missing == []
    expected = {
        b"usr": -5,
        b"usr/z": -5,
        b"usr/lib": 7,
        b"usr/lib/x": 7,
        b"usr/lib/deep": 7,
        b"usr/lib/deep/y": 32767,
        b"boot/a b": -32768,
    }
    assert given(done) == expected
    top, lib = partition(done, [b"usr/lib"])
    assert given(lib) == {b"": 7, b"x": 7, b"deep": 7, b"deep/y": 32767}
    assert given(top) == {b"usr": -5, b"usr/z": -5, b"boot/a b": -32768}


def test_what_is_not_there(tmp_path: Path, tree: Tree) -> None:
    done, missing = with_priorities(tree, read_sort(written(tmp_path, "proc/stat 9\na 1\n\nusr/b/c 2\n")))
    assert given(done) == {b"a": 1}
    assert [(entry.line.number, entry.path) for entry in missing] == [(1, b"proc/stat"), (4, b"usr/b/c")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", ":1: the priority is missing"),
        ("a b", ":1: the priority 'b' is not a number from -32768 to 32767"),
        ("a 32768", ":1: the priority '32768' is not a number"),
        ("a -32769", ":1: the priority '-32769' is not a number"),
        ("a 1 2", ":1: '2' is too much"),
        ("../a 1", r":1: '\.\./a' leaves the root directory"),
        ("a 1\nb 1\n./a 2", ":3: a has the priority 1 already in line 1"),
        ("\0", ":1: a NUL byte"),
        ("\n# none\n", "defines nothing"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_sort(written(tmp_path, text))
