"""Every item of every image, taken apart and put together again; and made-up ones."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.checksum import extent_data_ref_hash, extref_hash, name_hash
from cowlib.errors import CowError, DamagedError, UsageError
from cowlib.format import (
    ExtentFlag,
    FileExtentType,
    KeyType,
    ObjectId,
    QgroupStatusItemV0,
    RootItem,
    RootItemV0,
    build_item,
    parse_item,
    payload_struct,
)
from tests import corpus
from tests.cowlib.format.leaves import items

# Made by hand to hold nonsense; every other image is one whose items are all of a known form.
NONSENSE = "fuzz-tests--"


def round_trip(images: list[Path]) -> tuple[int, list[CowError]]:
    """Parse and build what is on these devices: how many different payloads, and why some were refused."""
    seen: set[tuple[Any, bytes]] = set()
    refused: list[CowError] = []
    for item in items(images):
        kind = payload_struct(*item.key)
        if (kind, item.payload) in seen:
            continue
        seen.add((kind, item.payload))
        try:
            value = parse_item(*item.key, item.payload)
        except DamagedError as error:
            refused.append(error)
        else:
            assert build_item(*item.key, value) == item.payload
    return len(seen), refused


@pytest.mark.parametrize("name", corpus.kernel_images())
def test_items_the_kernel_wrote(name: str) -> None:
    count, refused = round_trip(corpus.devices(name))
    assert count > 1000
    assert not refused


@pytest.mark.parametrize("name", corpus.progs_images())
def test_damaged_items(name: str) -> None:
    _, refused = round_trip([corpus.image(name)])
    assert not refused or name.startswith(NONSENSE)
    assert all(error.key is not None for error in refused)


@pytest.mark.parametrize("name", corpus.kernel_images("default", "noskinny", "quota"))
def test_hashes_in_keys(name: str) -> None:
    """The kernel's own keys hold the hashes we compute."""
    compared = set()
    for item in items(corpus.devices(name)):
        if item.type in (KeyType.DIR_ITEM, KeyType.XATTR_ITEM):
            assert {name_hash(entry.name) for entry in parse_item(*item.key, item.payload)} == {item.offset}
        elif item.type == KeyType.INODE_EXTREF:
            for entry in parse_item(*item.key, item.payload):
                assert extref_hash(entry.parent_objectid, entry.name) == item.offset
        elif item.type == KeyType.EXTENT_DATA_REF:
            ref = parse_item(*item.key, item.payload)
            assert extent_data_ref_hash(ref.root, ref.objectid, ref.offset) == item.offset
        elif item.type == KeyType.EXTENT_ITEM:
            refs = parse_item(*item.key, item.payload).inline_refs
            hashes = [
                int(extent_data_ref_hash(ref.root, ref.objectid, ref.offset))
                for ref in refs
                if ref.type == KeyType.EXTENT_DATA_REF
            ]
            assert hashes == sorted(hashes, reverse=True)
            if len(hashes) < 2:
                continue
        compared.add(item.type)
    assert {KeyType.DIR_ITEM, KeyType.XATTR_ITEM} <= compared


def test_keyed_data_refs() -> None:
    keyed = [item for item in items(corpus.devices("mixed")) if item.type == KeyType.EXTENT_DATA_REF]
    assert keyed
    for item in keyed:
        ref = parse_item(*item.key, item.payload)
        assert extent_data_ref_hash(ref.root, ref.objectid, ref.offset) == item.offset


u64 = st.integers(0, 2**64 - 1)
name = st.binary(min_size=1, max_size=255)
dir_entry = st.fixed_dictionaries(
    {
        "location": st.fixed_dictionaries({"objectid": u64, "type": st.integers(0, 255), "offset": u64}),
        "transid": u64,
        "type": st.integers(0, 255),
        "name": name,
        "data": st.binary(max_size=300),
    }
)
stripe = st.fixed_dictionaries(
    {"devid": u64, "offset": u64, "dev_uuid": st.binary(min_size=16, max_size=16)},
)
inline_ref = st.one_of(
    st.fixed_dictionaries({"type": st.just(KeyType.TREE_BLOCK_REF), "offset": u64}),
    st.fixed_dictionaries({"type": st.just(KeyType.SHARED_BLOCK_REF), "offset": u64}),
    st.fixed_dictionaries({"type": st.just(KeyType.EXTENT_OWNER_REF), "root_id": u64}),
    st.fixed_dictionaries(
        {"type": st.just(KeyType.SHARED_DATA_REF), "offset": u64, "count": st.integers(0, 2**32 - 1)}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just(KeyType.EXTENT_DATA_REF),
            "root": u64,
            "objectid": u64,
            "offset": u64,
            "count": st.integers(0, 2**32 - 1),
        }
    ),
)


def same(given: Any, parsed: Any) -> bool:
    """Whether what was built comes back, beside the lengths that were filled in."""
    if isinstance(given, dict):
        return all(same(value, parsed[name]) for name, value in given.items())
    if isinstance(given, list):
        return len(given) == len(parsed) and all(map(same, given, parsed))
    return bool(given == parsed)


def check_made_up(key: tuple[int, int, int], value: Any) -> None:
    data = build_item(*key, value)
    parsed = parse_item(*key, data)
    assert same(value, parsed)
    assert build_item(*key, parsed) == data


@given(st.lists(dir_entry, min_size=1, max_size=4))
def test_made_up_dir_items(entries: list[dict[str, Any]]) -> None:
    check_made_up((256, KeyType.DIR_ITEM, 1), entries)


@given(st.lists(st.fixed_dictionaries({"index": u64, "name": name}), min_size=1, max_size=4))
def test_made_up_inode_refs(entries: list[dict[str, Any]]) -> None:
    check_made_up((257, KeyType.INODE_REF, 256), entries)


