"""Chunks and device extents: shapes, places, and one for each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowlib.format import BlockGroupFlag, Chunk, DevExtent, KeyType, ObjectId, Stripe
from tests import corpus
from tests.fsck_cow import craft

CHUNKS, DEVICES = ObjectId.CHUNK_TREE, ObjectId.DEV_TREE

Change = Callable[[craft.Editor], None]


def last(edit: craft.Editor, tree: int, kind: int) -> craft.Place:
    """The last item of a type: of the chunks, one that holds data and not the trees."""
    return [place for place in edit.places(tree) if place.key[1] == kind][-1]


def data_chunk(edit: craft.Editor) -> craft.Place:
    return edit.first(
        CHUNKS, lambda place: place.key[1] == KeyType.CHUNK_ITEM and edit.parsed(place).type & BlockGroupFlag.DATA > 0
    )


def chunk(**fields: Any) -> Change:
    """Changes fields of the data chunk."""
    return lambda edit: edit.set_fields(data_chunk(edit), Chunk, **fields)


def stripe(**fields: Any) -> Change:
    """Changes fields of the data chunk's first stripe."""
    return lambda edit: edit.set_fields(data_chunk(edit), Stripe, Chunk.sizeof(), **fields)


def extent(**fields: Any) -> Change:
    """Changes fields of the last device extent."""
    return lambda edit: edit.set_fields(last(edit, DEVICES, KeyType.DEV_EXTENT), DevExtent, **fields)


def extent_key(offset: int) -> Change:
    """Moves the last device extent's key by some bytes."""

    def change(edit: craft.Editor) -> None:
        place = last(edit, DEVICES, KeyType.DEV_EXTENT)
        edit.set_item(place, **{"key.offset": place.key[2] + offset})

    return change


def no_extent(edit: craft.Editor) -> None:
    edit.delete(last(edit, DEVICES, KeyType.DEV_EXTENT))


def no_chunk(edit: craft.Editor) -> None:
    edit.delete(data_chunk(edit))


def long_chunk(edit: craft.Editor) -> None:
    """A metadata chunk that reaches into the next one."""
    place = edit.first(CHUNKS, KeyType.CHUNK_ITEM)
    edit.set_fields(place, Chunk, length=edit.parsed(place).length + 65536)


CHANGES: list[tuple[Change, str]] = [
    (chunk(num_stripes=0), "chunk.unusable"),
    (chunk(stripe_len=4096), "chunk.unusable"),
    (chunk(length=0), "chunk.unusable"),
    (chunk(length=2**62), "chunk.unusable"),
    (chunk(type=BlockGroupFlag.DATA | BlockGroupFlag.RAID1 | BlockGroupFlag.DUP), "chunk.unusable"),
    (chunk(type=BlockGroupFlag.DATA | BlockGroupFlag.RAID6), "chunk.unusable"),
    (chunk(type=BlockGroupFlag.DATA | 1 << 40), "chunk.flags-wrong"),
    (chunk(type=BlockGroupFlag.DATA | BlockGroupFlag.SYSTEM), "chunk.flags-wrong"),
    (chunk(type=BlockGroupFlag.DATA | BlockGroupFlag.METADATA), "chunk.flags-wrong"),
    (chunk(owner=5), "chunk.field-wrong"),
    (chunk(sector_size=512), "chunk.field-wrong"),
    (lambda edit: edit.replace(data_chunk(edit), b"short"), "chunk.item-size"),
    (lambda edit: edit.replace(data_chunk(edit), edit.payload(data_chunk(edit)) + b"tail"), "chunk.item-size"),
    (long_chunk, "chunk.overlap"),
    (stripe(devid=5), "chunk.stripe-device-wrong"),
    (stripe(dev_uuid=bytes(16)), "chunk.stripe-device-wrong"),
    (stripe(offset=127 << 20), "chunk.stripe-outside"),
    (stripe(offset=1 << 50), "chunk.stripe-outside"),
    (stripe(offset=(1 << 20) + 512), "chunk.stripe-unaligned"),
    (stripe(offset=65536), "chunk.reserved-space"),
    (stripe(offset=65536), "chunk.device-extent-missing"),
    (stripe(offset=65536), "chunk.device-extent-orphan"),
    (extent(chunk_tree=5), "chunk.device-extent-field-wrong"),
    (extent(chunk_objectid=5), "chunk.device-extent-field-wrong"),
    (extent(chunk_offset=4096), "chunk.device-extent-differs"),
    (extent(length=4096), "chunk.device-extent-differs"),
    (extent(chunk_tree_uuid=b"u" * 16), "chunk.tree-uuid-wrong"),
    (extent_key(-4096), "chunk.device-extent-overlap"),
    (extent_key(-512), "chunk.device-extent-field-wrong"),
    (no_extent, "chunk.device-extent-missing"),
    (no_chunk, "chunk.device-extent-orphan"),
    (
        lambda edit: edit.replace(last(edit, DEVICES, KeyType.DEV_EXTENT), b"short"),
        "chunk.device-extent-size",
    ),
]


@pytest.mark.parametrize(("change", "code"), CHANGES, ids=[f"{i}-{code}" for i, (_, code) in enumerate(CHANGES)])
def test_what_cannot_be(change: Change, code: str, tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        change(edit)
    assert code in craft.codes(image)


def test_the_extents_of_an_unusable_chunk_are_no_orphans(tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        chunk(num_stripes=0)(edit)
    assert "chunk.device-extent-orphan" not in craft.codes(image)


def test_mixed_chunks_of_a_mixed_filesystem(tmp_path: Path) -> None:
    assert craft.codes(craft.copy(corpus.devices("mixed"), tmp_path)) == set()
