"""Block groups: one for each chunk, where they belong, with as much used as their extents take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowlib.format import BlockGroupItem, KeyType, ObjectId
from tests.fsck_cow import craft

EXTENTS, GROUPS = ObjectId.EXTENT_TREE, ObjectId.BLOCK_GROUP_TREE

Change = Callable[[craft.Editor], None]

#: Options of mkfs.cow for either place of block groups.
PLACES = {EXTENTS: ("-O", "^block-group-tree"), GROUPS: ("-O", "block-group-tree")}


def group(edit: craft.Editor) -> craft.Place:
    """The first block group, wherever they are."""
    tree = GROUPS if any(root.objectid == GROUPS for root in edit.roots) else EXTENTS
    return edit.first(tree, KeyType.BLOCK_GROUP_ITEM)


def item(**fields: Any) -> Change:
    return lambda edit: edit.set_fields(group(edit), BlockGroupItem, **fields)


def key(**fields: int) -> Change:
    """Changes the key by some numbers."""

    def change(edit: craft.Editor) -> None:
        place = group(edit)
        objectid, _, offset = place.key
        numbers = {"key.objectid": objectid + fields.get("bytenr", 0), "key.offset": offset + fields.get("length", 0)}
        edit.set_item(place, **numbers)

    return change


CHANGES: list[tuple[Change, str]] = [
    (item(chunk_objectid=5), "block-group.field-wrong"),
    (item(used=2**50), "block-group.used-too-large"),
    (item(used=12288), "block-group.used-wrong"),
    (item(flags=1), "block-group.flags-differ"),
    (key(length=4096), "block-group.chunk-missing"),
    (key(length=4096), "block-group.missing"),
    (key(length=1 << 30), "block-group.overlap"),
    (lambda edit: edit.set_item(group(edit), **{"key.offset": 0}), "block-group.field-wrong"),
    (lambda edit: edit.replace(group(edit), b"short"), "block-group.item-size"),
    (lambda edit: edit.delete(group(edit)), "block-group.missing"),
]


@pytest.mark.parametrize("tree", PLACES)
@pytest.mark.parametrize(("change", "code"), CHANGES, ids=[f"{i}-{code}" for i, (_, code) in enumerate(CHANGES)])
def test_what_cannot_be(change: Change, code: str, tree: ObjectId, tmp_path: Path) -> None:
    image = craft.small(tmp_path, *PLACES[tree])
    with craft.Editor(image) as edit:
        change(edit)
    assert code in craft.codes(image)


def test_a_block_group_in_the_wrong_tree(tmp_path: Path) -> None:
    image = craft.small(tmp_path, *PLACES[GROUPS])
    with craft.Editor(image) as edit:
        place = group(edit)
        edit.insert(EXTENTS, place.key, edit.payload(place))
        edit.insert(GROUPS, (7, KeyType.EXTENT_ITEM, 7), b"")
    codes = craft.codes(image)
    assert {"block-group.wrong-tree", "block-group.stranger"} <= codes
    assert "block-group.overlap" not in codes


def test_nothing_is_compared_with_a_tree_that_is_lost(tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        place = edit.first(EXTENTS, KeyType.METADATA_ITEM)
        edit.write_node(place.leaf, bytes(edit.nodesize), mend=False)
    codes = craft.codes(image)
    assert "node.unreadable" in codes
    assert not {code for code in codes if code.startswith(("block-group", "free-space", "superblock"))}
