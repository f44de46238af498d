"""Free space: the tree in both its forms, the old cache, and what extents leave free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.checksum import checksum
from cowlib.format import CsumType, FileExtentItem, FreeSpaceHeader, FreeSpaceInfo, InodeItem, KeyType, ObjectId
from fsck_cow.checks.free_space import runs_of_bits
from fsck_cow.intervals import holding, layered, merged, overlaps
from fsck_cow.problems import Severity
from tests import corpus
from tests.fsck_cow import craft

TREE, ROOTS = ObjectId.FREE_SPACE_TREE, ObjectId.ROOT_TREE
INFO, EXTENT, BITMAP = KeyType.FREE_SPACE_INFO, KeyType.FREE_SPACE_EXTENT, KeyType.FREE_SPACE_BITMAP

SECTOR, BITMAP_SECTORS = 4096, 2048

Change = Callable[[craft.Editor], None]


# -- ranges ----------------------------------------------------------------------------------------------------

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=12)


def columns_of(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(start, length) pairs as columns of starts and ends."""
    start, length = (np.array(column, np.uint64) for column in (zip(*pairs, strict=True) if pairs else ((), ())))
    return start, start + length


def covered(start: np.ndarray, end: np.ndarray) -> set[int]:
    return {byte for a, b in zip(start.tolist(), end.tolist(), strict=True) for byte in range(a, b)}


@given(ranges)
def test_merged_ranges_cover_the_same_and_lie_apart(pairs: list[tuple[int, int]]) -> None:
    start, end = merged(*columns_of(pairs))
    assert covered(start, end) == covered(*columns_of(pairs))
    assert (start[1:] > end[:-1]).all()
    assert holding(start, end, np.arange(80, dtype=np.uint64)).tolist() == [
        next((i for i, (a, b) in enumerate(zip(start, end, strict=True)) if a <= at < b), -1) for at in range(80)
    ]


