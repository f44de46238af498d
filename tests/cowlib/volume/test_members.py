"""Devices of one filesystem are put together, strangers and copies are told apart."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from construct import Container

from cowlib.device import Device
from cowlib.errors import DeviceError, NotBtrfsError, UsageError
from cowlib.format import SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSETS, SUPERBLOCK_SIZE, Superblock
from cowlib.volume import assemble, scan_devices
from tests import oracles

MIB = 1 << 20
FSID, OTHER_FSID = bytes(range(16)), bytes(range(1, 17))


def read(device: Device) -> Any:
    """A superblock with the right magic, as a caller's own reader would check it."""
    superblock = Superblock.parse(device.read(SUPERBLOCK_OFFSETS[0], SUPERBLOCK_SIZE).tobytes())
    if superblock.magic != SUPERBLOCK_MAGIC:
        raise NotBtrfsError("no btrfs here", device=device.path)
    return superblock


def make(path: Path, devid: int, *, fsid: bytes = FSID, generation: int = 9, num_devices: int = 2) -> Path:
    """An image with as much of a superblock as a device needs to be known by."""
    superblock: Container = Superblock.parse(bytes(SUPERBLOCK_SIZE))
    superblock.magic, superblock.fsid = SUPERBLOCK_MAGIC, fsid
    superblock.generation, superblock.num_devices = generation, num_devices
    superblock.dev_item.devid = devid
    if not path.is_block_device():
        oracles.sparse(path, MIB)
    with path.open("r+b") as file:
        file.seek(SUPERBLOCK_OFFSETS[0])
        file.write(Superblock.build(superblock))
    return path


def test_devices_in_any_order(tmp_path: Path) -> None:
    paths = [make(tmp_path / "b", 2), make(tmp_path / "a", 1)]
    link = tmp_path / "link"
    link.symlink_to(paths[0])
    superblock, devices = assemble([*paths, link, paths[1]], read, scan=False, write=True)
    assert superblock.fsid == FSID
    assert {devid: device.path for devid, device in devices.items() if device} == {1: str(paths[1]), 2: str(paths[0])}
    with pytest.raises(DeviceError):  # ours alone while we write
        Device.open(paths[0], write=True)
    for device in devices.values():
        assert device is not None
        device.close()


def test_the_newest_superblock_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [make(tmp_path / "a", 1, generation=8), make(tmp_path / "b", 2, generation=9)]
    with caplog.at_level(logging.WARNING, "cowlib"):
        superblock, _ = assemble(paths, read, scan=False)
    assert superblock.generation == 9
    assert f"{paths[0]}: is out of date" in caplog.text


def test_strangers_and_copies_are_refused(tmp_path: Path) -> None:
    first, other = make(tmp_path / "a", 1), make(tmp_path / "b", 2, fsid=OTHER_FSID)
    with pytest.raises(UsageError, match=r"b: belongs to a different filesystem: 01020304-.* not 00010203-"):
        assemble([first, other], read, scan=False)
    copy = Path(shutil.copy(first, tmp_path / "copy"))
    with pytest.raises(UsageError, match=r"copy: says it is device 1, as .*/a does"):
        assemble([first, copy], read, scan=False)
    with pytest.raises(NotBtrfsError):
        assemble([first, oracles.sparse(tmp_path / "empty", MIB)], read, scan=False)
    with pytest.raises(DeviceError, match="No such file"):
        assemble([first, tmp_path / "nothing"], read, scan=False)
    with pytest.raises(UsageError, match="no device given"):
        assemble([], read)
    assemble([first], read, scan=False, write=True)  # nobody kept it open


def assembled(paths: list[str], read: Callable[[Device], Any], *, scan: bool = True) -> dict[int, str]:
    """Paths of the devices that `assemble` finds, by device id; none stays open."""
    with ExitStack() as stack:
        _, devices = assemble(paths, read, scan=scan)
        return {devid: stack.enter_context(device).path for devid, device in devices.items() if device}


@pytest.mark.oracle
def test_the_others_are_found(make_devices: Callable[[int, int], list[str]], caplog: pytest.LogCaptureFixture) -> None:
    fsid = Path("/proc/sys/kernel/random/uuid").read_bytes()[:16]
    one, two, stale, stranger = make_devices(4, MIB)
    make(Path(two), 2, fsid=fsid)
    make(Path(one), 1, fsid=fsid)
    make(Path(stale), 2, fsid=fsid, generation=3)
    make(Path(stranger), 3, fsid=OTHER_FSID)
    assert scan_devices(fsid) == [one, two]
    assert assembled([one], read) == {1: one, 2: two}
    assert assembled([one], read, scan=False) == {1: one}

    def fails_elsewhere(device: Device) -> Any:
        if device.path != one:
            raise DeviceError("broken", device=device.path)
        return read(device)

    with caplog.at_level(logging.WARNING, "cowlib"):
        assert assembled([one], fails_elsewhere) == {1: one}
    assert f"{two}: broken" in caplog.text
    with pytest.raises(DeviceError, match="broken"):
        assemble([one], fails_elsewhere, write=True)
