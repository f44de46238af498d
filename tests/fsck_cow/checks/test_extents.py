"""Extent items and references by themselves: each rule broken once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowlib.checksum import extent_data_ref_hash
from cowlib.format import (
    ExtentDataRef,
    ExtentFlag,
    ExtentItem,
    ExtentOwnerRef,
    IncompatFeature,
    KeyType,
    ObjectId,
    build_item,
)
from tests import corpus
from tests.fsck_cow import craft
from tests.fsck_cow.checks.damage import FIRST_REF, Edit, after, block_extent, data_extent

EXTENTS = ObjectId.EXTENT_TREE

REFERENCE = ExtentDataRef.build({"root": 5, "objectid": 9, "offset": 0, "count": 1})


def head(**fields: int) -> Edit:
    """Changes fields of the head of a data extent's item."""
    return lambda edit: edit.set_fields(data_extent(edit), ExtentItem, **fields)


def data_ref(**fields: int) -> Edit:
    """Changes fields of the inline reference of a data extent's item."""
    return lambda edit: edit.set_fields(data_extent(edit), ExtentDataRef, FIRST_REF + 1, **fields)


def move(objectid: int = 0, offset: int = 0) -> Edit:
    """Adds to a data extent's address and length."""

    def edit_(edit: craft.Editor) -> None:
        place = data_extent(edit)
        fields = {"key.objectid": place.key[0] + objectid, "key.offset": place.key[2] + offset}
        edit.set_item(place, **fields)

    return edit_


def inline(*types: int) -> Edit:
    """Gives a data extent's item inline references of these types, in this order."""

    def edit_(edit: craft.Editor) -> None:
        place = data_extent(edit)
        item = edit.parsed(place)
        own = dict(item["inline_refs"][0])
        shared = {"type": KeyType.SHARED_DATA_REF, "offset": 4096 * 1000, "count": 1}
        block = {"type": KeyType.TREE_BLOCK_REF, "offset": 5}
        owner = {"type": KeyType.EXTENT_OWNER_REF, "root_id": 5}
        refs = {r["type"]: r for r in (own, shared, block, owner)}
        item["inline_refs"] = [refs[t] for t in types]
        edit.replace(place, build_item(*place.key, item))

    return edit_


def insert_ref(kind: int, payload: bytes, *, extent: bool = True, offset: int | None = None) -> Edit:
    """Puts a keyed reference beside a data extent's item, or at an address without one."""

    def edit_(edit: craft.Editor) -> None:
        bytenr = data_extent(edit).key[0] + (0 if extent else 512)
        place = offset if offset is not None else int(extent_data_ref_hash(5, 300, 0))
        edit.insert(EXTENTS, (bytenr, kind, place), payload)

    return edit_


def without_skinny(edit: craft.Editor) -> None:
    edit.set_superblock(incompat_flags=int(edit.superblock.incompat_flags) & ~IncompatFeature.SKINNY_METADATA)


def in_metadata_chunk(edit: craft.Editor) -> None:
    bytenr = block_extent(edit).key[0] + 4096
    ref = {"type": KeyType.EXTENT_DATA_REF, "root": 5, "objectid": 257, "offset": 0, "count": 1}
    item = {"refs": 1, "generation": 1, "flags": int(ExtentFlag.DATA), "inline_refs": [ref]}
    key = (bytenr, int(KeyType.EXTENT_ITEM), 4096)
    edit.insert(EXTENTS, key, build_item(*key, item))


def level_of_block(edit: craft.Editor) -> None:
    edit.set_item(block_extent(edit), **{"key.offset": 9})


def far_away(edit: craft.Editor) -> None:
    last = list(edit.places(EXTENTS))[-1]
    edit.set_item(last, **{"key.objectid": 2**60})


