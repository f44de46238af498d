"""The same input gives the same bytes, whenever, wherever and however often it is made."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import mkfs
from tests.trees import digest

FSID = "1f0c5a1e-7b5d-4b8f-9d5e-3c2a1b0f9e8d"
EPOCH = {"SOURCE_DATE_EPOCH": "1600000000"}


def made(
    image: Path, *options: str | Path, size: int = 256 << 20, fsid: str = FSID, epoch: Mapping[str, str] = EPOCH
) -> str:
    """A digest of a filesystem made in a fresh image file."""
    oracles.sparse(image, size)
    mkfs("-q", "-U", fsid, *options, image, env=epoch)
    return digest(image)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Many files, made in no particular order, that anyone may make."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for number in range(500):
        name = hashlib.sha256(b"%d" % number).hexdigest()
        below = folder / name[:1]
        below.mkdir(exist_ok=True)
        (below / name).write_bytes(name.encode() * (number % 300))
    (folder / "link").hardlink_to(below / name)
    (folder / "symlink").symlink_to("link")
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.write(b"x")
    return folder


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--compress", "zstd"],
        ["--compress", "lzo"],
        ["-n", "4096", "--csum", "sha256"],
        ["--shrink"],
        ["-M"],
    ],
    ids=" ".join,
)
def test_twice_the_same(tree: Path, tmp_path: Path, options: list[str]) -> None:
    first = made(tmp_path / "first", "--rootdir", tree, *options)
    for path in tree.rglob("*"):
        path.lstat()
        if path.is_file():
            path.read_bytes()  # a new atime
    assert made(tmp_path / "second", "--rootdir", tree, *options) == first


def test_empty(tmp_path: Path) -> None:
    assert made(tmp_path / "first") == made(tmp_path / "second")


@pytest.mark.parametrize("epoch", ["1600000000", "4000000000"], ids=["before the copy", "long after it"])
def test_a_copy_gives_the_same(tree: Path, tmp_path: Path, epoch: str) -> None:
    """Inode numbers, ctimes and the order of names on disk are the source's own affair."""
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, symlinks=True, ignore=shutil.ignore_patterns("link", "symlink", "sparse"))
    subprocess.run(["cp", "-a", tree / "link", tree / "symlink", tree / "sparse", copy], check=True)
    (name,) = (path for path in tree.glob("?/*") if path.samefile(tree / "link"))
    (copy / name.relative_to(tree)).unlink()
    (copy / name.relative_to(tree)).hardlink_to(copy / "link")
    for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
        times = folder.stat()
        os.utime(copy / folder.relative_to(tree), ns=(times.st_atime_ns, times.st_mtime_ns))
    clock = {"SOURCE_DATE_EPOCH": epoch}
    first = made(tmp_path / "first", "--rootdir", tree, epoch=clock)
    assert made(tmp_path / "second", "--rootdir", copy, epoch=clock) == first


def test_another_fsid_or_time_gives_another(tree: Path, tmp_path: Path) -> None:
    first = made(tmp_path / "first", "--rootdir", tree)
    assert made(tmp_path / "second", "--rootdir", tree, "-L", "label") != first
    assert made(tmp_path / "third", "--rootdir", tree, fsid=FSID.replace("1f", "2f")) != first
    later = {"SOURCE_DATE_EPOCH": "1600000001"}
    assert made(tmp_path / "fourth", "--rootdir", tree, epoch=later) != first


def test_what_was_on_the_device_does_not_matter(tree: Path, tmp_path: Path) -> None:
    """Bytes outside of what was written may stay; the filesystem in between is the same."""
    oracles.require_oracle("mount", "progs")
    image = tmp_path / "used"
    image.write_bytes(b"\xa5" * (256 << 20))
    mkfs("-q", "-f", "-K", "-U", FSID, "--rootdir", tree, image, env=EPOCH)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(tree, mountpoint, mtime=False)
