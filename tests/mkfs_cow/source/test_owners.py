"""Owners by number: in inodes, in access lists, in capabilities."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cowlib.errors import UsageError
from mkfs_cow.source.builder import TreeBuilder
from mkfs_cow.source.contents import NoContents
from mkfs_cow.source.owners import all_root, mapped, read_owner_map
from mkfs_cow.source.tables import Segments, Tree
from tests.mkfs_cow.source.compared import in_tables, same_tables

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
NONE = 2**32 - 1


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Entries are tag, permissions, id: 1 owner, 2 user, 4 group of the file, 8 group, 16 mask, 32 other."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def tree_of(*files: tuple[int, int, dict[bytes, bytes]]) -> Tree:
    """A root of 0:0 and in it files 0, 1, ...: owner, group, attributes."""
    builder = TreeBuilder()
    builder.inode(0o040755, 0, 0, 0, 0, (0,) * 4)
    for number, (uid, gid, xattrs) in enumerate(files):
        inode = builder.inode(0o100644, uid, gid, 0, 0, (0,) * 4)
        builder.name(0, inode, b"%d" % number)
        builder.xattrs(inode, xattrs.items())
    nothing = np.empty(0, np.int64)
    return builder.tree(Segments(nothing, nothing, nothing, nothing), NoContents(), None)


def map_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "map"
    path.write_text(text)
    return path


def owners(tree: Tree) -> list[tuple[int, int]]:
    return list(zip(tree.uid.tolist(), tree.gid.tolist(), strict=True))


def test_ranges(tmp_path: Path) -> None:
    path = map_file(tmp_path, "# a container\nboth 100000 0 65536\nuid 1000 7\ngid 5 4294967294\nuid 4294967294 1\n")
    files: list[tuple[int, int, dict[bytes, bytes]]] = [
        (100000, 165535, {}),
        (165536, 99999, {}),
        (1000, 1000, {}),
        (1001, 5, {}),
        (2**32 - 2, 4, {}),
    ]
    assert owners(mapped(tree_of(*files), read_owner_map(path))) == [
        (0, 0),
        (0, 65535),
        (165536, 99999),
        (7, 1000),
        (1001, 2**32 - 2),
        (1, 4),
    ]


def test_two_that_change_places(tmp_path: Path) -> None:
    path = map_file(tmp_path, "uid 1 2\nuid 2 1\n")
    assert owners(mapped(tree_of((1, 1, {}), (2, 2, {})), read_owner_map(path))) == [(0, 0), (2, 1), (1, 2)]


def test_access_lists(tmp_path: Path) -> None:
    path = map_file(tmp_path, "uid 1000 5\nuid 3 9 2\ngid 1000 6\n")
    before = acl(
        (1, 7, NONE), (2, 5, 3), (2, 4, 6), (2, 6, 1000), (4, 5, NONE), (8, 1, 1000), (16, 7, NONE), (32, 4, NONE)
    )
    after = acl((1, 7, NONE), (2, 6, 5), (2, 4, 6), (2, 5, 9), (4, 5, NONE), (8, 1, 6), (16, 7, NONE), (32, 4, NONE))
    short, other = acl((1, 7, NONE))[:-1], b"\3\0\0\0" + before[4:]
    files = [
        (0, 0, {ACCESS: before, DEFAULT: before, b"user.x": before}),
        (0, 0, {ACCESS: short, DEFAULT: other}),
        (0, 0, {ACCESS: b""}),
    ]
    tree = mapped(tree_of(*files), read_owner_map(path))
    entries = in_tables(tree)
    assert entries[b"0"].xattrs == ((ACCESS, after), (DEFAULT, after), (b"user.x", before))
    assert entries[b"1"].xattrs == ((ACCESS, short), (DEFAULT, other))  # not what it should be, and left alone
    assert entries[b"2"].xattrs == ((ACCESS, b""),)


def test_an_access_list_with_one_user_twice(tmp_path: Path) -> None:
    path = map_file(tmp_path, "uid 10 7\n")
    tree = tree_of((0, 0, {}), (0, 0, {DEFAULT: acl((1, 7, NONE), (2, 5, 7), (2, 4, 10), (4, 5, NONE), (16, 7, NONE))}))
    with pytest.raises(UsageError, match=r"^1: the owner map makes two users of its access list one, 7$"):
        mapped(tree, read_owner_map(path))


def test_capabilities(tmp_path: Path) -> None:
    name = b"security.capability"
    third = struct.pack("<5I", 0x03000001, 1, 2, 3, 4)
    second = struct.pack("<5I", 0x02000001, 1, 2, 3, 4)
    later = struct.pack("<6I", 0x04000001, 1, 2, 3, 4, 100000)  # as long, but who knows what it says
    values = (third + struct.pack("<I", 100000), second, later)
    tree = tree_of(*((0, 0, {name: value}) for value in values))
    tree = mapped(tree, read_owner_map(map_file(tmp_path, "uid 100000 0 1000\n")))
    entries = in_tables(tree)
    assert entries[b"0"].xattrs == ((name, third + struct.pack("<I", 0)),)
    assert entries[b"1"].xattrs == ((name, second),)
    assert entries[b"2"].xattrs == ((name, later),)


def test_what_nobody_owns_stays(tmp_path: Path) -> None:
    tree = tree_of(
        (1, 2, {ACCESS: acl((1, 7, NONE), (2, 5, 7), (4, 5, NONE), (16, 7, NONE), (32, 4, NONE))}), (3, 4, {})
    )
    assert same_tables(mapped(tree, read_owner_map(map_file(tmp_path, "both 99 0\n"))), tree)


def test_all_root() -> None:
    tree = tree_of((1, 2, {b"user.x": b"1"}), (3, 4, {}))
    assert owners(all_root(tree)) == [(0, 0)] * 3
    assert same_tables(replace(all_root(tree), uid=tree.uid, gid=tree.gid), tree)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("uid 1\n", ":1: the new id is missing"),
        ("\nuid\n", ":2: the old id is missing"),
        ("user 1 2\n", ":1: 'user' is not uid, gid or both"),
        ("uid root 0\n", ":1: the old id 'root' is not a number"),
        ("uid 0 -1\n", ":1: the new id '-1' is not a number"),
        ("uid 4294967295 0\n", ":1: the old id '4294967295' is not a number from 0 to 4294967294"),
        ("uid 0 1 2 3\n", ":1: '3' is too much"),
        ("uid 0 1 0\n", ":1: a range of no ids"),
        ("uid 0 4294967290 6\n", ":1: the range ends above the highest id"),
        ("uid 0 5 10\ngid 0 1\n\nuid 9 1\n", ":4: uid 9 is mapped already in line 1"),
        ("gid 9 1\nboth 0 5 10\n", ":2: gid 9 is mapped already in line 1"),
        ("uid 1 2\nuid 1 2\n", ":2: uid 1 is mapped already in line 1"),
        ("", "defines nothing"),
    ],
)
def test_what_is_wrong_with_a_map(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_owner_map(map_file(tmp_path, text))


def test_a_range_up_to_the_highest(tmp_path: Path) -> None:
    found = read_owner_map(map_file(tmp_path, "uid 0 4294967290 5\n"))
    assert found.users.apply(np.array([4, 5], np.uint32)).tolist() == [4294967294, 5]
