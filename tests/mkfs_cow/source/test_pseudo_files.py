"""Pseudo files in a tree: as if what they define had been scanned."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from cowlib.errors import UsageError
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.empty import empty_tree
from mkfs_cow.source.pseudo import read_pseudo
from mkfs_cow.source.pseudo_files import with_pseudo_files
from mkfs_cow.source.tables import Tree
from tests.mkfs_cow.source.compared import SECOND, check_order, data_of, in_tables, paths_of, same_tables


def never(line: str) -> None:
    raise AssertionError(line)


def scanned(folder: Path) -> Tree:
    """A directory with no times: all of them are later than 1970."""
    return scan_directory(folder, clamp=0, warn=never)


def applied(tree: Tree, definitions: str, *, root: Path | None = None, clamp: int | None = 0, now: int = 7) -> Tree:
    path = (root.parent if root else Path(os.environ.get("TMPDIR", "/tmp"))) / f"pseudo-{os.getpid()}"
    path.write_text(definitions)
    try:
        found = read_pseudo([path])
        done = with_pseudo_files(tree, found, now=now, clamp=clamp, root=root, ignore=[], warn=never)
    finally:
        path.unlink()
    check_order(done)
    return done


def contents(tree: Tree, path: bytes) -> bytes:
    inode = tree.find(path)
    assert inode is not None
    return b"".join(data for _, data in data_of(tree, inode))


@pytest.mark.parametrize("seed", range(20))
def test_as_if_it_had_been_there(tmp_path: Path, seed: int) -> None:
    """Some of a made tree is taken away and comes back by definitions, in any order: the tables are the same."""
    source = random.Random(seed)
    full, part = tmp_path / "full", tmp_path / "part"
    folders = [full]
    full.mkdir(mode=0o755)
    definitions: dict[Path, str] = {}
    owner = f"{os.geteuid()} {os.getegid()}"
    files: list[Path] = []
    for number in range(40):
        path = source.choice(folders) / f"{source.choice('abz-')}{number}"
        match source.choice("dfsLi" if files else "dfsi"):
            case "d":
                path.mkdir()
                path.chmod(0o750)
                folders.append(path)
                definitions[path] = f"d 750 {owner}"
            case "f":
                path.write_bytes(b"%d\n" % number if number % 3 else b"")
                path.chmod(0o640)
                files.append(path)
                definitions[path] = f"f 640 {owner} " + (f"echo {number}" if number % 3 else ":")
            case "s":
                path.symlink_to(f"to-{number}")
                definitions[path] = f"s 0 {owner} to-{number}"
            case "i":
                os.mkfifo(path)
                path.chmod(0o600)
                definitions[path] = f"i 600 {owner} f"
            case "L":
                target = source.choice(files)
                path.hardlink_to(target)
                definitions[path] = f"L {target.relative_to(full)}"
    subprocess.run(["cp", "-a", full, part], check=True)
    gone = {path for path in definitions if source.random() < 0.5}
    gone |= {path for path in definitions if any(parent in gone for parent in path.parents)}
    # A link stays only if its file does, and all names of a file are taken away together.
    gone |= {path for path, text in definitions.items() if text.startswith("L ") and full / text[2:] in gone}
    lines = [f"/{path.relative_to(full)} {definitions[path]}" for path in gone]
    for path in sorted(gone, key=lambda path: -len(path.parts)):
        there = part / path.relative_to(full)
        there.rmdir() if stat.S_ISDIR(there.lstat().st_mode) else there.unlink()
    source.shuffle(lines)
    if not lines:
        lines = ["/ d 755 " + owner]
    tree = applied(scanned(part), "\n".join(lines) + "\n", root=part)
    expected = scanned(full)
    assert same_tables(tree, expected)
    for name, inode in paths_of(expected).items():
        if stat.S_ISREG(int(expected.mode[inode])):
            assert contents(tree, name) == contents(expected, name), name


def test_from_nothing() -> None:
    tree = applied(
        empty_tree(0),
        "/ d 711 8 9\ndev d 755 0 0\ndev/null c 666 0 0 1 3\ndev/sda b 660 0 6 8 0\nbin s 0 1 2 usr/bin\n",
    )
    found = {path: (e.mode, e.uid, e.gid, e.rdev, e.target) for path, e in in_tables(tree).items()}
    assert found == {
        b"": (0o040711, 8, 9, (0, 0), b""),
        b"bin": (0o120777, 1, 2, (0, 0), b"usr/bin"),
        b"dev": (0o040755, 0, 0, (0, 0), b""),
        b"dev/null": (0o020666, 0, 0, (1, 3), b""),
        b"dev/sda": (0o060660, 0, 6, (8, 0), b""),
    }


def test_times() -> None:
    text = "now d 755 0 0\nold D 5 755 0 0\nlate D 2000 755 0 0\n/ M 6 755 0 0\n"
    tree = applied(empty_tree(1), text, clamp=1000, now=7)
    assert {path: e.mtime for path, e in in_tables(tree).items()} == {
        b"": 6 * SECOND,
        b"late": 1000 * SECOND,
        b"now": 7 * SECOND,
        b"old": 5 * SECOND,
    }
    assert {path: e.ctime for path, e in in_tables(tree).items()}[b"old"] == 5 * SECOND
    text = "/ M 2000 755 0 0\n"
    assert applied(empty_tree(1), text, clamp=1000).mtime.sec.tolist() == [1000]
    assert applied(empty_tree(1), text, clamp=None).mtime.sec.tolist() == [2000]


def test_changes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "file").write_bytes(b"data")
    (root / "link").symlink_to("file")
    os.setxattr(root / "file", "user.one", b"1")
    os.setxattr(root / "file", "user.two", b"2")
    text = "file m 4755 1 2\nfolder d 700 3 4\nlink m 600 5 6\n"
    text += "file x user.one=new\nfile x user.three=3\nfolder x user.a=b\n"
    found = in_tables(applied(scanned(root), text, root=root))
    assert {path: (e.mode, e.uid, e.gid) for path, e in found.items() if path} == {
        b"file": (0o104755, 1, 2),
        b"folder": (0o040700, 3, 4),
        b"link": (0o120777, 5, 6),
    }
    assert found[b"file"].xattrs == ((b"user.one", b"new"), (b"user.three", b"3"), (b"user.two", b"2"))
    assert found[b"folder"].xattrs == ((b"user.a", b"b"),)


def test_files_of_this_machine(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "in").mkdir(parents=True)
    (root / "in" / "file").write_bytes(b"inside")
    outside.mkdir()
    (outside / "data").write_bytes(b"outside" * 1000)
    (outside / "data").chmod(0o604)
    os.utime(outside / "data", ns=(1, 2 * SECOND + 3))
    os.setxattr(outside / "data", "user.x", b"y")
    (outside / "link").symlink_to("data")
    (outside / "to-root").symlink_to(root)
    text = (
        f"one l {outside}/data\ntwo h {outside}/link\nthree l {outside}/link\n"
        f"four l {outside}/to-root/in/file\nfive L four\n"
    )
    tree = applied(scan_directory(root, warn=never), text, root=root, clamp=None)
    found = in_tables(tree)
    paths = paths_of(tree)
    assert paths[b"one"] == paths[b"two"] and found[b"one"].nlink == 2
    assert contents(tree, b"one") == b"outside" * 1000
    assert (found[b"one"].mode, found[b"one"].mtime) == (0o100604, 2 * SECOND + 3)
    assert found[b"one"].xattrs == ((b"user.x", b"y"),)
    assert found[b"three"].target == b"data"
    assert paths[b"four"] == paths[b"five"] == paths[b"in/file"] and found[b"four"].nlink == 3
    assert contents(tree, b"five") == b"inside"


def test_a_file_of_this_machine_that_changes(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"before")
    tree = applied(empty_tree(0), f"x l {tmp_path}/data\n")
    inode = tree.find(b"x")
    assert inode is not None
    fd = tree.contents.open(inode)
    assert not tree.contents.changed(fd, inode)
    (tmp_path / "data").write_bytes(b"after all")
    assert tree.contents.changed(fd, inode)
    tree.contents.close(fd)
    with pytest.raises(OSError):
        os.fstat(fd)
    assert tree.contents.name(inode) == f"{tmp_path}/data"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/b d 755 0 0", ":1: a/b: there is no directory a"),
        ("file/b d 755 0 0", ":1: file/b: file is no directory"),
        ("link/b d 755 0 0", ":1: link/b: link is no directory"),
        ("\nfile c 666 0 0 1 3", ":2: file is there already"),
        ("file d 755 0 0", ":1: file is there already"),
        ("/ c 666 0 0 1 3", ":1: the root directory is there already"),
        ("a d 755 0 0\nb d 755 0 0\na d 755 0 0", ":3: a is defined already in line 1"),
        ("file m 755 0 0\n/file m 755 0 0", ":2: file is defined already in line 1"),
        ("file x user.a=1\nfile x user.b=1\nfile x user.a=1", ":3: file is defined already in line 1"),
        ("a m 755 0 0", ":1: there is no a to change"),
        ("a x user.a=b", ":1: there is no a to change"),
        ("a L nowhere", ":1: nowhere is no file in the tree to link to"),
        ("a L folder", ":1: folder is no file in the tree to link to"),
        ("a l /nowhere", ":1: /nowhere: No such file or directory"),
        ("a l /usr", ":1: /usr is a directory"),
        ("a f 644 0 0 exit 3", ":1: a: its command exits with 3"),
        ("a f 644 0 0 kill -9 $$", ":1: a: its command is ended by signal 9"),
    ],
)
def test_what_cannot_be_carried_out(tmp_path: Path, text: str, words: str) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "file").write_bytes(b"data")
    (root / "link").symlink_to("folder")
    with pytest.raises(UsageError, match=words):
        applied(scanned(root), text, root=root)
