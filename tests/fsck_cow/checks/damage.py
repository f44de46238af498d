"""One edit of a copied kernel image, and what fsck.cow then says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cowlib.format import ExtentFlag, ExtentItem, KeyType, ObjectId
from fsck_cow.problems import Report
from tests import corpus
from tests.fsck_cow import craft

Edit = Callable[[craft.Editor], None]

#: Where the first inline reference of an extent item begins.
FIRST_REF = ExtentItem.sizeof()


def after(name: str, folder: Path, edit: Edit) -> Report:
    """Copies the kernel image ``name``, edits it, and checks it."""
    images = craft.copy(corpus.devices(name), folder)
    with craft.Editor(images) as editor:
        edit(editor)
    return craft.check(images)


def data_extent(edit: craft.Editor) -> craft.Place:
    """The extent item of a data extent with a single inline EXTENT_DATA_REF, not the first item of its leaf."""

    def wanted(place: craft.Place) -> bool:
        if place.key[1] != KeyType.EXTENT_ITEM or not place.slot:
            return False
        item = edit.parsed(place)
        refs = item["inline_refs"]
        return bool(item["flags"] == ExtentFlag.DATA and [r["type"] for r in refs] == [KeyType.EXTENT_DATA_REF])

    return edit.first(ObjectId.EXTENT_TREE, wanted)


def block_extent(edit: craft.Editor, tree: int = ObjectId.CSUM_TREE) -> craft.Place:
    """The extent item of the root node of a tree."""
    bytenr = edit.root(tree).bytenr
    kinds = (KeyType.METADATA_ITEM, KeyType.EXTENT_ITEM)
    return edit.first(ObjectId.EXTENT_TREE, lambda place: place.key[0] == bytenr and place.key[1] in kinds)
