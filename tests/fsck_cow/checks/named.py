"""Items of files in a small image, found by name; and what fsck.cow says once one of them was edited."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cowlib.format import KeyType, ObjectId
from fsck_cow.problems import Report
from tests.fsck_cow import craft

FILES = ObjectId.FS_TREE
TOP = int(ObjectId.FIRST_FREE)

Edit = Callable[[craft.Editor], Any]


@functools.cache
def few_files() -> Path:
    """A folder with so few files that they share one leaf, which has room for more items."""
    folder = Path(tempfile.mkdtemp(prefix="cowtools-few-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "folder" / "below").mkdir(parents=True)
    (folder / "inline").write_bytes(b"a few bytes")
    (folder / "data").write_bytes(bytes(range(256)) * 512)
    (folder / "folder" / "other").write_bytes(b"other " * 5000)
    (folder / "folder" / "below" / "deep").write_bytes(b"deep")
    (folder / "folder" / "link").hardlink_to(folder / "data")
    (folder / "symlink").symlink_to("data")
    return folder


def after(folder: Path, edit: Edit, *options: str) -> Report:
    """Makes a small filesystem with options of mkfs.cow, edits it, and checks it."""
    folder.mkdir(exist_ok=True)
    images = craft.small(folder, "--rootdir", str(few_files()), *options)
    with craft.Editor(images) as editor:
        edit(editor)
    return craft.check(images)


def entry(edit: craft.Editor, name: bytes, kind: int = KeyType.DIR_INDEX) -> craft.Place:
    """The DIR_INDEX or DIR_ITEM of a name."""

    def named(place: craft.Place) -> bool:
        return place.key[1] == kind and any(found["name"] == name for found in edit.parsed(place))

    return edit.first(FILES, named)


def number(edit: craft.Editor, name: bytes) -> int:
    """The inode number of a file."""
    return int(edit.parsed(entry(edit, name))[0]["location"]["objectid"])


def inode(edit: craft.Editor, name: bytes) -> craft.Place:
    """The inode item of a file; of the top directory for an empty name."""
    return edit.find(FILES, (number(edit, name) if name else TOP, KeyType.INODE_ITEM, 0))


def item(edit: craft.Editor, name: bytes, kind: int) -> craft.Place:
    """The first item of a type that a file has."""
    wanted = number(edit, name) if name else TOP
    return edit.first(FILES, lambda place: place.key[:2] == (wanted, kind))
