"""One scanned tree divided into subvolumes, and inode flags given by path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cowlib.errors import UsageError
from cowlib.format import InodeFlag
from mkfs_cow.source.contents import shown
from mkfs_cow.source.tables import S_IFDIR, S_IFREG, Names, Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray


def partition(tree: Tree, paths: Sequence[bytes]) -> list[Tree]:
    """The tree without the directories at ``paths``, then each of them as a tree of its own, in that order.

    Where a subvolume hangs a name with a negative inode stays: see `Names`. Subvolumes may lie within others. A
    file with names in several of them becomes a file in each. Raises UsageError for a path that is no directory
    below the root, or is given twice.
    """
    if not paths:
        return [tree]
    roots = [0]
    for path in paths:
        inode = tree.find(path)
        if inode is None or inode == 0 or not tree.is_type(S_IFDIR)[inode]:
            raise UsageError(f"{shown(path)}: no directory below the root directory")
        if inode in roots:
            raise UsageError(f"{shown(path)}: given twice as a subvolume")
        roots.append(inode)
    subvolume = np.full(len(tree), -1, dtype=np.int64)  # the one that a directory belongs to or is the root of
    subvolume[roots] = np.arange(len(roots))
    names = tree.names
    for row in np.flatnonzero(tree.is_type(S_IFDIR)[names.inode]).tolist():  # parents stand before children
        inode = names.inode[row]
        if subvolume[inode] < 0:
            subvolume[inode] = subvolume[names.parent[row]]
    return [_part(tree, number, root, subvolume, roots) for number, root in enumerate(roots)]


def _part(tree: Tree, number: int, root: int, subvolume: NDArray[np.int64], roots: Sequence[int]) -> Tree:
    """The tree of one subvolume."""
    rows = np.flatnonzero(subvolume[tree.names.parent] == number)
    names = tree.names.select(rows)
    hangs = np.isin(names.inode, roots)
    # Directories keep their order, but the first name of a file may now be another one.
    inside, first = np.unique(names.inode[~hangs], return_index=True)
    row = np.flatnonzero(~hangs)[first]
    folder = tree.is_type(S_IFDIR)[inside]
    order = np.lexsort((np.where(folder, -1, row), np.where(folder, inside, names.parent[row])))
    original = np.concatenate([[root], inside[order]])
    index = np.full(len(tree), -1, dtype=np.int64)
    index[original] = np.arange(len(original))
    child = np.where(hangs, ~np.maximum(subvolume[names.inode], 0), index[names.inode])
    return tree.renumbered(original, Names(index[names.parent], child, names.name))


def with_flags(tree: Tree, given: Sequence[tuple[bytes, int]]) -> Tree:
    """The tree with inode ``flags`` set at some paths, and on everything below those that are directories.

    Each of ``given`` is a path relative to the root of this tree and a set of `InodeFlag`: NODATACOW, which for a
    regular file implies NODATASUM, and NODATASUM, which is for regular files alone. What hangs below as a
    subvolume inherits nothing. Raises UsageError for a path that does not exist.
    """
    if not given:
        return tree
    flags = tree.flags.copy()
    for path, bits in given:
        inode = tree.find(path)
        if inode is None:
            raise UsageError(f"{shown(path)}: no such file below the root directory")
        flags[inode] |= np.uint64(bits)
    names = tree.names
    # Parents stand before children, so one pass brings everything down.
    for parent, inode in zip(names.parent.tolist(), names.inode.tolist(), strict=True):
        if inode >= 0 and flags[parent]:
            flags[inode] |= flags[parent]
    regular = tree.is_type(S_IFREG)
    nodatacow = (flags & np.uint64(InodeFlag.NODATACOW)) != 0
    flags[regular & nodatacow] |= np.uint64(InodeFlag.NODATASUM)
    flags[~regular] &= ~np.uint64(InodeFlag.NODATASUM)
    return replace(tree, flags=flags)
