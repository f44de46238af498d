"""What ``--compress`` means, and what it cannot mean."""

from __future__ import annotations

import pytest

from cowlib.errors import UsageError
from cowlib.format import Compression
from mkfs_cow.compression import CompressionChoice, CompressionChoices, CompressionRule, parse_compressions

ZSTD, ZLIB, LZO = (
    CompressionChoice(Compression.ZSTD, 9),
    CompressionChoice(Compression.ZLIB, 3),
    CompressionChoice(Compression.LZO, 1),
)


@pytest.mark.parametrize(
    ("text", "default", "rules"),
    [
        ("no", None, {}),
        ("none", None, {}),
        ("ZSTD:9", ZSTD, {}),
        ("zstd:9,boot=none", ZSTD, {"boot": None}),
        ("boot=zstd:9", None, {"boot": ZSTD}),
        ("no,/usr//share/./doc/=zlib,a=lzo", None, {"usr/share/doc": ZLIB, "a": LZO}),
        (r"zlib,a\,b=lzo,c=d=no", ZLIB, {r"a\,b": LZO, "c=d": None}),
        ("lzo,**/*.[jp]*g=no", LZO, {"**/*.[jp]*g": None}),
    ],
)
def test_choices(text: str, default: CompressionChoice | None, rules: dict[str, CompressionChoice | None]) -> None:
    found = parse_compressions(text)
    assert found == CompressionChoices(default, tuple(CompressionRule(*rule) for rule in rules.items()))
    assert found.all() == [default, *rules.values()]


@pytest.mark.parametrize("text", ["no", "none", "no,boot=none"])
def test_nothing_is_compressed(text: str) -> None:
    assert not parse_compressions(text)


@pytest.mark.parametrize("text", ["lzo", "no,boot=lzo", "boot=lzo,x=no"])
def test_something_is_compressed(text: str) -> None:
    assert parse_compressions(text)


def test_names() -> None:
    assert [choice.name for choice in (ZSTD, ZLIB, LZO)] == ["zstd", "zlib", "lzo"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown compression ''"),
        ("gzip", "unknown compression 'gzip'"),
        ("zstd:", "level '' is not one of zstd: 1 to 15"),
        ("zstd:16", "level '16' is not one of zstd: 1 to 15"),
        ("zstd:²", "level '²' is not one of zstd"),
        ("none:1", "unknown compression 'none:1'"),
        ("zstd,", "'' is not PATH="),
        ("zstd,zlib", "'zlib' is not PATH="),
        ("zstd,boot=", "unknown compression ''"),
        ("zstd,boot=bad", "unknown compression 'bad'"),
        ("zstd,=no", "'' means everything"),
        ("zstd,./=no", r"'\./' means everything"),
        ("zstd,a/../b=no", r"'a/\.\./b' leaves the root directory"),
        ("zstd,a=no,b=lzo,/a/=no", "'/a/' is given twice"),
        ("zstd,a=no\\", "ends in a backslash"),
    ],
)
def test_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_compressions(text)
