"""A directory read into tables: everything the system knows of it, in an order of its own."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from cowlib.errors import CowError
from mkfs_cow.source.contents import shown
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.exclude import excluder
from tests import oracles
from tests.mkfs_cow.source.compared import check_order, data_of, in_tables, on_disk, paths_of, same_tables
from tests.trees import data_ranges


def never(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A few files that anybody may make."""
    folder = tmp_path / "small"
    (folder / "b" / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"a")
    (folder / "b" / "again").hardlink_to(folder / "a")
    (folder / "b" / "deep" / "file").write_bytes(b"f" * 5000)
    (folder / "c").mkdir()
    (folder / "d").symlink_to("b/deep")
    return folder


def test_all_that_the_system_says(sample_tree: Path) -> None:
    before = on_disk(sample_tree)
    tree = scan_directory(sample_tree, warn=never)
    assert in_tables(tree) == before
    check_order(tree)


def test_data_is_where_the_segments_say(sample_tree: Path) -> None:
    tree = scan_directory(sample_tree, warn=never)
    for path, inode in paths_of(tree).items():
        if not stat.S_ISREG(int(tree.mode[inode])):
            continue
        with open(os.path.join(os.fsencode(sample_tree), path), "rb") as file:
            found = list(data_of(tree, inode))
            ranges = data_ranges(file.fileno(), int(tree.size[inode]))
            assert sum(len(data) for _, data in found) == sum(
                min(end, tree.size[inode]) - start for start, end in ranges
            )
            for offset, data in found:
                file.seek(offset)
                assert file.read(len(data)) == data


def test_order_is_that_of_the_names(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = scan_directory(small, warn=never)
    assert list(paths_of(tree).items()) == [
        (b"", 0),
        (b"a", 1),
        (b"b", 3),
        (b"c", 6),
        (b"d", 2),
        (b"b/again", 1),
        (b"b/deep", 4),
        (b"b/deep/file", 5),
    ]
    listed = os.scandir

    class Reversed:
        def __init__(self, fd: int) -> None:
            with listed(fd) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *exc: object) -> None:
            pass

    monkeypatch.setattr("mkfs_cow.source.directory.os.scandir", Reversed)
    assert same_tables(tree, scan_directory(small, warn=never))


def test_without_a_trace(small: Path) -> None:
    """Reading leaves access times as they are, so the second time is like the first."""
    os.utime(small / "b", ns=(0, 1))
    first = scan_directory(small, warn=never)
    assert same_tables(first, scan_directory(small, warn=never))
    assert (small / "b").stat().st_atime_ns == 0


def test_clamped_times(small: Path) -> None:
    os.utime(small / "a", ns=(1, 5_000_000_003))
    os.utime(small / "c", ns=(1, 1_000_000_000_000_000_007))
    tree = scan_directory(small, clamp=1_000_000_000, warn=never)
    a, c = (tree.find(name) for name in (b"a", b"c"))
    for times in (tree.mtime, tree.atime, tree.ctime, tree.otime):
        assert (times.sec[a], times.nsec[a]) == (5, 3)
        assert (times.sec[c], times.nsec[c]) == (1_000_000_000, 0)


def test_otime_is_mtime(small: Path) -> None:
    tree = scan_directory(small, warn=never)
    assert (tree.otime.sec == tree.mtime.sec).all()
    assert (tree.otime.nsec == tree.mtime.nsec).all()


def test_excluded(small: Path) -> None:
    tree = scan_directory(small, exclude=excluder(["deep/", "/a"]), warn=never)
    assert set(paths_of(tree)) == {b"", b"b", b"b/again", b"c", b"d"}
    assert tree.nlink[tree.find(b"b/again")] == 1


def test_ignored(small: Path) -> None:
    status = (small / "a").stat()
    tree = scan_directory(small, ignore=[(status.st_dev, status.st_ino)], warn=never)
    assert set(paths_of(tree)) == {b"", b"b", b"b/deep", b"b/deep/file", b"c", b"d"}


def test_root_may_be_a_link(small: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(small)
    assert same_tables(scan_directory(tmp_path / "link", warn=never), scan_directory(f"{small}//", warn=never))


@pytest.mark.parametrize("what", ["nowhere", "file"])
def test_root_must_be_a_directory(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CowError, match=what):
        scan_directory(tmp_path / what, warn=never)


def test_paths_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("n" * 200, dir_fd=here)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with os.fdopen(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as file:
        file.write(b"deep down")
    os.setxattr(f"/proc/self/fd/{here}/file", "user.name", b"value")
    os.close(here)
    tree = scan_directory(tmp_path, warn=never)
    inode = tree.find(b"/".join([b"n" * 200] * 30) + b"/file")
    assert inode is not None
    assert list(data_of(tree, inode)) == [(0, b"deep down")]
    assert list(tree.xattrs.name) == [b"user.name"]


def test_names_in_messages() -> None:
    assert shown("a/größe".encode()) == "a/größe"
    assert shown(b"\xff\n\x1b[1m") == "\\xff\\n\\x1b[1m"


def test_far_times(tmp_path: Path) -> None:
    """Times that nanoseconds in 64 bits cannot say, if the filesystem can."""
    (tmp_path / "file").touch()
    far = 20_000_000_000
    os.utime(tmp_path / "file", (far, far))
    kept = int((tmp_path / "file").stat().st_mtime)
    tree = scan_directory(tmp_path, warn=never)
    assert tree.mtime.sec[tree.find(b"file")] == kept


def test_what_vanishes_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a file and a directory go while the scan is at them."""
    victims = {"a": small / "a", "d": small / "d"}
    listed = os.scandir

    class Late:
        def __init__(self, fd: int) -> None:
            with listed(fd) as entries:
                self.entries = list(entries)

        def __enter__(self) -> list[os.DirEntry[str]]:
            for entry in self.entries:
                if entry.name in victims:
                    victims.pop(entry.name).unlink()
            return self.entries

        def __exit__(self, *exc: object) -> None:
            (small / "c").rmdir() if (small / "c").exists() else None

    monkeypatch.setattr("mkfs_cow.source.directory.os.scandir", Late)
    lines: list[str] = []
    tree = scan_directory(small, warn=lines.append)
    assert set(paths_of(tree)) == {b"", b"b", b"b/again", b"b/deep", b"b/deep/file"}
    check_order(tree)
    assert sorted(line.split(":")[0].rpartition("/")[2] for line in lines) == ["a", "c", "d"]
    assert all("vanished" in line for line in lines)


def test_unreadable_directory_is_left_out() -> None:
    """As somebody who is not root, in a place that they can reach."""
    oracles.require_oracle("root")
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "closed").mkdir()
        (folder / "closed" / "file").touch()
        (folder / "closed").chmod(0o700)
        (folder / "open").touch()
        folder.chmod(0o755)
        os.seteuid(65534)
        try:
            tree = scan_directory(folder, warn=lines.append)
        finally:
            os.seteuid(0)
    assert set(paths_of(tree)) == {b"", b"open"}
    assert len(lines) == 1
    assert "closed: cannot be read, left out" in lines[0]