@given(st.lists(st.fixed_dictionaries({"parent_objectid": u64, "index": u64, "name": name}), min_size=1, max_size=4))
def test_made_up_inode_extrefs(entries: list[dict[str, Any]]) -> None:
    check_made_up((257, KeyType.INODE_EXTREF, 1), entries)


@given(st.fixed_dictionaries({"dirid": u64, "sequence": u64, "name": name}))
def test_made_up_root_refs(value: dict[str, Any]) -> None:
    check_made_up((5, KeyType.ROOT_REF, 256), value)


@given(st.lists(stripe, max_size=5))
def test_made_up_chunks(stripes: list[dict[str, Any]]) -> None:
    fields = ("length", "owner", "stripe_len", "type", "io_align", "io_width", "sector_size", "sub_stripes")
    check_made_up((256, KeyType.CHUNK_ITEM, 0), dict.fromkeys(fields, 1) | {"stripes": stripes})


@given(u64, u64, st.integers(0, 7), st.lists(inline_ref, max_size=6))
def test_made_up_extents(refs: int, generation: int, level: int, inline: list[dict[str, Any]]) -> None:
    value: dict[str, Any] = {"refs": refs, "generation": generation, "inline_refs": inline}
    check_made_up((4096, KeyType.METADATA_ITEM, level), value | {"flags": int(ExtentFlag.TREE_BLOCK)})
    check_made_up((4096, KeyType.EXTENT_ITEM, 8192), value | {"flags": int(ExtentFlag.DATA)})
    info = {"key": {"objectid": 1, "type": 2, "offset": 3}, "level": level}
    node = value | {"flags": int(ExtentFlag.TREE_BLOCK), "tree_block_info": info}
    check_made_up((4096, KeyType.EXTENT_ITEM, 16384), node)


@given(st.sampled_from(FileExtentType), st.binary(max_size=100), u64)
def test_made_up_file_extents(kind: FileExtentType, data: bytes, number: int) -> None:
    head = {
        "generation": number,
        "ram_bytes": len(data),
        "compression": 3,
        "encryption": 0,
        "other_encoding": 0,
        "type": int(kind),
    }
    fields = ("disk_bytenr", "disk_num_bytes", "offset", "num_bytes")
    tail = {"data": data} if kind == FileExtentType.INLINE else dict.fromkeys(fields, number)
    check_made_up((257, KeyType.EXTENT_DATA, 0), head | tail)


@given(
    st.sampled_from([0, int(ObjectId.BALANCE), int(ObjectId.FREE_SPACE), 257]),
    st.integers(0, 255),
    st.sampled_from([0, 1]),
    st.binary(max_size=600),
)
def test_any_bytes_are_parsed_or_refused(objectid: int, type: int, offset: int, data: bytes) -> None:
    try:
        value = parse_item(objectid, type, offset, data)
    except DamagedError as error:
        assert error.key == (objectid, type, offset)
    else:
        assert build_item(objectid, type, offset, value) == data


def test_items_that_grew() -> None:
    key = (5, KeyType.ROOT_ITEM, 0)
    old = parse_item(*key, bytes(RootItemV0.sizeof()))
    assert "uuid" not in old
    assert "uuid" in parse_item(*key, bytes(RootItem.sizeof()))
    assert len(build_item(*key, old)) == RootItemV0.sizeof()
    with pytest.raises(DamagedError):
        parse_item(*key, bytes(300))
    status = parse_item(0, KeyType.QGROUP_STATUS, 0, bytes(QgroupStatusItemV0.sizeof()))
    assert "enable_gen" not in status
    assert parse_item(0, KeyType.QGROUP_STATUS, 0, bytes(40)).enable_gen == 0
    assert "remap_bytes" in parse_item(0, KeyType.BLOCK_GROUP_ITEM, 4096, bytes(36))
    assert len(parse_item(0, KeyType.DEV_STATS, 1, bytes(48))["values"]) == 6


def test_kinds_the_object_id_tells() -> None:
    assert parse_item(ObjectId.FREE_SPACE, KeyType.UNTYPED, 4096, bytes(41)).num_bitmaps == 0
    assert parse_item(1, KeyType.UNTYPED, 4096, b"abc") == b"abc"
    assert parse_item(ObjectId.BALANCE, KeyType.BALANCE_ITEM, 0, bytes(448)).data.usage == 0
    assert parse_item(77, KeyType.TEMPORARY_ITEM, 0, b"abc") == b"abc"
    assert parse_item(257, KeyType.VERITY_DESC_ITEM, 0, bytes(25)).size == 0
    assert parse_item(257, KeyType.VERITY_DESC_ITEM, 1, b"abc") == b"abc"
    assert parse_item(1, KeyType.UUID_KEY_SUBVOL, 2, bytes([7] + 7 * [0] + [8] + 7 * [0])) == [7, 8]


def test_crafted_lengths_are_bounded() -> None:
    chunk = bytearray(48 + 32)
    chunk[44:46] = b"\xff\xff"
    with pytest.raises(DamagedError):
        parse_item(256, KeyType.CHUNK_ITEM, 0, bytes(chunk))
    with pytest.raises(DamagedError):
        parse_item(256, KeyType.DIR_ITEM, 0, b"\xff" * 40)


@pytest.mark.parametrize(
    "value",
    [{}, *({"extent_count": count, "flags": 0} for count in (-1, 2**32, "x", None)), 5],
)
def test_what_cannot_be_built_is_refused(value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        build_item(4096, KeyType.FREE_SPACE_INFO, 8192, value)
    assert caught.value.key == (4096, KeyType.FREE_SPACE_INFO, 8192)
