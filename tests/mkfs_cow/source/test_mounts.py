"""Filesystems within the tree that is taken in."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cowlib.errors import CowError
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.exclude import excluder
from mkfs_cow.source.mounts import pseudo_name
from tests import oracles
from tests.commands import run_command
from tests.mkfs_cow.source.compared import in_tables


def never(line: str) -> None:
    raise AssertionError(line)


@contextmanager
def mounted_at(place: Path, *options: str | Path) -> Iterator[None]:
    """Something mounted at ``place`` for a while."""
    said = subprocess.run(["mount", *options, place], capture_output=True, text=True)
    if said.returncode:
        pytest.skip(f"cannot be mounted here: {said.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file system of its own in it, and some that are none."""
    oracles.require_oracle("root", "mount.program")
    folder = tmp_path / "tree"
    for name in ("proc", "real", "sys", "dev"):
        (folder / name).mkdir(parents=True)
    for name in ("namespace", "null"):
        (folder / name).touch()
    with ExitStack() as stack:
        stack.enter_context(mounted_at(folder / "proc", "-t", "proc", "proc"))
        stack.enter_context(mounted_at(folder / "real", "-t", "tmpfs", "tmpfs"))
        (folder / "real/file").write_text("real")
        (folder / "real/deep").mkdir()
        stack.enter_context(mounted_at(folder / "real/deep", "-t", "sysfs", "sysfs"))
        stack.enter_context(mounted_at(folder / "namespace", "--bind", "/proc/self/ns/uts"))
        stack.enter_context(mounted_at(folder / "null", "--bind", "/dev/null"))
        yield folder


def test_pseudo_filesystems_are_not_entered(tree: Path) -> None:
    told: list[str] = []
    entries = in_tables(scan_directory(tree, warn=never, advise=told.append))
    inside = {b"proc", b"real", b"real/file", b"real/deep", b"sys", b"dev", b"namespace", b"null"}
    assert set(entries) - {b""} == inside
    assert told == [
        f"{tree}/namespace: a nsfs filesystem, left empty",
        f"{tree}/proc: a proc filesystem, left empty",
        f"{tree}/real/deep: a sysfs filesystem, left empty",
    ]
    assert stat.S_ISCHR(entries[b"null"].mode)
    assert stat.S_ISREG(entries[b"namespace"].mode)
    assert stat.S_ISDIR(entries[b"proc"].mode)


def test_one_file_system(tree: Path) -> None:
    told: list[str] = []
    entries = in_tables(scan_directory(tree, one_file_system=True, warn=never, advise=told.append))
    assert set(entries) - {b""} == {b"proc", b"real", b"sys", b"dev", b"namespace", b"null"}
    assert told == [f"{tree}/namespace: a nsfs filesystem, left empty"]


def test_what_is_excluded_is_not_told(tree: Path) -> None:
    exclude = excluder(["proc/", "deep", "namespace"])
    entries = in_tables(scan_directory(tree, exclude=exclude, warn=never, advise=never))
    assert set(entries) - {b""} == {b"real", b"real/file", b"sys", b"dev", b"null"}


def test_the_command_says_so_and_succeeds(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    said = run_command("mkfs_cow", "-q", "--rootdir", tree, image)
    assert (said.returncode, said.stdout) == (0, "")
    assert said.stderr.splitlines() == [
        f"mkfs.cow: warning: {tree}/namespace: a nsfs filesystem, left empty",
        f"mkfs.cow: warning: {tree}/proc: a proc filesystem, left empty",
        f"mkfs.cow: warning: {tree}/real/deep: a sysfs filesystem, left empty",
    ]
    said = run_command("mkfs_cow", "-q", "-f", "-x", "--exclude", "namespace", "--rootdir", tree, image)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    with oracles.judged(image) as mountpoint:
        assert sorted(os.listdir(mountpoint)) == ["dev", "null", "proc", "real", "sys"]
        assert os.listdir(mountpoint / "real") == []


def test_a_pseudo_filesystem_itself() -> None:
    with pytest.raises(CowError, match=r"^/proc: a proc filesystem"):
        scan_directory("/proc", warn=never)


def test_names(tmp_path: Path) -> None:
    assert pseudo_name(b"/proc") == "proc"
    assert pseudo_name(os.fsencode(tmp_path)) is None
    kinds = dict(line.split(" ")[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
    if kinds.get("/dev") == "devtmpfs":
        assert pseudo_name(b"/dev") == "devtmpfs"
    if kinds.get("/sys") == "sysfs":
        assert pseudo_name(b"/sys") == "sysfs"
    if kinds.get("/dev/shm") == "tmpfs":
        assert pseudo_name(b"/dev/shm") is None
