"""File extents by themselves, side by side, and against their inode: each rule broken once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cowlib.format import FileExtentHead, FileExtentItem, FileExtentType, InodeFlag, InodeItem, KeyType
from tests.fsck_cow import craft
from tests.fsck_cow.checks.named import FILES, Edit, after, inode, item, number

DATA = KeyType.EXTENT_DATA


def regular(**values: Any) -> Edit:
    """Changes fields of the extent of the file "data": 128 KiB, one regular extent."""
    return lambda edit: edit.set_fields(item(edit, b"data", DATA), FileExtentItem, **values)


def inline(**values: Any) -> Edit:
    """Changes fields of the inline extent of the file "inline"."""
    return lambda edit: edit.set_fields(item(edit, b"inline", DATA), FileExtentHead, **values)


def resize(name: bytes, size: int) -> Edit:
    """Cuts the payload of an extent, or fills it with zeros."""

    def edit_(edit: craft.Editor) -> None:
        place = item(edit, name, DATA)
        edit.replace(place, edit.payload(place)[:size].ljust(size, b"\0"))

    return edit_


def move(name: bytes, offset: int) -> Edit:
    """Changes the place of an extent in its file."""
    return lambda edit: edit.set_item(item(edit, name, DATA), **{"key.offset": offset})


def add(name: bytes, offset: int, **values: Any) -> Edit:
    """Adds a hole of a sector to a file."""

    def edit_(edit: craft.Editor) -> None:
        fields = {
            "generation": 1,
            "compression": 0,
            "encryption": 0,
            "other_encoding": 0,
            "type": FileExtentType.REG,
            "offset": 0,
        }
        fields |= {"disk_bytenr": 0, "disk_num_bytes": 0, "num_bytes": 4096, "ram_bytes": 4096}
        payload = FileExtentItem.build({**fields, **values})
        edit.insert(FILES, (number(edit, name) if name else 256, DATA, offset), payload)

    return edit_


def nbytes(value: int, name: bytes = b"data") -> Edit:
    """Changes what an inode says that its extents add up to."""
    return lambda edit: edit.set_fields(inode(edit, name), InodeItem, nbytes=value)


def unsummed_and_compressed(edit: craft.Editor) -> None:
    """A compressed extent of an inode that has no checksums."""
    edit.set_fields(inode(edit, b"data"), InodeItem, flags=InodeFlag.NODATASUM)
    regular(compression=1)(edit)


BROKEN: dict[str, list[Edit]] = {
    "file-extent.item-size": [resize(b"data", 54), resize(b"data", 20), resize(b"inline", 4)],
    "file-extent.type-unknown": [regular(type=3), inline(type=200)],
    "file-extent.compression-unknown": [regular(compression=4), inline(compression=255)],
    "file-extent.encoded": [regular(encryption=1), inline(other_encoding=1)],
    "file-extent.generation-wrong": [regular(generation=1 << 40), inline(generation=1 << 40)],
    "file-extent.unaligned": [
        move(b"data", 5),
        regular(disk_bytenr=13631489),
        regular(offset=1),
        regular(num_bytes=131071),
        regular(ram_bytes=131073),
        regular(disk_num_bytes=131073),
    ],
    "file-extent.inline-place": [move(b"inline", 4096)],
    "file-extent.inline-size": [
        inline(ram_bytes=12),
        inline(ram_bytes=0),
        resize(b"inline", 21),
        resize(b"inline", 21 + 4096),
        inline(compression=1, ram_bytes=4097),
        lambda edit: edit.set_fields(inode(edit, b"symlink"), InodeItem, size=9),
    ],
    "file-extent.range-wrong": [
        regular(num_bytes=0),
        regular(num_bytes=1 << 20),
        regular(offset=4096),
        regular(offset=2**64 - 4096),
        regular(ram_bytes=4096),
        regular(disk_num_bytes=4096),
        regular(disk_num_bytes=0),
        regular(disk_bytenr=2**64 - 4096),
        regular(compression=1, ram_bytes=1 << 20),
        add(b"data", 2**64 - 4096, num_bytes=1 << 20, ram_bytes=1 << 20),
    ],
    "file-extent.prealloc-odd": [
        regular(type=FileExtentType.PREALLOC, compression=2),
        regular(type=FileExtentType.PREALLOC, disk_bytenr=0, disk_num_bytes=0),
    ],
    "file-extent.overlap": [add(b"data", 4096), add(b"data", 126976)],
    "file-extent.not-a-file": [
        add(b"folder", 0),
        add(b"folder", 0, disk_bytenr=1 << 24, disk_num_bytes=4096),
        add(b"symlink", 4096),
    ],
    "file-extent.compressed-odd": [unsummed_and_compressed],
    "inode.nbytes-wrong": [
        nbytes(0),
        nbytes(131073),
        nbytes(12, b"inline"),
        lambda edit: edit.delete(item(edit, b"data", DATA)),
    ],
}


@pytest.mark.parametrize(("code", "edit"), [(code, edit) for code, edits in BROKEN.items() for edit in edits])
def test_broken(code: str, edit: Edit, tmp_path: Path) -> None:
    """Is told by its code."""
    report = after(tmp_path, edit)
    assert code in report.counts, report.problems
    assert not report.clean


def test_ram_bytes_are_a_note(tmp_path: Path) -> None:
    """Kernels of some years wrote other numbers there, and none reads them."""
    edit = regular(ram_bytes=1 << 20)
    assert after(tmp_path, edit).counts["file-extent.ram-bytes"] == 1


@pytest.mark.parametrize("legal", [add(b"data", 131072), add(b"data", 1 << 30), add(b"inline", 4096)])
def test_legal(legal: Edit, tmp_path: Path) -> None:
    """Extents beyond the end of a file, and beside inline ones."""
    assert after(tmp_path, legal).clean


HOLES: list[Edit] = [
    lambda edit: edit.delete(item(edit, b"data", DATA)),
    lambda edit: edit.set_fields(inode(edit, b"data"), InodeItem, size=131073),
    move(b"data", 4096),
    regular(num_bytes=65536),
]


@pytest.mark.parametrize("edit", HOLES)
def test_holes(edit: Edit, tmp_path: Path) -> None:
    """Need an extent of their own, unless the filesystem has the feature that they don't."""
    assert "file-extent.hole" in after(tmp_path, edit, "-O", "^no-holes").counts
    assert "file-extent.hole" not in after(tmp_path, edit).counts


def test_holes_are_legal_beyond_the_end(tmp_path: Path) -> None:
    """And of a file that has lost its names."""
    assert after(tmp_path, add(b"data", 1 << 20), "-O", "^no-holes").clean
