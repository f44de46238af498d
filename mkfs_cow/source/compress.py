"""Compression by path: which files have which, and the property that makes the kernel go on with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cowlib.errors import UsageError
from cowlib.format import InodeFlag
from mkfs_cow.source.by_path import inherited, matching
from mkfs_cow.source.tables import S_IFDIR, S_IFREG, Blobs, Tree, Xattrs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.compression import CompressionChoices, CompressionRule

_PROPERTY = b"btrfs.compression"
_NEVER = b"none"

#: The kernel compresses no file that has these.
_PLAIN = np.uint64(InodeFlag.NODATACOW | InodeFlag.NODATASUM)


def with_compression(tree: Tree, rules: Sequence[CompressionRule]) -> Tree:
    """The tree with ``compression`` as the rules say: n for the n-th of them, from 1.

    Of several that hold for a file that counts which matches it, or the nearest directory above it; of several that
    match the same a path before a glob, and the last before others. Raises UsageError for a rule that matches nothing.
    """
    if not rules:
        return tree
    given = np.full(len(tree), -1, dtype=np.int64)
    exactly: list[tuple[NDArray[np.int64], int]] = []
    for number, rule in enumerate(rules, 1):
        inodes, exact = matching(tree, rule.pattern)
        if not len(inodes):
            raise UsageError(f"--compress: {rule.pattern}: no such file below the root directory")
        if exact:
            exactly.append((inodes, number))
        else:
            given[inodes] = number
    for inodes, number in exactly:
        given[inodes] = number
    return replace(tree, compression=np.maximum(inherited(tree, given), 0).astype(np.uint16))


def with_property(tree: Tree, choices: CompressionChoices) -> Tree:
    """The tree with the property ``compression`` on directories and regular files, as the kernel sets and inherits it.

    What is not to be compressed by a rule gets ``none``; without a rule and without a default there is no property,
    nor is there one where flags forbid compression.
    """
    values = [_NEVER if choice is None else choice.name.encode() for choice in choices.all()]
    wanted = (tree.is_type(S_IFDIR) | tree.is_type(S_IFREG)) & ((tree.flags & _PLAIN) == 0)
    if choices.default is None:
        wanted &= tree.compression != 0
    inodes = np.flatnonzero(wanted)
    which = tree.compression[inodes]
    never = np.array([value == _NEVER for value in values])[which]
    flags = tree.flags.copy()
    flags[inodes] &= ~np.uint64(InodeFlag.COMPRESS | InodeFlag.NOCOMPRESS)
    flags[inodes] |= np.where(never, np.uint64(InodeFlag.NOCOMPRESS), np.uint64(InodeFlag.COMPRESS))
    return replace(
        tree, flags=flags, xattrs=_with_one(tree.xattrs, wanted, inodes, [values[i] for i in which.tolist()])
    )


def _with_one(xattrs: Xattrs, wanted: NDArray[np.bool_], inodes: NDArray[np.int64], values: list[bytes]) -> Xattrs:
    """The attributes with the property on ``inodes`` (those ``wanted``), in place of one that was there."""
    after = np.array([(name > _PROPERTY) - (name < _PROPERTY) for name in xattrs.name], dtype=np.int64)
    kept = np.flatnonzero((after != 0) | ~wanted[xattrs.inode])
    old = xattrs.select(kept)
    inode = np.concatenate([old.inode, inodes])
    joined = Xattrs(
        inode, old.name.followed_by(Blobs.of([_PROPERTY] * len(inodes))), old.value.followed_by(Blobs.of(values))
    )
    return joined.select(np.lexsort((np.concatenate([after[kept], np.zeros_like(inodes)]), inode)))
