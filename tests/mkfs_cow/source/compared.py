"""What the system says of a directory tree, what the tables say, and whether they promise what they hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mkfs_cow.source.tables import Tree

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Entry:
    """What one name leads to."""

    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    rdev: tuple[int, int]
    mtime: int
    ctime: int
    target: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]


def on_disk(root: Path) -> dict[bytes, Entry]:
    """Every path below `root`, itself the empty one, as the system has it; sizes of folders as btrfs counts them."""
    top = os.fsencode(root)
    paths = [top]
    for folder, folders, names in os.walk(top):
        paths += [os.path.join(folder, name) for name in (*folders, *names)]
    stats = {path: os.lstat(path) for path in paths}
    links: dict[tuple[int, int], int] = {}
    for status in stats.values():
        links[status.st_dev, status.st_ino] = links.get((status.st_dev, status.st_ino), 0) + 1
    found = {}
    for path, status in stats.items():
        size = status.st_size if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) else 0
        if stat.S_ISDIR(status.st_mode):
            size = 2 * sum(len(os.fsencode(name)) for name in os.listdir(path))
        names = sorted(map(os.fsencode, os.listxattr(path, follow_symlinks=False)))
        found[path[len(top) + 1 :]] = Entry(
            mode=status.st_mode,
            uid=status.st_uid,
            gid=status.st_gid,
            nlink=links[status.st_dev, status.st_ino],
            size=size,
            rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)),
            mtime=status.st_mtime_ns,
            ctime=status.st_ctime_ns,
            target=os.readlink(path) if stat.S_ISLNK(status.st_mode) else b"",
            xattrs=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
        )
    return found


def paths_of(tree: Tree) -> dict[bytes, int]:
    """Every path of a tree and its inode index; where a subvolume hangs, the negative number."""
    paths = {b"": 0}
    folders = {0: b""}
    names = tree.names
    for parent, inode, name in zip(names.parent.tolist(), names.inode.tolist(), names.name, strict=True):
        path = folders[parent] + name
        paths[path] = inode
        if inode >= 0 and stat.S_ISDIR(int(tree.mode[inode])):
            folders[inode] = path + b"/"
    return paths


def in_tables(tree: Tree) -> dict[bytes, Entry]:
    """Every path of a tree and what its tables say."""
    targets = dict(zip(tree.symlinks.inode.tolist(), tree.symlinks.target, strict=True))
    xattrs: dict[int, list[tuple[bytes, bytes]]] = {}
    for inode, name, value in zip(tree.xattrs.inode.tolist(), tree.xattrs.name, tree.xattrs.value, strict=True):
        xattrs.setdefault(inode, []).append((name, value))
    return {
        path: Entry(
            mode=int(tree.mode[i]),
            uid=int(tree.uid[i]),
            gid=int(tree.gid[i]),
            nlink=int(tree.nlink[i]),
            size=int(tree.size[i]),
            rdev=(int(tree.rdev[i]) >> 20, int(tree.rdev[i]) & 0xFFFFF),
            mtime=int(tree.mtime.sec[i]) * SECOND + int(tree.mtime.nsec[i]),
            ctime=int(tree.ctime.sec[i]) * SECOND + int(tree.ctime.nsec[i]),
            target=targets.get(i, b""),
            xattrs=tuple(xattrs.get(i, ())),
        )
        for path, i in paths_of(tree).items()
        if i >= 0
    }


def check_order(tree: Tree) -> None:
    """The order that `Tree` promises."""
    names = tree.names
    keys = list(zip(names.parent.tolist(), names.name, strict=True))
    assert keys == sorted(set(keys))
    folders = (names.inode >= 0) & tree.is_type(stat.S_IFDIR)[np.maximum(names.inode, 0)]
    assert (names.inode[folders] > names.parent[folders]).all()
    assert (tree.symlinks.inode[1:] > tree.symlinks.inode[:-1]).all()
    xattrs = list(zip(tree.xattrs.inode.tolist(), tree.xattrs.name, strict=True))
    assert xattrs == sorted(set(xattrs))
    places = list(zip(tree.segments.inode.tolist(), tree.segments.offset.tolist(), strict=True))
    assert places == sorted(set(places))


def same_tables(left: Tree, right: Tree) -> bool:
    """Whether two trees say the same, to the last byte; where their data stands aside."""
    return _flat(left) == _flat(right)


def _flat(tree: Tree) -> list[bytes]:
    columns: list[np.ndarray] = [tree.mode, tree.uid, tree.gid, tree.nlink, tree.size, tree.rdev, tree.flags]
    for times in (tree.atime, tree.mtime, tree.ctime, tree.otime):
        columns += [times.sec, times.nsec]
    columns += [tree.names.parent, tree.names.inode, tree.xattrs.inode, tree.symlinks.inode]
    columns += [tree.segments.inode, tree.segments.offset, tree.segments.length]
    blobs = [tree.names.name, tree.xattrs.name, tree.xattrs.value, tree.symlinks.target]
    return [column.tobytes() for column in columns] + [bytes(b.data) + b.start.tobytes() for b in blobs]


def data_of(tree: Tree, inode: int) -> Iterator[tuple[int, bytes]]:
    """The segments of a file, straight from its source: offset and bytes."""
    rows = tree.segments.select((tree.segments.inode == inode).nonzero()[0])
    for offset, length, position in zip(
        rows.offset.tolist(), rows.length.tolist(), rows.position.tolist(), strict=True
    ):
        fd = tree.contents.open(inode)
        try:
            yield offset, os.pread(fd, length, position)
        finally:
            tree.contents.close(fd)
