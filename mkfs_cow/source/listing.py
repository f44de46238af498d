"""What goes in, a line a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mkfs_cow.source.contents import shown
from mkfs_cow.source.tables import S_IFDIR, Tree

_LINES = 4096


def listing(trees: Sequence[Tree], subvolumes: Sequence[bytes]) -> Iterator[str]:
    """The paths of everything in ``trees``, some thousand lines at a time.

    A directory has a slash at its end, a symbolic link an arrow and its target. A directory's own line stands before
    the names in it; ``subvolumes`` are the paths of the trees, in their order.
    """
    lines: list[str] = []
    for tree, top in zip(trees, subvolumes, strict=True):
        for line in _lines(tree, top + b"/" if top else b""):
            lines.append(line)
            if len(lines) == _LINES:
                yield "\n".join(lines)
                lines.clear()
    if lines:
        yield "\n".join(lines)


def _lines(tree: Tree, top: bytes) -> Iterator[str]:
    yield shown(top or b"./")
    row_of_link = {inode: row for row, inode in enumerate(tree.symlinks.inode.tolist())}
    paths = {0: top}
    is_directory = tree.is_type(S_IFDIR).tolist()
    columns = (tree.names.parent.tolist(), tree.names.inode.tolist(), tree.names.name)
    for parent, inode, name in zip(*columns, strict=True):
        path = paths[parent] + name
        if inode < 0:  # a subvolume has lines of its own
            continue
        if is_directory[inode]:
            path += b"/"
            paths[inode] = path
        link = row_of_link.get(inode)
        yield shown(path) if link is None else f"{shown(path)} -> {shown(tree.symlinks.target[link])}"
