"""The chunk map: addresses to places, and crafted chunks kept out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.format import STRIPE_LEN, BlockGroupFlag, ChunkPayload
from cowlib.volume import PROFILES, ChunkMap, profile_of
from cowlib.volume.chunks import MAX_PIECE
from tests.cowlib.volume.pools import SHAPES, chunk_of, profile_named

U64_MAX = 2**64 - 1
KIB64 = STRIPE_LEN


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def some_map(name: str = "raid0", count: int = 3) -> ChunkMap:
    """Two chunks of 4 rows with a hole of 1 MiB between them."""
    profile = profile_named(name)
    stripes = [(1 + n % count, (1 + n) << 20) for n in range(2 * count if name == "dup" else count)]
    first, second = chunk_of(profile, stripes, 4), chunk_of(profile, stripes, 4)
    return ChunkMap.of([((1 << 20) + first.length + (1 << 20), second), (1 << 20, first)])


def test_an_empty_map() -> None:
    chunks = ChunkMap.of([])
    assert len(chunks) == 0
    assert chunks.locate(u64(0, 5)).tolist() == [-1, -1]
    assert chunks.map_block(u64(7))[0].tolist() == [0]
    pieces, mapped = chunks.pieces(u64(0), np.array([4096]), np.array([0]))
    assert len(pieces) == 0
    assert not mapped[0]


def test_chunks_are_found_by_their_edges() -> None:
    chunks = some_map()
    (start, other), end = chunks.logical.tolist(), int(chunks.end[0])
    found = chunks.locate(u64(0, start - 1, start, end - 1, end, other, U64_MAX))
    assert found.tolist() == [-1, -1, 0, 0, -1, 1, -1]


def test_where_blocks_are() -> None:
    start = 1 << 20
    raid0 = some_map("raid0", 3)
    devid, physical = raid0.map_block(u64(start, start + KIB64, start + 3 * KIB64 + 5, 0))
    assert devid.tolist() == [1, 2, 1, 0]
    assert physical.tolist() == [1 << 20, 2 << 20, (1 << 20) + KIB64 + 5, 0]
    raid10 = some_map("raid10", 4)
    assert raid10.map_block(u64(start, start + KIB64))[0].tolist() == [1, 3]
    assert raid10.map_block(u64(start, start + KIB64), mirror=2)[0].tolist() == [2, 4]
    assert raid10.map_block(u64(start), mirror=3)[0].tolist() == [0]
    raid5 = some_map("raid5", 3)
    assert raid5.map_block(start + np.arange(6, dtype=np.uint64) * KIB64)[0].tolist() == [1, 2, 2, 3, 3, 1]
    dup = some_map("dup", 1)
    places = [dup.map_block(u64(start + 77), mirror)[1].tolist() for mirror in (1, 2)]
    assert places == [[(1 << 20) + 77], [(2 << 20) + 77]]


@pytest.mark.parametrize(("name", "count"), SHAPES)
@given(st.data())
def test_pieces_cover_their_ranges_exactly(name: str, count: int, data: st.DataObject) -> None:
    chunks = some_map(name, count)
    limit = int(chunks.end[-1]) + (1 << 20)
    ranges = data.draw(st.lists(st.tuples(st.integers(0, limit), st.integers(0, 3 << 20)), max_size=6))
    logical = u64(*(start for start, _ in ranges))
    length = np.array([size for _, size in ranges], np.int64)
    position = np.cumsum(length) - length
    pieces, mapped = chunks.pieces(logical, length, position)
    striped = (chunks.width > 1) | (chunks.parity > 0)
    unit = np.where(striped[pieces.chunk], STRIPE_LEN, MAX_PIECE)
    assert (pieces.offset // unit == (pieces.offset + pieces.length - 1) // unit).all()
    assert (pieces.length > 0).all()
    at = chunks.logical[pieces.chunk] + pieces.offset.astype(np.uint64)
    for index, (start, size) in enumerate(ranges):
        own = pieces.request == index
        where = at[own].astype(np.int64)
        assert ((pieces.position[own] - position[index]) == where - start).all()
        spans = sorted(zip(where.tolist(), pieces.length[own].tolist(), strict=True))
        covered = start
        for begin, long in spans:
            assert begin == covered
            covered += long
        inside = any(
            int(low) <= start and start + size <= int(high)
            for low, high in zip(chunks.logical, chunks.end, strict=True)
        )
        assert mapped[index] == (size == 0 or inside)
        assert not mapped[index] or covered == start + size


BAD = {
    "no stripes": {"num_stripes": 0},
    "stripe_len is not": {"stripe_len": 0},
    "stripe_len is not 65536": {"stripe_len": 4096},
    "length is not": {"length": 0},
    "number of sectors": {"length": 12345},
    "impossibly long": {"length": U64_MAX - 4095},
    "neither of data": {"type": int(BlockGroupFlag.RAID0)},
    "several profiles": {"type": int(BlockGroupFlag.DATA | BlockGroupFlag.RAID0 | BlockGroupFlag.RAID1)},
    "not in pairs": {"type": int(BlockGroupFlag.DATA | BlockGroupFlag.RAID10), "sub_stripes": 0},
    "in pairs": {"type": int(BlockGroupFlag.DATA | BlockGroupFlag.RAID10), "sub_stripes": 2},
    "too few stripes": {"type": int(BlockGroupFlag.DATA | BlockGroupFlag.RAID1C4)},
    "too many stripes": {"type": int(BlockGroupFlag.DATA)},
    "too many stripes for": {"type": int(BlockGroupFlag.DATA | BlockGroupFlag.RAID1)},
}


def items(*payloads: tuple[int, bytes]) -> ChunkMap:
    """A map from payloads as they would stand in leaves."""
    size = np.array([len(data) for _, data in payloads], np.int64)
    buffer = np.frombuffer(b"".join(data for _, data in payloads), np.uint8)
    return ChunkMap.from_items(u64(*(at for at, _ in payloads)), buffer, np.cumsum(size) - size, size)


@pytest.mark.parametrize(("words", "changed"), list(BAD.items()))
def test_broken_chunks_are_left_out(words: str, changed: dict[str, int]) -> None:
    raid0 = profile_named("raid0")
    good = chunk_of(raid0, [(1, 1 << 20), (2, 1 << 20), (3, 1 << 20)], 4)
    bad = bytearray(ChunkPayload.build(good))
    places = {
        "length": (0, 8),
        "stripe_len": (16, 8),
        "type": (24, 8),
        "num_stripes": (44, 2),
        "sub_stripes": (46, 2),
    }
    for name, value in changed.items():
        at, width = places[name]
        bad[at : at + width] = value.to_bytes(width, "little")
    chunks = items((1 << 30, ChunkPayload.build(good)), (1 << 31, bytes(bad)))
    assert chunks.logical.tolist() == [1 << 30]
    (damage,) = chunks.damage
    assert words in damage.reason
    assert damage.logical == 1 << 31
    assert chunks.locate(u64(1 << 31)).tolist() == [-1]


def test_chunks_in_impossible_places_are_left_out() -> None:
    single = profile_named("single")
    good = chunk_of(single, [(1, 1 << 20)], 16)
    for logical, words in ((4097, "at a sector"), (U64_MAX - 4095, "end of the address space")):
        chunks = ChunkMap.of([(logical, good)])
        assert len(chunks) == 0
        assert words in chunks.damage[0].reason
    far = ChunkMap.of([(0, chunk_of(single, [(1, U64_MAX - 4095)], 16))])
    assert len(far) == 0
    assert "largest possible device" in far.damage[0].reason


def test_of_overlapping_chunks_the_first_stays() -> None:
    single = profile_named("single")
    long, short = chunk_of(single, [(1, 1 << 20)], 100), chunk_of(single, [(1, 9 << 20)], 10)
    overlapping = [(0, long), (KIB64, short), (99 * KIB64, short), (100 * KIB64, short), (0, short)]
    chunks = ChunkMap.of(overlapping)
    assert chunks.logical.tolist() == [0, 100 * KIB64]
    assert [damage.logical for damage in chunks.damage] == [0, KIB64, 99 * KIB64]
    assert all("overlaps" in damage.reason for damage in chunks.damage)


def test_items_too_short_for_their_chunk_are_left_out() -> None:
    payload = ChunkPayload.build(chunk_of(profile_named("raid0"), [(1, 0), (2, 0)], 4))
    chunks = items((0, payload[:47]), (1 << 30, payload[:-1]), (1 << 31, payload), (1 << 32, b""))
    assert chunks.logical.tolist() == [1 << 31]
    assert sorted(damage.logical for damage in chunks.damage) == [0, 1 << 30, 1 << 32]
    outside = ChunkMap.from_items(u64(0), np.frombuffer(payload, np.uint8), np.array([40]), np.array([len(payload)]))
    assert len(outside) == 0
    assert len(outside.damage) == 1


@given(st.binary(min_size=48 + 32, max_size=48 + 32 * 5), st.integers(0, U64_MAX))
def test_random_bytes_never_fail(payload: bytes, logical: int) -> None:
    chunks = items((logical, payload))
    assert len(chunks) + len(chunks.damage) == 1
    chunks.map_block(u64(logical, U64_MAX, 0))
    start, end = chunks.superblock_ranges()
    assert (start < end).all()
    chunks.pieces(u64(logical, 0), np.array([1 << 20, 1 << 20]), np.array([0, 1 << 20]))


@pytest.mark.parametrize(("name", "count"), SHAPES)
@pytest.mark.parametrize("shift", [0, 1, 3 * KIB64 - 4096, 7 * KIB64])
def test_superblocks_are_where_some_stripe_covers_one(name: str, count: int, shift: int) -> None:
    rows, logical = 5, 1 << 30
    profile = profile_named(name)
    second = (64 << 20) - shift
    stripes = [
        (1 + n % count, second + n // count * rows * KIB64) for n in range(2 * count if name == "dup" else count)
    ]
    stripes[0] = (1, 4 << 30)  # one that covers none
    chunks = ChunkMap.of([(logical, chunk_of(profile, stripes, rows))])
    expected = set()
    for row in range(rows):
        for nth, (_, offset) in enumerate(stripes):
            if not offset + row * KIB64 <= 64 << 20 < offset + (row + 1) * KIB64:
                continue
            width = int(chunks.width[0])
            unit = row * width
            if profile.parity:
                expected |= set(range(unit, unit + width))
            else:
                expected.add(unit + nth // profile.group)
    found = set()
    for start, end in zip(*chunks.superblock_ranges(), strict=True):
        found |= set(range((int(start) - logical) // KIB64, (int(end) - logical) // KIB64))
    assert found == expected


def test_addresses_below_the_first_superblock_are_not_used() -> None:
    chunks = ChunkMap.of([(4096, chunk_of(profile_named("single"), [(1, 1 << 20)], 4))])
    assert [edge.tolist() for edge in chunks.superblock_ranges()] == [[4096], [65536]]


def test_profiles_by_their_flags() -> None:
    for profile in PROFILES:
        assert profile_of(profile.flag | BlockGroupFlag.METADATA) is profile
    assert profile_of(BlockGroupFlag.RAID1 | BlockGroupFlag.DUP) is None
