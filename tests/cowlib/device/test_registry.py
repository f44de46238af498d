"""The kernel's registry of btrfs devices: who is in it mounts by any of its devices, who is not does not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cowlib.device import forget_devices, register_devices, registry
from tests import oracles
from tests.commands import mkfs, run_command

MIB = 1 << 20

MakeDevices = Callable[[int, int], list[str]]


def mounts(device: str, folder: Path) -> bool:
    """Whether the kernel mounts a device without being told of others."""
    said = subprocess.run(["mount", "-t", "btrfs", "-o", "ro", device, folder], capture_output=True)
    if said.returncode == 0:
        subprocess.run(["umount", folder], check=True)
    return said.returncode == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where to mount."""
    oracles.require_oracle("mount")
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.mark.oracle
def test_register_and_forget(make_devices: MakeDevices, folder: Path) -> None:
    devices = make_devices(2, 256 * MIB)
    mkfs("-q", "-m", "raid1", *devices)
    assert mounts(devices[0], folder)
    assert forget_devices(devices) is None
    assert not mounts(devices[0], folder), "nobody told it of the second device"
    assert register_devices(devices) is None
    assert mounts(devices[1], folder)


@pytest.mark.oracle
def test_the_old_filesystem_is_forgotten(make_devices: MakeDevices, folder: Path) -> None:
    """Of two filesystems on two devices each, one loses a device to another: the kernel does not take it for old."""
    first, second, third = make_devices(3, 256 * MIB)
    mkfs("-q", "-m", "raid1", first, second)
    said = run_command("mkfs_cow", "-f", "-q", "-d", "raid7", second)
    assert said.returncode == 1
    assert mounts(first, folder), "what was refused changed nothing"
    mkfs("-f", "-q", "-m", "raid1", second, third)
    assert mounts(third, folder) and mounts(second, folder)
    assert not mounts(first, folder), "its other device is another one's"


@pytest.mark.oracle
def test_a_mounted_device_is_not_forgotten(make_devices: MakeDevices) -> None:
    (device,) = make_devices(1, 256 * MIB)
    mkfs("-q", device)
    with oracles.mounted(device):
        assert forget_devices([device]) == f"{device}: Device or resource busy"


@pytest.mark.oracle
def test_what_is_no_btrfs(make_devices: MakeDevices) -> None:
    (device,) = make_devices(1, 16 * MIB)
    assert register_devices([device]) == f"{device}: Invalid argument"
    assert forget_devices([device]) is None


def test_image_files_are_no_matter_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CONTROL", str(tmp_path / "missing"))
    image = oracles.sparse(tmp_path / "image", MIB)
    assert register_devices([image, tmp_path / "nothing"]) is None
    assert forget_devices([image]) is None


@pytest.mark.oracle
def test_a_machine_without_the_control_device(
    make_devices: MakeDevices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = make_devices(2, 16 * MIB)
    monkeypatch.setattr(registry, "CONTROL", str(tmp_path / "missing"))
    assert register_devices(devices) == f"{tmp_path}/missing: No such file or directory"


@pytest.mark.oracle
def test_a_name_longer_than_the_kernel_takes(
    make_devices: MakeDevices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device,) = make_devices(1, 16 * MIB)
    monkeypatch.chdir(tmp_path)
    name = "./" * 2040 + device.removeprefix("/")
    (tmp_path / "dev").symlink_to("/dev")
    assert register_devices([name]) == f"{name}: File name too long"
