"""A file tree as tables: what a new filesystem, or one subvolume of it, is filled with.

Rows, not objects: a hundred thousand files are a few arrays. The order of the rows depends on the names alone, never
on the order a directory happens to list them, so the same input makes the same filesystem anywhere.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mkfs_cow.source.contents import Contents, Renumbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

S_IFMT = 0o170000
S_IFDIR = 0o040000
S_IFREG = 0o100000
S_IFLNK = 0o120000


@dataclass(frozen=True)
class Blobs:
    """Many byte strings as one: the i-th is ``data[start[i]:start[i + 1]]``; ``start`` is int64, one longer."""

    data: bytes | bytearray
    start: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, i: int) -> bytes:
        return bytes(self.data[self.start[i] : self.start[i + 1]])

    def __iter__(self) -> Iterator[bytes]:
        bounds = self.start.tolist()
        return (bytes(self.data[a:b]) for a, b in pairwise(bounds))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each string in bytes."""
        return np.diff(self.start)

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> Blobs:
        """The strings, joined."""
        start = np.zeros(len(strings) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, strings), dtype=np.int64, count=len(strings)), out=start[1:])
        return cls(b"".join(strings), start)

    def followed_by(self, other: Blobs) -> Blobs:
        """These strings, then the others."""
        start = np.concatenate([self.start, other.start[1:] + self.start[-1]])
        return Blobs(bytes(self.data) + bytes(other.data), start)

    def select(self, rows: NDArray[np.int64]) -> Blobs:
        """The strings of these rows, in this order."""
        if len(rows) == len(self) and bool((rows == np.arange(len(self))).all()):
            return self
        bounds = self.start.tolist()
        return Blobs.of([bytes(self.data[bounds[i] : bounds[i + 1]]) for i in rows.tolist()])


