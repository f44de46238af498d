"""Where the data of a tree's regular files is read from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from stat import S_ISREG
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.source.tables import Names

#: Path names as long as this must be walked in steps; the kernel takes 4095 bytes at a time.
PATH_LIMIT = 4095

# A file may have become a FIFO or a link since it was scanned: neither hang nor follow.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Contents(Protocol):
    """What reads the data of regular files. Safe to use from several threads at once."""

    @property
    def prefetch(self) -> bool:
        """Whether files are worth asking the kernel for ahead of time."""
        ...

    def open(self, inode: int) -> int:
        """A descriptor for the data of an inode, at the positions its segments say. Raises OSError."""
        ...

    def close(self, fd: int) -> None:
        """Done with what `open` gave."""
        ...

    def changed(self, fd: int, inode: int) -> bool:
        """Whether the open file is not as it was scanned."""
        ...

    def name(self, inode: int) -> str:
        """What to call the file in a message."""
        ...


def shown(path: bytes) -> str:
    """A path for a message: in one line and printable, whatever bytes it is made of."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_at(path: bytes, flags: int) -> int:
    """Opens ``path``, however long it is. Raises OSError."""
    fd: int | None = None
    try:
        while len(path) > PATH_LIMIT:
            cut = path.rindex(b"/", 1, PATH_LIMIT)
            step = os.open(path[:cut], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            if fd is not None:
                os.close(fd)
            fd, path = step, path[cut:].lstrip(b"/")
        return os.open(path, flags, dir_fd=fd)
    finally:
        if fd is not None:
            os.close(fd)


def open_quietly(path: bytes, flags: int, quietly: bool) -> int:
    """Opens ``path``; ``quietly`` asks not to touch its atime, which only its owner may. Raises OSError."""
    if quietly:
        try:
            return open_at(path, flags | os.O_NOATIME)
        except PermissionError:
            pass  # root of a user namespace may not either
    return open_at(path, flags)


class NoContents:
    """Of a tree without files there is nothing to open."""

    prefetch = False

    def open(self, inode: int) -> int:
        raise FileNotFoundError(inode)

    def close(self, fd: int) -> None:
        pass

    def changed(self, fd: int, inode: int) -> bool:
        return False

    def name(self, inode: int) -> str:
        return f"inode {inode}"


class DirectoryContents:
    """The files below a directory, found by the first of their names.

    ``sizes`` and ``ctimes`` (int64; bytes, nanoseconds) say for each inode how it was scanned: whatever changes a
    file changes its ctime.
    """

    prefetch = True

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


class FileContents:
    """Data that all stands in one open file, such as an archive."""

    prefetch = False

    def __init__(self, file: IO[bytes]) -> None:
        """``file`` must be as good as its descriptor: nothing of it in a buffer. It is kept open."""
        self._file = file
        self._fd = file.fileno()

    def open(self, inode: int) -> int:
        return self._fd

    def close(self, fd: int) -> None:
        pass

    def changed(self, fd: int, inode: int) -> bool:
        return False

    def name(self, inode: int) -> str:
        return f"file {inode} of the archive"


@dataclass(frozen=True)
class Renumbered:
    """The contents of another tree whose inodes have other numbers there: ``original`` (int64)."""

    contents: Contents
    original: NDArray[np.int64]

    @property
    def prefetch(self) -> bool:
        """As the other's."""
        return self.contents.prefetch

    def open(self, inode: int) -> int:
        return self.contents.open(int(self.original[inode]))

    def close(self, fd: int) -> None:
        self.contents.close(fd)

    def changed(self, fd: int, inode: int) -> bool:
        return self.contents.changed(fd, int(self.original[inode]))

    def name(self, inode: int) -> str:
        return self.contents.name(int(self.original[inode]))
