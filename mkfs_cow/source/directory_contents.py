"""The data of files below a directory, read from where they were scanned."""

from __future__ import annotations

import os
from stat import S_ISREG
from typing import TYPE_CHECKING

import numpy as np

from mkfs_cow.source.contents import PATH_LIMIT, open_quietly, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.source.tables import Names

# A file may have become a FIFO or a link since it was scanned: neither hang nor follow.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class DirectoryContents:
    """The files below a directory, found by the first of their names.

    ``sizes`` and ``ctimes`` (int64; bytes, nanoseconds) say for each inode how it was scanned: whatever changes a
    file changes its ctime.
    """

    prefetch = True
    shared = False

    def __init__(
        self,
        root: bytes,
        names: Names,
        uid: NDArray[np.uint64],
        sizes: NDArray[np.int64],
        ctimes: NDArray[np.int64],
    ) -> None:
        self._names = names
        self._row = names.first_rows(len(sizes))
        self._sizes, self._ctimes = sizes, ctimes
        me = os.geteuid()
        self._mine = np.full(len(sizes), True) if me == 0 else uid == me
        self._directories: dict[int, bytes] = {0: root.rstrip(b"/")}

    def open(self, inode: int) -> int:
        return open_quietly(self._path(inode), _OPEN_FLAGS, bool(self._mine[inode]))

    def close(self, fd: int) -> None:
        os.close(fd)

    def changed(self, fd: int, inode: int) -> bool:
        now = os.fstat(fd)
        same = now.st_size == self._sizes.item(inode) and now.st_ctime_ns == self._ctimes.item(inode)
        return not same or not S_ISREG(now.st_mode)

    def name(self, inode: int) -> str:
        return shown(self._path(inode))

    def _path(self, inode: int) -> bytes:
        row = int(self._row[inode])
        if row < 0:
            return self._directories[0]
        return self._directory(int(self._names.parent[row])) + b"/" + self._names.name[row]

    def _directory(self, inode: int) -> bytes:
        """The path of a directory; kept, since the next file is most often in the same one."""
        missing = []
        while (path := self._directories.get(inode)) is None:
            row = int(self._row[inode])
            missing.append((inode, self._names.name[row]))
            inode = int(self._names.parent[row])
        for inode, name in reversed(missing):
            path = path + b"/" + name
            if len(path) <= PATH_LIMIT:  # deeper ones would add up to too much
                self._directories[inode] = path
        return path
