"""A tree with more in it than was scanned: inodes and names added to its tables, all put into order again."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mkfs_cow.source.builder import TreeBuilder
from mkfs_cow.source.tables import S_IFDIR, Blobs, Names, Segments, Symlinks, Times, Tree, Xattrs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.source.contents import Contents


class Additions:
    """Gathers what is added to ``tree`` or changed in it; `finished` is the new tree.

    New inodes have numbers from ``len(tree)`` on until then. ``clamp`` is the latest time of new ones, in seconds.
    """

    def __init__(self, tree: Tree, clamp: int | None) -> None:
        self._tree = tree
        self._clamp = clamp
        self._builder = TreeBuilder()
        self._modes: list[int] = []  # of the new inodes
        self._segments: list[tuple[int, int, int, int]] = []
        self._names: dict[tuple[int, bytes], int] = {}
        self._mode, self._uid, self._gid = tree.mode.copy(), tree.uid.copy(), tree.gid.copy()
        self._mtime = Times(tree.mtime.sec.copy(), tree.mtime.nsec.copy())
        self._xattrs: dict[int, dict[bytes, bytes]] = {}

    def entry(self, directory: int, name: bytes) -> int | None:
        """What a name in a directory leads to, None if there is no such name."""
        found = self._names.get((directory, name))
        if found is None and directory < len(self._tree):
            found = self._tree.entry(directory, name)
        return found

    def find(self, path: bytes) -> int | None:
        """The inode at a path relative to the root, None if there is none. Links are not followed."""
        inode: int | None = 0
        for name in path.split(b"/") if path else ():
            inode = None if inode is None else self.entry(inode, name)
        return inode

    def is_directory(self, inode: int) -> bool:
        """Whether an inode, new or old, is a directory."""
        return self.mode(inode) & 0o170000 == S_IFDIR

    def mode(self, inode: int) -> int:
        """The type and permissions of an inode, new or old, before any change."""
        known = len(self._tree)
        return int(self._tree.mode[inode]) if inode < known else self._modes[inode - known]

    def inode(
        self,
        mode: int,
        uid: int,
        gid: int,
        *,
        times: tuple[int, int, int, int],
        size: int = 0,
        rdev: int = 0,
        target: bytes | None = None,
        segments: list[tuple[int, int, int]] | None = None,
    ) -> int:
        """Adds an inode, which has no name yet: as `TreeBuilder.inode` has it.

        ``target`` is a symbolic link's; ``segments`` are (offset, length, position) of a file's data.
        """
        new = self._builder.inode(mode, uid, gid, len(target) if target is not None else size, rdev, times)
        self._modes.append(mode)
        if target is not None:
            self._builder.symlink(new, target)
        self._segments += [(new, *segment) for segment in segments or ()]
        return len(self._tree) + new

    def name(self, directory: int, name: bytes, inode: int) -> None:
        """Adds a name, which must not be there yet."""
        self._names[directory, name] = inode

    def change(self, inode: int, mode: int, uid: int, gid: int, mtime: int | None) -> None:
        """Gives an inode of the tree other permissions, another owner and, if it is not None, another mtime."""
        self._mode[inode] = (self._mode[inode] & np.uint32(0o170000)) | np.uint32(mode)
        self._uid[inode], self._gid[inode] = uid, gid
        if mtime is not None:
            self._mtime.sec[inode] = mtime if self._clamp is None else min(mtime, self._clamp)
            self._mtime.nsec[inode] = 0

    def xattr(self, inode: int, name: bytes, value: bytes) -> None:
        """Gives an inode, new or old, an attribute, in place of one of the same name."""
        self._xattrs.setdefault(inode, {})[name] = value

    def finished(self, contents: Contents) -> Tree:
        """The tree with all of it. ``contents`` opens what it opened before, and the new inodes by their numbers."""
        tree = replace(self._tree, mode=self._mode, uid=self._uid, gid=self._gid, mtime=self._mtime)
        if not self._modes:
            joined = tree
        else:
            table = np.array(self._segments, dtype=np.int64).reshape(-1, 4)
            segments = Segments(*(table[:, i].copy() for i in range(4)))
            joined = _joined(tree, self._builder.tree(segments, contents, self._clamp), contents)
        joined = replace(joined, xattrs=_with_xattrs(joined.xattrs, self._xattrs))
        if not self._names:
            return joined
        return _in_order(replace(joined, names=_with_names(tree.names, self._names)))


def _joined(tree: Tree, new: Tree, contents: Contents) -> Tree:
    """Both as one, but with the names of the first alone."""
    known = len(tree)
    both: dict[str, Any] = {
        name: np.concatenate([getattr(tree, name), getattr(new, name)])
        for name in ("mode", "uid", "gid", "nlink", "size", "rdev", "flags", "compression", "priority")
    }
    for name in ("atime", "ctime", "mtime", "otime"):
        one, other = getattr(tree, name), getattr(new, name)
        both[name] = Times(np.concatenate([one.sec, other.sec]), np.concatenate([one.nsec, other.nsec]))
    links = Symlinks(
        np.concatenate([tree.symlinks.inode, new.symlinks.inode + known]),
        tree.symlinks.target.followed_by(new.symlinks.target),
    )
    old, more = tree.segments, new.segments
    segments = Segments(
        np.concatenate([old.inode, more.inode + known]),
        np.concatenate([old.offset, more.offset]),
        np.concatenate([old.length, more.length]),
        np.concatenate([old.position, more.position]),
    )
    return replace(tree, **both, symlinks=links, segments=segments, contents=contents)


def _with_xattrs(xattrs: Xattrs, given: dict[int, dict[bytes, bytes]]) -> Xattrs:
    """The attributes with those of some inodes added or replaced."""
    if not given:
        return xattrs
    touched = np.isin(xattrs.inode, list(given))
    merged: dict[int, dict[bytes, bytes]] = {inode: {} for inode in given}
    for row in np.flatnonzero(touched).tolist():
        merged[int(xattrs.inode[row])][xattrs.name[row]] = xattrs.value[row]
    for inode, pairs in given.items():
        merged[inode] |= pairs
    rows = [(inode, name, value) for inode in sorted(merged) for name, value in sorted(merged[inode].items())]
    kept = xattrs.select(np.flatnonzero(~touched))
    joined = Xattrs(
        np.concatenate([kept.inode, np.array([row[0] for row in rows], dtype=np.int64)]),
        kept.name.followed_by(Blobs.of([row[1] for row in rows])),
        kept.value.followed_by(Blobs.of([row[2] for row in rows])),
    )
    return joined.select(np.argsort(joined.inode, kind="stable"))


def _with_names(names: Names, given: dict[tuple[int, bytes], int]) -> Names:
    """The names with more of them, sorted as they were."""
    rows = sorted((parent, name, inode) for (parent, name), inode in given.items())
    place = []
    for parent, name, _ in rows:
        first, last = np.searchsorted(names.parent, [parent, parent + 1]).tolist()
        place.append(bisect_left(range(last), name, lo=first, key=names.name.__getitem__))
    joined = Names(
        np.concatenate([names.parent, np.array([row[0] for row in rows], dtype=np.int64)]),
        np.concatenate([names.inode, np.array([row[2] for row in rows], dtype=np.int64)]),
        names.name.followed_by(Blobs.of([row[1] for row in rows])),
    )
    before = 2 * np.array(place, dtype=np.int64)
    return joined.select(np.argsort(np.concatenate([2 * np.arange(len(names)) + 1, before]), kind="stable"))


def _in_order(tree: Tree) -> Tree:
    """The tree numbered as `Tree` promises; its names are sorted already, by the numbers there are."""
    names = tree.names
    rank = _directory_ranks(tree)
    names = names.select(np.argsort(rank[names.parent], kind="stable"))
    inside, row = np.unique(names.inode, return_index=True)
    folder = tree.is_type(S_IFDIR)[inside]
    order = np.lexsort((np.where(folder, -1, row), np.where(folder, rank[inside], rank[names.parent[row]])))
    original = np.concatenate([[0], inside[order]])
    index = np.full(len(tree), -1, dtype=np.int64)
    index[original] = np.arange(len(original))
    return tree.renumbered(original, Names(index[names.parent], index[names.inode], names.name))


def _directory_ranks(tree: Tree) -> NDArray[np.int64]:
    """The place of each directory among all, depth first and by name: int64 (inodes,), -1 for what is none."""
    names = tree.names
    rows = np.flatnonzero(tree.is_type(S_IFDIR)[names.inode])
    below: dict[int, list[int]] = {}
    for parent, inode in zip(names.parent[rows].tolist(), names.inode[rows].tolist(), strict=True):
        below.setdefault(parent, []).append(inode)
    rank = np.full(len(tree), -1, dtype=np.int64)
    pending = [0]
    order = []
    while pending:
        inode = pending.pop()
        order.append(inode)
        pending.extend(reversed(below.get(inode, ())))
    rank[order] = np.arange(len(order))
    return rank
