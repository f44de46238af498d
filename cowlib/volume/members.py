"""Which devices belong together: found on the machine, and put in their places."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from uuid import UUID

from cowlib.device import Device
from cowlib.errors import CowError, DeviceError, UsageError
from cowlib.format import SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSETS, SUPERBLOCK_SIZE, Superblock

log = logging.getLogger("cowlib")

_MAGIC_AT = 64
_FSID = slice(32, 48)

ReadSuperblock = Callable[[Device], Any]
"""Gives the parsed superblock to trust on a device, or raises a `CowError`."""


def scan_devices(fsid: bytes) -> list[str]:
    """Paths of this machine's block devices whose first superblock has that fsid, in order of device id.

    Devices that cannot be read are passed over. One path for each device id: where a device shows under
    several names (multipath), the one that nothing else stands on, and of several that claim the same id,
    the newest.
    """
    found: dict[int, tuple[tuple[bool, int], str]] = {}
    for path, held in _block_devices():
        superblock = _peek(path, fsid)
        if superblock is None:
            continue
        devid = superblock.dev_item.devid
        rank = (not held, superblock.generation)
        if devid not in found or rank > found[devid][0]:
            found[devid] = rank, path
    return [path for _, (_, path) in sorted(found.items())]


def assemble(
    paths: Iterable[str | os.PathLike[str]], read: ReadSuperblock, *, scan: bool = True, write: bool = False
) -> tuple[Any, dict[int, Device | None]]:
    """Open the devices of one filesystem: (its newest superblock, devid to `Device`), as `Volume` takes them.

    All ``paths`` must belong to the same filesystem, no two be the same device of it: `UsageError`
    otherwise. What ``read`` raises for one of them goes through. With ``scan``, devices that the superblock
    counts but nobody named are looked for on this machine; one that is found but fails counts as missing
    for a reader, and is an error for a writer. Nothing stays open after an error.
    """
    superblocks: dict[int, Any] = {}
    devices: dict[int, Device] = {}
    with ExitStack() as opened:
        for path in _distinct(paths):
            device = opened.enter_context(Device.open(path, write=write))
            superblock = read(device)
            devid = int(superblock.dev_item.devid)
            _refuse_stranger(device, superblock, superblocks)
            if devid in devices:
                raise UsageError(
                    f"says it is device {devid}, as {devices[devid].path} does",
                    device=device.path,
                    hint="one of them is a copy: name only the one to use",
                )
            devices[devid], superblocks[devid] = device, superblock
        if not devices:
            raise UsageError("no device given")
        fsid = bytes(next(iter(superblocks.values())).fsid)
        if scan and len(devices) < max(superblock.num_devices for superblock in superblocks.values()):
            for path in scan_devices(fsid):
                _add_found(path, read, opened, devices, superblocks, write)
        newest = _newest(superblocks, devices)
        opened.pop_all()
    return newest, dict(devices)


def _refuse_stranger(device: Device, superblock: Any, others: dict[int, Any]) -> None:
    for other in others.values():
        if bytes(superblock.fsid) != bytes(other.fsid):
            own, wanted = UUID(bytes=bytes(superblock.fsid)), UUID(bytes=bytes(other.fsid))
            raise UsageError(f"belongs to a different filesystem: {own}, not {wanted}", device=device.path)


def _add_found(
    path: str,
    read: ReadSuperblock,
    opened: ExitStack,
    devices: dict[int, Device],
    superblocks: dict[int, Any],
    write: bool,
) -> None:
    """Add a device that the scan found, unless it is one that is there already."""
    with suppress(OSError):
        known = {os.stat(device.path).st_rdev for device in devices.values() if device.is_block}
        if os.stat(path).st_rdev in known:
            return
    with ExitStack() as attempt:
        try:
            device = attempt.enter_context(Device.open(path, write=write))
            superblock = read(device)
        except CowError as error:
            if write:
                raise
            log.warning("%s", error)
            return
        devid = int(superblock.dev_item.devid)
        if devid not in devices:
            devices[devid], superblocks[devid] = device, superblock
            opened.push(attempt.pop_all())


def _newest(superblocks: dict[int, Any], devices: dict[int, Device]) -> Any:
    """The superblock of the highest generation; tells of devices that were left behind."""
    newest = max(superblocks.values(), key=lambda superblock: int(superblock.generation))
    for devid, superblock in superblocks.items():
        if superblock.generation != newest.generation:
            log.warning(
                "%s: is out of date: its generation is %d, the newest %d",
                devices[devid].path,
                superblock.generation,
                newest.generation,
            )
    return newest


def _distinct(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Each path once, also if it is named by two links."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(os.path.realpath(path), os.fspath(path))
    return list(first.values())


def _block_devices() -> Iterator[tuple[str, bool]]:
    """(path, whether another device stands on it) of every block device of the machine that is not empty."""
    root = "/sys/class/block"
    names = []
    with suppress(OSError):
        names = sorted(os.listdir(root))
    for name in names:
        with suppress(OSError, ValueError), open(f"{root}/{name}/size") as size:
            if int(size.read()) * 512 >= SUPERBLOCK_OFFSETS[0] + SUPERBLOCK_SIZE:
                yield "/dev/" + name.replace("!", "/"), bool(os.listdir(f"{root}/{name}/holders"))


def _peek(path: str, fsid: bytes) -> Any | None:
    """A device's first superblock as it stands there, if it can be read and has that fsid."""
    try:
        with Device.open(path) as device:
            data = device.read(SUPERBLOCK_OFFSETS[0], SUPERBLOCK_SIZE).tobytes()
    except DeviceError:
        return None
    if not data.startswith(SUPERBLOCK_MAGIC, _MAGIC_AT) or data[_FSID] != fsid:
        return None
    return Superblock.parse(data)
