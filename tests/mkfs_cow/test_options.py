"""What a user asks for: sizes, features, specifications; and what is refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowlib.errors import UsageError
from cowlib.format import CompatRoFeature, Compression, IncompatFeature
from mkfs_cow.compression import CompressionChoice, parse_compression
from mkfs_cow.features import DEFAULTS, FEATURES, describe_features, parse_features
from mkfs_cow.options import (
    InodeFlagsSpec,
    Options,
    SubvolumeSpec,
    parse_epoch,
    parse_inode_flags,
    parse_owner,
    parse_size,
    parse_subvolume,
    parse_uuid,
    subvolume_of,
)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("16K", 16384), ("1.5g", 3 << 29), ("2MiB", 2 << 20), ("1t", 1 << 40)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1x", "K", "0x10"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


def test_default_features_are_those_of_mkfs_btrfs():
    assert DEFAULTS.names == {"extref", "skinny-metadata", "no-holes", "free-space-tree", "block-group-tree"}
    assert DEFAULTS.incompat == (
        IncompatFeature.EXTENDED_IREF | IncompatFeature.SKINNY_METADATA | IncompatFeature.NO_HOLES
    )
    assert DEFAULTS.compat_ro == (
        CompatRoFeature.FREE_SPACE_TREE | CompatRoFeature.FREE_SPACE_TREE_VALID | CompatRoFeature.BLOCK_GROUP_TREE
    )


def test_features_are_turned_on_and_off():
    assert "quota" in parse_features(["quota,^extref"])
    assert "extref" not in parse_features(["quota", "^extref"])
    assert "free-space-tree" not in parse_features(["^fst,^bgt"])


def test_a_default_gives_way_to_what_was_asked_for():
    assert "block-group-tree" not in parse_features(["^no-holes"])


@pytest.mark.parametrize(
    ("text", "words"),
    [("nonsense", "unknown feature"), ("quota,squota", "exclude each other"), ("bgt,^no-holes", "needs no-holes")],
)
def test_features_that_cannot_be(text, words):
    with pytest.raises(UsageError, match=words):
        parse_features([text])


def test_every_feature_is_described():
    assert [line.split()[0] for line in describe_features().splitlines()] == [f.name for f in FEATURES]


def test_compression():
    assert parse_compression("no") is None
    assert parse_compression("zstd:15") == CompressionChoice(Compression.ZSTD, 15)
    assert parse_compression("lzo") == CompressionChoice(Compression.LZO, 1)
    for text in ("zstd:16", "zlib:0", "lzo:2", "bz2", "zstd:x"):
        with pytest.raises(UsageError):
            parse_compression(text)


def test_subvolumes():
    assert parse_subvolume("home") == SubvolumeSpec(b"home", False, False)
    assert parse_subvolume("ro:a//b/") == SubvolumeSpec(b"a/b", True, False)
    assert parse_subvolume("default-ro:x") == SubvolumeSpec(b"x", True, True)
    assert parse_subvolume("./ro:subdir") == SubvolumeSpec(b"ro:subdir", False, False)
    assert parse_subvolume("default:/") == SubvolumeSpec(b"", False, True)
    for text in ("rw:", "", "rw:..", "x:y", "rw:a/../../b"):
        with pytest.raises(UsageError):
            parse_subvolume(text)


def test_owner():
    assert parse_owner("0:4294967294") == (0, 4294967294)
    for text in ("", "0", "0:", ":0", "0:0:0", "root:root", "-1:0", "0:4294967295"):
        with pytest.raises(UsageError):
            parse_owner(text)


def test_inode_flags():
    assert parse_inode_flags("nodatacow,nodatasum:a/b") == InodeFlagsSpec(b"a/b", True, True)
    for text in ("nodatacow", "x:a", ":a"):
        with pytest.raises(UsageError):
            parse_inode_flags(text)


def test_the_subvolume_of_a_path():
    subvolumes = [b"", b"a", b"a/b", b"ab"]
    assert subvolume_of(b"a/b/c", subvolumes) == b"a/b"
    assert subvolume_of(b"abc", subvolumes) == b""
    assert subvolume_of(b"ab", subvolumes) == b"ab"


def test_uuid_and_epoch():
    assert parse_epoch(None) is None
    assert parse_epoch("0") == 0
    for bad in ("x", "1.5", "9223372036854775808", "-99999999999999999999"):
        with pytest.raises(UsageError):
            parse_epoch(bad)
    for bad in ("x", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(UsageError):
            parse_uuid(bad)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nodesize": 5000}, "power of two"),
        ({"nodesize": 2048}, "power of two"),
        ({"nodesize": 131072}, "power of two"),
        ({"mixed": True, "nodesize": 16384}, "must be the sector size"),
        ({"mixed": True, "data_profile": "dup", "metadata_profile": "single"}, "must be the same"),
        ({"label": b"x" * 256}, "label"),
        ({"label": b"a\nb"}, "label"),
        ({"byte_count": 2**63}, "more than any device"),
        ({"byte_count": 10**30}, "more than any device"),
        ({"shrink": True}, "--shrink needs"),
        ({"exclude": ["*.o"]}, "--exclude needs"),
        ({"devices": [Path("a"), Path("./a")]}, "given twice"),
        ({"rootdir": Path("/nowhere/at/all")}, "no such file or directory"),
        ({"rootdir": Path("/etc/passwd")}, "not a directory"),
        ({"rootdir": Path("/"), "from_tar": "x"}, "exclude each other"),
    ],
)
def test_options_that_cannot_be_meant(change, words):
    with pytest.raises(UsageError, match=words):
        Options(**{"devices": [Path("a")], **change}).resolve()


def test_mixed_groups_choose_the_node_size():
    options = Options(devices=[Path("a")], mixed=True).resolve()
    assert options.nodesize == options.sectorsize
    assert "mixed-bg" in options.features


def test_large_sectors_choose_the_node_size():
    options = Options(devices=[Path("a")], sectorsize=65536).resolve()
    assert options.nodesize == 65536
