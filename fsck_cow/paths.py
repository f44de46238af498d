"""Paths of inodes, followed upwards from the names that inodes carry, through subvolumes to the top."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from cowlib.btree import TreeRoot
from cowlib.errors import CowError
from cowlib.filesystem import Filesystem
from cowlib.format import KeyType, ObjectId, parse_item

#: No path is deeper: more names than this is a circle.
_DEEPEST = 4096

_TOP = int(ObjectId.FIRST_FREE)


class Paths:
    """Resolves inodes of one filesystem; what was found once is kept."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        self._names: dict[tuple[int, int], tuple[int, bytes] | None] = {}
        self._parents: dict[int, tuple[int, int, bytes] | None] = {}
        self._roots = {root.objectid: root for root in fs.roots if root.bytenr}

    def of(self, tree: int, inode: int) -> str:
        """A path of an inode from the top of the filesystem, the first one where it has several.

        What can't be followed begins with ``?``, and the number of the inode or subvolume where the way up is lost.
        Bytes that are no UTF-8 stand as lone surrogates.
        """
        parts: list[bytes] = []
        while len(parts) < _DEEPEST:
            if inode != _TOP:
                step = self._name(tree, inode)
                if step is None:
                    return self._lost(f"?inode {inode} of tree {tree}", parts)
                inode = step[0]
                parts.append(step[1])
            elif tree == ObjectId.FS_TREE:
                return "/" + os.fsdecode(b"/".join(reversed(parts)))
            else:
                above = self._parent(tree)
                if above is None:
                    return self._lost(f"?tree {tree}", parts)
                tree, inode = above[0], above[1]
                parts.append(above[2])
        return self._lost("?circle", parts[:1])

    def _lost(self, where: str, parts: list[bytes]) -> str:
        return "/".join([where, *(os.fsdecode(part) for part in reversed(parts))])

    def _name(self, tree: int, inode: int) -> tuple[int, bytes] | None:
        """The directory an inode is in, and its name there."""
        place = (tree, inode)
        if place not in self._names:
            root = self._roots.get(tree)
            self._names[place] = next(self._links(root, inode), None) if root else None
        return self._names[place]

    def _links(self, root: TreeRoot, inode: int) -> Iterator[tuple[int, bytes]]:
        last = (inode, int(KeyType.INODE_EXTREF), 2**64 - 1)
        for key, payload in self._items(root, (inode, int(KeyType.INODE_REF), 0), last):
            try:
                for entry in parse_item(*key, payload):
                    parent = key[2] if key[1] == KeyType.INODE_REF else int(entry.parent)
                    yield parent, bytes(entry.name)
            except CowError:
                continue

    def _parent(self, tree: int) -> tuple[int, int, bytes] | None:
        """The subvolume a subvolume is in, the directory there, and its name."""
        if tree not in self._parents:
            kind = int(KeyType.ROOT_BACKREF)
            found = None
            for key, payload in self._items(self._fs.root_tree, (tree, kind, 0), (tree, kind, 2**64 - 1)):
                try:
                    entry = parse_item(*key, payload)
                except CowError:
                    continue
                found = (key[2], int(entry.dirid), bytes(entry.name))
                break
            self._parents[tree] = found
        return self._parents[tree]

    def _items(
        self, root: TreeRoot, low: tuple[int, int, int], high: tuple[int, int, int]
    ) -> Iterator[tuple[tuple[int, int, int], bytes]]:
        """Keys and payloads from one key to another; damage met on the way was told of before."""
        reader = self._fs.reader
        told, copies = len(reader.damage), len(reader.bad_copies)
        for nodes in reader.leaves(root, low=low, high=high):
            items = nodes.items()
            near = items.in_bounds & (items.objectid == np.uint64(low[0]))
            for i in np.flatnonzero(near & (items.type >= low[1]) & (items.type <= high[1])).tolist():
                yield items.key(i), items.payload(i)
        del reader.damage[told:], reader.bad_copies[copies:]
