"""A tree divided into subvolumes, and flags that go down a tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cowlib.errors import UsageError
from cowlib.format import InodeFlag
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.subvolumes import partition, with_flags
from mkfs_cow.source.tables import Tree
from tests.mkfs_cow.source.compared import check_order, data_of, in_tables, on_disk, paths_of, same_tables

COW, SUM = InodeFlag.NODATACOW, InodeFlag.NODATASUM


def never(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Directories in directories, and hard links across them."""
    root = tmp_path / "root"
    (root / "home" / "ann" / "deep").mkdir(parents=True)
    (root / "var" / "lib").mkdir(parents=True)
    (root / "a").write_bytes(b"shared by all")
    (root / "home" / "z").hardlink_to(root / "a")
    (root / "home" / "ann" / "deep" / "again").hardlink_to(root / "a")
    (root / "home" / "ann" / "twice").hardlink_to(root / "a")
    (root / "home" / "ann" / "link").symlink_to("deep")
    (root / "var" / "lib" / "disk").write_bytes(b"blocks" * 1000)
    return root


@pytest.fixture
def tree(folder: Path) -> Tree:
    return scan_directory(folder, warn=never)


def test_each_is_like_a_scan_of_its_own(folder: Path, tree: Tree) -> None:
    top, ann, home, var = partition(tree, [b"home/ann", b"home", b"var"])
    assert same_tables(ann, scan_directory(folder / "home" / "ann", warn=never))
    assert same_tables(var, scan_directory(folder / "var", warn=never))
    assert paths_of(home) == {b"": 0, b"ann": ~1, b"z": 1}
    assert paths_of(top) == {b"": 0, b"a": 1, b"home": ~2, b"var": ~3}
    assert ann.nlink[ann.find(b"twice")] == 2
    assert top.nlink[top.find(b"a")] == home.nlink[home.find(b"z")] == 1
    for part in (top, ann, home, var):
        check_order(part)
    for part, path in ((top, b"a"), (home, b"z"), (ann, b"twice")):
        inode = part.find(path)
        assert inode is not None
        assert list(data_of(part, inode)) == [(0, b"shared by all")]


def test_everything_is_somewhere(folder: Path, tree: Tree) -> None:
    parts = dict(zip([b"", b"home/ann/deep", b"var/lib"], partition(tree, [b"home/ann/deep", b"var/lib"]), strict=True))
    found = {
        (prefix + b"/" + path).strip(b"/"): (entry.mode, entry.mtime, entry.target)
        for prefix, part in parts.items()
        for path, entry in in_tables(part).items()
    }
    assert found == {path: (e.mode, e.mtime, e.target) for path, e in on_disk(folder).items()}


def test_none(tree: Tree) -> None:
    assert partition(tree, []) == [tree]


@pytest.mark.parametrize("paths", [[b"a"], [b"nowhere"], [b""], [b"home", b"home"], [b"home/ann/link"]])
def test_no_subvolume(tree: Tree, paths: list[bytes]) -> None:
    with pytest.raises(UsageError):
        partition(tree, paths)


def flags_of(tree: Tree) -> dict[bytes, int]:
    return {path: int(tree.flags[i]) for path, i in paths_of(tree).items() if i >= 0 and tree.flags[i]}


def test_flags_go_down(tree: Tree) -> None:
    given = [(b"home/ann", int(COW)), (b"var", int(SUM))]
    assert flags_of(with_flags(tree, given)) == {
        b"home/ann": COW,
        b"home/ann/deep": COW,
        b"home/ann/deep/again": COW | SUM,
        b"home/ann/link": COW,
        b"home/ann/twice": COW | SUM,
        b"home/z": COW | SUM,
        b"a": COW | SUM,
        b"var/lib/disk": SUM,
    }


def test_flags_of_one_file(tree: Tree) -> None:
    assert flags_of(with_flags(tree, [(b"var/lib/disk", int(COW))])) == {b"var/lib/disk": COW | SUM}
    with pytest.raises(UsageError):
        with_flags(tree, [(b"nowhere", int(COW))])


def test_flags_end_at_a_subvolume(tree: Tree) -> None:
    top, home = partition(tree, [b"home"])
    assert flags_of(with_flags(top, [(b"", int(COW))])) == {
        b"": COW,
        b"a": COW | SUM,
        b"var": COW,
        b"var/lib": COW,
        b"var/lib/disk": COW | SUM,
    }
    assert not flags_of(home)


def test_lost_files(tree: Tree) -> None:
    lost = np.zeros(len(tree), dtype=np.bool_)
    lost[tree.find(b"a")] = True
    left = tree.without(lost)
    assert set(paths_of(left)) == {
        *(b"", b"home", b"home/ann", b"home/ann/deep", b"home/ann/link"),
        *(b"var", b"var/lib", b"var/lib/disk"),
    }
    assert len(left) == len(tree)
    assert left.nlink[tree.find(b"a")] == 0
    assert left.size[left.find(b"home/ann")] == 2 * len(b"deep" + b"link")
    check_order(left)