class BlobsBuilder:
    """Byte strings on their way to `Blobs`."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q", [0])

    def add(self, string: bytes) -> None:
        """Appends one."""
        self._data += string
        self._ends.append(len(self._data))

    def blobs(self) -> Blobs:
        """All of them; none may be added after that."""
        return Blobs(self._data, np.array(self._ends, dtype=np.int64))


@dataclass(frozen=True)
class Names:
    """Directory entries, sorted by parent, then by name as bytes.

    ``parent`` and ``inode`` are int64 inode indices. A negative ``inode`` is a subvolume that hangs here: its
    number in the list of trees is ``~inode``.
    """

    parent: NDArray[np.int64]
    inode: NDArray[np.int64]
    name: Blobs

    def __len__(self) -> int:
        return len(self.parent)

    def select(self, rows: NDArray[np.int64]) -> Names:
        """Some of the entries, in the order of ``rows``."""
        return Names(self.parent[rows], self.inode[rows], self.name.select(rows))

    def first_rows(self, inodes: int) -> NDArray[np.int64]:
        """The row of the first name of each of so many inodes, -1 where there is none: int64, shape (inodes,)."""
        first = np.full(inodes, -1, dtype=np.int64)
        here = np.flatnonzero(self.inode >= 0)[::-1]
        first[self.inode[here]] = here
        return first


@dataclass(frozen=True)
class Xattrs:
    """Extended attributes, sorted by inode, then by name as bytes. ``inode`` is an int64 inode index."""

    inode: NDArray[np.int64]
    name: Blobs
    value: Blobs

    def __len__(self) -> int:
        return len(self.inode)

    def select(self, rows: NDArray[np.int64]) -> Xattrs:
        """Some of the attributes, in the order of ``rows``."""
        return Xattrs(self.inode[rows], self.name.select(rows), self.value.select(rows))


@dataclass(frozen=True)
class Symlinks:
    """Where symbolic links point: ``inode`` (int64 inode index, ascending) and ``target``, without a final NUL."""

    inode: NDArray[np.int64]
    target: Blobs

    def select(self, rows: NDArray[np.int64]) -> Symlinks:
        """Some of the links, in the order of ``rows``."""
        return Symlinks(self.inode[rows], self.target.select(rows))


@dataclass(frozen=True)
class Segments:
    """Where regular files have data, sorted by inode, then by place in the file; what lies between is a hole.

    All columns are int64: ``inode`` index, ``offset`` in the file and ``length`` in bytes (neither need be a whole
    number of sectors), and ``position``, where the data stands in what `Contents.open` opens.
    """

    inode: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    position: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.inode)

    def select(self, rows: NDArray[np.int64]) -> Segments:
        """Some of the segments, in the order of ``rows``."""
        return Segments(self.inode[rows], self.offset[rows], self.length[rows], self.position[rows])


@dataclass(frozen=True)
class Times:
    """One of the four times of every inode: ``sec`` (int64, signed, since the epoch) and ``nsec`` (uint32)."""

    sec: NDArray[np.int64]
    nsec: NDArray[np.uint32]

    def select(self, rows: NDArray[np.int64]) -> Times:
        """The times of these inodes."""
        return Times(self.sec[rows], self.nsec[rows])

    def clamped(self, latest: int) -> Times:
        """No time later than ``latest`` seconds."""
        late = (self.sec > latest) | ((self.sec == latest) & (self.nsec > 0))
        return Times(np.where(late, latest, self.sec), np.where(late, np.uint32(0), self.nsec))


@dataclass(frozen=True)
class Tree:
    """One file tree. Inodes are rows, row 0 is the root directory; every other table names them by row index.

    Rows are numbered depth first: a directory, the other files in it by name, then the directories in it by name.
    So parents come before what is in them and the files of one directory stand together. A file with several names
    is one row, at its first name. Rows never move: an inode that was lost while its data was read keeps its row,
    with ``nlink`` 0 and no names.

    ``mode`` uint32 as in stat(2); ``uid`` ``gid`` uint32; ``nlink`` uint32, the names within this tree (1 for a
    directory); ``size`` uint64 bytes, for a directory twice the lengths of the names in it; ``rdev`` uint64 as
    btrfs stores it, ``major << 20 | minor``; ``flags`` uint64, btrfs inode flags; ``compression`` uint16, which of the
    ways to compress that were asked for is meant for the data, 0 the filesystem's own; ``priority`` int16, data of
    higher ones comes first on disk.
    """

    mode: NDArray[np.uint32]
    uid: NDArray[np.uint32]
    gid: NDArray[np.uint32]
    nlink: NDArray[np.uint32]
    size: NDArray[np.uint64]
    rdev: NDArray[np.uint64]
    flags: NDArray[np.uint64]
    compression: NDArray[np.uint16]
    priority: NDArray[np.int16]
    atime: Times
    ctime: Times
    mtime: Times
    otime: Times
    names: Names
    xattrs: Xattrs
    symlinks: Symlinks
    segments: Segments
    contents: Contents

    def __len__(self) -> int:
        return len(self.mode)

    def is_type(self, file_type: int) -> NDArray[np.bool_]:
        """Which inodes are of a type such as ``S_IFREG``."""
        return np.asarray(self.mode & np.uint32(S_IFMT) == file_type)

    def counted(self) -> Tree:
        """The tree with ``nlink`` and the sizes of directories as its names say."""
        names = self.names
        here = names.inode[names.inode >= 0]
        nlink = np.bincount(here, minlength=len(self)).astype(np.uint32)
        nlink[0] = 1
        size = self.size.copy()
        directories = self.is_type(S_IFDIR)
        weights = np.bincount(names.parent, weights=names.name.lengths, minlength=len(self))
        size[directories] = 2 * weights[directories].astype(np.uint64)
        return replace(self, nlink=nlink, size=size)

    def without(self, lost: NDArray[np.bool_]) -> Tree:
        """The tree without the names, attributes and data of the inodes marked in ``lost``; their rows stay."""
        if not lost.any():
            return self
        named = lost[np.maximum(self.names.inode, 0)] & (self.names.inode >= 0)
        return replace(
            self,
            names=self.names.select(np.flatnonzero(~named)),
            xattrs=self.xattrs.select(np.flatnonzero(~lost[self.xattrs.inode])),
            symlinks=self.symlinks.select(np.flatnonzero(~lost[self.symlinks.inode])),
            segments=self.segments.select(np.flatnonzero(~lost[self.segments.inode])),
        ).counted()

    def without_xattrs(self, rows: NDArray[np.int64]) -> Tree:
        """The tree without some rows of its attributes."""
        return replace(self, xattrs=self.xattrs.select(np.delete(np.arange(len(self.xattrs)), rows)))

    def renumbered(self, original: NDArray[np.int64], names: Names) -> Tree:
        """Some of the inodes as a tree of their own: row i is this one's row ``original[i]``. ``names`` speak of the
        new rows already.
        """
        index = np.full(len(self), -1, dtype=np.int64)
        index[original] = np.arange(len(original))

        def rows_of(inodes: NDArray[np.int64]) -> NDArray[np.int64]:
            rows = np.flatnonzero(index[inodes] >= 0)
            return rows[np.argsort(index[inodes[rows]], kind="stable")]

        xattrs = self.xattrs.select(rows_of(self.xattrs.inode))
        symlinks = self.symlinks.select(rows_of(self.symlinks.inode))
        segments = self.segments.select(rows_of(self.segments.inode))
        columns = ("mode", "uid", "gid", "nlink", "size", "rdev", "flags", "compression", "priority")
        return replace(
            self,
            **{column: getattr(self, column)[original] for column in columns},
            **{t: getattr(self, t).select(original) for t in ("atime", "ctime", "mtime", "otime")},
            names=names,
            xattrs=replace(xattrs, inode=index[xattrs.inode]),
            symlinks=replace(symlinks, inode=index[symlinks.inode]),
            segments=replace(segments, inode=index[segments.inode]),
            contents=Renumbered(self.contents, original),
        ).counted()

    def path(self, inode: int, first: NDArray[np.int64]) -> bytes:
        """The path of an inode relative to the root, by `Names.first_rows`; ``.`` is the root's."""
        parts = []
        while (row := int(first[inode])) >= 0:
            parts.append(self.names.name[row])
            inode = int(self.names.parent[row])
        return b"/".join(reversed(parts)) or b"."

    def find(self, path: bytes) -> int | None:
        """The inode index of a path relative to the root, None if there is no such name. Links are not followed."""
        inode = 0
        for name in path.split(b"/"):
            if name in (b"", b"."):
                continue
            found = self.entry(inode, name)
            if found is None or found < 0:
                return None
            inode = found
        return inode

    def entry(self, directory: int, name: bytes) -> int | None:
        """What a name in a directory leads to, as `Names` has it; None if there is no such name."""
        first, last = np.searchsorted(self.names.parent, [directory, directory + 1]).tolist()
        row = bisect_left(range(last), name, lo=first, key=self.names.name.__getitem__)
        if row == last or self.names.name[row] != name:
            return None
        return int(self.names.inode[row])
