"""Values given to parts of a tree by path: what a path or glob means, and what goes down from there."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

from cowlib.errors import UsageError
from mkfs_cow.source.exclude import translate
from mkfs_cow.source.tables import S_IFDIR, Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WILD = re.compile(r"[*?\[\\]")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def matching(tree: Tree, pattern: str) -> tuple[NDArray[np.int64], bool]:
    """The inodes that a path or glob from the root of the tree means, ascending; and whether it was taken as a path.

    What is there under exactly this name is meant; otherwise ``*`` and ``?`` match within a name, ``[...]`` one
    character of a set, ``**`` as a part of its own any number of directories, ``\\`` takes the next character as it
    is. Links are not followed. Raises UsageError for a glob that is none.
    """
    exact = tree.find(os.fsencode(pattern))
    if exact is None:
        exact = tree.find(os.fsencode(_ESCAPED.sub(r"\1", pattern)))
    if exact is not None and exact >= 0:
        return np.array([exact], dtype=np.int64), True
    found = np.zeros(1, dtype=np.int64)
    for part in pattern.split("/"):
        if not len(found):
            break
        found = _everything_below(tree, found) if part == "**" else _children(tree, found, part)
    return found, False


def inherited(tree: Tree, given: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each inode what is ``given`` (int64 (inodes,), -1: nothing) to it, or to the nearest directory above it.

    For a file with several names the first of them counts that has something.
    """
    names = tree.names
    folder = tree.is_type(S_IFDIR)[names.inode]
    above = np.zeros(len(tree), dtype=np.int64)
    above[names.inode[folder]] = names.parent[folder]
    nearest = np.where(given >= 0, np.arange(len(tree)), above)
    while not np.array_equal(further := nearest[nearest], nearest):
        nearest = further
    found = given[nearest]
    rows = np.flatnonzero(~folder & (found[names.parent] >= 0))[::-1]
    values = np.full(len(tree), -1, dtype=np.int64)
    values[names.inode[rows]] = found[names.parent[rows]]
    return np.where(given >= 0, given, np.where(tree.is_type(S_IFDIR), found, values))


def _children(tree: Tree, folders: NDArray[np.int64], part: str) -> NDArray[np.int64]:
    """What in these directories has a name that matches."""
    if not _WILD.search(part):
        name = os.fsencode(part)
        entries = [tree.entry(folder, name) for folder in folders.tolist()]
        return np.unique(np.array([entry for entry in entries if entry is not None], dtype=np.int64))
    try:
        expression = re.compile(os.fsencode(translate(part)), re.DOTALL)
    except re.error as error:
        raise UsageError(f"'{part}' is not a pattern: {error.msg}") from None
    names = tree.names
    rows = np.flatnonzero(np.isin(names.parent, folders))
    matches = [row for row in rows.tolist() if expression.fullmatch(names.name[row])]
    return np.unique(names.inode[np.array(matches, dtype=np.int64)])


def _everything_below(tree: Tree, folders: NDArray[np.int64]) -> NDArray[np.int64]:
    """These directories and all directories below them."""
    given = np.full(len(tree), -1, dtype=np.int64)
    given[folders] = 0
    return np.flatnonzero((inherited(tree, given) == 0) & tree.is_type(S_IFDIR))
