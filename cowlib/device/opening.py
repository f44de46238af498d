"""Opening a device or an image file: past the page cache, with locks, and with clear words where it cannot be."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import struct
import time

from cowlib.device.in_use import PAUSE, TRIES, known_use, why_busy
from cowlib.device.stack import Machine, find_target
from cowlib.errors import DeviceError, MountedError

log = logging.getLogger("cowlib")

_BLKROGET = 0x125E  # linux/fs.h: gives an int
_F_OFD_GETLK = 36  # linux/fcntl.h
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid
_said_buffered: set[int] = set()


def kind_of(path: str) -> str:
    """'block device' or 'file'; anything else is refused by name."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise cannot_open(path, error) from error
    if stat.S_ISBLK(mode):
        return "block device"
    if stat.S_ISREG(mode):
        return "file"
    what, hint = "a special file", None
    if stat.S_ISDIR(mode):
        what, hint = "a directory", "if a filesystem is mounted there, unmount it and name its device"
    elif stat.S_ISCHR(mode):
        what = "a character device"
    raise DeviceError(f"is {what}, not a block device or an image file", device=path, hint=hint)


def refuse_read_only(path: str, fd: int) -> None:
    """The kernel opens a read-only device for writing, and fails later; files that are swapped to it refuses too."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        try:
            os.pwrite(fd, b"", 0)
        except OSError as error:
            if error.errno == errno.ETXTBSY:
                raise MountedError("is in use: swap file", device=path, hint="swapoff it first") from error
        return
    if struct.unpack("=i", fcntl.ioctl(fd, _BLKROGET, bytes(4)))[0]:
        raise _read_only(path)


def _read_only(path: str) -> DeviceError:
    return DeviceError(
        "is read-only",
        device=path,
        hint="it is write-protected, or the filesystem it lies on is mounted so",
    )


def open_patiently(path: str, flags: int) -> tuple[int, bool]:
    """(fd, whether it is direct); a device that somebody has exclusively is asked for again for a moment."""
    for attempt in range(TRIES):
        try:
            return open_direct(path, flags)
        except MountedError as error:
            target = find_target(path, Machine())
            if target is not None and (attempt + 1 == TRIES or known_use(target)):
                raise why_busy(target) from error
            time.sleep(PAUSE)
    raise AssertionError("unreachable")


def open_direct(path: str, flags: int) -> tuple[int, bool]:
    """(fd, whether it is direct)."""
    try:
        try:
            return os.open(path, flags | os.O_DIRECT), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            fd = os.open(path, flags)
    except OSError as error:
        raise cannot_open(path, error) from error
    filesystem = os.fstat(fd).st_dev
    if filesystem not in _said_buffered:
        _said_buffered.add(filesystem)
        log.warning("%s: its filesystem does not support O_DIRECT; using buffered reads and writes", path)
    return fd, False


def lock_file(path: str, fd: int, write: bool) -> None:
    """Keep two of our writers, or a writer and a reader, off the same image file."""
    if write:
        _refuse_locked(path, fd)
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if write else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if write:
            raise MountedError("is in use by another process", device=path, hint="wait for it to finish") from error
        log.warning("%s: another process is writing to it; what is read may be inconsistent", path)
    except OSError:
        pass  # some network filesystems have no locks: then there is nothing to hold


def _refuse_locked(path: str, fd: int) -> None:
    """Virtual machines lock single bytes of the images they run from."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        found = _FLOCK.unpack(fcntl.fcntl(fd, _F_OFD_GETLK, wanted))
    except OSError:
        return  # no locks there
    if found[0] != fcntl.F_UNLCK:
        raise MountedError("is in use: another program, such as a virtual machine, has locked it", device=path)


def cannot_open(path: str, error: OSError) -> DeviceError:
    if error.errno == errno.EBUSY:
        return MountedError("is in use (mounted, or held by another program)", device=path, hint="unmount it first")
    hint = None
    if error.errno == errno.EROFS:
        return _read_only(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "run as root, or give yourself permission to open it"
        if os.geteuid() == 0:
            hint = "even root may not: it may be immutable (see lsattr), or out of bounds for this container"
    return DeviceError(f"cannot open: {error.strerror}", device=path, hint=hint)
