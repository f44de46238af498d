"""What goes in, as it is asked for on the command line: subvolumes of every source, owners, patterns, lists, times."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import mkfs, run_command
from tests.mkfs_cow.source.test_archive import made, member


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "a/b").mkdir(parents=True)
    (folder / "var/log").mkdir(parents=True)
    (folder / "a/b/file").write_text("file")
    (folder / "a/link").symlink_to("b/file")
    os.link(folder / "a/b/file", folder / "a/new\nline")
    return folder


def btrfs(*arguments: str | Path) -> str:
    return subprocess.run([oracles.progs().btrfs, *arguments], check=True, capture_output=True, text=True).stdout


def flags_of_the_top(image: Path) -> str:
    said = btrfs("inspect-internal", "dump-tree", "-t", "root", image)
    return re.findall(r"key \(FS_TREE ROOT_ITEM 0\).*?flags (0x\d+)", said, re.DOTALL)[0]


# -- the top directory as a subvolume -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "readonly"),
    [("default:/", False), ("rw:/", False), ("/", False), ("ro:/", True), ("default-ro:/", True), ("ro:.", True)],
)
def test_the_top_directory(tree: Path, image: Path, spec: str, readonly: bool) -> None:
    mkfs("-q", "--rootdir", tree, "--subvol", spec, "--subvol", "a", image)
    oracles.btrfs_check(image)
    assert flags_of_the_top(image) == ("0x1" if readonly else "0x0")
    superblock = btrfs("inspect-internal", "dump-super", image)
    assert "DEFAULT_SUBVOL" not in superblock  # as mkfs.btrfs has it
    with oracles.loop(image) as device, oracles.mounted(device) as mountpoint:
        assert btrfs("subvolume", "get-default", mountpoint) == "ID 5 (FS_TREE)\n"
        assert btrfs("property", "get", mountpoint, "ro") == f"ro={'true' if readonly else 'false'}\n"
        oracles.assert_same_tree(tree, mountpoint)


def test_a_default_below_a_read_only_top(tree: Path, image: Path) -> None:
    mkfs("-q", "--rootdir", tree, "--subvol", "ro:/", "--subvol", "default:a", image)
    with oracles.judged(image) as mountpoint:
        (mountpoint / "new").touch()
        assert sorted(os.listdir(mountpoint)) == ["b", "link", "new", "new\nline"]


# -- an empty filesystem --------------------------------------------------------------------------------------


def test_subvolumes_in_an_empty_filesystem(image: Path) -> None:
    options = ["--subvol", "default:@/root", "--subvol", "ro:@home", "--subvol", "@", "--root-owner", "1000:1001"]
    mkfs("-q", *options, "--inode-flags", "nodatacow:@home", image)
    oracles.btrfs_check(image)
    with oracles.loop(image) as device, oracles.mounted(device, options=["subvolid=5"]) as mountpoint:
        assert sorted(re.findall(r"path (\S+)", btrfs("subvolume", "list", mountpoint))) == ["@", "@/root", "@home"]
        assert btrfs("subvolume", "get-default", mountpoint).split()[-1] == "@/root"
        found = [mountpoint, *mountpoint.rglob("*")]
        assert [str(path.relative_to(mountpoint)) for path in sorted(found)] == [".", "@", "@/root", "@home"]
        for path in found:
            status = path.lstat()
            assert (oct(status.st_mode), status.st_uid, status.st_gid) == ("0o40755", 1000, 1001)
        (mountpoint / "@/root/file").touch()
        with pytest.raises(OSError, match="Read-only"):
            (mountpoint / "@home/file").touch()


def test_directories_on_the_way_in_an_empty_filesystem(image: Path) -> None:
    mkfs("-q", "--subvol", "a/b/c", "--subvol", "a/d", image)
    with oracles.judged(image) as mountpoint:
        assert sorted(str(path.relative_to(mountpoint)) for path in mountpoint.rglob("*")) == [
            "a",
            "a/b",
            "a/b/c",
            "a/d",
        ]
        assert sorted(re.findall(r"path (\S+)", btrfs("subvolume", "list", mountpoint))) == ["a/b/c", "a/d"]


def test_the_owner_of_a_filled_top(tree: Path, image: Path) -> None:
    mkfs("-q", "--rootdir", tree, "--root-owner", "7:8", image)
    with oracles.judged(image) as mountpoint:
        assert (mountpoint.stat().st_uid, mountpoint.stat().st_gid) == (7, 8)
        assert (mountpoint / "a").stat().st_uid == (tree / "a").stat().st_uid


# -- subvolumes of an archive ---------------------------------------------------------------------------------


def test_subvolumes_of_an_archive(tmp_path: Path, image: Path) -> None:
    """Also of a directory that the archive has only in the names of others."""
    members = [
        member("usr/bin/tool", b"tool" * 2000),
        member("usr/lib", kind=tarfile.DIRTYPE, mode=0o755),
        member("usr/lib/tool", kind=tarfile.LNKTYPE, linkname="usr/bin/tool"),
        member("home", kind=tarfile.DIRTYPE, mode=0o711, uid=5),
        member("home/file", b"file"),
    ]
    archive = made(tmp_path / "archive", *members)
    mkfs("-q", "--from-tar", archive, "--subvol", "ro:usr/bin", "--subvol", "default:home", image)
    with oracles.judged(image) as mountpoint:
        assert (mountpoint / "file").read_bytes() == b"file"
        assert (mountpoint.stat().st_mode & 0o7777, mountpoint.stat().st_uid) == (0o711, 5)
    with oracles.judged(image, "subvolid=5") as mountpoint:
        assert sorted(re.findall(r"path (\S+)", btrfs("subvolume", "list", mountpoint))) == ["home", "usr/bin"]
        for name in ("bin", "lib"):  # a hard link between two of them is a file in each
            assert (mountpoint / "usr" / name / "tool").read_bytes() == b"tool" * 2000
            assert (mountpoint / "usr" / name / "tool").stat().st_nlink == 1


# -- what is told ---------------------------------------------------------------------------------------------


def test_verbose_lists_every_name(tree: Path, image: Path) -> None:
    expected = ["./", "a/", "var/", "a/b/", "a/link -> b/file", "a/new\\nline", "a/b/file", "var/log/"]
    said = mkfs("-q", "-v", "--rootdir", tree, "--subvol", "var/log", image)
    assert said.splitlines() == expected
    lines = mkfs("-f", "--verbose", "--rootdir", tree, "--exclude", "var", image).splitlines()
    assert lines[:6] == ["./", "a/", "a/b/", "a/link -> b/file", "a/new\\nline", "a/b/file"]
    assert lines[6].startswith("Label:")
    said_json = run_command("mkfs_cow", "-f", "-v", "--json", "--rootdir", tree, "--subvol", "var/log", image)
    assert said_json.stderr.splitlines() == expected
    assert said_json.stdout.startswith("{")


def test_patterns_that_match_nothing_are_named(tree: Path, image: Path) -> None:
    patterns = ["./var/log", "*.o", f"{tree}/a/b", "a/link/", "nothing"]
    said = run_command("mkfs_cow", "-q", "--rootdir", tree, *(f"--exclude={p}" for p in patterns), image)
    assert (said.returncode, said.stdout) == (0, "")
    assert said.stderr.splitlines() == [
        f"mkfs.cow: warning: --exclude {pattern}: matches nothing that is not left out anyway"
        for pattern in ("*.o", "a/link/", "nothing")
    ]
    with oracles.judged(image) as mountpoint:
        found = sorted(str(path.relative_to(mountpoint)) for path in mountpoint.rglob("*"))
        assert found == ["a", "a/link", "a/new\nline", "var"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], set()),
        (["--compress", "zstd"], {"zstandard", "zstd"}),
        (["--compress", "zlib"], {"zlib"}),
        (["--compress", "lzo"], {"lzallright"}),
    ],
)
def test_libraries_that_compressed_are_named(tree: Path, image: Path, options: list[str], names: set[str]) -> None:
    (tree / "compressible").write_bytes(bytes(100_000))
    made_of = json.loads(mkfs("--json", "--rootdir", tree, *options, image))
    assert set(made_of["libraries"]) == names
    assert all(re.fullmatch(r"\d+\.\d+[.\d]*", version) for version in made_of["libraries"].values())


# -- times ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["--rootdir", "--from-tar"])
def test_source_date_epoch_takes_back_only_later_times(tmp_path: Path, image: Path, source: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, time in (("early", 1_000_000_000), ("late", 1_500_000_000)):
        (folder / name).touch()
        os.utime(folder / name, (5, time))
    os.utime(folder, (5, 1_600_000_000))
    members = [member(".", kind=tarfile.DIRTYPE, mtime=1_600_000_000)]
    members += [member("early", mtime=1_000_000_000), member("late", mtime=1_500_000_000)]
    given = folder if source == "--rootdir" else made(tmp_path / "archive", *members)
    mkfs("-q", source, given, image, env={"SOURCE_DATE_EPOCH": "1200000000"})
    with oracles.loop(image) as device, oracles.mounted(device, options=["ro,noatime"]) as mountpoint:
        for name, time in (("early", 1_000_000_000), ("late", 1_200_000_000), (".", 1_200_000_000)):
            status = os.lstat(mountpoint / name)
            assert (status.st_mtime, status.st_ctime, status.st_atime) == (time, time, time), name
