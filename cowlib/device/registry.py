"""What the kernel knows of btrfs devices that are not mounted.

It finds the other devices of a filesystem only among those that it was told of. Where udev runs, that happens by
itself; in containers, while images are built and on many servers nobody does it but whoever made the filesystem.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Sequence

#: Where the kernel takes such messages; there is none without btrfs, or in a container without devices of its own.
CONTROL = "/dev/btrfs-control"

# linux/btrfs.h: _IOW(0x94, 4, struct btrfs_ioctl_vol_args) and _IOW(0x94, 5, ...), of 4096 bytes each
_SCAN_DEV = 0x50009404
_FORGET_DEV = 0x50009405

#: struct btrfs_ioctl_vol_args: a descriptor (not used here), and a path that ends with a zero byte.
_VOL_ARGS = struct.Struct("=q4088s")
_MAX_PATH = 4087


def register_devices(paths: Sequence[str | os.PathLike[str]]) -> str | None:
    """Tells the kernel of every block device among ``paths`` that a btrfs is on it, so that any of them mounts.

    Image files are passed over. Gives the reason if one could not be registered, None if all are.
    """
    return _ask(_SCAN_DEV, paths)


def forget_devices(paths: Sequence[str | os.PathLike[str]]) -> str | None:
    """Has the kernel forget which btrfs it saw on every block device among ``paths``.

    To be called when that btrfs is gone, or the device is about to go. Gives the reason if one could not be forgotten,
    None if none is known any more.
    """
    return _ask(_FORGET_DEV, paths)


def _ask(request: int, paths: Sequence[str | os.PathLike[str]]) -> str | None:
    devices = [os.fsencode(path) for path in paths if _is_block_device(path)]
    if not devices:
        return None
    try:
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{CONTROL}: {error.strerror}"
    try:
        return next((reason for device in devices if (reason := _ask_of(control, request, device))), None)
    finally:
        os.close(control)


def _ask_of(control: int, request: int, device: bytes) -> str | None:
    if len(device) > _MAX_PATH:
        return f"{os.fsdecode(device)}: {os.strerror(errno.ENAMETOOLONG)}"
    try:
        fcntl.ioctl(control, request, bytearray(_VOL_ARGS.pack(0, device)))  # bytes may have 1024 at most
    except OSError as error:
        if request == _FORGET_DEV and error.errno == errno.ENOENT:  # it was not known
            return None
        return f"{os.fsdecode(device)}: {error.strerror}"
    return None


def _is_block_device(path: str | os.PathLike[str]) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False
