"""The order that data has on disk, given by path in the words of mksquashfs: lines ``PATH PRIORITY``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mkfs_cow.source.by_path import inherited
from mkfs_cow.source.contents import shown
from mkfs_cow.source.definitions import Line, read_definitions
from mkfs_cow.source.pseudo import relative_path
from mkfs_cow.source.tables import Tree

_LOWEST, _HIGHEST = -32768, 32767
_NUMBER = re.compile(rb"[+-]?[0-9]{1,9}")


@dataclass(frozen=True)
class Priority:
    """The ``priority`` of a file, or of the files below a directory that have none of their own; the ``line`` that
    says so. ``path`` is relative to the root.
    """

    line: Line
    path: bytes
    priority: int


def read_sort(path: Path) -> list[Priority]:
    """The priorities in a file. Raises UsageError for what is wrong with it, and for a path with two of them."""
    found: dict[bytes, Priority] = {}
    for line in read_definitions(path):
        name = relative_path(line, line.word("the path").removesuffix(b"/*"))
        word = line.word("the priority")
        line.end()
        if not _NUMBER.fullmatch(word) or not _LOWEST <= int(word) <= _HIGHEST:
            raise line.error(f"the priority '{shown(word[:40])}' is not a number from {_LOWEST} to {_HIGHEST}")
        before = found.setdefault(name, Priority(line, name, int(word)))
        if before.priority != int(word):
            raise line.error(
                f"{shown(name) or '/'} has the priority {before.priority} already in line {before.line.number}"
            )
    return list(found.values())


def with_priorities(tree: Tree, priorities: Sequence[Priority]) -> tuple[Tree, list[Priority]]:
    """The tree with ``priority`` set, and those of the priorities whose path is not there.

    Files that have none, themselves or from a directory above, have 0.
    """
    if not priorities:
        return tree, []
    given = np.full(len(tree), -1, dtype=np.int64)
    missing = []
    for row, priority in enumerate(priorities):
        inode = tree.find(priority.path)
        if inode is None:
            missing.append(priority)
        else:
            given[inode] = row
    rows = inherited(tree, given)
    values = np.array([*(priority.priority for priority in priorities), 0], dtype=np.int16)
    return replace(tree, priority=values[rows]), missing
