"""Where the data of a tree's regular files is read from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Path names as long as this must be walked in steps; the kernel takes 4095 bytes at a time.
PATH_LIMIT = 4095


class Contents(Protocol):
    """What reads the data of regular files. Safe to use from several threads at once."""

    @property
    def prefetch(self) -> bool:
        """Whether files are worth asking the kernel for ahead of time."""
        ...

    @property
    def shared(self) -> bool:
        """Whether one descriptor has the data of every inode, and will have it as long as this is held."""
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
    shared = False

    def open(self, inode: int) -> int:
        raise FileNotFoundError(inode)

    def close(self, fd: int) -> None:
        pass

    def changed(self, fd: int, inode: int) -> bool:
        return False

    def name(self, inode: int) -> str:
        return f"inode {inode}"


class FileContents:
    """Data that all stands in one open file, such as an archive."""

    prefetch = False
    shared = True

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

    @property
    def shared(self) -> bool:
        """As the other's."""
        return self.contents.shared

    def open(self, inode: int) -> int:
        return self.contents.open(int(self.original[inode]))

    def close(self, fd: int) -> None:
        self.contents.close(fd)

    def changed(self, fd: int, inode: int) -> bool:
        return self.contents.changed(fd, int(self.original[inode]))

    def name(self, inode: int) -> str:
        return self.contents.name(int(self.original[inode]))
