"""What the options say goes in: the source's tree, cut into subvolumes, with the inode flags that were asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cowlib.errors import UsageError
from cowlib.format import InodeFlag
from mkfs_cow.options import Options, subvolume_of
from mkfs_cow.source import empty_tree, scan_directory, scan_tar, split_tree
from mkfs_cow.source.tables import Tree


def read_source(
    options: Options, now: int, progress: Callable[[str, int, int], None], warn: Callable[[str], None]
) -> list[Tree]:
    """The trees to make: the top one, then one for each subvolume in the order of ``options.subvolumes``.

    Raises UsageError for a subvolume or a flagged path that is not there, CowError for a source that cannot be read.
    """
    clamp = options.source_date_epoch

    def count(done: int) -> None:
        progress("reading names", done, 0)

    if options.rootdir is not None:
        tree = scan_directory(
            options.rootdir,
            exclude=options.exclude,
            clamp=clamp,
            ignore=_own_files(options),
            warn=warn,
            progress=count,
        )
    elif options.from_tar is not None:
        tree = scan_tar(options.from_tar, exclude=options.exclude, clamp=clamp, now=now, warn=warn, progress=count)
    else:
        tree = empty_tree(now)
    trees = split_tree(tree, [spec.path for spec in options.subvolumes])
    return _flagged(trees, options)


def _own_files(options: Options) -> list[tuple[int, int]]:
    """The image files being made, as (st_dev, st_ino): they must not go into themselves."""
    found = []
    for path in options.devices:
        if path.exists():
            st = path.stat()
            found.append((st.st_dev, st.st_ino))
    return found


def _flagged(trees: list[Tree], options: Options) -> list[Tree]:
    """The trees with the inode flags that were asked for: a directory's go to all that is below it in its subvolume."""
    subvolumes = [b"", *(spec.path for spec in options.subvolumes)]
    for spec in options.inode_flags:
        inside = subvolume_of(spec.path, subvolumes)
        number = subvolumes.index(inside)
        tree = trees[number]
        top = tree.find(spec.path[len(inside) :].lstrip(b"/"))
        if top is None:
            raise UsageError(f"--inode-flags: there is no {os.fsdecode(spec.path)} in the source")
        below = _below(tree, top)
        regular, bits = tree.is_type(stat.S_IFREG), np.zeros(len(tree), np.uint64)
        if spec.nodatasum or spec.nodatacow:
            bits[below & (regular | (not spec.nodatacow))] |= np.uint64(InodeFlag.NODATASUM)
        if spec.nodatacow:
            bits[below] |= np.uint64(InodeFlag.NODATACOW)
        trees[number] = replace(tree, flags=tree.flags | bits)
    return trees


def _below(tree: Tree, top: int) -> npt.NDArray[np.bool_]:
    """Which inodes are ``top`` or hang below it: bool (rows,)."""
    inside = np.zeros(len(tree), bool)
    inside[top] = True
    names = tree.names
    here = names.inode >= 0
    parent, child = names.parent[here], names.inode[here]
    while True:
        reached = child[inside[parent]]
        if inside[reached].all():
            return inside
        inside[reached] = True
