"""Compression by path: what a path or glob means, what goes down, and the property."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cowlib.errors import UsageError
from cowlib.format import InodeFlag
from mkfs_cow.compression import parse_compressions
from mkfs_cow.source.by_path import matching
from mkfs_cow.source.compress import with_compression, with_property
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.subvolumes import partition, with_flags
from mkfs_cow.source.tables import Tree
from tests.mkfs_cow.source.compared import check_order, in_tables, paths_of

COMPRESS, NEVER, COW, SUM = InodeFlag.COMPRESS, InodeFlag.NOCOMPRESS, InodeFlag.NODATACOW, InodeFlag.NODATASUM
PROPERTY = b"btrfs.compression"


def never(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "root"
    for path in ("boot/grub/x.so", "usr/lib/a.so", "usr/lib/deep/b.so", "usr/lib/b.txt", "usr/[x]/c.so", "a.so"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"data")
    (root / "boot" / "link").symlink_to("grub")
    (root / "zz").hardlink_to(root / "boot" / "grub" / "x.so")
    return scan_directory(root, warn=never)


def meant(tree: Tree, pattern: str) -> set[bytes]:
    inodes = matching(tree, pattern)[0].tolist()
    return {path for path, inode in paths_of(tree).items() if inode in inodes}


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("boot", {b"boot"}),
        ("boot/link", {b"boot/link"}),
        ("boot/link/x.so", set()),
        ("lib", set()),
        ("*", {b"boot", b"usr", b"a.so", b"zz", b"boot/grub/x.so"}),
        ("*.so", {b"a.so"}),
        ("usr/*/*.so", {b"usr/lib/a.so", b"usr/[x]/c.so"}),
        ("usr/lib/?.so", {b"usr/lib/a.so"}),
        ("usr/lib/[!b]*", {b"usr/lib/a.so", b"usr/lib/deep"}),
        ("**/b.*", {b"usr/lib/b.txt", b"usr/lib/deep/b.so"}),
        ("usr/**/*.so", {b"usr/lib/a.so", b"usr/lib/deep/b.so", b"usr/[x]/c.so"}),
        ("**/*.so", {b"boot/grub/x.so", b"zz", b"usr/lib/a.so", b"usr/lib/deep/b.so", b"usr/[x]/c.so", b"a.so"}),
        ("usr/[x]", {b"usr/[x]"}),
        (r"usr/\[x]/*", {b"usr/[x]/c.so"}),
        (r"\boot", {b"boot"}),
        ("a.so/*", set()),
    ],
)
def test_patterns(tree: Tree, pattern: str, paths: set[bytes]) -> None:
    assert meant(tree, pattern) == paths


def numbers(tree: Tree) -> dict[bytes, int]:
    return {path: int(tree.compression[i]) for path, i in paths_of(tree).items() if i >= 0 and tree.compression[i]}


def test_the_nearest_rule_counts(tree: Tree) -> None:
    rules = parse_compressions("zstd,usr=lzo,usr/lib=zlib,usr/lib/deep/b.so=no,boot=no").rules
    assert numbers(with_compression(tree, rules)) == {
        b"usr": 1,
        b"usr/[x]": 1,
        b"usr/[x]/c.so": 1,
        b"usr/lib": 2,
        b"usr/lib/a.so": 2,
        b"usr/lib/b.txt": 2,
        b"usr/lib/deep": 2,
        b"usr/lib/deep/b.so": 3,
        b"boot": 4,
        b"boot/grub": 4,
        b"boot/grub/x.so": 4,  # as the other name has no rule
        b"boot/link": 4,
        b"zz": 4,
    }


def test_a_path_before_a_glob_and_the_last_glob_before_others(tree: Tree) -> None:
    rules = parse_compressions("zstd,usr/lib/a.so=no,usr/lib/*=lzo,usr/lib/*.so=zlib").rules
    assert numbers(with_compression(tree, rules)) == {
        b"usr/lib/a.so": 1,
        b"usr/lib/b.txt": 2,
        b"usr/lib/deep": 2,
        b"usr/lib/deep/b.so": 2,
    }


def test_a_rule_for_nothing(tree: Tree) -> None:
    for pattern in ("nowhere", "boot/*.txt", "usr/lib/deep/b.so/**"):
        with pytest.raises(UsageError, match="no such file below the root directory"):
            with_compression(tree, parse_compressions(f"zstd,{pattern}=no").rules)


def test_rules_reach_into_subvolumes(tree: Tree) -> None:
    top, lib = partition(with_compression(tree, parse_compressions("usr=lzo").rules), [b"usr/lib"])
    assert numbers(lib) == dict.fromkeys([b"", b"a.so", b"b.txt", b"deep", b"deep/b.so"], 1)
    assert numbers(top) == dict.fromkeys([b"usr", b"usr/[x]", b"usr/[x]/c.so"], 1)


def properties(tree: Tree) -> dict[bytes, tuple[bytes | None, int]]:
    """The property of each path, and its flags."""
    flags = {path: int(tree.flags[i]) for path, i in paths_of(tree).items()}
    return {path: (dict(entry.xattrs).get(PROPERTY), flags[path]) for path, entry in in_tables(tree).items()}


def test_the_property(tree: Tree) -> None:
    choices = parse_compressions("zstd:9,boot=no,usr/lib=lzo")
    done = with_property(with_compression(tree, choices.rules), choices)
    check_order(done)
    assert properties(done) == {
        b"": (b"zstd", COMPRESS),
        b"a.so": (b"zstd", COMPRESS),
        b"boot": (b"none", NEVER),
        b"boot/grub": (b"none", NEVER),
        b"boot/grub/x.so": (b"none", NEVER),
        b"boot/link": (None, 0),
        b"usr": (b"zstd", COMPRESS),
        b"usr/[x]": (b"zstd", COMPRESS),
        b"usr/[x]/c.so": (b"zstd", COMPRESS),
        b"usr/lib": (b"lzo", COMPRESS),
        b"usr/lib/a.so": (b"lzo", COMPRESS),
        b"usr/lib/b.txt": (b"lzo", COMPRESS),
        b"usr/lib/deep": (b"lzo", COMPRESS),
        b"usr/lib/deep/b.so": (b"lzo", COMPRESS),
        b"zz": (b"none", NEVER),
    }


def test_no_property_without_a_choice_or_against_flags(tree: Tree) -> None:
    choices = parse_compressions("usr=zlib")
    done = with_flags(with_compression(tree, choices.rules), [(b"usr/lib/deep", int(COW)), (b"usr/lib/a.so", int(SUM))])
    found = {path: value for path, value in properties(with_property(done, choices)).items() if value != (None, 0)}
    assert found == {
        b"usr": (b"zlib", COMPRESS),
        b"usr/[x]": (b"zlib", COMPRESS),
        b"usr/[x]/c.so": (b"zlib", COMPRESS),
        b"usr/lib": (b"zlib", COMPRESS),
        b"usr/lib/a.so": (None, SUM),
        b"usr/lib/b.txt": (b"zlib", COMPRESS),
        b"usr/lib/deep": (None, COW),
        b"usr/lib/deep/b.so": (None, COW | SUM),
    }


def test_the_property_beside_other_attributes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"data")
    for name in ("user.a", "user.z", "user.b"):
        os.setxattr(root / "file", name, name.encode())
    choices = parse_compressions("zstd")
    done = with_property(scan_directory(root, warn=never), choices)
    again = with_property(done, parse_compressions("lzo"))  # as if the source had had the property
    for tree, value in ((done, b"zstd"), (again, b"lzo")):
        check_order(tree)
        assert in_tables(tree)[b"file"].xattrs == (
            (PROPERTY, value),
            *((name.encode(), name.encode()) for name in ("user.a", "user.b", "user.z")),
        )
        assert in_tables(tree)[b""].xattrs == ((PROPERTY, value),)
