"""The layers of an OCI (or Docker) image put one over another, as a container would see them.

Each layer is a tar of what it adds or changes. What it takes away from the layers below it is said by *whiteouts*,
members that are never files themselves: ``.wh.NAME`` hides what lower layers have as NAME, and ``.wh..wh..opq`` hides
all that they have in its directory. Neither hides anything of its own layer, wherever it stands in it. Further names
that begin with ``.wh..wh.`` are notes which AUFS made for itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mkfs_cow.source.archive import CannotTake, Hierarchy, parts_of
from mkfs_cow.source.tar_header import members
from mkfs_cow.source.tar_stream import ArchiveStream

if TYPE_CHECKING:
    from mkfs_cow.source.contents import FileContents
    from mkfs_cow.source.exclude import Excluder
    from mkfs_cow.source.tables import Tree
    from mkfs_cow.source.tar_member import Member

_WHITEOUT = b".wh."
_RESERVED = b".wh..wh."
_OPAQUE = b".wh..wh..opq"


def scan_layers(
    paths: Sequence[str],
    *,
    exclude: Excluder | None = None,
    clamp: int | None = None,
    warn: Callable[[str], None],
    progress: Callable[[int], None] | None = None,
) -> Tree:
    """What the archives at ``paths``, the lowest layer first, make together; one may be ``-``, standard input.

    A layer's directory over one of a lower layer has the entries of both, and the attributes of its own; anything
    else takes the place of what is below. Hard links may lead to files of lower layers. The rest is as `scan_tar`
    has it.
    """
    layers = _Layers(warn)
    contents = LayerContents()
    count = 0
    for path in paths:
        with ArchiveStream(path) as stream:
            first = layers.begin(stream.name)
            for member in members(stream, layers.warn):
                layers.add(member)
                count += 1
                if progress is not None and count % 1000 == 0:
                    progress(count)
            contents.add(first, stream.contents())
    return layers.tree(contents, exclude, clamp)


class LayerContents:
    """The contents of several archives: each has the files from some inode on."""

    prefetch = False
    shared = False

    def __init__(self) -> None:
        self._first: list[int] = []
        self._contents: list[FileContents] = []

    def add(self, first: int, contents: FileContents) -> None:
        """The inodes from ``first`` on are those of another archive, with these contents."""
        self._first.append(first)
        self._contents.append(contents)

    def open(self, inode: int) -> int:
        return self._contents[bisect_right(self._first, inode) - 1].open(inode)

    def close(self, fd: int) -> None:
        pass

    def changed(self, fd: int, inode: int) -> bool:
        return False

    def name(self, inode: int) -> str:
        return f"file {inode} of the layers"


class _Layers(Hierarchy):
    """Members of one layer after another."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(self.warn)
        self._tell = warn
        self._layer = ""
        self._fresh: dict[int, set[bytes]] = {}  # the names that this layer has put into each directory

    def begin(self, name: str) -> int:
        """Another layer comes: ``name`` is what to call it. Gives the first of its inodes."""
        self._layer = name
        self._fresh.clear()
        return self.count

    def warn(self, line: str) -> None:
        """Passes a warning on, with the layer it is about."""
        self._tell(f"{self._layer}: {line}")

    def _add(self, member: Member) -> None:
        parts = parts_of(member.name)
        if not parts or not any(part.startswith(_WHITEOUT) for part in parts):
            super()._add(member)
        elif parts[-1] == _OPAQUE:
            directory = self._found_at(parts[:-1])
            if directory is not None:
                self._hide_below(directory)
        elif not any(part.startswith(_RESERVED) for part in parts):
            self._hide(parts)

    def _enter(self, directory: int, name: bytes, inode: int) -> None:
        super()._enter(directory, name, inode)
        self._fresh.setdefault(directory, set()).add(name)

    def _moved(self, old: int | None, new: int) -> int:
        if old in self._fresh:
            self._fresh[new] = self._fresh.pop(old)
        return super()._moved(old, new)

    def _make_room(self, old: int | None) -> None:
        if old in self._entries:
            self._hide_below(old)
        super()._make_room(old)

    def _found_at(self, parts: list[bytes]) -> int | None:
        """The directory at a path, None if there is none."""
        try:
            return self._reach(parts, None) if self._root >= 0 else None
        except CannotTake:
            return None

    def _hide(self, parts: list[bytes]) -> None:
        """Takes away what lower layers have under the name that a whiteout gives."""
        name = parts[-1].removeprefix(_WHITEOUT)
        if not parts[-1].startswith(_WHITEOUT) or name in (b"", b".", b".."):
            raise CannotTake("it is no whiteout of anything")
        directory = self._found_at(parts[:-1])
        inode = None if directory is None else self._entries[directory].get(name)
        if directory is None or inode is None:
            return
        if inode in self._entries:
            self._hide_below(inode)
        self._drop(directory, name, inode)

    def _hide_below(self, directory: int) -> None:
        """Takes away everything in a directory that is not of this layer, at any depth."""
        order = [directory]
        for each in order:
            order.extend(inode for inode in self._entries[each].values() if inode in self._entries)
        for each in reversed(order):
            for name, inode in list(self._entries[each].items()):
                self._drop(each, name, inode)

    def _drop(self, directory: int, name: bytes, inode: int) -> None:
        """Takes away one name, unless it is of this layer or has something of this layer in it."""
        if name in self._fresh.get(directory, ()) or self._entries.get(inode):
            return
        del self._entries[directory][name]
        if self._entries.pop(inode, None) is not None:
            self._found.clear()
