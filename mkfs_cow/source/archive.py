"""A tar archive read into tables."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cowlib.format import NAME_LEN
from mkfs_cow.source.builder import TreeBuilder
from mkfs_cow.source.contents import shown
from mkfs_cow.source.exclude import Excluder
from mkfs_cow.source.tables import S_IFDIR, S_IFLNK, S_IFREG, BlobsBuilder, Names, Segments, Tree
from mkfs_cow.source.tar_header import member_of, members_and_runs
from mkfs_cow.source.tar_run import Run
from mkfs_cow.source.tar_stream import ArchiveStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.source.contents import Contents
    from mkfs_cow.source.tar_member import Member

_TYPES = {"1": 0, "2": S_IFLNK, "3": 0o020000, "4": 0o060000, "5": S_IFDIR, "6": 0o010000, "D": S_IFDIR}
_IMPLIED_MODE = S_IFDIR | 0o755
_LINK_MODE = 0o777  # whatever a header says: the kernel knows no other
_TARGET_LIMIT = 4096
_PATH_LIMIT = 1 << 16
_SECOND = 1_000_000_000
_NO_NAMES = frozenset((b"", b".", b".."))
_MAX_LINKS = 40  # followed on the way to one place, as the kernel has it


def scan_tar(
    path: str,
    *,
    exclude: Excluder | None = None,
    clamp: int | None = None,
    warn: Callable[[str], None],
    progress: Callable[[int], None] | None = None,
) -> Tree:
    """Everything in the tar archive at ``path``, ``-`` for standard input, as unpacking it would have it.

    The last of several members with one name counts. Directories on the way that have no member of their own are
    root's, with mode 755 and the time of the first member in them. Times that the archive does not give are the
    mtime. Owners count by number. ``exclude`` and ``clamp`` are those of `scan_directory`; ``warn`` gets a line for
    each member that cannot be taken; ``progress`` is called now and then with the number of members so far. Raises
    CowError for what is no archive, or a broken one.
    """
    with ArchiveStream(path) as stream:
        hierarchy = Hierarchy(warn)
        count = 0
        for found in members_and_runs(stream, warn):
            if isinstance(found, Run):
                hierarchy.add_run(found)
            else:
                hierarchy.add(found)
            before, count = count, count + (len(found) if isinstance(found, Run) else 1)
            if progress is not None and before // 1000 < count // 1000:
                progress(count)
        return hierarchy.tree(stream.contents(), exclude, clamp)


class CannotTake(Exception):
    """Why a member is left out."""


class Hierarchy:
    """Members put where their names say. Inodes are numbered as they come, and into order at the end."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._builder = TreeBuilder()
        self._root = -1
        self._entries: dict[int, dict[bytes, int]] = {}  # of each directory: inode by name
        self._links: dict[int, bytes] = {}  # target of each symbolic link
        self._segments = array("q")  # inode, offset, length, position of each
        self._found: dict[bytes, int] = {}  # directories by path as it was given

    @property
    def count(self) -> int:
        """The number of inodes so far."""
        return len(self._builder)

    def add(self, member: Member) -> None:
        """Takes in one member, or warns why not."""
        for lack in member.lacks:
            self._warn(f"{shown(member.name)}: {lack}, left out")
        try:
            self._add(member)
        except CannotTake as reason:
            self._warn(f"{shown(member.name)}: {reason}, left out")

    def tree(self, contents: Contents, exclude: Excluder | None, clamp: int | None) -> Tree:
        """All of it in the order of `Tree`, without what is excluded."""
        if self._root < 0:
            self._root = self._implied(0)
        original, names = self._in_order(exclude)
        index = np.full(len(self._builder), -1, dtype=np.int64)
        index[original] = np.arange(len(original))
        names = Names(index[names.parent], index[names.inode], names.name)
        table = np.frombuffer(self._segments, dtype=np.int64).reshape(-1, 4)
        segments = Segments(*(table[:, i].copy() for i in range(4)))
        self._segments = array("q")
        return self._builder.tree(segments, contents, clamp).renumbered(original, names)

    def _add(self, member: Member) -> None:
        if self._root < 0:
            self._root = self._implied(member.mtime)
        parts = parts_of(member.name)
        kind = _TYPES.get(member.kind, S_IFREG)
        if not parts:
            if kind != S_IFDIR:
                raise CannotTake("it has no name")
            self._root = self._moved(self._root, self._inode(member, kind))
            return
        name = parts.pop()
        directory = self._reach(parts, member.mtime)
        old = self._entries[directory].get(name)
        if member.kind == "1":
            inode = self._target(member)
            if inode != old:
                self._make_room(old)
            self._enter(directory, name, inode)
        elif kind == S_IFDIR:
            self._enter(directory, name, self._moved(old, self._inode(member, kind)))
        else:
            if kind == S_IFLNK and not 0 < len(member.link) < _TARGET_LIMIT:
                raise CannotTake("a symbolic link to nothing, or one too long")
            self._make_room(old)
            self._enter(directory, name, self._inode(member, kind))

    def _enter(self, directory: int, name: bytes, inode: int) -> None:
        """Gives an inode a name in a directory."""
        self._entries[directory][name] = inode

    def add_run(self, run: Run) -> None:
        """Takes in neighbouring members: files with new names at once, all else one by one."""
        start, inode = 0, len(self._builder)
        known: bytes | None = None  # the directory that `entries` are of, as it was given
        entries: dict[bytes, int] = {}
        for i, (path, is_file) in enumerate(zip(run.name, run.is_file, strict=True)):
            directory, _, name = path.rpartition(b"/")
            if is_file and directory != known:
                found = self._entries_at(directory)
                known = None if found is None else directory
                entries = {} if found is None else found
            if is_file and directory == known and name not in entries and name not in _NO_NAMES:
                entries[name] = inode
                inode += 1
                continue
            self._take_files(run, start, i)
            self.add(member_of(run, i))
            start, inode, known = i + 1, len(self._builder), None
        self._take_files(run, start, len(run))

    def _entries_at(self, directory: bytes) -> dict[bytes, int] | None:
        """What a directory that is there has in it; None if it is not there yet or is no good."""
        try:
            return self._entries[self._reach(parts_of(directory), None)] if self._root >= 0 else None
        except CannotTake:
            return None

    def _take_files(self, run: Run, first: int, last: int) -> None:
        """The inodes of some members of a run, all of them regular files."""
        if first == last:
            return
        rows = slice(first, last)
        inode = len(self._builder) + np.arange(last - first)
        numbers = np.zeros((last - first, 5), dtype=np.uint64)
        for i, column in enumerate((run.mode | S_IFREG, run.uid, run.gid, run.size)):
            numbers[:, i] = column[rows]
        times = np.repeat(run.mtime[rows] * _SECOND, 4)
        self._builder.inodes(numbers, times)
        size = run.size[rows]
        segments = np.stack([inode, np.zeros_like(size), size, run.position[rows]], axis=1)[size > 0]
        self._segments.frombytes(segments.astype(np.int64).tobytes())

    def _inode(self, member: Member, kind: int) -> int:
        """A new inode for what the member is."""
        mtime = member.mtime
        atime, ctime, otime = (mtime if time is None else time for time in (member.atime, member.ctime, member.otime))
        size = member.size if kind == S_IFREG else len(member.link) if kind == S_IFLNK else 0
        inode = self._builder.inode(
            kind | (_LINK_MODE if kind == S_IFLNK else member.mode),
            member.uid,
            member.gid,
            size,
            member.major << 20 | member.minor,
            (atime, mtime, ctime, otime),
        )
        self._builder.xattrs(inode, member.xattrs.items())
        if kind == S_IFLNK:
            self._builder.symlink(inode, member.link)
            self._links[inode] = member.link
        elif kind == S_IFREG:
            for segment in member.segments:
                self._segments.extend((inode, *segment))
        return inode

    def _implied(self, time: int) -> int:
        """A directory that the archive needs but does not have."""
        inode = self._builder.inode(_IMPLIED_MODE, 0, 0, 0, 0, (time,) * 4)
        self._entries[inode] = {}
        return inode

    def _moved(self, old: int | None, new: int) -> int:
        """Makes ``new`` a directory with the entries of ``old``, whose place it takes."""
        self._entries[new] = {} if old is None else self._entries.pop(old, {})
        if old is not None:
            self._found.clear()
        return new

    def _make_room(self, old: int | None) -> None:
        """Lets go what has the name of something else that comes now."""
        if old is None:
            return
        if self._entries.get(old):
            raise CannotTake("a directory of its name has something in it")
        self._entries.pop(old, None)
        self._found.clear()

    def _target(self, member: Member) -> int:
        """The inode that a hard link means."""
        missing = CannotTake(f"a hard link to {shown(member.link)}, which is no file before it")
        parts = parts_of(member.link)
        if not parts:
            raise missing
        name = parts.pop()
        inode = self._entries[self._reach(parts, None)].get(name)
        if inode is None or inode in self._entries:
            raise missing
        return inode

    def _reach(self, parts: list[bytes], time: int | None) -> int:
        """The directory at a path, links on the way followed as if the root were the only one there is.

        With a ``time`` what is missing is made.
        """
        path = b"/".join(parts)
        found = self._found.get(path)
        if found is not None:
            return found
        way = [self._root]
        ahead = parts[::-1]
        links = 0
        while ahead:
            part = ahead.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(way) > 1:
                    way.pop()
                continue
            inode = self._entries[way[-1]].get(part)
            if inode is None:
                if time is None:
                    raise CannotTake(f"there is no directory {shown(path)}")
                inode = self._implied(time)
                self._enter(way[-1], part, inode)
            if inode in self._entries:
                way.append(inode)
            elif inode in self._links and links < _MAX_LINKS:
                links += 1
                target = self._links[inode]
                if target.startswith(b"/"):
                    del way[1:]
                ahead.extend(reversed(target.split(b"/")))
            else:
                raise CannotTake(f"{shown(path)} leads to no directory")
        self._found[path] = way[-1]
        return way[-1]

    def _in_order(self, exclude: Excluder | None) -> tuple[NDArray[np.int64], Names]:
        """The inodes in the order of `Tree`, and the entries in theirs, by the numbers that inodes have here.

        Forgets every directory once its turn has come.
        """
        order = array("q")
        numbered = bytearray(len(self._builder))
        parents, children, text = array("q"), array("q"), BlobsBuilder()
        is_directory = bytearray(len(self._builder))
        for inode in self._entries:
            is_directory[inode] = True
        pending = [(self._root, "")]
        while pending:
            directory, path = pending.pop()
            order.append(directory)
            below = []
            inside = self._entries.pop(directory)
            for name in sorted(inside):
                inode = inside[name]
                if exclude is not None and exclude(path + os.fsdecode(name), bool(is_directory[inode])):
                    continue
                parents.append(directory)
                children.append(inode)
                text.add(name)
                if is_directory[inode]:
                    below.append((inode, path + os.fsdecode(name) + "/" if exclude is not None else ""))
                elif not numbered[inode]:
                    numbered[inode] = True
                    order.append(inode)
            pending.extend(reversed(below))
        parent, child = (np.frombuffer(column, dtype=np.int64) for column in (parents, children))
        return np.frombuffer(order, dtype=np.int64), Names(parent, child, text.blobs())


def parts_of(path: bytes) -> list[bytes]:
    """The names in a path from the root. Raises CannotTake for those that must not be."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise CannotTake("its name leads out of where it is")
    if len(path) > _PATH_LIMIT or max(map(len, parts), default=0) > NAME_LEN:
        raise CannotTake("its name is too long")
    return parts
