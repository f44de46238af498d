"""A tree of directories that nothing is taken in from, and who owns a top directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cowlib.errors import UsageError
from cowlib.format import NAME_LEN
from mkfs_cow.source.builder import TreeBuilder
from mkfs_cow.source.contents import NoContents, shown
from mkfs_cow.source.tables import S_IFDIR, Segments, Tree

_MODE = S_IFDIR | 0o755


def empty_tree(now: int, paths: Sequence[bytes] = (), owner: tuple[int, int] = (0, 0)) -> Tree:
    """A top directory, the directories at ``paths`` (relative to it), and those on the way to them.

    All are made at ``now`` (seconds), with mode 755, and belong to ``owner`` (user, group). Raises UsageError for a
    name that is too long.
    """
    ways: set[tuple[bytes, ...]] = {()}
    for path in paths:
        parts = tuple(filter(None, path.split(b"/")))
        if any(len(part) > NAME_LEN for part in parts):
            raise UsageError(f"{shown(path)}: a name in it is longer than {NAME_LEN} bytes")
        ways.update(parts[:depth] for depth in range(1, len(parts) + 1))
    order = sorted(ways)  # parents first, and by name: the order of `Tree`
    index = {way: row for row, way in enumerate(order)}
    builder = TreeBuilder()
    for _ in order:
        builder.inode(_MODE, *owner, 0, 0, (now * 1_000_000_000,) * 4)
    for parent, name, row in sorted((index[way[:-1]], way[-1], index[way]) for way in order if way):
        builder.name(parent, row, name)
    nothing = np.empty(0, np.int64)
    return builder.tree(Segments(nothing, nothing, nothing, nothing), NoContents(), None)


def with_root_owner(tree: Tree, uid: int, gid: int) -> Tree:
    """The tree with another owner of its top directory."""
    users, groups = tree.uid.copy(), tree.gid.copy()
    users[0], groups[0] = uid, gid
    return replace(tree, uid=users, gid=groups)
