"""What mkfs.cow will not do: it says why in one line, exits with 1, and leaves every byte as it was."""

from __future__ import annotations

import os
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cowlib.device import blkid, signature
from tests import oracles
from tests.commands import mkfs, mkfs_refuses, run_command
from tests.trees import digest

MIB = 1 << 20

MakeDevices = Callable[[int, int], list[str]]


@contextmanager
def untouched(*paths: str | Path) -> Iterator[None]:
    """Fail if the bytes of a device or image, or its length, change."""
    before = [digest(path) for path in paths]
    yield
    assert [digest(path) for path in paths] == before


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two image files with bytes of no meaning here and there."""
    paths = [oracles.sparse(tmp_path / f"image{number}", 128 * MIB) for number in range(2)]
    for path in paths:
        with path.open("r+b") as file:
            for start in (5 * MIB, 64 * MIB, 127 * MIB):
                file.seek(start)
                file.write(os.urandom(10_000))
    return paths


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-d", "raid7"], "raid7"),
        (["-m", "double"], "double"),
        (["-d", "raid1"], "raid1"),
        (["-m", "raid1c3"], "raid1c3"),
        (["-d", "raid10"], "raid10"),
        (["-d", "raid5"], "raid5"),
        (["-n", "3000"], "3000"),
        (["-n", "131072"], "131072"),
        (["-n", "2048"], "2048"),
        (["-n", "many"], "many"),
        (["-s", "1000"], "1000"),
        (["--csum", "md5"], "md5"),
        (["-L", "x" * 256], "label"),
        (["-L", "two\nlines"], "label"),
        (["-U", "not-a-uuid"], "not-a-uuid"),
        (["--device-uuid", "1234"], "1234"),
        (["-b", "129m"], ""),
        (["-b", "1m"], ""),
        (["-b", "0"], ""),
        (["-O", "time-travel"], "time-travel"),
        (["-O", "block-group-tree,^free-space-tree"], "block-group-tree"),
        (["-O", "quota,squota"], "quota"),
        (["-M", "-n", "16384"], ""),
        (["-M", "-d", "single", "-m", "dup"], ""),
        (["--shrink"], "rootdir"),
        (["--reflink"], "--reflink needs --rootdir"),
        (["-x", "--from-tar", "-"], "--one-file-system needs --rootdir"),
        (["--exclude", "x"], "--exclude needs --rootdir, --from-tar or --layers"),
        (["--inode-flags", "nodatacow:home"], "home: no such file"),
        (["--subvol", "x/" + "y" * 256], "longer than 255 bytes"),
        (["--subvol", "ro:"], "'ro:' names no directory"),
        (["--subvol", "default:/", "--subvol", "default:a"], "only one subvolume can be the default"),
        (["--subvol", "ro:/", "--subvol", "/"], "the same subvolume is given twice"),
        (["--root-owner", "ada:ada"], "'ada:ada' is not UID:GID"),
        (["--rootdir", "/does/not/exist"], "/does/not/exist"),
        (["--from-tar", "/does/not/exist"], "/does/not/exist"),
        (["--rootdir", "/etc", "--from-tar", "-"], ""),
        (["--rootdir", "/etc", "--compress", "gzip"], "gzip"),
        (["--rootdir", "/etc", "--compress", "zlib:10"], "10"),
        (["--rootdir", "/etc", "--compress", "zstd:x"], "x"),
        (["--rootdir", "/etc", "--subvol", "rw:no-such-folder"], "no-such-folder"),
        (["--rootdir", "/etc", "--subvol", "rw:passwd"], "passwd"),
        (["--rootdir", "/etc", "--subvol", "odd:ssl"], "odd"),
        (["--rootdir", "/etc", "--inode-flags", "shiny:passwd"], "shiny"),
        (["--rootdir", "/etc", "--inode-flags", "nodatacow:no-such-file"], "no-such-file"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_options_that_cannot_be(images: list[Path], options: list[str], word: str) -> None:
    with untouched(images[0]):
        assert word in mkfs_refuses(*options, images[0])


def test_too_few_devices(images: list[Path]) -> None:
    with untouched(*images):
        for profile in ("raid1c3", "raid1c4", "raid6"):
            assert profile in mkfs_refuses("-d", profile, *images).lower()
            assert profile in mkfs_refuses("-m", profile, *images).lower()


def test_the_same_device_twice(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(images[0])
    with untouched(images[0]):
        mkfs_refuses(images[0], images[0])
        mkfs_refuses(images[0], tmp_path / "alias")


@pytest.mark.parametrize("size", [0, 4096, MIB, 4 * MIB])
def test_too_small(tmp_path: Path, size: int) -> None:
    image = oracles.sparse(tmp_path / "image", size)
    with untouched(image):
        mkfs_refuses(image)


def test_one_of_two_too_small(images: list[Path], tmp_path: Path) -> None:
    small = oracles.sparse(tmp_path / "small", 2 * MIB)
    with untouched(small, *images):
        mkfs_refuses("-d", "raid1", "-m", "raid1", images[0], small)


def test_no_device(tmp_path: Path) -> None:
    assert "missing" in mkfs_refuses(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    mkfs_refuses(tmp_path)
    mkfs_refuses("/dev/null")
    # What is made there by mistake would fill memory instead of a disk.
    assert "no such device" in mkfs_refuses("-b", "200m", "/dev/no-such-device")
    assert not Path("/dev/no-such-device").exists()


def test_unknown_option(images: list[Path]) -> None:
    with untouched(images[0]):
        said = run_command("mkfs_cow", "--no-such-option", images[0])
    assert said.returncode == 2
    assert "--no-such-option" in said.stderr


@pytest.mark.parametrize("command", [["mkfs.ext4", "-q"], ["mkfs.btrfs", "-q"], ["mkswap"], ["mkfs.vfat"]], ids=str)
def test_existing_filesystem(tmp_path: Path, command: list[str]) -> None:
    image = oracles.sparse(tmp_path / "image", 128 * MIB)
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    try:
        subprocess.run([*command, image], check=True, capture_output=True, env={**os.environ, "PATH": path})
    except FileNotFoundError:
        pytest.skip(f"needs the program {command[0]}")
    with untouched(image):
        said = mkfs_refuses(image)
    assert "-f" in said
    mkfs("-q", "-f", image)


def test_own_filesystem(images: list[Path]) -> None:
    mkfs("-q", images[0])
    with untouched(*images):
        mkfs_refuses(images[0])
        mkfs_refuses(*images)
    mkfs("-q", "-f", images[0])


@pytest.mark.oracle
def test_mounted(make_devices: MakeDevices) -> None:
    oracles.require_oracle("mount")
    devices = make_devices(2, 256 * MIB)
    mkfs("-q", "-d", "raid1", *devices)
    with oracles.mounted(devices[0]) as mountpoint:
        oracles.sync(mountpoint)
        for device in devices:
            assert "mounted" in mkfs_refuses("-f", device)
        (mountpoint / "alive").write_text("still")
    oracles.btrfs_check(*devices)


@pytest.mark.oracle
def test_image_of_a_mounted_device(tmp_path: Path) -> None:
    oracles.require_oracle("mount")
    image = oracles.sparse(tmp_path / "image", 256 * MIB)
    mkfs("-q", image)
    with oracles.loop(image) as device, oracles.mounted(device) as mountpoint:
        oracles.sync(mountpoint)
        mkfs_refuses("-f", image)
    oracles.btrfs_check(image)


@pytest.mark.oracle
def test_what_is_mounted_above_or_beside(tmp_path: Path) -> None:
    oracles.require_oracle("mount")
    image = oracles.sparse(tmp_path / "image", 256 * MIB)
    with oracles.loop(image) as lower, oracles.loop(lower) as upper, oracles.loop(image) as beside:
        mkfs("-q", upper)
        with oracles.mounted(upper) as mountpoint:
            oracles.sync(mountpoint)
            for device in (image, lower, beside, upper):
                assert f"is in use: {'' if device == upper else Path(upper).name}" in mkfs_refuses("-f", device)
            (mountpoint / "alive").write_text("still")
        oracles.btrfs_check(upper)
        mkfs("-q", "-f", lower)  # nobody uses it any more


@pytest.mark.oracle
def test_a_part_of_a_file_whose_other_part_is_mounted(tmp_path: Path) -> None:
    oracles.require_oracle("mount")
    image = oracles.sparse(tmp_path / "image", 256 * MIB)
    first = oracles.attach(image, "--sizelimit", str(128 * MIB))
    try:
        second = oracles.attach(image, "--offset", str(128 * MIB))
        try:
            mkfs("-q", first)
            with oracles.mounted(first) as mountpoint:
                (mountpoint / "alive").write_text("still")
                oracles.sync(mountpoint)
                mkfs("-q", second)
                assert "mounted at" in mkfs_refuses("-f", image)
            oracles.btrfs_check(first)
            oracles.btrfs_check(second)
        finally:
            oracles.detach(second)
    finally:
        oracles.detach(first)


@pytest.mark.oracle
def test_the_same_bytes_twice(images: list[Path]) -> None:
    (images[0].parent / "hard").hardlink_to(images[0])
    with oracles.loop(images[0]) as lower, oracles.loop(lower) as upper, untouched(*images):
        pairs: list[tuple[str | Path, str | Path]]
        pairs = [(images[0], lower), (lower, images[0]), (lower, upper), (upper, images[0])]
        for one, two in pairs:
            said = mkfs_refuses(images[1], one, two)
            assert said.startswith(f"mkfs.cow: {two}: shares bytes with {one}\n")
    with untouched(images[0]):
        assert "shares bytes" in mkfs_refuses(images[0], images[0].parent / "hard")


def test_an_archive_that_is_the_device(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(__file__)
    os.truncate(archive, 128 * MIB)
    with untouched(archive):
        assert f"{archive}: shares bytes with {archive}\n" in mkfs_refuses("-f", "--from-tar", archive, archive)
        said = run_command("mkfs_cow", "-f", "--from-tar", "-", archive, stdin=archive)
    assert (said.returncode, "shares bytes with /dev/stdin" in said.stderr) == (1, True)


@pytest.mark.oracle
def test_the_uuid_of_a_mounted_filesystem(tmp_path: Path, images: list[Path]) -> None:
    oracles.require_oracle("mount")
    fsid = str(uuid.uuid4())
    mkfs("-q", "-U", fsid, images[0])
    with oracles.loop(images[0]) as device, oracles.mounted(device), untouched(images[1]):
        for given in (fsid, fsid.upper()):
            assert f"a filesystem with the UUID {fsid} is mounted" in mkfs_refuses("-f", "-U", given, images[1])
        mkfs_refuses("-U", fsid, "-b", "200m", tmp_path / "new")
        assert not (tmp_path / "new").exists()
    mkfs("-q", "-f", "-U", fsid, images[1])


@pytest.mark.oracle
def test_a_read_only_device(images: list[Path]) -> None:
    device = oracles.attach(images[0], "--read-only")
    try:
        with untouched(images[0]):
            assert f"{device}: is read-only\n" in mkfs_refuses("-f", device)
    finally:
        oracles.detach(device)


@pytest.mark.parametrize(
    ("name", "offset", "magic"),
    [
        ("OCFS2", 8192, b"OCFSV2"),
        ("Ceph BlueStore", 0, b"bluestore block device\n"),
        ("DRBD", 128 * MIB - 4096 + 60, b"\x83\x74\x02\x6b"),
        ("Intel RAID member", 128 * MIB - 1024, b"Intel Raid ISM Cfg Sig. 1.1.00"),
        ("UFS", 8192 + 1372, b"\x54\x19\x01\x00"),
        ("LUKS encrypted volume", 4 * MIB, b"SKUL\xba\xbe" + b"\x00\x02"),
        ("btrfs (superblock copy at 64 MiB)", 64 * MIB + 48, (64 * MIB).to_bytes(8, "little") + bytes(8) + b"_BHRfS_M"),
    ],
)
def test_what_must_not_be_lost(tmp_path: Path, name: str, offset: int, magic: bytes) -> None:
    image = oracles.sparse(tmp_path / "image", 128 * MIB)
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(magic)
    with untouched(image):
        assert f"{image}: holds {name} already\nhint: use -f" in mkfs_refuses(image)
    mkfs("-q", "-f", image)
    assert signature(image) == "btrfs"
    assert [found.kind for found in blkid.probe(image) or []] == (["btrfs"] if blkid.available() else [])


@pytest.mark.oracle
@pytest.mark.parametrize("options", [[], ["--compress", "zstd"]], ids=["plain", "compressed"])
def test_tree_that_does_not_fit(make_devices: MakeDevices, tmp_path: Path, options: list[str]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(10):
        (tree / f"file-{number}").write_bytes(os.urandom(20 * MIB))
    (device,) = make_devices(1, 160 * MIB)
    with untouched(device):
        mkfs_refuses("--rootdir", tree, *options, device)


@pytest.mark.oracle
def test_tree_that_fits_only_compressed(make_devices: MakeDevices, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "text").write_bytes(b"all of this is the same\n" * (10 * MIB))
    (device,) = make_devices(1, 160 * MIB)
    with untouched(device):
        mkfs_refuses("--rootdir", tree, device)
    mkfs("-q", "--compress", "zstd", "--rootdir", tree, device)
    oracles.btrfs_check(device, data=True)
    with oracles.mounted(device) as mountpoint:
        oracles.assert_same_tree(tree, mountpoint)
