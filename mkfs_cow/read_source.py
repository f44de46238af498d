"""What the options say goes in: the source's tree, cut into subvolumes, with the inode flags that were asked for."""

from __future__ import annotations

import os
from collections.abc import Callable

from cowlib.format import InodeFlag
from mkfs_cow.options import InodeFlagsSpec, ResolvedOptions, subvolume_of
from mkfs_cow.source.archive import scan_tar
from mkfs_cow.source.compress import with_compression, with_property
from mkfs_cow.source.contents import shown
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.empty import empty_tree, with_root_owner
from mkfs_cow.source.exclude import excluder
from mkfs_cow.source.layers import scan_layers
from mkfs_cow.source.owners import all_root, mapped, read_owner_map
from mkfs_cow.source.pseudo import read_pseudo
from mkfs_cow.source.pseudo_files import with_pseudo_files
from mkfs_cow.source.sort import read_sort, with_priorities
from mkfs_cow.source.subvolumes import partition, with_flags
from mkfs_cow.source.tables import Tree
from mkfs_cow.trees.limits import fitting


def read_source(
    options: ResolvedOptions,
    now: int,
    progress: Callable[[str, int, int], None],
    warn: Callable[[str], None],
    advise: Callable[[str], None],
) -> list[Tree]:
    """The trees to make: the top one, then one for each subvolume in the order of ``options.subvolumes``.

    Raises UsageError for a subvolume or a flagged path that is not there, for names that do not fit into the trees and
    for definitions that cannot be carried out, CowError for a source that cannot be read.
    """
    clamp = options.source_date_epoch
    owners = None if options.owner_map is None else read_owner_map(options.owner_map)
    definitions = read_pseudo(options.pseudo)
    priorities = [] if options.sort is None else read_sort(options.sort)

    def count(done: int) -> None:
        progress("reading names", done, 0)

    exclude = excluder(options.exclude, options.rootdir)
    if options.rootdir is not None:
        tree = scan_directory(
            options.rootdir,
            exclude=exclude,
            clamp=clamp,
            ignore=_own_files(options),
            one_file_system=options.one_file_system,
            warn=warn,
            advise=advise,
            progress=count,
        )
    elif options.from_tar is not None:
        tree = scan_tar(options.from_tar, exclude=exclude, clamp=clamp, warn=warn, progress=count)
    elif options.layers:
        tree = scan_layers(options.layers, exclude=exclude, clamp=clamp, warn=warn, progress=count)
    else:
        tree = empty_tree(now, [spec.path for spec in options.subvolumes], options.root_owner or (0, 0))
    for pattern in exclude.unmatched() if exclude is not None else ():
        advise(f"--exclude {shown(os.fsencode(pattern))}: matches nothing that is not left out anyway")
    if options.all_root:
        tree = all_root(tree)
    elif owners is not None:
        tree = mapped(tree, owners)
    if options.root_owner is not None:
        tree = with_root_owner(tree, *options.root_owner)
    if definitions:  # which say owners as they are to be
        tree = with_pseudo_files(
            tree,
            definitions,
            now=now,
            clamp=clamp,
            root=options.rootdir,
            ignore=_own_files(options),
            warn=warn,
        )
    tree, missing = with_priorities(tree, priorities)
    if missing:
        path, more = missing[0], f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        advise(f"--sort: {shown(path.path)}{more}: not there (line {path.line.number} of {options.sort})")
    tree = with_compression(tree, options.compression.rules)
    tree = fitting(tree, options.nodesize, extref="extref" in options.features, warn=warn)
    trees = _flagged(partition(tree, [spec.path for spec in options.subvolumes]), options)
    return [with_property(tree, options.compression) for tree in trees] if options.compress_property else trees


def _own_files(options: ResolvedOptions) -> list[tuple[int, int]]:
    """The image files being made, as (st_dev, st_ino): they must not go into themselves."""
    found = []
    for path in options.devices:
        if path.exists():
            st = path.stat()
            found.append((st.st_dev, st.st_ino))
    return found


def _flagged(trees: list[Tree], options: ResolvedOptions) -> list[Tree]:
    """The trees with the inode flags that were asked for, each in the subvolume that its path lies in."""
    subvolumes = [b"", *(spec.path for spec in options.subvolumes)]
    given: list[list[tuple[bytes, int]]] = [[] for _ in trees]
    for spec in options.inode_flags:
        inside = subvolume_of(spec.path, subvolumes)
        given[subvolumes.index(inside)].append((spec.path[len(inside) :].lstrip(b"/"), _bits(spec)))
    return [with_flags(tree, paths) for tree, paths in zip(trees, given, strict=True)]


def _bits(spec: InodeFlagsSpec) -> int:
    bits = InodeFlag.NODATACOW if spec.nodatacow else InodeFlag(0)
    return int(bits | (InodeFlag.NODATASUM if spec.nodatasum else InodeFlag(0)))
