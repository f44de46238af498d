"""What is mounted within a directory tree, and which of it the kernel only makes up.

Filesystems such as proc and sysfs show the machine, not files: nothing in them belongs into an image, some of it has
no end, and reading some of it has effects. They are known by their magic numbers, so it does not matter where they
are mounted or what a mount table says.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from pathlib import Path

#: The magic numbers of statfs(2): linux/magic.h, and the sources of filesystems that are not in it.
_PSEUDO = {
    0x0187: "autofs",
    0x27E0EB: "cgroup",
    0x9FA0: "proc",
    0x9FA1: "openpromfs",
    0x9FA2: "usbfs",
    0x1CD1: "devpts",
    0x5A3C69F0: "apparmorfs",
    0x6165676C: "pstore",
    0x62656570: "configfs",
    0x62656572: "sysfs",
    0x63677270: "cgroup2",
    0x64626720: "debugfs",
    0x64646178: "daxfs",
    0x65735543: "fusectl",
    0x67596969: "rpc_pipefs",
    0x6C6F6F70: "binder",
    0x6E667364: "nfsd",
    0x6E736673: "nsfs",
    0x50494446: "pidfs",
    0x73636673: "securityfs",
    0x74726163: "tracefs",
    0x7655821: "resctrl",
    0x42494E4D: "binfmt_misc",
    0x43415D53: "smackfs",
    0x09041934: "anon_inodefs",
    0x0A647361: "functionfs",
    0x958458F6: "hugetlbfs",
    0xABBA1974: "xenfs",
    0xAEE71EE7: "gadgetfs",
    0xCAFE4A11: "bpf",
    0xDE5E81E4: "efivarfs",
    0xF97CFF8C: "selinuxfs",
    0x19800202: "mqueue",
}

#: devtmpfs is one of these as far as statfs(2) can tell: the mount table knows which.
_TMPFS, _RAMFS = 0x01021994, 0x858458F6

_ROOM = 512  # more than any struct statfs takes


def pseudo_name(path: bytes, dir_fd: int | None = None) -> str | None:
    """The name of the pseudo filesystem that ``path`` itself is on, None if it is on a real one.

    Links are not followed, and nothing is mounted by asking. Raises OSError.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        magic = _magic(fd)
        if magic in (_TMPFS, _RAMFS):
            return "devtmpfs" if os.fstat(fd).st_dev in set(_device_filesystems()) else None
        return _PSEUDO.get(magic)
    finally:
        os.close(fd)


def _magic(fd: int) -> int:
    """What kind of filesystem an open file is on. Raises OSError."""
    buffer = ctypes.create_string_buffer(_ROOM)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fstatfs(fd, buffer):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    word = ctypes.c_uint if platform.machine() == "s390x" else ctypes.c_long
    return word.from_buffer(buffer).value & 0xFFFFFFFF


def _device_filesystems() -> Iterator[int]:
    """The st_dev of every devtmpfs that is mounted anywhere in sight."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        if after.split(b" ")[0] == b"devtmpfs":
            major, minor = before.split(b" ")[2].split(b":")
            yield os.makedev(int(major), int(minor))
