"""What is named as a device and is none, or cannot be read: one clear line from every command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import environment, mkfs, run_command

MIB = 1 << 20

#: What each command exits with if it cannot open a device: 8 is fsck(8)'s operational error.
FAILED = {"mkfs_cow": ("mkfs.cow", 1), "fsck_cow": ("fsck.cow", 8), "cow_debug_tree": ("cow-debug-tree", 1)}

packages = pytest.mark.parametrize("package", FAILED)

NEITHER = "not a block device or an image file"


def refused(package: str, device: str | Path) -> str:
    """Why a command does not take a device."""
    said = run_command(package, device)
    name, code = FAILED[package]
    assert (said.returncode, said.stdout) == (code, "")
    first, *hints = said.stderr.splitlines()
    assert all(line.startswith("hint: ") for line in hints) and len(hints) <= 1
    assert first.startswith(f"{name}: {device}: ")
    return first.removeprefix(f"{name}: {device}: ")


@packages
def test_what_is_no_device(tmp_path: Path, package: str) -> None:
    assert refused(package, tmp_path) == f"is a directory, {NEITHER}"
    os.mkfifo(tmp_path / "pipe")
    assert refused(package, tmp_path / "pipe") == f"is a special file, {NEITHER}"
    assert refused(package, "/dev/zero") == f"is a character device, {NEITHER}"


@packages
def test_nothing_there(tmp_path: Path, package: str) -> None:
    said = refused(package, tmp_path / "missing")
    assert said.endswith("No such file or directory")
    said = refused(package, tmp_path / "no" / "missing")
    assert said == (
        f"there is no directory {tmp_path}/no" if package == "mkfs_cow" else "cannot open: No such file or directory"
    )


@packages
def test_no_bytes_at_all(tmp_path: Path, package: str) -> None:
    image = tmp_path / "image"
    image.touch()
    if package == "mkfs_cow":
        said = run_command(package, image)
        assert said.returncode == 1
        line = said.stderr.splitlines()[0]
        assert re.fullmatch(r"mkfs.cow: too small: about \d+ MiB are needed at least, there are 0 B", line)
    else:
        assert refused(package, image) == "not a btrfs filesystem (no btrfs magic in any superblock place)"


@pytest.mark.oracle
@packages
def test_a_device_that_fails(tmp_path: Path, package: str) -> None:
    """A loop device whose file has lost its end: what is behind it cannot be read or written."""
    oracles.require_oracle("loop")
    image = oracles.sparse(tmp_path / "image", 200 * MIB)
    mkfs("-q", image)
    with oracles.loop(image) as device:
        os.truncate(image, 4096)
        said = refused(package, device)
    assert re.fullmatch(r"cannot read \d+ bytes at \d+: Input/output error", said)


@pytest.mark.oracle
@packages
def test_no_permission(tmp_path: Path, package: str) -> None:
    """To open the device, and to look into its directory."""
    closed = tmp_path / "closed"
    closed.mkdir()
    for image in (tmp_path / "image", closed / "image"):
        others_only(oracles.sparse(image, 200 * MIB))
        others_only(closed)
        said = without_privilege(package, image)
        name, code = FAILED[package]
        assert said.returncode == code
        assert said.stderr.splitlines()[0] == f"{name}: {image}: cannot open: Permission denied"


def others_only(path: Path) -> None:
    """Makes it somebody else's, who lets nobody in."""
    oracles.require_oracle("root", "setpriv")
    os.chown(path, 65534, 65534)
    path.chmod(path.stat().st_mode & 0o700)


def without_privilege(package: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command run by root who may not do all that root may: permissions count for him as for anybody."""
    bare = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*bare, sys.executable, "-m", package, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment())


@pytest.mark.parametrize("option", ["--rootdir", "--from-tar"])
def test_a_source_that_cannot_be(tmp_path: Path, option: str) -> None:
    image = tmp_path / "image"
    said = run_command("mkfs_cow", option, tmp_path / "missing", image)
    assert said.returncode == 1
    assert said.stderr.lower() == f"mkfs.cow: {tmp_path}/missing: no such file or directory\n".lower()
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "folder").mkdir()
    wrong, why = ("file", "not a directory") if option == "--rootdir" else ("folder", "is a directory")
    said = run_command("mkfs_cow", option, tmp_path / wrong, image)
    assert said.returncode == 1
    assert said.stderr.lower() == f"mkfs.cow: {tmp_path}/{wrong}: {why}\n".lower()
    assert not image.exists()


@pytest.mark.oracle
@pytest.mark.parametrize("option", ["--rootdir", "--from-tar"])
def test_a_source_one_may_not_read(tmp_path: Path, option: str) -> None:
    closed = tmp_path / "closed"
    closed.mkdir() if option == "--rootdir" else closed.touch()
    others_only(closed)
    said = without_privilege("mkfs_cow", option, closed, tmp_path / "image")
    assert said.returncode == 1
    assert said.stderr.lower() == f"mkfs.cow: {closed}: permission denied\n".lower()
    assert not (tmp_path / "image").exists()
