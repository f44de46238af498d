"""Patterns for what to leave out."""

from __future__ import annotations

import re

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
        ("a/b", "a/b"),
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


@pytest.mark.parametrize("pattern", ["", "/", "//", "[z-a]"])
def test_no_pattern(pattern: str) -> None:
    with pytest.raises(UsageError, match=f"'{re.escape(pattern)}'"):
        excluder(["*.o", pattern])
