"""A directory tree read into tables."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from cowlib.errors import CowError
from mkfs_cow.source.builder import TreeBuilder, dense_segments, join_segments
from mkfs_cow.source.contents import PATH_LIMIT, open_quietly, shown
from mkfs_cow.source.directory_contents import DirectoryContents
from mkfs_cow.source.exclude import Excluder
from mkfs_cow.source.mounts import pseudo_name
from mkfs_cow.source.tables import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Segments, Tree

if TYPE_CHECKING:
    from os import DirEntry, stat_result

    from numpy.typing import NDArray

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NAME_MAX = 255


def scan_directory(
    path: str | bytes | os.PathLike[str],
    *,
    exclude: Excluder | None = None,
    clamp: int | None = None,
    ignore: Collection[tuple[int, int]] = (),
    one_file_system: bool = False,
    warn: Callable[[str], None],
    advise: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tree:
    """Everything below ``path``, links not followed.

    Mount points are crossed unless ``one_file_system`` is set, but never into pseudo filesystems: what is not entered
    is an empty directory, or of a single file that is mounted an empty file. ``advise`` gets a line for each of the
    latter kind.

    Nothing in the tables depends on anything but the files: otime, and the atime of links, are the mtime.

    ``exclude`` says what is left out, ``clamp`` is the latest time in seconds, ``ignore`` names files by
    (st_dev, st_ino), such as the image being made. What vanishes while it is looked at or cannot be read is left
    out, and ``warn`` gets a line that names it; what of it shows only later, when the data is read, is `write_data`'s
    to tell. ``progress`` is called now and then with the number of inodes so far. Raises CowError if ``path`` itself
    is no directory that can be read.
    """
    root = os.fsencode(path)
    scan = _Scan(root, exclude, frozenset(ignore), one_file_system, warn, advise or (lambda _: None))
    try:
        scan.run(progress)
    except OSError as error:
        raise CowError(f"{shown(root)}: {error.strerror}") from error
    builder = scan.builder
    numbers = builder.numbers()
    sizes = numbers[:, 3].astype(np.int64)
    contents = DirectoryContents(root, builder.names(), numbers[:, 1], sizes, builder.ctimes())
    full = ((numbers[:, 0] & S_IFMT) == S_IFREG) & (sizes > 0)
    full[scan.sparse] = False
    holey = _data_segments(contents, scan.sparse, sizes)
    segments = join_segments(dense_segments(np.flatnonzero(full), sizes), holey)
    return builder.tree(segments, contents, clamp)


class _Scan:
    """One walk over a directory tree."""

    def __init__(
        self,
        root: bytes,
        exclude: Excluder | None,
        ignore: frozenset[tuple[int, int]],
        one_file_system: bool,
        warn: Callable[[str], None],
        advise: Callable[[str], None],
    ) -> None:
        self.builder = TreeBuilder()
        self.sparse: list[int] = []  # regular files with fewer blocks than their size needs
        self._root = root.rstrip(b"/")
        self._excluded = exclude
        self._ignore = ignore
        self._one_file_system = one_file_system
        self._pseudo: dict[int, str | None] = {}  # by st_dev, as `pseudo_name` has it
        self._closed: set[int] = set()  # rows of directories that are not entered
        self._warn = warn
        self._advise = advise
        self._linked: dict[tuple[int, int], int] = {}  # inode index of what has several names
        self._me = os.geteuid()
        # Directories to come: path, row of the entry, and what stat said. The next one stands last.
        self._pending: list[tuple[bytes, int, stat_result]] = []

    def run(self, progress: Callable[[int], None] | None) -> None:
        """Fills the builder. Raises OSError if the root cannot be read."""
        root = self._root or b"/"
        pseudo = pseudo_name(root + b"/.")
        if pseudo is not None:
            raise CowError(f"{shown(root)}: a {pseudo} filesystem: what it shows are no files")
        self._directory(root, -1, os.stat(root), follow=True)
        while self._pending:
            path, row, st = self._pending.pop()
            try:
                self._directory(path, row, st)
            except OSError as error:
                self._left_out(path, error)
            if progress is not None:
                progress(len(self.builder))

    def _directory(self, path: bytes, row: int, st: stat_result, *, follow: bool = False) -> None:
        """Numbers a directory and the files in it, and notes the directories in it for later."""
        if row in self._closed:
            self.builder.place(row, self._add(st))
            return
        quietly = self._me in (0, st.st_uid)
        fd = open_quietly(path, _DIRECTORY_FLAGS & ~(os.O_NOFOLLOW if follow else 0), quietly)
        try:
            with os.scandir(fd) as listing:
                entries = sorted(((entry.name.encode(_ENCODING, _ERRORS), entry) for entry in listing), reverse=True)
            index = self._add(st)
            if row >= 0:
                self.builder.place(row, index)
            self._attributes(index, path, fd)
            if path == b"/":
                path = b""
            below: list[tuple[bytes, int, stat_result]] = []
            self._entries(fd, path, index, st.st_dev, entries, below)
            self._pending.extend(reversed(below))
        finally:
            os.close(fd)

    def _entries(
        self,
        fd: int,
        path: bytes,
        parent: int,
        device: int,
        entries: list[tuple[bytes, DirEntry[str]]],
        below: list[tuple[bytes, int, stat_result]],
    ) -> None:
        """Takes the entries of one directory, which stand in reverse order."""
        add_name = self.builder.name
        # Attributes are asked for by path, and paths have a limit.
        base = path if len(path) + 1 + _NAME_MAX <= PATH_LIMIT else b"/proc/self/fd/%d" % fd
        while entries:  # an entry keeps what stat said: let it go at once
            name, entry = entries.pop()
            try:
                st = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._left_out(path + b"/" + name, error)
                continue
            kind = st.st_mode & S_IFMT
            if self._excluded is not None and self._excluded(self._relative(path, name), kind == S_IFDIR):
                continue
            mounted = st.st_dev != device
            if kind == S_IFDIR:
                row = add_name(parent, -1, name)
                if mounted and (self._one_file_system or self._is_pseudo(fd, path, name, st)):
                    self._closed.add(row)
                below.append((path + b"/" + name, row, st))
                continue
            if mounted and kind == S_IFREG and self._is_pseudo(fd, path, name, st):
                add_name(parent, self._add(st, size=0), name)
                continue
            if st.st_nlink > 1 or self._ignore:
                key = (st.st_dev, st.st_ino)
                if key in self._ignore:
                    continue
                known = self._linked.get(key)
                if known is not None:
                    add_name(parent, known, name)
                    continue
            index = self._other(fd, path, base, name, st, kind)
            if index is not None:
                add_name(parent, index, name)

    def _other(self, fd: int, path: bytes, base: bytes, name: bytes, st: stat_result, kind: int) -> int | None:
        """Numbers what is not a directory, seen for the first time; None if it has gone."""
        target = None
        if kind == S_IFLNK:
            try:
                target = os.readlink(name, dir_fd=fd)
            except OSError as error:
                self._left_out(path + b"/" + name, error)
                return None
        index = self._add(st, size=None if target is None else len(target))
        if target is not None:
            self.builder.symlink(index, target)
        elif kind == S_IFREG and st.st_blocks * 512 < st.st_size:
            self.sparse.append(index)
        if st.st_nlink > 1:
            self._linked[st.st_dev, st.st_ino] = index
        self._attributes(index, path + b"/" + name, base + b"/" + name)
        return index

    def _is_pseudo(self, fd: int, path: bytes, name: bytes, st: stat_result) -> bool:
        """Whether an entry that is not on the filesystem of its directory is on none that has files; says so."""
        if st.st_dev not in self._pseudo:
            try:
                self._pseudo[st.st_dev] = pseudo_name(name, fd)
            except OSError:  # it shows again when it is opened, and is told there
                return False
        pseudo = self._pseudo[st.st_dev]
        if pseudo is not None:
            self._advise(f"{shown(path + b'/' + name)}: a {pseudo} filesystem, left empty")
        return pseudo is not None

    def _add(self, st: stat_result, size: int | None = None) -> int:
        kind = st.st_mode & S_IFMT
        if size is None:
            size = st.st_size if kind == S_IFREG else 0
        rdev = os.major(st.st_rdev) << 20 | os.minor(st.st_rdev) if st.st_rdev else 0
        mtime = st.st_mtime_ns
        # Looking where a link points touches its atime, and nothing can prevent that: the next scan would differ.
        times = (mtime if kind == S_IFLNK else st.st_atime_ns, mtime, st.st_ctime_ns, mtime)
        return self.builder.inode(st.st_mode, st.st_uid, st.st_gid, size, rdev, times)

    def _attributes(self, index: int, path: bytes, place: bytes | int) -> None:
        """Takes the extended attributes of ``place``: a path name, or the descriptor of a directory."""
        follow = isinstance(place, int)  # what is open is what is meant
        try:
            listed = os.listxattr(place, follow_symlinks=follow)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                self._warn(f"{shown(path)}: cannot list its extended attributes: {error.strerror}")
            return
        if not listed:
            return
        pairs = []
        for name in listed:
            try:
                pairs.append((os.fsencode(name), os.getxattr(place, name, follow_symlinks=follow)))
            except OSError as error:
                if error.errno != errno.ENODATA:
                    what = f"cannot read its attribute {shown(os.fsencode(name))}"
                    self._warn(f"{shown(path)}: {what}: {error.strerror}")
        self.builder.xattrs(index, pairs)

    def _relative(self, path: bytes, name: bytes) -> str:
        return os.fsdecode((path + b"/" + name)[len(self._root) + 1 :])

    def _left_out(self, path: bytes, error: OSError) -> None:
        what = "vanished" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "cannot be read"
        self._warn(f"{shown(path)}: {what}, left out: {error.strerror}")


def _data_segments(contents: DirectoryContents, inodes: list[int], sizes: NDArray[np.int64]) -> Segments:
    """Where the files that may have holes have data."""
    rows: list[tuple[int, int, int]] = []
    for inode in inodes:
        size = int(sizes[inode])
        try:
            ranges = _data_ranges(contents, inode, size)
        except OSError:
            # What is wrong with the file shows again when it is read, and is told there.
            ranges = [(0, size)]
        rows.extend((inode, start, end - start) for start, end in ranges)
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    inode_column, offset, length = (table[:, i].copy() for i in range(3))
    return Segments(inode_column, offset, length, offset)


def _data_ranges(contents: DirectoryContents, inode: int, size: int) -> list[tuple[int, int]]:
    """Where a file has data: begin and end of each range. Raises OSError."""
    ranges: list[tuple[int, int]] = []
    end = 0
    fd = contents.open(inode)
    try:
        while end < size:
            start = os.lseek(fd, end, os.SEEK_DATA)
            if start >= size:
                break
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            ranges.append((start, end))
    except OSError as error:
        if error.errno != errno.ENXIO:  # which says: a hole up to the end
            raise
    finally:
        contents.close(fd)
    return ranges
