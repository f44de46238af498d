"""Inodes by themselves: each rule broken once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cowlib.format import InodeFlag, InodeItem, KeyType, ObjectId, VerityDescriptorItem
from tests.fsck_cow import craft
from tests.fsck_cow.checks.named import FILES, TOP, Edit, after, inode, item, number

FUTURE = 1 << 40


def fields(name: bytes, **values: int) -> Edit:
    """Changes fields of the inode item of a file."""
    return lambda edit: edit.set_fields(inode(edit, name), InodeItem, **values)


def insert(objectid: int, kind: int, offset: int, payload: bytes = b"") -> Edit:
    """Adds an item to the subvolume."""
    return lambda edit: edit.insert(FILES, (objectid, kind, offset), payload)


def shorten(edit: craft.Editor) -> None:
    """Takes the end off an inode item."""
    place = inode(edit, b"inline")
    edit.replace(place, edit.payload(place)[:-8])


def lengthen(edit: craft.Editor) -> None:
    """Adds to an inode item."""
    place = inode(edit, b"inline")
    edit.replace(place, edit.payload(place) + bytes(8))


def unlink(*, orphan: bool) -> Edit:
    """Takes the only name of a file away, and leaves an orphan item or not."""

    def edit_(edit: craft.Editor) -> None:
        edit.set_fields(inode(edit, b"inline"), InodeItem, nlink=0)
        if orphan:
            edit.insert(FILES, (ObjectId.ORPHAN, KeyType.ORPHAN_ITEM, number(edit, b"inline")), b"")

    return edit_


BROKEN: dict[str, list[Edit]] = {
    "inode.generation-wrong": [fields(b"data", generation=FUTURE), fields(b"data", transid=FUTURE)],
    "inode.mode-wrong": [
        fields(b"data", mode=stat.S_IFREG | 1 << 20),
        fields(b"data", mode=0o644),
        fields(b"data", mode=0o170644),
    ],
    "inode.directory-links": [fields(b"folder", nlink=2)],
    "inode.flags-unknown": [fields(b"data", flags=1 << 20), fields(b"data", flags=1 << 40)],
    "inode.flags-odd": [
        fields(b"symlink", flags=InodeFlag.IMMUTABLE),
        fields(b"symlink", flags=InodeFlag.APPEND),
        fields(b"folder", flags=InodeFlag.RO_VERITY),
    ],
    "inode.time-wrong": [fields(b"data", **{f"{name}.nsec": 10**9}) for name in ("atime", "ctime", "mtime")],
    "inode.size-wrong": [fields(b"data", size=1 << 63), fields(b"symlink", size=0), fields(b"symlink", size=4096)],
    "inode.device-odd": [fields(b"data", rdev=1)],
    "inode.item-size": [shorten, lengthen],
    "inode.key-wrong": [lambda edit: edit.set_item(inode(edit, b"inline"), **{"key.offset": 1})],
    "inode.top-wrong": [fields(b"", nlink=2), fields(b"", mode=stat.S_IFREG | 0o644)],
    "inode.unknown-item": [
        insert(TOP, KeyType.CHUNK_ITEM, 0),
        insert(TOP, KeyType.UNTYPED, 5),
        insert(TOP, KeyType.ORPHAN_ITEM, 5),
    ],
    "inode.missing": [
        lambda edit: edit.delete(inode(edit, b"data")),
        insert(1 << 40, KeyType.XATTR_ITEM, 0, b""),
        insert(7, KeyType.INODE_REF, TOP, b""),
    ],
    "inode.top-missing": [lambda edit: edit.delete(inode(edit, b""))],
    "inode.cache-deprecated": [
        lambda edit: edit.insert(
            FILES, (ObjectId.FREE_INO, KeyType.INODE_ITEM, 0), edit.payload(inode(edit, b"inline"))
        )
    ],
    "inode.verity-wrong": [
        insert(
            TOP,
            KeyType.VERITY_DESC_ITEM,
            0,
            VerityDescriptorItem.build({"size": 1, "reserved": [0, 0], "encryption": 1}),
        )
    ],
    "orphan.missing": [unlink(orphan=False)],
}


@pytest.mark.parametrize(("code", "edit"), [(code, edit) for code, edits in BROKEN.items() for edit in edits])
def test_broken(code: str, edit: Edit, tmp_path: Path) -> None:
    """Is told by its code."""
    report = after(tmp_path, edit)
    assert code in report.counts, report.problems
    assert not report.clean


def test_small_image_is_clean(tmp_path: Path) -> None:
    """What all other tests begin with has nothing wrong with it."""
    assert not craft.codes(craft.small(tmp_path))


def test_orphans_are_legal(tmp_path: Path) -> None:
    """An inode that was deleted while it was open waits for the next mount, with all it has."""

    def edit(edit: craft.Editor) -> None:
        unlink(orphan=True)(edit)
        names = [KeyType.INODE_REF, KeyType.EXTENT_DATA]
        edit.delete(item(edit, b"inline", names[0]))

    report = after(tmp_path, edit)
    assert "orphan.missing" not in report.counts


def test_places_are_told(tmp_path: Path) -> None:
    """A problem says where it is, what it found, and what it expected."""
    report = after(tmp_path, fields(b"folder", nlink=2))
    problem = next(p for p in report.problems if p.code == "inode.directory-links")
    assert (problem.tree, problem.key and problem.key[1:]) == (FILES, (KeyType.INODE_ITEM, 0))
    assert (problem.found, problem.expected) == (2, 1)
