"""The UUID tree against the root items."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowlib.format import KeyType, ObjectId, RootItem
from fsck_cow.problems import Severity
from tests.fsck_cow import craft
from tests.fsck_cow.checks.damage import Edit, after

UUIDS = ObjectId.UUID_TREE


def entry(edit: craft.Editor) -> craft.Place:
    """The first entry of the UUID tree."""
    return edit.first(UUIDS, KeyType.UUID_KEY_SUBVOL)


def delete(edit: craft.Editor) -> None:
    edit.delete(entry(edit))


def other_uuid(edit: craft.Editor) -> None:
    place = edit.first(ObjectId.ROOT_TREE, lambda p: p.key[:2] == (256, KeyType.ROOT_ITEM))
    edit.set_fields(place, RootItem, uuid=b"\5" * 16)


CASES: list[tuple[str, Edit]] = [
    ("root.uuid-missing", delete),
    ("root.uuid-missing", other_uuid),
    ("root.uuid-unknown", other_uuid),
    ("root.uuid-unknown", lambda edit: edit.patch(entry(edit), 0, (9999).to_bytes(8, "little"))),
    ("root.uuid-twice", lambda edit: edit.replace(entry(edit), edit.payload(entry(edit)) * 2)),
    ("root.uuid-malformed", lambda edit: edit.replace(entry(edit), b"1234567")),
    ("root.uuid-malformed", lambda edit: edit.replace(entry(edit), b"")),
]


@pytest.mark.parametrize(("code", "edit"), CASES, ids=[f"{i}-{code}" for i, (code, _) in enumerate(CASES)])
def test_each_rule(tmp_path: Path, code: str, edit: Edit) -> None:
    report = after("default", tmp_path, edit)
    assert Severity.ERROR in [p.severity for p in report.problems if p.code == code]


def test_a_tree_that_the_kernel_makes_anew(tmp_path: Path) -> None:
    """With another generation in the superblock nobody trusts the tree: what it lacks is only noted."""

    def edit(edit: craft.Editor) -> None:
        delete(edit)
        edit.set_superblock(uuid_tree_generation=1)

    told = [p.severity for p in after("default", tmp_path, edit).problems if p.code == "root.uuid-missing"]
    assert told == [Severity.NOTE]


def test_received_subvolumes(tmp_path: Path) -> None:
    """A received UUID asks for an entry of its own."""

    def edit(edit: craft.Editor) -> None:
        place = edit.first(ObjectId.ROOT_TREE, lambda p: p.key[:2] == (256, KeyType.ROOT_ITEM))
        edit.set_fields(place, RootItem, received_uuid=b"\5" * 16, rtransid=1)

    told = [p.key for p in after("default", tmp_path, edit).problems if p.code == "root.uuid-missing"]
    assert told == [(int.from_bytes(b"\5" * 8), int(KeyType.UUID_KEY_RECEIVED_SUBVOL), int.from_bytes(b"\5" * 8))]
