"""Devices in use by the kernel are refused to writers."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cowlib.device import Device, refuse_mounted
from cowlib.device.users import unescape
from cowlib.errors import MountedError
from tests import oracles

MIB = 1 << 20
MakeDevices = Callable[[int, int], list[str]]


def refused(path: str | Path, words: str) -> None:
    with pytest.raises(MountedError, match=words):
        refuse_mounted(path)
    with pytest.raises(MountedError):
        Device.open(path, write=True)


def needs_program(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"needs the program {name}")


def test_nothing_uses_a_plain_file(tmp_path: Path) -> None:
    image = oracles.sparse(tmp_path / "image", MIB)
    refuse_mounted(image)
    refuse_mounted(tmp_path / "nothing")


def test_names_as_the_kernel_escapes_them() -> None:
    assert unescape(rb"/mnt/with\040blank\134and\011tab") == "/mnt/with blank\\and\ttab"


@pytest.mark.oracle
def test_every_device_of_a_mounted_btrfs(tmp_path: Path, make_devices: MakeDevices) -> None:
    oracles.require_oracle("mount", "progs")
    first, second = make_devices(2, 128 * MIB)
    subprocess.run([oracles.progs().mkfs, "-q", "-f", "-d", "raid0", first, second], check=True)
    refuse_mounted(second)
    images = sorted(tmp_path.glob("device*.img"))
    with oracles.mounted(first) as where:
        refused(first, f"mounted at {where}|mounted btrfs")
        refused(second, "mounted btrfs")
        refused(images[0], "mounted")
        refused(images[1], "mounted")
        with Device.open(second) as reader:
            assert reader.read(65536 + 64, 8).tobytes() == b"_BHRfS_M"
    for path in [first, second, *map(str, images)]:
        Device.open(path, write=True).close()


@pytest.mark.oracle
def test_another_loop_device_of_the_same_file(tmp_path: Path) -> None:
    oracles.require_oracle("mount", "progs")
    image = oracles.sparse(tmp_path / "image", 128 * MIB)
    with oracles.loops([image, image]) as (first, second):
        subprocess.run([oracles.progs().mkfs, "-q", "-f", first], check=True)
        with oracles.mounted(first):
            refused(second, "mounted")


@pytest.mark.oracle
def test_a_disk_whose_partition_is_mounted(tmp_path: Path) -> None:
    oracles.require_oracle("mount", "mkfs.ext4")
    image = oracles.sparse(tmp_path / "disk", 64 * MIB)
    table = struct.pack("<B3xB3xII", 0, 0x83, 2048, 65536) + struct.pack("<B3xB3xII", 0, 0x83, 67584, 40960)
    with image.open("r+b") as file:
        file.seek(446)
        file.write(table + bytes(32) + b"\x55\xaa")
    device = subprocess.run(
        ["losetup", "--find", "--show", "--partscan", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    where = tmp_path / "mounted"
    where.mkdir()
    try:
        part, other = (Path(f"{device}p{n}") for n in (1, 2))
        if not part.is_block_device():
            pytest.skip("no partitions on loop devices here")
        subprocess.run(["mkfs.ext4", "-q", part], check=True)
        refuse_mounted(device)
        subprocess.run(["mount", part, where], check=True)
        refused(part, "mounted at")
        refused(device, "mounted at")
        refused(image, "mounted at")
        refuse_mounted(other)
    finally:
        subprocess.run(["umount", "-q", where], check=False)
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.oracle
def test_a_device_under_device_mapper(make_devices: MakeDevices) -> None:
    needs_program("dmsetup")
    (path,) = make_devices(1, 16 * MIB)
    name = f"cowtools-test-{Path(path).name}"
    made = subprocess.run(
        ["dmsetup", "create", name, "--table", f"0 {16 * MIB // 512} linear {path} 0"], capture_output=True
    )
    if made.returncode:
        pytest.skip("the kernel has no device mapper")
    try:
        refused(path, "stands on it")
    finally:
        subprocess.run(["dmsetup", "remove", "--retry", name], check=True)
    refuse_mounted(path)


@pytest.mark.oracle
def test_swap_space(make_devices: MakeDevices) -> None:
    needs_program("swapon")
    needs_program("mkswap")
    (path,) = make_devices(1, 16 * MIB)
    subprocess.run(["mkswap", "-q", path], check=True, capture_output=True)
    if subprocess.run(["swapon", path], capture_output=True).returncode:
        pytest.skip("cannot swap here")
    try:
        refused(path, "swap space")
    finally:
        subprocess.run(["swapoff", path], check=True)
    refuse_mounted(path)
