"""Checksum items: each rule broken once; and the arithmetic of what they cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.format import FileExtentItem, FileExtentType, InodeFlag, InodeItem, KeyType, ObjectId
from fsck_cow.checks.checksums import RANGE, covered_bytes, joined, ranges
from tests.fsck_cow import craft
from tests.fsck_cow.checks.named import Edit, after, inode, item

SUMS = ObjectId.CSUM_TREE


def first(edit: craft.Editor) -> craft.Place:
    """The first checksum item."""
    return edit.first(SUMS, KeyType.EXTENT_CSUM)


def cut(size: int) -> Edit:
    """Takes bytes off the first item."""
    return lambda edit: edit.replace(first(edit), edit.payload(first(edit))[:-size])


def key(**fields: int) -> Edit:
    """Changes the key of the first item."""
    return lambda edit: edit.set_item(first(edit), **{f"key.{name}": value for name, value in fields.items()})


def add(address: int, count: int) -> Edit:
    """Adds checksums, by default at the address of the first item and after it."""

    def edit_(edit: craft.Editor) -> None:
        at = address + (first(edit).key[2] if address < 1 << 20 else 0)
        edit.insert(SUMS, (int(ObjectId.EXTENT_CSUM), int(KeyType.EXTENT_CSUM), at), bytes(4 * count))

    return edit_


def split(edit: craft.Editor) -> None:
    """Makes two items of the first one, that cover the same."""
    place = first(edit)
    payload = edit.payload(place)
    edit.replace(place, payload[:12])
    edit.insert(SUMS, (*place.key[:2], place.key[2] + 3 * 4096), payload[12:])


def unsummed(edit: craft.Editor) -> None:
    """The inode says that its data have none."""
    edit.set_fields(inode(edit, b"data"), InodeItem, flags=InodeFlag.NODATASUM)


def prealloc(edit: craft.Editor) -> None:
    """The data were never written, says their extent."""
    edit.set_fields(item(edit, b"data", KeyType.EXTENT_DATA), FileExtentItem, type=FileExtentType.PREALLOC)


BROKEN: dict[str, list[Edit]] = {
    "checksum.key-wrong": [key(objectid=5)],
    "checksum.unaligned": [key(offset=13631489)],
    "checksum.item-size": [cut(1), lambda edit: edit.replace(first(edit), b"")],
    "checksum.overlap": [add(4096, 1), add(8192, 64)],
    "checksum.without-extent": [add(1 << 40, 2), key(offset=1 << 40)],
    "checksum.missing": [cut(4), lambda edit: edit.set_item(first(edit), **{"key.offset": 1 << 41})],
    "checksum.odd": [unsummed, prealloc],
}


@pytest.mark.parametrize(("code", "edit"), [(code, edit) for code, edits in BROKEN.items() for edit in edits])
def test_broken(code: str, edit: Edit, tmp_path: Path) -> None:
    """Is told by its code."""
    report = after(tmp_path, edit)
    assert code in report.counts, report.problems
    assert not report.clean


def test_items_may_be_split_anywhere(tmp_path: Path) -> None:
    """Only what they cover together counts."""
    assert after(tmp_path, split).clean


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 6)), max_size=20), st.integers(0, 70), st.integers(1, 20))
def test_covered_bytes(pieces: list[tuple[int, int]], start: int, length: int) -> None:
    """As if each byte were looked at."""
    pieces.sort()
    first, size = (np.array([piece[i] for piece in pieces], np.uint64) for i in (0, 1))
    rows = ranges(first, size.astype(np.int64))
    assert rows.dtype == RANGE and len(rows) <= len(pieces)
    covered = {byte for at, count in pieces for byte in range(at, at + count)}
    found = covered_bytes(joined(rows), np.array([start], np.uint64), np.array([length], np.uint64))
    assert int(found[0]) == len(covered & set(range(start, start + length)))