CASES: list[tuple[str, Edit]] = [
    ("extent.item-size", lambda edit: edit.replace(data_extent(edit), bytes(20))),
    ("extent.skinny-without-feature", without_skinny),
    ("extent.unaligned", move(objectid=512)),
    ("extent.length-wrong", move(offset=512)),
    ("extent.overlap", move(offset=1 << 30)),
    ("extent.outside-chunk", far_away),
    ("extent.outside-chunk", move(offset=1 << 40)),
    ("extent.chunk-type-wrong", in_metadata_chunk),
    ("extent.flags-wrong", head(flags=3)),
    ("extent.flags-wrong", head(flags=0)),
    ("extent.flags-wrong", head(flags=1 | 1 << 8)),
    ("extent.flags-wrong", head(flags=1 | 1 << 20)),
    ("extent.generation-wrong", head(generation=10**6)),
    ("extent.generation-wrong", lambda edit: edit.set_fields(block_extent(edit), ExtentItem, generation=0)),
    ("extent.level-wrong", level_of_block),
    ("extent.refs-zero", head(refs=0)),
    ("extent.refs-wrong", head(refs=7)),
    ("extent.inline-broken", lambda edit: edit.patch(data_extent(edit), FIRST_REF, b"\x63")),
    ("extent.inline-broken", lambda edit: edit.replace(data_extent(edit), edit.payload(data_extent(edit))[:-1])),
    ("extent.inline-type", inline(KeyType.TREE_BLOCK_REF)),
    ("extent.inline-order", inline(KeyType.SHARED_DATA_REF, KeyType.EXTENT_DATA_REF)),
    ("extent.inline-duplicate", inline(KeyType.EXTENT_DATA_REF, KeyType.EXTENT_DATA_REF)),
    ("extent.owner-ref-without-feature", inline(KeyType.EXTENT_OWNER_REF, KeyType.EXTENT_DATA_REF)),
    ("extent.ref-unaligned", data_ref(offset=1)),
    ("extent.ref-count-zero", data_ref(count=0)),
    ("extent.ref-root-wrong", data_ref(root=int(ObjectId.CHUNK_TREE))),
    ("extent.ref-objectid-wrong", data_ref(objectid=1)),
    ("extent.keyed-size", insert_ref(KeyType.EXTENT_DATA_REF, bytes(27))),
    (
        "extent.keyed-hash",
        insert_ref(KeyType.EXTENT_DATA_REF, REFERENCE),
    ),
    ("extent.ref-unaligned", insert_ref(KeyType.SHARED_DATA_REF, b"\1\0\0\0", offset=77)),
    ("extent.keyed-without-extent", insert_ref(KeyType.SHARED_DATA_REF, b"\1\0\0\0", extent=False, offset=4096)),
]


@pytest.mark.parametrize(("code", "edit"), CASES, ids=[f"{i}-{code}" for i, (code, _) in enumerate(CASES)])
def test_each_rule(tmp_path: Path, code: str, edit: Edit) -> None:
    assert code in after("default", tmp_path, edit).counts


def test_tree_block_info(tmp_path: Path) -> None:
    """Without skinny metadata the level stands in the item."""

    def edit(edit: craft.Editor) -> None:
        place = block_extent(edit)
        edit.patch(place, FIRST_REF + 17, b"\x08")

    assert {"extent.level-wrong", "extent.level-mismatch"} <= after("noskinny", tmp_path, edit).counts.keys()


def test_hash_order(tmp_path: Path) -> None:
    """Inline EXTENT_DATA_REFs stand in the order of their hashes, the largest first."""
    told = []
    for reverse in (False, True):

        def edit(edit: craft.Editor, reverse: bool = reverse) -> None:
            place = data_extent(edit)
            item = edit.parsed(place)
            own = dict(item["inline_refs"][0])
            refs = [own, {**own, "objectid": own["objectid"] + 1}]
            refs.sort(key=lambda r: int(extent_data_ref_hash(r["root"], r["objectid"], r["offset"])), reverse=reverse)
            item["inline_refs"] = refs
            edit.replace(place, build_item(*place.key, item))

        folder = tmp_path / str(reverse)
        folder.mkdir()
        told.append("extent.inline-order" in after("default", folder, edit).counts)
    assert told == [True, False]


def test_keyed_reference_is_as_good_as_an_inline_one(tmp_path: Path) -> None:
    """A reference that moves out of its item into one of its own leaves nothing to complain of."""

    def edit(edit: craft.Editor) -> None:
        place = data_extent(edit)
        payload = edit.payload(place)
        reference = payload[FIRST_REF + 1 :]
        ref = ExtentDataRef.parse(reference)
        edit.replace(place, payload[:FIRST_REF])
        key = (
            place.key[0],
            int(KeyType.EXTENT_DATA_REF),
            int(extent_data_ref_hash(ref.root, ref.objectid, ref.offset)),
        )
        edit.insert(EXTENTS, key, reference)

    report = after("default", tmp_path, edit)
    assert report.clean, report.problems


def test_owner_references_do_not_count(tmp_path: Path) -> None:
    """With simple quotas each data extent has an EXTENT_OWNER_REF; taking one away changes no number of references."""

    def edit(edit: craft.Editor) -> None:
        def owned(place: craft.Place) -> bool:
            payload = edit.payload(place)
            return place.key[1] == KeyType.EXTENT_ITEM and payload[FIRST_REF] == KeyType.EXTENT_OWNER_REF

        place = edit.first(EXTENTS, owned)
        payload = edit.payload(place)
        edit.replace(place, payload[:FIRST_REF] + payload[FIRST_REF + 1 + ExtentOwnerRef.sizeof() :])

    codes = after("squota", tmp_path, edit).counts.keys()
    assert not {code for code in codes if code.startswith("extent.")}


def test_stripe_crossing() -> None:
    """A tree block across a 64 KiB boundary, and data where metadata belongs, as an old btrfs-convert left them."""
    report = craft.check([corpus.image("fsck-tests--018-leaf-crossing-stripes--default_case")])
    crossing = [p for p in report.problems if p.code == "extent.block-crosses-stripe"]
    assert [p.logical for p in crossing] == [11456512]
    assert report.counts["extent.chunk-type-wrong"]
