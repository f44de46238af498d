"""Root items, the references between subvolumes, and which items stand in which tree: each rule broken once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowlib.checksum import name_hash
from cowlib.format import (
    CompatRoFeature,
    DirItem,
    InodeItem,
    KeyType,
    ObjectId,
    RootItem,
    RootRef,
    columns,
)
from fsck_cow.checks.root_refs import _hangs
from fsck_cow.problems import Severity
from tests.fsck_cow import craft
from tests.fsck_cow.checks.damage import Edit, after

ROOTS = int(ObjectId.ROOT_TREE)


def root_item(edit: craft.Editor, tree: int = 256) -> craft.Place:
    """The root item of a tree."""
    return edit.first(ROOTS, lambda place: place.key[:2] == (tree, KeyType.ROOT_ITEM))


def fields(tree: int = 256, **change: int | bytes) -> Edit:
    """Changes fields of a root item; a double underscore stands for a dot."""
    named = {name.replace("__", "."): value for name, value in change.items()}
    return lambda edit: edit.set_fields(root_item(edit, tree), RootItem, **named)


def delete(wanted: int) -> Edit:
    """Takes the first item of a type out of the root tree."""
    return lambda edit: edit.delete(edit.first(ROOTS, wanted))


def delete_root(tree: int) -> Edit:
    """Takes a root item away."""
    return lambda edit: edit.delete(root_item(edit, tree))


def insert(kind: int, objectid: int, offset: int, payload: bytes = b"", *, tree: int = ROOTS) -> Edit:
    """Puts an item into a tree."""
    return lambda edit: edit.insert(tree, (objectid, int(kind), offset), payload)


def link(parent: int, child: int) -> Edit:
    """References between two subvolumes, both ways."""

    def edit_(edit: craft.Editor) -> None:
        payload = RootRef.build({"dirid": 256, "sequence": 99, "name_len": 3}) + b"odd"
        edit.insert(ROOTS, (parent, int(KeyType.ROOT_REF), child), payload)
        edit.insert(ROOTS, (child, int(KeyType.ROOT_BACKREF), parent), payload)

    return edit_


def both_refs(**change: int) -> Edit:
    """Changes a ROOT_REF and its ROOT_BACKREF alike."""

    def edit_(edit: craft.Editor) -> None:
        place = edit.first(ROOTS, KeyType.ROOT_REF)
        back = edit.find(ROOTS, (place.key[2], int(KeyType.ROOT_BACKREF), place.key[0]))
        for each in (place, back):
            edit.set_fields(each, RootRef, **change)

    return edit_


def one_ref(kind: int, **change: int) -> Edit:
    """Changes one of them."""
    return lambda edit: edit.set_fields(edit.first(ROOTS, kind), RootRef, **change)


def default_to(child: int) -> Edit:
    """Names another default subvolume."""

    def edit_(edit: craft.Editor) -> None:
        place = edit.find(ROOTS, (int(ObjectId.ROOT_TREE_DIR), int(KeyType.DIR_ITEM), name_hash(b"default")))
        edit.set_fields(place, DirItem, **{"location.objectid": child})

    return edit_


def unknown_tree(edit: craft.Editor) -> None:
    payload = edit.payload(root_item(edit, ObjectId.UUID_TREE))
    edit.insert(ROOTS, (41, int(KeyType.ROOT_ITEM), 0), payload)


def nameless_key(edit: craft.Editor) -> None:
    edit.set_item(next(iter(edit.places(ROOTS))), **{"key.objectid": 0})


def without_free_space_feature(edit: craft.Editor) -> None:
    flags = int(edit.superblock.compat_ro_flags)
    flags &= ~(CompatRoFeature.FREE_SPACE_TREE | CompatRoFeature.FREE_SPACE_TREE_VALID)
    edit.set_superblock(compat_ro_flags=flags)


def entry_of_file(edit: craft.Editor) -> None:
    """Says of an entry that leads to a subvolume that it is a file."""

    def leads(place: craft.Place) -> bool:
        return place.key[1] == KeyType.DIR_INDEX and edit.parsed(place)[0]["location"]["type"] == KeyType.ROOT_ITEM

    edit.set_fields(edit.first(5, leads), DirItem, type=1)


CASES: list[tuple[str, Edit]] = [
    ("root.size-wrong", lambda edit: edit.replace(root_item(edit), edit.payload(root_item(edit))[:300])),
    ("root.key-wrong", nameless_key),
    ("root.key-wrong", insert(KeyType.ROOT_ITEM, ObjectId.TREE_RELOC, 2, bytes(columns(RootItem).itemsize))),
    ("root.bytenr-wrong", fields(bytenr=1)),
    ("root.level-wrong", fields(level=9)),
    ("root.level-wrong", fields(drop_level=8)),
    ("root.generation-wrong", fields(ctransid=10**6)),
    ("root.generation-wrong", fields(last_snapshot=10**6)),
    ("root.generation-wrong", fields(generation_v2=10**6)),
    ("root.generation-wrong", fields(generation=10**6)),
    ("root.flags-wrong", fields(flags=1 << 5)),
    ("root.refs-wrong", fields(refs=2)),
    ("root.directory-wrong", fields(root_dirid=5)),
    ("root.drop-progress-wrong", fields(drop_progress__objectid=300, drop_level=1)),
    ("root.time-wrong", fields(otime__nsec=2 * 10**9)),
    ("root.received-incomplete", fields(received_uuid=b"\7" * 16)),
    ("root.missing", delete_root(ObjectId.CSUM_TREE)),
    ("root.missing", delete_root(ObjectId.EXTENT_TREE)),
    ("root.without-feature", without_free_space_feature),
    ("root.tree-unknown", unknown_tree),
    ("root.orphan-missing", delete(KeyType.ORPHAN_ITEM)),
    ("root.orphan-stale", insert(KeyType.ORPHAN_ITEM, ObjectId.ORPHAN, 9999)),
    ("root.ref-missing", delete(KeyType.ROOT_REF)),
    ("root.backref-missing", delete(KeyType.ROOT_BACKREF)),
    ("root.unreferenced", delete(KeyType.ROOT_BACKREF)),
    ("root.ref-mismatch", one_ref(KeyType.ROOT_REF, dirid=1000)),
    ("root.ref-malformed", one_ref(KeyType.ROOT_REF, name_len=0)),
    ("root.ref-malformed", one_ref(KeyType.ROOT_REF, name_len=65535)),
    ("root.ref-dangling", link(5, 9999)),
    ("root.referenced-twice", link(258, 256)),
    ("root.entry-missing", both_refs(sequence=999)),
    ("root.entry-without-ref", both_refs(sequence=999)),
    ("root.entry-missing", both_refs(dirid=1000)),
    ("root.entry-wrong", entry_of_file),
    ("root.default-missing", delete(KeyType.DIR_ITEM)),
    ("root.default-wrong", default_to(9999)),
    ("root.default-wrong", default_to(int(ObjectId.CSUM_TREE))),
]


@pytest.mark.parametrize(("code", "edit"), CASES, ids=[f"{i}-{code}" for i, (code, _) in enumerate(CASES)])
def test_each_rule(tmp_path: Path, code: str, edit: Edit) -> None:
    assert code in after("default", tmp_path, edit).counts


@pytest.mark.parametrize("code", ["root.orphan-stale", "root.received-incomplete", "root.default-missing"])
def test_what_kernels_put_up_with_is_a_note(tmp_path: Path, code: str) -> None:
    report = after("default", tmp_path, dict(CASES)[code])
    assert [p.severity for p in report.problems if p.code == code] == [Severity.NOTE]


def test_circles() -> None:
    """Subvolumes that hold each other hang nowhere."""
    assert [p.code for p in _hangs(256, {256: [257], 257: [256]})] == ["root.unreachable"]
    assert not list(_hangs(257, {257: [256], 256: [5]}))


TREES = [
    ObjectId.ROOT_TREE,
    ObjectId.EXTENT_TREE,
    ObjectId.CHUNK_TREE,
    ObjectId.DEV_TREE,
    ObjectId.CSUM_TREE,
    ObjectId.FREE_SPACE_TREE,
    ObjectId.BLOCK_GROUP_TREE,
    ObjectId.UUID_TREE,
    ObjectId.QUOTA_TREE,
]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_items_of_another_tree(tmp_path: Path, tree: ObjectId) -> None:
    payload = InodeItem.build(InodeItem.parse(bytes(InodeItem.sizeof())))
    key = (2**64 - 2, int(KeyType.DEV_EXTENT if tree != ObjectId.DEV_TREE else KeyType.CHUNK_ITEM), 0)
    report = after("quota", tmp_path, lambda edit: edit.insert(tree, key, payload))
    told = [p for p in report.problems if p.code == "node.key-unexpected"]
    assert [(p.tree, p.key) for p in told] == [(tree, key)]


def test_objects_of_the_root_tree(tmp_path: Path) -> None:
    """Only one object has a balance to go on with."""
    key = (300, int(KeyType.TEMPORARY_ITEM), 0)
    report = after("default", tmp_path, lambda edit: edit.insert(ROOTS, key, b""))
    assert [p.key for p in report.problems if p.code == "node.key-unexpected"] == [key]
