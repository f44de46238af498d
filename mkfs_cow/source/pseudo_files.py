"""Pseudo files put into a tree: the definitions of `pseudo` carried out."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mkfs_cow.source.additions import Additions
from mkfs_cow.source.builder import storable
from mkfs_cow.source.contents import Contents, shown
from mkfs_cow.source.pseudo import Definition
from mkfs_cow.source.spool import spool_file
from mkfs_cow.source.tables import S_IFDIR, S_IFLNK, S_IFREG, Tree

if TYPE_CHECKING:
    from mkfs_cow.source.definitions import Line

_SECOND = 1_000_000_000
_TYPES = {"d": S_IFDIR, "b": stat.S_IFBLK, "c": stat.S_IFCHR, "s": S_IFLNK, "f": S_IFREG}
_IPC = {b"s": stat.S_IFSOCK, b"f": stat.S_IFIFO}

#: Types in the order they are carried out: links and changes may mean what other lines add, wherever they stand.
_ORDER = {kind: place for place, kinds in enumerate(("d", "bcisflh", "L", "mx")) for kind in kinds}


def with_pseudo_files(
    tree: Tree,
    definitions: Sequence[Definition],
    *,
    now: int,
    clamp: int | None,
    root: Path | None,
    ignore: Collection[tuple[int, int]],
    warn: Callable[[str], None],
) -> Tree:
    """The tree with what the definitions add to it and change in it.

    What has no time of its own gets ``now``; nothing new is later than ``clamp`` (both seconds). ``root`` is the
    directory that the tree was scanned from: a link to a file in there is another name for it. ``ignore`` names files
    by (st_dev, st_ino) that must not go in, such as the image being made. ``warn`` gets a line for each attribute that
    cannot be read. A directory that is there already gets the mode and owner of its definition.

    Commands are run here. Raises UsageError for a definition that cannot be carried out, with the line it stands in.
    """
    work = _Work(tree, now, clamp, root, frozenset(ignore), warn)
    for definition in sorted(definitions, key=lambda d: (_ORDER[d.kind], d.path.count(b"/") if d.kind == "d" else 0)):
        work.carry_out(definition)
    return work.additions.finished(work.contents)


class _Work:
    """The definitions so far."""

    def __init__(
        self,
        tree: Tree,
        now: int,
        clamp: int | None,
        root: Path | None,
        ignore: frozenset[tuple[int, int]],
        warn: Callable[[str], None],
    ) -> None:
        self.additions = Additions(tree, clamp)
        self.contents = AddedContents(tree.contents, len(tree))
        self._now = now
        self._root = None if root is None else os.path.realpath(os.fsencode(root))
        self._ignore = ignore
        self._warn = warn
        self._defined: dict[tuple[bytes, bytes], Line] = {}  # by path, and by name if it is an attribute
        self._linked: dict[tuple[int, int], int] = {}  # files of this machine that are in by now

    def carry_out(self, definition: Definition) -> None:
        """Does what one definition says. Raises UsageError."""
        line, path, additions = definition.line, definition.path, self.additions
        key = (path, definition.text if definition.kind == "x" else b"")
        before = self._defined.setdefault(key, line)
        if before is not line:
            where = f"line {before.number}" if before.file == line.file else f"{before.file}:{before.number}"
            raise line.error(f"{_shown(path)} is defined already in {where}")
        old = additions.find(path)
        if definition.kind in "mx" or (definition.kind == "d" and old is not None and additions.is_directory(old)):
            self._change(definition, old)
            return
        if old is not None:
            raise line.error(
                f"{_shown(path)} is there already",
                "type m changes what is there, --exclude leaves it out of the source",
            )
        folder, _, name = path.rpartition(b"/")
        parent = additions.find(folder)
        if parent is None:
            text = f"{_shown(path)}: there is no directory {_shown(folder)}"
            raise line.error(text, f"define it too: {_shown(folder)} d 755 0 0")
        if not additions.is_directory(parent):
            raise line.error(f"{_shown(path)}: {_shown(folder)} is no directory")
        additions.name(parent, name, self._inode(definition))

    def _change(self, definition: Definition, inode: int | None) -> None:
        if inode is None:
            raise definition.line.error(f"there is no {_shown(definition.path)} to change")
        if definition.kind == "x":
            self.additions.xattr(inode, definition.text, definition.value)
            return
        if inode >= self.contents.known:
            raise definition.line.error(f"{_shown(definition.path)} is new: its own definition says mode and owner")
        link = stat.S_ISLNK(self.additions.mode(inode))  # whose permissions mean nothing, and are always these
        self.additions.change(
            inode, 0o777 if link else definition.mode, definition.uid, definition.gid, definition.time
        )

    def _inode(self, definition: Definition) -> int:
        """The inode, new or not, that a definition means."""
        kind = definition.kind
        if kind in "lh":
            return self._of_this_machine(definition)
        if kind == "L":
            inode = self.additions.find(definition.text)
            if inode is None or self.additions.is_directory(inode):
                raise definition.line.error(f"{_shown(definition.text)} is no file in the tree to link to")
            return inode
        time = (self._now if definition.time is None else definition.time) * _SECOND
        times = (time, time, time, time)
        mode = 0o777 if kind == "s" else definition.mode
        mode |= _IPC[definition.text] if kind == "i" else _TYPES[kind]
        owner = (definition.uid, definition.gid)
        if kind == "f":
            position, size = self.contents.output(definition)
            segments = [(0, size, position)] if size else []
            return self.additions.inode(mode, *owner, times=times, size=size, segments=segments)
        target = definition.text if kind == "s" else None
        return self.additions.inode(mode, *owner, times=times, rdev=definition.rdev, target=target)

    def _of_this_machine(self, definition: Definition) -> int:
        """A file from outside the tree, or one within it under another name."""
        line, path = definition.line, definition.text
        try:
            if definition.kind == "h":
                path = os.path.realpath(path, strict=True)
            st = os.lstat(path)
            target = os.readlink(path) if stat.S_ISLNK(st.st_mode) else None
        except OSError as error:
            raise line.error(f"{shown(path)}: {error.strerror}") from error
        if stat.S_ISDIR(st.st_mode):
            raise line.error(f"{shown(path)} is a directory: directories have one name")
        identity = (st.st_dev, st.st_ino)
        if identity in self._ignore:
            raise line.error(f"{shown(path)} is the image being made")
        inode = self._linked.get(identity)
        if inode is None:
            inode = self._within(path)
        if inode is None:
            inode = self._taken_in(path, st, target)
        self._linked[identity] = inode
        return inode

    def _within(self, path: bytes) -> int | None:
        """The inode of a file of this machine that the tree was scanned with, None if it was not."""
        folder, name = os.path.split(os.path.abspath(path))
        folder = os.path.realpath(folder)
        if self._root is None or (folder + b"/")[: len(self._root) + 1] != self._root.rstrip(b"/") + b"/":
            return None
        inside = folder[len(self._root) :].strip(b"/")
        inode = self.additions.find(b"/".join(filter(None, (inside, name))))
        return None if inode is None or inode >= self.contents.known else inode

    def _taken_in(self, path: bytes, st: os.stat_result, target: bytes | None) -> int:
        regular = stat.S_ISREG(st.st_mode)
        size = st.st_size if regular else 0
        rdev = os.major(st.st_rdev) << 20 | os.minor(st.st_rdev) if st.st_rdev else 0
        times = (
            st.st_mtime_ns if target is not None else st.st_atime_ns,
            st.st_mtime_ns,
            st.st_ctime_ns,
            st.st_mtime_ns,
        )
        inode = self.additions.inode(
            st.st_mode,
            st.st_uid,
            st.st_gid,
            times=times,
            size=size,
            rdev=rdev,
            target=target,
            segments=[(0, size, 0)] if size else [],
        )
        if regular:
            self.contents.host(inode, os.path.abspath(path), size, st.st_ctime_ns)
        try:
            for name in map(os.fsencode, os.listxattr(path, follow_symlinks=False)):
                if storable(name):
                    self.additions.xattr(inode, name, os.getxattr(path, name, follow_symlinks=False))
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                self._warn(f"{shown(path)}: cannot read its extended attributes: {error.strerror}")
        return inode


class AddedContents:
    """The contents of a tree, and of files added to it, which have numbers from ``known`` on.

    What commands print is kept in a temporary file until nobody holds this any more.
    """

    shared = False

    def __init__(self, contents: Contents, known: int) -> None:
        self.known = known
        self._contents = contents
        self._spool: IO[bytes] | None = None
        self._host: dict[int, tuple[bytes, int, int]] = {}  # path, size and ctime of each file of this machine
        self._own: set[int] = set()  # descriptors to close here

    @property
    def prefetch(self) -> bool:
        """As the tree's."""
        return self._contents.prefetch

    def output(self, definition: Definition) -> tuple[int, int]:
        """Runs the command of a definition and keeps what it prints: its position and length. Raises UsageError."""
        line = definition.line
        try:
            if self._spool is None:
                self._spool = spool_file(buffering=0)
            start = self._spool.seek(0, os.SEEK_END)
            command = [b"/bin/sh", b"-c", definition.text]
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                try:
                    shutil.copyfileobj(process.stdout, self._spool, 1 << 20)
                except BaseException:
                    process.kill()  # or leaving would wait for it
                    raise
        except OSError as error:
            raise line.error(f"{_shown(definition.path)}: the command's output is lost: {error.strerror}") from error
        if process.returncode:
            code = process.returncode
            how = f"exits with {code}" if code > 0 else f"is ended by signal {-code}"
            raise line.error(f"{_shown(definition.path)}: its command {how}")
        return start, self._spool.tell() - start

    def host(self, inode: int, path: bytes, size: int, ctime: int) -> None:
        """Says where a file of this machine is, and how it was when it was looked at (bytes, nanoseconds)."""
        self._host[inode] = (path, size, ctime)

    def open(self, inode: int) -> int:
        if inode < self.known:
            return self._contents.open(inode)
        found = self._host.get(inode)
        if found is None:
            assert self._spool is not None
            return self._spool.fileno()
        fd = os.open(found[0], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self._own.add(fd)
        return fd

    def close(self, fd: int) -> None:
        if fd in self._own:
            self._own.discard(fd)
            os.close(fd)
        elif self._spool is None or fd != self._spool.fileno():
            self._contents.close(fd)

    def changed(self, fd: int, inode: int) -> bool:
        if inode < self.known:
            return self._contents.changed(fd, inode)
        found = self._host.get(inode)
        if found is None:
            return False
        now = os.fstat(fd)
        return (now.st_size, now.st_ctime_ns) != found[1:] or not stat.S_ISREG(now.st_mode)

    def name(self, inode: int) -> str:
        if inode < self.known:
            return self._contents.name(inode)
        found = self._host.get(inode)
        return "output of a command" if found is None else shown(found[0])


def _shown(path: bytes) -> str:
    """A path in the tree for a message."""
    return shown(path) if path else "the root directory"
