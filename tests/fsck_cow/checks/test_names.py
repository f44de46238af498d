"""Names by themselves and against each other: each rule broken once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.checksum import name_hash, words_at
from cowlib.format import DirItem, FileType, InodeItem, InodeRef, KeyType, ObjectId, build_item
from fsck_cow.fingerprint import fingerprints, unlawful
from tests.fsck_cow import craft
from tests.fsck_cow.checks.named import FILES, TOP, Edit, after, entry, inode, item, number

INDEX, ITEM = KeyType.DIR_INDEX, KeyType.DIR_ITEM


def fields(kind: int, **values: Any) -> Edit:
    """Changes fields of one of the two items of the name "inline"."""
    return lambda edit: edit.set_fields(entry(edit, b"inline", kind), DirItem, **values)


def both(**values: Any) -> Edit:
    """Changes both."""

    def edit_(edit: craft.Editor) -> None:
        fields(INDEX, **values)(edit)
        fields(ITEM, **values)(edit)

    return edit_


def rename(kind: int, name: bytes) -> Edit:
    """Overwrites the name in one of the two items with another of the same length."""
    return lambda edit: edit.patch(entry(edit, b"inline", kind), DirItem.sizeof(), name)


def drop(kind: int) -> Edit:
    """Takes one item of the name "inline" away."""
    if kind == KeyType.INODE_REF:
        return lambda edit: edit.delete(item(edit, b"inline", kind))
    return lambda edit: edit.delete(entry(edit, b"inline", kind))


def ref(**values: Any) -> Edit:
    """Changes the reference of the inode "inline" back to its name."""
    return lambda edit: edit.set_fields(item(edit, b"inline", KeyType.INODE_REF), InodeRef, **values)


def links(count: int, name: bytes = b"inline") -> Edit:
    """Changes a link count."""
    return lambda edit: edit.set_fields(inode(edit, name), InodeItem, nlink=count)


def size(bytes_: int, name: bytes = b"folder") -> Edit:
    """Changes the size of a directory."""
    return lambda edit: edit.set_fields(inode(edit, name), InodeItem, size=bytes_)


def again(kind: int) -> Edit:
    """Puts the entries of the name "inline" twice into one of its items."""

    def edit_(edit: craft.Editor) -> None:
        place = entry(edit, b"inline", kind)
        edit.replace(place, edit.payload(place) * 2)

    return edit_


def xattr(payload_of: bytes = b"user.x", **values: Any) -> Edit:
    """Gives the file "inline" an attribute, with fields changed; ``payload_of`` is its name."""

    def edit_(edit: craft.Editor) -> None:
        zero = {"objectid": 0, "type": 0, "offset": 0}
        key = (number(edit, b"inline"), int(KeyType.XATTR_ITEM), name_hash(b"user.x"))
        row = {"location": zero, "transid": 1, "type": FileType.XATTR, "name": payload_of, "data": b"value", **values}
        edit.insert(FILES, key, build_item(*key, [row]))

    return edit_


def short_attribute(edit: craft.Editor) -> None:
    """Adds an attribute whose value is said to be longer than its item."""
    xattr()(edit)
    edit.set_fields(item(edit, b"inline", KeyType.XATTR_ITEM), DirItem, data_len=200)


def extref(edit: craft.Editor) -> None:
    """Adds an INODE_EXTREF under a key that is not its hash."""
    key = (number(edit, b"inline"), int(KeyType.INODE_EXTREF), 1)
    edit.insert(FILES, key, build_item(*key, [{"parent_objectid": TOP, "index": 99, "name": b"more"}]))


def above(edit: craft.Editor) -> None:
    """Lets the top directory refer to itself by another name."""
    edit.patch(edit.find(FILES, (TOP, KeyType.INODE_REF, TOP)), InodeRef.sizeof(), b"xx")


def move_index(edit: craft.Editor) -> None:
    """Gives a directory entry an index that is not given out; it is the first of its directory."""
    place = edit.first(FILES, lambda place: place.key[:2] == (TOP, INDEX))
    edit.set_item(place, **{"key.offset": 1})


BROKEN: dict[str, list[Edit]] = {
    "name.malformed": [
        lambda edit: edit.replace(entry(edit, b"inline"), edit.payload(entry(edit, b"inline")) + b"\0"),
        fields(INDEX, name_len=200),
        ref(name_len=99),
    ],
    "name.length-wrong": [
        lambda edit: edit.rebuild(entry(edit, b"inline"), lambda rows: rows[0].__setitem__("name", b"")),
        lambda edit: edit.rebuild(entry(edit, b"inline"), lambda rows: rows[0].__setitem__("name", b"n" * 256)),
    ],
    "name.hash-wrong": [rename(ITEM, b"inlinf"), extref],
    "name.unlawful": [rename(ITEM, b"in/ine"), rename(ITEM, b"inlin\0")],
    "name.duplicate": [again(ITEM), again(INDEX)],
    "name.type-unknown": [fields(INDEX, type=0), fields(INDEX, type=FileType.XATTR), fields(ITEM, type=99)],
    "name.data-odd": [
        lambda edit: edit.rebuild(entry(edit, b"inline"), lambda rows: rows[0].__setitem__("data", b"data")),
    ],
    "name.location-wrong": [
        fields(INDEX, **{"location.type": KeyType.EXTENT_DATA}),
        fields(INDEX, **{"location.offset": 1}),
        fields(ITEM, **{"location.objectid": 255}),
        fields(ITEM, **{"location.objectid": 7, "location.type": KeyType.ROOT_ITEM}),
    ],
    "name.index-wrong": [move_index, ref(index=1)],
    "name.parent-wrong": [
        lambda edit: edit.set_item(item(edit, b"inline", KeyType.INODE_REF), **{"key.offset": 2}),
    ],
    "name.top-wrong": [above],
    "name.no-inode-ref": [drop(KeyType.INODE_REF)],
    "name.no-dir-item": [drop(ITEM)],
    "name.no-dir-index": [drop(INDEX), rename(INDEX, b"INLINE")],
    "name.index-differs": [ref(index=77)],
    "name.type-differs": [both(type=FileType.DIR), fields(ITEM, type=FileType.FIFO)],
    "inode.missing": [both(**{"location.objectid": 1 << 30})],
    "inode.nlink-wrong": [links(2), links(7, b"data"), links(0)],
    "inode.directory-size": [size(0), size(2), size(1000, b"")],
    "name.not-in-directory": [
        lambda edit: edit.set_fields(inode(edit, b"below"), InodeItem, mode=0o100644),
    ],
    "xattr.malformed": [short_attribute],
    "xattr.length-wrong": [xattr(b""), xattr(b"n" * 256)],
    "xattr.hash-wrong": [xattr(b"user.y")],
    "xattr.type-wrong": [xattr(type=FileType.REG_FILE)],
    "xattr.location-wrong": [xattr(location={"objectid": TOP, "type": 1, "offset": 0})],
}


@pytest.mark.parametrize(("code", "edit"), [(code, edit) for code, edits in BROKEN.items() for edit in edits])
def test_broken(code: str, edit: Edit, tmp_path: Path) -> None:
    """Is told by its code."""
    report = after(tmp_path, edit)
    assert code in report.counts, report.problems
    assert not report.clean


def test_nothing_is_told_of_others(tmp_path: Path) -> None:
    """A missing reference is one problem, not a flood."""
    report = after(tmp_path, drop(KeyType.INODE_REF))
    assert report.counts == {"name.no-inode-ref": 1}


def test_an_attribute(tmp_path: Path) -> None:
    """Alone it is fine; twice in one item it is not."""
    assert after(tmp_path / "one", xattr()).clean

    def twice(edit: craft.Editor) -> None:
        xattr()(edit)
        place = item(edit, b"inline", KeyType.XATTR_ITEM)
        edit.replace(place, edit.payload(place) * 2)

    assert set(after(tmp_path / "two", twice).counts) == {"xattr.duplicate"}


def test_subvolume_entries_have_no_reference(tmp_path: Path) -> None:
    """An entry that points to a subvolume is matched between its two items only."""

    def edit_(edit: craft.Editor) -> None:
        edit.delete(item(edit, b"inline", KeyType.INODE_REF))
        edit.set_fields(inode(edit, b"inline"), InodeItem, nlink=0)
        location = {"location.objectid": 300, "location.type": KeyType.ROOT_ITEM, "location.offset": 2**64 - 1}
        both(**location, type=FileType.DIR)(edit)

    names = {code for code in after(tmp_path, edit_).counts if code.startswith("name.")}
    assert not names


@given(st.lists(st.binary(max_size=40), max_size=30), st.randoms())
def test_fingerprints(names: list[bytes], random: Any) -> None:
    """Depend on the names alone, not on what is around them, and differ where the names do."""
    marks: dict[bytes, int] = {}
    bad: dict[bytes, bool] = {}
    for _ in range(2):
        random.shuffle(names)
        padding = random.randbytes(random.randrange(8, 16))
        buffer = np.frombuffer(padding + b"".join(names) + random.randbytes(8), np.uint8)
        length = np.array([len(name) for name in names], np.int64)
        position = len(padding) + np.cumsum(length) - length
        rounds = list(words_at(buffer, position, length))
        found = fingerprints(length, rounds).tolist()
        for name, mark, wrong in zip(names, found, unlawful(len(names), rounds).tolist(), strict=True):
            assert marks.setdefault(name, mark) == mark
            assert bad.setdefault(name, wrong) == wrong == (b"/" in name or b"\0" in name)
    assert len(set(marks.values())) == len(marks)


def test_root_directory(tmp_path: Path) -> None:
    """The root tree has a directory with one name, checked by the same rules."""

    def edit_(edit: craft.Editor) -> None:
        place = edit.first(ObjectId.ROOT_TREE, ITEM)
        edit.patch(place, DirItem.sizeof(), b"defaulx")

    assert "name.hash-wrong" in after(tmp_path, edit_).counts
