"""One block device or image file, read and written in whole 4 KiB sectors past the page cache."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowlib.device.buffers import SECTOR_SIZE, as_bytes, is_aligned, scratch_buffer
from cowlib.device.in_use import Hold, hold
from cowlib.device.opening import cannot_open, kind_of, lock_file, open_patiently, refuse_read_only
from cowlib.device.stack import Machine, find_target
from cowlib.errors import DeviceError

_BLKDISCARD = 0x1277  # linux/fs.h: _IO(0x12, 119), takes u64 start and length
_FICLONERANGE = 0x4020940D  # linux/fs.h: _IOW(0x94, 13, struct file_clone_range)
_DISCARD_STEP = 1 << 30  # bytes of the first request, so that it can be interrupted
_DISCARD_BRIEF = 0.1  # seconds; where a request takes less, the next one is twice as long
_DISCARD_PATIENCE = 600.0  # seconds; a device that needs longer is not discarded to its end
_BOUNCE_BYTES = 1 << 20


class Device:
    """An open block device or image file.

    ``path`` as given, ``size`` in bytes, ``writable``, ``is_block``; ``direct`` says whether transfers go
    past the page cache. Reading and writing are safe from several threads at once.
    """

    def __init__(
        self,
        path: str,
        fd: int,
        size: int,
        *,
        writable: bool,
        is_block: bool,
        direct: bool,
        others: Hold | None = None,
    ) -> None:
        self.path = path
        self.size = size
        self.writable = writable
        self.is_block = is_block
        self.direct = direct
        self._fd = fd
        self._others = others
        self._edge_lock = threading.Lock()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, write: bool = False) -> Device:
        """Open ``path``; a writer gets it for itself.

        A writer is refused (`MountedError`) while anything uses the device, or what shares bytes with it, in any
        way (see `refuse_mounted`), or another writer or reader of ours has the image file open. Until it is
        closed, devices that share its bytes can neither be mounted nor opened by another writer. Anything that
        cannot be opened is a `DeviceError`, what is read-only too.
        """
        name = os.fspath(path)
        is_block = kind_of(name) == "block device"
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        if is_block and write:
            flags |= os.O_EXCL
        fd, direct = open_patiently(name, flags)
        others = None
        try:
            if not is_block:
                lock_file(name, fd, write)
            if write:
                refuse_read_only(name, fd)
                others = _hold_others(name, fd)
            size = os.lseek(fd, 0, os.SEEK_END)
        except BaseException:
            if others is not None:
                others.release()
            os.close(fd)
            raise
        return cls(name, fd, size, writable=write, is_block=is_block, direct=direct, others=others)

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Device {self.path} {self.size} bytes{' writable' if self.writable else ''}>"

    def read(self, offset: int, length: int) -> NDArray[np.uint8]:
        """``length`` bytes from ``offset``, of any alignment: uint8 array, the caller's own."""
        self._check_range(offset, length, "read")
        start = offset - offset % SECTOR_SIZE
        end = -(-(offset + length) // SECTOR_SIZE) * SECTOR_SIZE
        buffer = scratch_buffer(end - start)
        self._read_sectors(start, buffer, offset + length - start)
        return buffer[offset - start : offset - start + length]

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill the contiguous uint8 array ``out`` from ``offset``; without a copy if both are aligned."""
        self._check_range(offset, out.nbytes, "read")
        if offset % SECTOR_SIZE == 0 and is_aligned(out):
            self._read_sectors(offset, out, out.nbytes)
        else:
            out[:] = self.read(offset, out.nbytes)

    def read_vector(self, offset: int, views: Sequence[memoryview]) -> int:
        """One `preadv`: consecutive bytes from ``offset`` scattered over ``views`` (aligned, at most 1024).

        Returns the bytes read, which may be fewer than asked for. Raises `OSError` as the system call does.
        """
        return os.preadv(self._fd, views, offset)

    def write_vector(self, offset: int, views: Sequence[memoryview]) -> None:
        """Write aligned ``views`` (at most 1024) one after the other from ``offset``."""
        total = sum(view.nbytes for view in views)
        self._check_write(offset, total)
        try:
            done = os.pwritev(self._fd, views, offset)
            if done == total:
                return
            for view in views:  # a short write: finish what is left of each, in whole sectors
                skip = min(max(done - done % SECTOR_SIZE, 0), view.nbytes)
                self._write_sectors(offset + skip, view[skip:])
                offset += view.nbytes
                done -= view.nbytes
        except OSError as error:
            raise self._failed("write", offset, total, error) from error

    def write(self, offset: int, data: Any) -> None:
        """Write a buffer at ``offset``, neither of them need be aligned.

        Sectors written in part are read first. Data that is aligned (offset, length, memory) is not copied.
        """
        source = as_bytes(data)
        self._check_write(offset, source.nbytes)
        if source.nbytes == 0:
            return
        try:
            if offset % SECTOR_SIZE == 0 and is_aligned(source):
                self._write_sectors(offset, source.data)
            else:
                self._write_bounced(offset, source)
        except OSError as error:
            raise self._failed("write", offset, source.nbytes, error) from error

    def flush(self) -> None:
        """Everything written so far is on stable storage when this returns."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise DeviceError(f"flush failed: {error.strerror}", device=self.path) from error

    def discard(self, offset: int, length: int) -> bool:
        """Tell the device that these bytes are not needed; False if it does not support that, or is too slow.

        Only whole sectors inside the range. A file gets a hole; what a device then reads is its own affair. The kernel
        cuts what is asked of a block device into requests of a few GiB, so that one which is far larger than what
        stands behind it (thin volumes, loop devices) would keep it busy for hours: then only the front is discarded.
        """
        self._check_write(offset, length)
        start = -(-offset // SECTOR_SIZE) * SECTOR_SIZE
        end = (offset + length) // SECTOR_SIZE * SECTOR_SIZE
        try:
            position, step, begun = start, _DISCARD_STEP, time.monotonic()
            while position < end:
                before, count = time.monotonic(), min(step, end - position)
                if self.is_block:
                    fcntl.ioctl(self._fd, _BLKDISCARD, struct.pack("=QQ", position, count))
                else:
                    _punch_hole(self._fd, position, count)
                position += count
                now = time.monotonic()
                if now - before < _DISCARD_BRIEF:
                    step *= 2
                elif (now - begun) / (position - start) * (end - position) > _DISCARD_PATIENCE:
                    return False
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL):
                return False
            raise self._failed("discard", offset, length, error) from error
        return True

    def clone(self, offset: int, source: int | Device, position: int, length: int) -> None:
        """Make ``length`` bytes at ``offset`` the same blocks that ``source`` has at ``position``, without copying.

        ``source`` is an open file or another of ours. Raises `OSError` where that cannot be: both have to be files on
        one filesystem that can share blocks, the numbers multiples of its block size, and the range within the source.
        """
        self._check_write(offset, length)
        fd = source._fd if isinstance(source, Device) else source
        fcntl.ioctl(self._fd, _FICLONERANGE, struct.pack("=qQQQ", fd, position, length, offset))

    def close(self) -> None:
        """Close it, and let go of what shares its bytes. Does not flush."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._others is not None:
            self._others.forget_caches()
            self._others.release()
            self._others = None

    def _read_sectors(self, offset: int, out: NDArray[np.uint8], need: int) -> None:
        """Fill at least ``need`` bytes of the aligned ``out``; the rest may lie past the end of the file."""
        view = out.data
        done = 0
        try:
            while done < need:
                got = os.preadv(self._fd, [view[done:]], offset + done)
                if got == 0 or (done + got < need and got < SECTOR_SIZE):
                    raise DeviceError(
                        f"cannot read {need} bytes at {offset}: it ends at {offset + done + got}",
                        device=self.path,
                        hint=f"it was {self.size} bytes long when it was opened",
                    )
                done += got if done + got >= need else got - got % SECTOR_SIZE
        except OSError as error:
            raise self._failed("read", offset, need, error) from error

    def _write_sectors(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < view.nbytes:
            wrote = os.pwrite(self._fd, view[done:], offset + done)
            if wrote < min(SECTOR_SIZE, view.nbytes - done):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += wrote - wrote % SECTOR_SIZE

    def _write_bounced(self, offset: int, source: NDArray[np.uint8]) -> None:
        """Through an aligned buffer, a piece at a time; the sectors at both edges keep their other bytes."""
        position, end = offset - offset % SECTOR_SIZE, offset + source.nbytes
        with self._edge_lock:
            while position < end:
                stop = min(position + _BOUNCE_BYTES, -(-end // SECTOR_SIZE) * SECTOR_SIZE)
                bounce = scratch_buffer(stop - position)
                if position < offset:
                    self._read_sectors(position, bounce[:SECTOR_SIZE], SECTOR_SIZE)
                if end < stop:
                    self._read_sectors(stop - SECTOR_SIZE, bounce[-SECTOR_SIZE:], SECTOR_SIZE)
                first, last = max(position, offset), min(stop, end)
                bounce[first - position : last - position] = source[first - offset : last - offset]
                self._write_sectors(position, bounce.data)
                position = stop

    def _check_range(self, offset: int, length: int, verb: str) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DeviceError(
                f"cannot {verb} {length} bytes at {offset}: it is {self.size} bytes long", device=self.path
            )

    def _check_write(self, offset: int, length: int) -> None:
        if not self.writable:
            raise DeviceError("was opened for reading only", device=self.path)
        self._check_range(offset, length, "write")
        if offset + length > self.size - self.size % SECTOR_SIZE:
            raise DeviceError(f"cannot write {length} bytes at {offset}: past the last whole sector", device=self.path)

    def _failed(self, verb: str, offset: int, length: int, error: OSError) -> DeviceError:
        return DeviceError(f"cannot {verb} {length} bytes at {offset}: {error.strerror}", device=self.path)


def refuse_writing(path: str | os.PathLike[str]) -> None:
    """Raise what opening ``path`` for writing would (`MountedError`, `DeviceError`), without a trace on a device.

    For who wants to know before a long preparation: others may come between.
    """
    name = os.fspath(path)
    if kind_of(name) == "file":
        Device.open(name, write=True).close()
        return
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise cannot_open(name, error) from error
    try:
        refuse_read_only(name, fd)
        target = find_target(name, Machine(), fd)
    finally:
        os.close(fd)
    if not os.access(name, os.W_OK):
        raise cannot_open(name, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    if target is not None:
        hold(target, itself=True, strict=True).release()


def _hold_others(path: str, fd: int) -> Hold | None:
    """Everything else that shares bytes with what is open as ``fd``, from now on ours; raises `MountedError`."""
    target = find_target(path, Machine(), fd)
    if target is None:
        return None
    others = hold(target, itself=False, strict=True)
    others.forget_caches()
    return others


def _punch_hole(fd: int, offset: int, length: int) -> None:
    import ctypes  # only mkfs and trim need it

    libc = ctypes.CDLL(None, use_errno=True)
    keep_size, punch_hole = 1, 2  # linux/falloc.h
    if libc.fallocate(fd, keep_size | punch_hole, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
