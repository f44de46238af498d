"""JSON: whole, valid, and the same as what the declarations read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import cowlib
from cow_debug_tree.json_lines import plain
from cowlib.format import KeyType, parse_item
from tests import corpus
from tests.cow_debug_tree.crafted import CraftedImage
from tests.cow_debug_tree.running import run

#: Kinds whose items are one structure and nothing else.
STRUCTURES = {
    KeyType.INODE_ITEM,
    KeyType.ROOT_ITEM,
    KeyType.BLOCK_GROUP_ITEM,
    KeyType.FREE_SPACE_INFO,
    KeyType.DEV_ITEM,
    KeyType.DEV_EXTENT,
    KeyType.QGROUP_INFO,
    KeyType.QGROUP_LIMIT,
    KeyType.QGROUP_STATUS,
    KeyType.EXTENT_DATA_REF,
    KeyType.SHARED_DATA_REF,
}
NAMED = {KeyType.INODE_REF, KeyType.DIR_ITEM, KeyType.DIR_INDEX, KeyType.XATTR_ITEM}


def objects(*arguments: Any) -> list[dict[str, Any]]:
    """What the command prints as JSON."""
    said = run("--noscan", "--json", *arguments)
    assert (said.returncode, said.stderr) == (0, "")
    return [json.loads(line) for line in said.stdout.splitlines()]


def without_reserved(value: Any) -> Any:
    """Parsed structures without what the kernel reserves for later."""
    if isinstance(value, dict):
        return {name: without_reserved(part) for name, part in value.items() if name != "reserved"}
    return value


def payloads(name: str) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    """Keys and payloads of all items, in the order they are printed in."""
    with cowlib.open(corpus.devices(name), scan=False) as fs:
        for root in [fs.root_tree, fs.chunk_tree, *fs.roots]:
            for nodes in fs.reader.leaves(root):
                items = nodes.items()
                yield from ((items.key(i), items.payload(i)) for i in range(len(items)))


@pytest.mark.parametrize(
    "name", [n for n in ("node4k-bgt", "quota", "squota", "raid10") if n in corpus.kernel_images()]
)
def test_items_are_what_the_declarations_read(name: str) -> None:
    items = [found for found in objects(*corpus.devices(name)) if "item" in found]
    expected = list(payloads(name))
    assert [tuple(found["key"]) for found in items] == [key for key, _ in expected]
    for found, (key, payload) in zip(items, expected, strict=True):
        assert found["size"] == len(payload)
        parsed = parse_item(*key, payload) if key[1] in STRUCTURES | NAMED else {}
        if key[1] in STRUCTURES:
            assert found["item"] == without_reserved(plain(parsed)), key
        elif key[1] in NAMED:
            assert [entry["name"] for entry in found["item"]] == [
                bytes(entry["name"]).decode(errors="replace") for entry in parsed
            ]


def test_pointers_and_kinds() -> None:
    found = objects("-t", "fs", *corpus.devices("node4k-bgt"))
    pointers = [one for one in found if "node" in one]
    leaves = dict.fromkeys(one["leaf"] for one in found if "leaf" in one)
    assert [one["blockptr"] for one in pointers] == list(leaves)
    assert {one["tree"] for one in found} == {5}
    assert {one["kind"] for one in found if one["key"][1] == 1} == {"INODE_ITEM"}
    root = {one["node"] for one in pointers}
    assert objects("-b", str(*root), *corpus.devices("node4k-bgt")) == [{**one, "tree": None} for one in pointers]


def test_roots() -> None:
    found = objects("-R", *corpus.devices("default"))
    trees = [one["tree"] for one in found if "tree" in one]
    assert trees[:2] == [1, 3]
    assert {2, 4, 5, 7} < set(trees)
    assert [one["backup"] for one in found if "backup" in one] == [0, 1, 2, 3]
    assert [one["tree"] for one in objects("-r", "-t", "fs", *corpus.devices("default"))] == [5]


def test_names_that_are_no_text(tmp_path_factory: pytest.TempPathFactory) -> None:
    image = CraftedImage(tmp_path_factory.mktemp("crafted"))
    names = [b"plain", 'ä"\\\n'.encode(), b"\xff\xfe", b"", b"nul\0"]
    payload = b"".join(nth.to_bytes(8, "little") + len(n).to_bytes(2, "little") + n for nth, n in enumerate(names))
    image.put([((256, KeyType.INODE_REF, 256), payload), ((300, 7, 1), b"\x00\xff")])
    refs, unknown = objects("-b", str(image.bytenr), image.path)
    assert [entry["name"] for entry in refs["item"]] == ["plain", 'ä"\\\n', "��", "", "nul\0"]
    assert [entry.get("name_hex") for entry in refs["item"]] == [None, None, "fffe", None, None]
    assert unknown["item"] == {"data": "00ff"}
    hidden, _ = objects("--hide-names", "-b", str(image.bytenr), image.path)
    assert {entry["name"] for entry in hidden["item"]} == {"HIDDEN"}


def test_checksums_of_data() -> None:
    devices = corpus.devices("blake2-holes")
    plain_items = [one for one in objects("-t", "csum", *devices) if "item" in one]
    items = [one for one in objects("-t", "csum", "--csum-items", *devices) if "item" in one]
    for short, whole in zip(plain_items, items, strict=True):
        sums = whole["item"].pop("csums")
        assert short == whole
        assert len(sums) * 4096 == short["item"]["end"] - short["item"]["start"]
        assert all(len(one) == 64 for one in sums)
