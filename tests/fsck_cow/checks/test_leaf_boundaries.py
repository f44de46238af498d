"""An inode whose items fill several leaves: what only neighbouring leaves together can tell."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import pytest

from cowlib.format import FileExtentItem, InodeFlag, InodeItem, KeyType, ObjectId
from fsck_cow.problems import Report
from tests.fsck_cow import craft
from tests.fsck_cow.checks.named import FILES, Edit, number

DATA = KeyType.EXTENT_DATA
PIECES = 200


@functools.cache
def pieces() -> Path:
    """A folder with one sparse file: every other of its sectors is a hole."""
    folder = Path(tempfile.mkdtemp(prefix="cowtools-pieces-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with (folder / "sparse").open("wb") as file:
        for i in range(PIECES):
            file.seek(i * 8192)
            file.write(b"%d" % i * 100)
        file.truncate(PIECES * 8192)
    return folder


def after(folder: Path, edit: Edit, *options: str) -> Report:
    """Checks a filesystem with small nodes, so that the file has several leaves, after an edit."""
    images = craft.small(folder, "--rootdir", str(pieces()), "-n", "4096", *options)
    with craft.Editor(images) as editor:
        edit(editor)
    return craft.check(images)


def leaves(edit: craft.Editor) -> list[list[craft.Place]]:
    """The extents of the file, leaf by leaf."""
    found: dict[int, list[craft.Place]] = {}
    for place in edit.places(FILES):
        if place.key[1] == DATA:
            found.setdefault(place.leaf, []).append(place)
    assert len(found) > 3
    return list(found.values())


def inode(edit: craft.Editor) -> craft.Place:
    """The inode item of the file."""
    return edit.find(FILES, (number(edit, b"sparse"), KeyType.INODE_ITEM, 0))


def lengthen_last(edit: craft.Editor) -> None:
    """The last extent of a leaf reaches into the next leaf."""
    place = leaves(edit)[1][-1]
    edit.set_fields(place, FileExtentItem, num_bytes=8192, ram_bytes=8192)


def delete_first(edit: craft.Editor) -> None:
    """The first extent of a leaf is gone."""
    edit.delete(leaves(edit)[2][0])


def delete_inner(edit: craft.Editor) -> None:
    """One in the middle of a leaf that goes on with the file is gone."""
    edit.delete(leaves(edit)[2][5])


def delete_last(edit: craft.Editor) -> None:
    """The last of all is gone."""
    edit.delete(leaves(edit)[-1][-1])


def renumber(edit: craft.Editor) -> None:
    """A leaf's items belong to an inode that is not there."""
    last = leaves(edit)[-1]
    items = [((key[0] + 1, *key[1:]), payload) for key, payload in edit.leaf_items(last[0].leaf)]
    edit.write_leaf(last[0], items)


def unsum(edit: craft.Editor) -> None:
    """The inode says that its data have no checksums."""
    edit.set_fields(inode(edit), InodeItem, flags=InodeFlag.NODATASUM)


def drop_sums(edit: craft.Editor) -> None:
    """The checksums are all for other data."""
    edit.set_item(edit.first(ObjectId.CSUM_TREE, KeyType.EXTENT_CSUM), **{"key.offset": 1 << 40})


@pytest.mark.parametrize("options", [(), ("-O", "^no-holes")])
def test_clean(options: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing is wrong before the edits."""
    assert after(tmp_path, leaves, *options).clean


@pytest.mark.parametrize(
    ("code", "edit", "options"),
    [
        ("file-extent.overlap", lengthen_last, ("-O", "^no-holes")),
        ("file-extent.hole", delete_first, ("-O", "^no-holes")),
        ("file-extent.hole", delete_inner, ("-O", "^no-holes")),
        ("file-extent.hole", delete_last, ("-O", "^no-holes")),
        ("inode.missing", renumber, ()),
        ("checksum.odd", unsum, ()),
        ("checksum.missing", drop_sums, ()),
    ],
)
def test_broken(code: str, edit: Edit, options: tuple[str, ...], tmp_path: Path) -> None:
    """Is told by its code, and of a leaf that does not hold the inode."""
    first: list[int] = []

    def edit_(editor: craft.Editor) -> None:
        first.append(leaves(editor)[1][0].key[2])
        edit(editor)

    report = after(tmp_path, edit_, *options)
    places = [problem.key[2] for problem in report.problems if problem.code == code and problem.key]
    assert places and max(places) >= first[0], report.problems


@pytest.mark.parametrize("edit", [delete_first, delete_inner, delete_last])
def test_holes_are_legal(edit: Edit, tmp_path: Path) -> None:
    """With the feature NO_HOLES; only the sum of the bytes tells then that data are gone."""
    assert not any(code.startswith("file-extent") for code in after(tmp_path, edit).counts)
