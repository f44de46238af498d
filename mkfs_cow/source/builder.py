"""Rows gathered one after another, turned into the tables of a `Tree`."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from mkfs_cow.source.tables import Blobs, BlobsBuilder, Names, Segments, Symlinks, Times, Tree, Xattrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from mkfs_cow.source.contents import Contents

_SECOND = 1_000_000_000

#: Attributes a mounted btrfs can show. Others belong to the filesystem they were found on.
_XATTR_PREFIXES = (b"user.", b"trusted.", b"security.", b"btrfs.")
_XATTR_NAMES = (b"system.posix_acl_access", b"system.posix_acl_default")


def storable(name: bytes) -> bool:
    """Whether btrfs knows what to do with an extended attribute of this name."""
    return name.startswith(_XATTR_PREFIXES) or name in _XATTR_NAMES


class TreeBuilder:
    """Takes inodes and names in the order `Tree` wants them and keeps them as flat arrays.

    A directory may be named before it is numbered: `name` gives the row of the entry and `place` completes it; an
    entry that never gets its inode is dropped.
    """

    def __init__(self) -> None:
        self._numbers = array("Q")  # mode, uid, gid, size, rdev of each inode
        self._times = array("q")  # atime, mtime, ctime, otime in nanoseconds
        self._far_times: dict[int, tuple[int, ...]] = {}  # those that nanoseconds in 64 bits cannot reach
        self._parents = array("q")
        self._children = array("q")
        self._names = BlobsBuilder()
        self._xattrs: list[tuple[int, bytes, bytes]] = []
        self._links = array("q")
        self._targets = BlobsBuilder()

    def __len__(self) -> int:
        return len(self._numbers) // 5

    def inode(self, mode: int, uid: int, gid: int, size: int, rdev: int, times: tuple[int, ...]) -> int:
        """Adds an inode and gives its index. ``times`` are atime, mtime, ctime, otime in nanoseconds."""
        index = len(self._numbers) // 5
        self._numbers.extend((mode, uid, gid, size, rdev))
        try:
            self._times.extend(times)
        except OverflowError:
            del self._times[4 * index :]
            self._times.extend(min(max(time, -(1 << 63)), (1 << 63) - 1) for time in times)
            self._far_times[index] = times
        return index

    def inodes(self, numbers: NDArray[np.uint64], times: NDArray[np.int64]) -> None:
        """Adds inodes: mode, uid, gid, size and rdev of each, and its times, as `inode` takes them, row by row."""
        self._numbers.frombytes(numbers.tobytes())
        self._times.frombytes(times.tobytes())

    def name(self, parent: int, inode: int, name: bytes) -> int:
        """Adds a directory entry and gives its row; ``inode`` -1 if it is yet to be placed."""
        self._parents.append(parent)
        self._children.append(inode)
        self._names.add(name)
        return len(self._parents) - 1

    def place(self, row: int, inode: int) -> None:
        """Says which inode an entry points to."""
        self._children[row] = inode

    def xattrs(self, inode: int, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Adds extended attributes, those that btrfs can hold."""
        self._xattrs.extend((inode, name, value) for name, value in sorted(pairs) if storable(name))

    def symlink(self, inode: int, target: bytes) -> None:
        """Says where a symbolic link points."""
        self._links.append(inode)
        self._targets.add(target)

    def ctimes(self) -> NDArray[np.int64]:
        """The ctime of each inode so far in nanoseconds."""
        return self._column(2)

    def numbers(self) -> NDArray[np.uint64]:
        """mode, uid, gid, size and rdev of each inode so far: uint64 of shape (inodes, 5)."""
        return np.frombuffer(self._numbers, dtype=np.uint64).reshape(-1, 5)

    def names(self) -> Names:
        """The entries that lead somewhere."""
        parent = np.frombuffer(self._parents, dtype=np.int64)
        child = np.frombuffer(self._children, dtype=np.int64)
        return Names(parent, child, self._names.blobs()).select(np.flatnonzero(child >= 0))

    def tree(self, segments: Segments, contents: Contents, clamp: int | None) -> Tree:
        """The tables. With ``clamp`` no time is later than so many seconds, and atime and ctime, which tell of the
        machine that the files came from, are the mtime.
        """
        numbers = self.numbers()
        mode, uid, gid = (numbers[:, i].astype(np.uint32) for i in range(3))
        atime, mtime, ctime, otime = (self._timestamps(i) for i in range(4))
        if clamp is not None:
            mtime, otime = (times.clamped(clamp) for times in (mtime, otime))
            atime = ctime = mtime
        return Tree(
            mode=mode,
            uid=uid,
            gid=gid,
            nlink=np.zeros(len(self), dtype=np.uint32),
            size=numbers[:, 3].copy(),
            rdev=numbers[:, 4].copy(),
            flags=np.zeros(len(self), dtype=np.uint64),
            compression=np.zeros(len(self), dtype=np.uint16),
            priority=np.zeros(len(self), dtype=np.int16),
            atime=atime,
            ctime=ctime,
            mtime=mtime,
            otime=otime,
            names=self.names(),
            xattrs=self._attributes(),
            symlinks=self._symlinks(),
            segments=segments,
            contents=contents,
        ).counted()

    def _column(self, which: int) -> NDArray[np.int64]:
        return np.frombuffer(self._times, dtype=np.int64).reshape(-1, 4)[:, which].copy()

    def _timestamps(self, which: int) -> Times:
        sec, nsec = np.divmod(self._column(which), _SECOND)
        for inode, times in self._far_times.items():
            far, nsec[inode] = divmod(times[which], _SECOND)
            sec[inode] = min(max(far, -(1 << 63)), (1 << 63) - 1)
        return Times(sec, nsec.astype(np.uint32))

    def _attributes(self) -> Xattrs:
        inode = np.fromiter((row[0] for row in self._xattrs), dtype=np.int64, count=len(self._xattrs))
        names = Blobs.of([name for _, name, _ in self._xattrs])
        values = Blobs.of([value for _, _, value in self._xattrs])
        return Xattrs(inode, names, values).select(np.argsort(inode, kind="stable"))

    def _symlinks(self) -> Symlinks:
        return Symlinks(np.array(self._links, dtype=np.int64), self._targets.blobs())


def dense_segments(inodes: NDArray[np.int64], sizes: NDArray[np.int64]) -> Segments:
    """The segments of files without holes: one for each of ``inodes``, as long as ``sizes[inode]`` says."""
    nothing = np.zeros(len(inodes), dtype=np.int64)
    return Segments(inodes, nothing, sizes[inodes], nothing)


def join_segments(*parts: Segments) -> Segments:
    """Several tables of segments as one, sorted."""
    joined = Segments(
        np.concatenate([part.inode for part in parts]),
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.length for part in parts]),
        np.concatenate([part.position for part in parts]),
    )
    return joined.select(np.lexsort((joined.offset, joined.inode)))
