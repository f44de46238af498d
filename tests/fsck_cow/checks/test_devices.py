"""Devices: their items, what the superblocks say of them, and which are there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cowlib.format import DevItem, DevReplaceItem, KeyType, ObjectId
from fsck_cow.problems import Severity
from tests import corpus
from tests.fsck_cow import craft

CHUNKS, DEVICES = ObjectId.CHUNK_TREE, ObjectId.DEV_TREE

#: A DEV_REPLACE item of a state that there is not.
ODD_REPLACEMENT = DevReplaceItem.build({field.name: 9 for field in DevReplaceItem.subcons})

Change = Callable[[craft.Editor], None]


def dev_item(**fields: object) -> Change:
    """Changes fields of the first DEV_ITEM."""
    return lambda edit: edit.set_fields(edit.first(CHUNKS, KeyType.DEV_ITEM), DevItem, **fields)


def insert(tree: int, key: craft.Key, payload: bytes) -> Change:
    return lambda edit: edit.insert(tree, key, payload)


def twin(edit: craft.Editor) -> None:
    place = edit.first(CHUNKS, KeyType.DEV_ITEM)
    edit.insert(CHUNKS, (1, KeyType.DEV_ITEM, 9), edit.payload(place))


CHANGES: list[tuple[Change, str]] = [
    (dev_item(total_bytes=0), "device.bytes-used-wrong"),
    (dev_item(bytes_used=4096), "device.bytes-used-wrong"),
    (dev_item(devid=7), "device.key-wrong"),
    (dev_item(fsid=bytes(16)), "device.fsid-wrong"),
    (dev_item(total_bytes=2**40), "device.too-small"),
    (dev_item(uuid=bytes(16)), "device.superblock-differs"),
    (dev_item(sector_size=512), "device.sizes-odd"),
    (dev_item(total_bytes=(128 << 20) - 512), "device.total-bytes-wrong"),
    (twin, "device.duplicate"),
    (insert(CHUNKS, (1, KeyType.DEV_ITEM, 9), b"short"), "device.item-size"),
    (insert(CHUNKS, (5, KeyType.INODE_ITEM, 9), b""), "chunk.stranger"),
    (insert(DEVICES, (5, KeyType.INODE_ITEM, 9), b""), "device.stranger"),
    (insert(DEVICES, (0, KeyType.DEV_STATS, 9), b"odd"), "device.stats-broken"),
    (insert(DEVICES, (3, KeyType.DEV_STATS, 9), bytes(40)), "device.stats-broken"),
    (insert(DEVICES, (0, KeyType.DEV_REPLACE, 0), bytes(8)), "device.replace-broken"),
    (insert(DEVICES, (0, KeyType.DEV_REPLACE, 0), ODD_REPLACEMENT), "device.replace-broken"),
]


@pytest.mark.parametrize(("change", "code"), CHANGES, ids=[f"{i}-{code}" for i, (_, code) in enumerate(CHANGES)])
def test_an_item_that_cannot_be(change: Change, code: str, tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    assert craft.check(image).clean
    with craft.Editor(image) as edit:
        change(edit)
    assert code in craft.codes(image)


def test_a_replacement_that_can_be(tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        edit.insert(DEVICES, (0, KeyType.DEV_REPLACE, 0), bytes(DevReplaceItem.sizeof()))
    assert craft.codes(image) == set()


def test_an_image_cut_short(tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    os.truncate(image[0], (128 << 20) - 4096)
    assert craft.codes(image) == {"device.too-small"}


def test_a_missing_device_is_a_note(tmp_path: Path) -> None:
    images = craft.copy(corpus.devices("raid1")[:1], tmp_path)
    [problem] = craft.check(images).problems
    assert (problem.code, problem.severity) == ("device.missing", Severity.NOTE)
    assert "device 2" in problem.message


def test_a_device_that_no_item_names(tmp_path: Path) -> None:
    images = craft.copy(corpus.devices("raid1"), tmp_path)
    with craft.Editor(images) as edit:
        edit.delete(edit.find(CHUNKS, (1, KeyType.DEV_ITEM, 2)))
    found = {problem.code: problem for problem in craft.check(images).problems}
    assert found["device.unknown"].device == str(images[1])
    assert "chunk.stripe-device-wrong" in found