@given(ranges, ranges)
def test_layers_tell_what_covers_each_piece(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    layers = [merged(*columns_of(one)), merged(*columns_of(two))]
    start, end, by = layered(layers)
    for number, layer in enumerate(layers):
        assert covered(start[by[:, number]], end[by[:, number]]) == covered(*layer)


@given(ranges)
def test_overlaps_name_one_that_is_overlapped(pairs: list[tuple[int, int]]) -> None:
    start, end = columns_of(pairs)
    late, early = overlaps(start, end)
    assert (start[early] <= start[late]).all()
    assert (end[early] > start[late]).all()
    assert (len(late) > 0) == (len(covered(start, end)) < int((end - start).sum()))


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(0, 7)), max_size=6))
def test_runs_of_bits(bitmaps: list[tuple[bytes, int]]) -> None:
    buffer = np.frombuffer(b"".join(data for data, _ in bitmaps), np.uint8)
    size = np.array([len(data) for data, _ in bitmaps], np.int64)
    length = size * 8 - np.array([spare for _, spare in bitmaps], np.int64)
    start, end, owner = runs_of_bits(buffer, np.cumsum(size) - size, size, length)
    for i, (data, _) in enumerate(bitmaps):
        mine = owner == i
        bits = {bit for bit in range(int(length[i])) if data[bit // 8] >> bit % 8 & 1}
        assert covered(start[mine], end[mine]) == bits
        assert (start[mine][1:] > end[mine][:-1]).all()


# -- the tree --------------------------------------------------------------------------------------------------


def free(edit: craft.Editor) -> craft.Place:
    """The largest free extent."""
    return max((place for place in edit.places(TREE) if place.key[1] == EXTENT), key=lambda place: place.key[2])


def shift(start: int, length: int) -> Change:
    """Moves the largest free extent's key."""

    def change(edit: craft.Editor) -> None:
        place = free(edit)
        edit.set_item(place, **{"key.objectid": place.key[0] + start, "key.offset": place.key[2] + length})

    return change


def split(edit: craft.Editor) -> None:
    """Two free extents where there should be one."""
    place = free(edit)
    edit.set_item(place, **{"key.offset": SECTOR})
    edit.insert(TREE, (place.key[0] + SECTOR, EXTENT, place.key[2] - SECTOR), b"")


def insert(kind: int, payload: bytes = b"", *, at: int = 1 << 45, length: int = SECTOR) -> Change:
    return lambda edit: edit.insert(TREE, (at, kind, length), payload)


def info(**fields: int) -> Change:
    return lambda edit: edit.set_fields(edit.first(TREE, INFO), FreeSpaceInfo, **fields)


CHANGES: list[tuple[Change, str]] = [
    (shift(SECTOR, -SECTOR), "free-space.missing"),
    (lambda edit: edit.delete(free(edit)), "free-space.missing"),
    (shift(-SECTOR, SECTOR), "free-space.allocated"),
    (shift(0, 1 << 30), "free-space.outside"),
    (shift(1, 0), "free-space.unaligned"),
    (lambda edit: edit.set_item(free(edit), **{"key.offset": 0}), "free-space.unaligned"),
    (split, "free-space.touching"),
    (split, "free-space.extent-count"),
    (lambda edit: insert(EXTENT, at=free(edit).key[0] + SECTOR)(edit), "free-space.overlap"),
    (insert(EXTENT), "free-space.outside"),
    (insert(INFO, bytes(8)), "free-space.info-orphan"),
    (insert(INFO, bytes(5)), "free-space.item-size"),
    (insert(EXTENT, b"x"), "free-space.item-size"),
    (insert(BITMAP, b"xx"), "free-space.item-size"),
    (insert(KeyType.INODE_ITEM), "free-space.stranger"),
    (lambda edit: insert(BITMAP, b"\1", at=free(edit).key[0] - SECTOR)(edit), "free-space.form-wrong"),
    (lambda edit: edit.delete(edit.first(TREE, INFO)), "free-space.info-missing"),
    (info(extent_count=77), "free-space.extent-count"),
    (info(flags=6), "free-space.flags-unknown"),
    (info(flags=1), "free-space.form-wrong"),
]


@pytest.mark.parametrize(("change", "code"), CHANGES, ids=[f"{i}-{code}" for i, (_, code) in enumerate(CHANGES)])
def test_what_cannot_be(change: Change, code: str, tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        change(edit)
    assert code in craft.codes(image)


def test_a_tree_that_is_not_valid_is_not_looked_at(tmp_path: Path) -> None:
    image = craft.small(tmp_path, "-O", "^block-group-tree")
    with craft.Editor(image) as edit:
        edit.delete(free(edit))
        edit.set_superblock(compat_ro_flags=1)
    [problem] = craft.check(image).problems
    assert (problem.code, problem.severity) == ("free-space.tree-unused", Severity.NOTE)


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    image = craft.small(tmp_path, "-O", "^free-space-tree,^block-group-tree")
    with craft.Editor(image) as edit:
        edit.set_superblock(compat_ro_flags=3)
    assert "free-space.tree-missing" in craft.codes(image)


def as_bitmaps(edit: craft.Editor) -> list[craft.Key]:
    """Gives the block group with most free space bitmaps instead of extents, as kernels do; their keys."""
    place = free(edit)
    group = max(
        (other for other in edit.places(TREE) if other.key[1] == INFO and other.key[0] <= place.key[0]),
        key=lambda other: other.key,
    )
    begin, _, length = group.key
    bits = np.zeros(length // SECTOR, bool)
    for other in [other for other in edit.places(TREE) if other.key[1] == EXTENT]:
        start, _, size = other.key
        if begin <= start < begin + length:
            bits[(start - begin) // SECTOR : (start + size - begin) // SECTOR] = True
            edit.delete(edit.find(TREE, other.key))
    edit.set_fields(edit.find(TREE, group.key), FreeSpaceInfo, flags=1)
    keys = []
    for first in range(0, len(bits), BITMAP_SECTORS):
        part = bits[first : first + BITMAP_SECTORS]
        keys.append((begin + first * SECTOR, int(BITMAP), len(part) * SECTOR))
        edit.insert(TREE, keys[-1], np.packbits(part, bitorder="little").tobytes())
    return keys


def test_bitmaps_say_the_same(tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        assert len(as_bitmaps(edit)) > 1
    assert craft.codes(image) == set()


@pytest.mark.parametrize(
    ("flip", "code"), [(0x10, "free-space.missing"), (0x20, "free-space.extent-count")], ids=["one", "another"]
)
def test_a_bit_that_is_not_set(flip: int, code: str, tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        key = as_bitmaps(edit)[-1]
        place = edit.find(TREE, key)
        middle = place.size // 2
        edit.patch(place, middle, bytes([edit.payload(place)[middle] ^ flip]))
    assert code in craft.codes(image)


def test_superblock_copies_are_free_or_not(tmp_path: Path) -> None:
    """Writers differ in whether the stripe over a superblock copy is listed as free."""
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        start, end = (int(edge[0]) for edge in edit.chunks.superblock_ranges())
        before, after = (
            next(place for place in edit.places(TREE) if place.key[1] == EXTENT and touches(place))
            for touches in (lambda place: sum(place.key[::2]) == start, lambda place: place.key[0] == end)
        )
        edit.delete(after)
        edit.set_item(before, **{"key.offset": before.key[2] + end - start + after.key[2]})
        group = max(
            (place for place in edit.places(TREE) if place.key[1] == INFO and place.key[0] <= start),
            key=lambda place: place.key,
        )
        count = edit.parsed(group).extent_count
        edit.set_fields(group, FreeSpaceInfo, extent_count=count - 1)
    assert craft.codes(image) == set()


# -- the cache -------------------------------------------------------------------------------------------------


def cached(folder: Path) -> list[Path]:
    """A filesystem with a cache that is up to date."""
    return craft.copy(corpus.devices("space-cache"), folder)


def header(edit: craft.Editor) -> craft.Place:
    """The header of the cache that has most entries."""
    places = [place for place in edit.places(ROOTS) if place.key[:2] == (ObjectId.FREE_SPACE, KeyType.UNTYPED)]
    return max(places, key=lambda place: int(edit.parsed(place).num_entries))


def cache_extent_place(edit: craft.Editor) -> craft.Place:
    """The file extent of that cache."""
    return edit.find(ROOTS, (edit.parsed(header(edit)).location.objectid, KeyType.EXTENT_DATA, 0))


def cache_file(edit: craft.Editor) -> tuple[int, int]:
    """Where the cache stands and how many pages it has."""
    place = cache_extent_place(edit)
    extent = edit.parsed(place)
    return extent.disk_bytenr, edit.parsed(edit.find(ROOTS, (place.key[0], KeyType.INODE_ITEM, 0))).size // SECTOR


def entry(at: int, value: int, *, mend: bool = True) -> Change:
    """Changes the number at byte ``at`` of the first entry of the cache by ``value``."""

    def change(edit: craft.Editor) -> None:
        logical, pages = cache_file(edit)
        page = bytearray(edit.volume.read(logical, SECTOR))
        place = 4 * pages + 8 + at
        number = int.from_bytes(page[place : place + 8], "little") + value
        page[place : place + 8] = number.to_bytes(8, "little")
        if mend:
            page[:4] = checksum(CsumType.CRC32, bytes(page[4 * pages :]))
        edit.volume.write(logical, bytes(page))

    return change


def cache_inode(**fields: int) -> Change:
    def change(edit: craft.Editor) -> None:
        number = edit.parsed(header(edit)).location.objectid
        edit.set_fields(edit.find(ROOTS, (number, KeyType.INODE_ITEM, 0)), InodeItem, **fields)

    return change


def cache_header(**fields: int) -> Change:
    return lambda edit: edit.set_fields(header(edit), FreeSpaceHeader, **fields)


def cache_extent(**fields: int) -> Change:
    return lambda edit: edit.set_fields(cache_extent_place(edit), FileExtentItem, **fields)


CACHE_CHANGES: list[tuple[Change, str]] = [
    (entry(0, 4096, mend=False), "free-space.cache-broken"),
    (entry(-8, 1), "free-space.cache-broken"),
    (entry(8, -4096), "free-space.cache-missing"),
    (entry(8, 1 << 28), "free-space.cache-allocated"),
    (entry(16, 7), "free-space.cache-broken"),
    (cache_inode(size=1 << 60), "free-space.cache-broken"),
    (cache_inode(size=0), "free-space.cache-broken"),
    (cache_header(num_entries=2**62), "free-space.cache-broken"),
    (cache_header(**{"location.objectid": 99}), "free-space.cache-broken"),
    (cache_extent(num_bytes=SECTOR), "free-space.cache-broken"),
    (cache_extent(disk_bytenr=2**60), "free-space.cache-broken"),
    (cache_extent(type=2), "free-space.cache-broken"),
    (lambda edit: edit.replace(header(edit), b"short"), "free-space.item-size"),
]


@pytest.mark.parametrize(
    ("change", "code"), CACHE_CHANGES, ids=[f"{i}-{code}" for i, (_, code) in enumerate(CACHE_CHANGES)]
)
def test_a_cache_that_cannot_be_trusted(change: Change, code: str, tmp_path: Path) -> None:
    image = cached(tmp_path)
    with craft.Editor(image) as edit:
        change(edit)
    assert code in craft.codes(image)


def test_a_cache_of_before_is_not_looked_at(tmp_path: Path) -> None:
    image = cached(tmp_path)
    assert not {code for code in craft.codes(image) if code.startswith("free-space")}
    with craft.Editor(image) as edit:
        entry(8, -4096)(edit)
        cache_header(generation=1)(edit)
    assert not {code for code in craft.codes(image) if code.startswith("free-space")}
    with craft.Editor(image) as edit:
        edit.set_superblock(cache_generation=2)
    found = {problem.code: problem for problem in craft.check(image).problems}
    assert found["free-space.cache-outdated"].severity == Severity.NOTE


def test_a_cache_of_a_block_group_that_is_gone_is_a_note(tmp_path: Path) -> None:
    image = cached(tmp_path)
    with craft.Editor(image) as edit:
        place = header(edit)
        edit.set_item(place, **{"key.offset": place.key[2] + SECTOR})
    found = {problem.code: problem for problem in craft.check(image).problems}
    assert found["free-space.cache-outdated"].severity == Severity.NOTE
