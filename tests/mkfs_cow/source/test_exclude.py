"""Patterns for what to leave out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cowlib.errors import UsageError
from mkfs_cow.source.exclude import excluder


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("name", "name"),
        ("name", "a/b/name"),
        ("*.o", "a/x.o"),
        ("*.o", ".o"),
        ("?", "a/ü"),
        ("/name", "name"),
        ("./name", "name"),
        (".//./name", "name"),
        ("a/b", "a/b"),
        ("./a/./b", "a/b"),
        ("a//b", "a/b"),
        ("/a/*", "a/b"),
        ("a/**", "a/b/c"),
        ("**/c", "a/b/c"),
        ("**/c", "c"),
        ("a/**/c", "a/c"),
        ("[ab]x", "bx"),
        ("[!ab]x", "cx"),
        ("[^ab]x", "cx"),
        ("[]]", "]"),
        ("[a-c]", "b"),
        ("[", "["),
        (r"\*", "*"),
        (r"[\]", "\\"),
        ("a+(b)", "a+(b)"),
        ("new\nline", "new\nline"),
        ("*", "new\nline"),
        ("\udcff*", "a/\udcff\udcfe"),
    ],
)
def test_matches(pattern: str, path: str) -> None:
    excluded = excluder([pattern])
    assert excluded is not None
    assert excluded(path, False)
    assert excluded(path, True)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("name", "names"),
        ("name", "name/below"),
        ("*.o", "a.o/b"),
        ("/name", "a/name"),
        ("./name", "a/name"),
        ("a/b", "c/a/b"),
        ("a/*", "a/b/c"),
        ("a?b", "a/b"),
        ("a[!x]b", "a/b"),
        ("[!ab]", "a"),
        (r"\*", "x"),
        ("a.b", "axb"),
    ],
)
def test_does_not_match(pattern: str, path: str) -> None:
    excluded = excluder([pattern])
    assert excluded is not None
    assert not excluded(path, False)
    assert not excluded(path, True)


def test_a_slash_at_the_end_means_directories() -> None:
    excluded = excluder(["cache/", "/a/b/"])
    assert excluded is not None
    assert excluded("x/cache", True)
    assert not excluded("x/cache", False)
    assert excluded("a/b", True)
    assert not excluded("a/b", False)
    assert not excluded("x/a/b", True)


def test_any_of_several() -> None:
    excluded = excluder(["*.o", "tmp/"])
    assert excluded is not None
    assert excluded("x.o", False)
    assert excluded("tmp", True)
    assert not excluded("x.c", False)


def test_none() -> None:
    assert excluder([]) is None


@pytest.mark.parametrize("pattern", ["", "/", "//", ".", "./", "[z-a]"])
def test_no_pattern(pattern: str) -> None:
    with pytest.raises(UsageError, match=f"'{re.escape(pattern)}'"):
        excluder(["*.o", pattern])


@pytest.mark.parametrize(
    ("root", "pattern"),
    [
        ("tree", "tree/var"),
        ("./tree/", "tree/var"),
        ("tree", "./tree/var"),
        ("tree", "{here}/tree/var"),
        ("{here}/tree", "{here}/tree/var"),
        ("../{name}/tree", "../{name}/tree/var"),
        (".", "./var"),
        (".", "{here}/var"),
        ("/", "/var"),
    ],
)
def test_the_path_of_the_root_in_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, pattern: str
) -> None:
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path)
    words = {"here": str(tmp_path), "name": tmp_path.name}
    excluded = excluder([pattern.format(**words)], root.format(**words))
    assert excluded is not None
    assert excluded("var", True)
    assert not excluded("tree/var", True)
    assert not excluded("x/var", True)


def test_what_the_root_has_under_its_own_name_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree/tree").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    excluded = excluder(["tree/var"], "tree")
    assert excluded is not None
    assert excluded("tree/var", True)
    assert not excluded("var", True)


def test_which_patterns_matched_nothing() -> None:
    excluded = excluder(["*.o", "*.c", "tmp/", "./a", "x.o"])
    assert excluded is not None
    assert excluded.unmatched() == ["*.o", "*.c", "tmp/", "./a", "x.o"]
    assert excluded("x.o", False)
    assert not excluded("tmp", False)
    assert not excluded("b/a", False)
    assert excluded.unmatched() == ["*.c", "tmp/", "./a"]
    assert excluded("b/tmp", True)
    assert excluded("a", False)
    assert excluded.unmatched() == ["*.c"]
