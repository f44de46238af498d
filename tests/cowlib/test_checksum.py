"""Checksums and hashes against `crcmod`, published vectors, and byte-by-byte truths."""

import hashlib

import crcmod
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cowlib
from cowlib.checksum import (
    CRC32C_POLYNOMIAL,
    checksum,
    crc32c_raw,
    csum_blocks,
    csum_rows,
    csum_size,
    extent_data_ref_hash,
    extref_hash,
    extref_hashes_at,
    name_hash,
    name_hashes,
    name_hashes_at,
)
from cowlib.errors import UnsupportedError
from cowlib.format import CsumType, KeyType, ObjectId
from tests import corpus

u64 = st.integers(0, 2**64 - 1)


def register(seed: int, data: bytes) -> int:
    """The crc32c register by the reference implementation."""
    crc = crcmod.Crc(CRC32C_POLYNOMIAL, initCrc=seed, rev=True)
    crc.update(data)
    return int(crc.crcValue)


@pytest.mark.parametrize(
    ("csum_type", "digest"),
    [
        (CsumType.CRC32, "839206e3"),  # 0xe3069283, the check value of crc32c, little-endian
        (CsumType.XXHASH, "83aee640db41b88c"),
        (CsumType.SHA256, hashlib.sha256(b"123456789").hexdigest()),
        (CsumType.BLAKE2, hashlib.blake2b(b"123456789", digest_size=32).hexdigest()),
    ],
)
def test_vectors(csum_type: CsumType, digest: str) -> None:
    assert checksum(csum_type, b"123456789").hex() == digest
    assert len(checksum(csum_type, b"")) == csum_size(csum_type)


@given(st.binary(max_size=3000))
def test_crc32c_against_the_reference(data: bytes) -> None:
    assert checksum(0, data) == (register(0xFFFFFFFF, data) ^ 0xFFFFFFFF).to_bytes(4, "little")


@given(st.integers(0, 2**32 - 1), st.binary(max_size=300))
def test_raw_crc32c_against_the_reference(seed: int, data: bytes) -> None:
    assert crc32c_raw(seed, data) == register(seed, data)


@pytest.mark.parametrize("csum_type", CsumType)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_blocks(csum_type: CsumType, kind: type) -> None:
    data = np.random.default_rng(1).bytes(5 * 512)
    digests = csum_blocks(csum_type, kind(data), 512)
    assert digests.shape == (5, csum_size(csum_type))
    assert digests.dtype == np.uint8
    expected = [checksum(csum_type, data[start : start + 512]) for start in range(0, len(data), 512)]
    assert [row.tobytes() for row in digests] == expected


@pytest.mark.parametrize("csum_type", CsumType)
def test_blocks_of_nothing_and_of_parts(csum_type: CsumType) -> None:
    assert csum_blocks(csum_type, b"", 4096).shape == (0, csum_size(csum_type))
    with pytest.raises(ValueError, match="reshape"):
        csum_blocks(csum_type, bytes(4097), 4096)


def test_rows() -> None:
    rows = np.random.default_rng(1).integers(0, 256, (4, 100), np.uint8)
    assert csum_rows(0, rows[:, 32:]).tolist() == [list(checksum(0, row[32:].tobytes())) for row in rows]
    assert csum_rows(2, rows[:, 32:]).tolist() == [list(checksum(2, row[32:].tobytes())) for row in rows]


@pytest.mark.parametrize("name", corpus.kernel_images("default", "node64k-xxh", "sha256-nofst", "blake2-holes"))
def test_data_checksums_the_kernel_wrote(name: str) -> None:
    sectors = 0
    with cowlib.open([str(path) for path in corpus.devices(name)]) as fs:
        for items in fs.items(ObjectId.CSUM_TREE):
            for index in np.flatnonzero(items.type == KeyType.EXTENT_CSUM).tolist():
                stored = items.payload(index)
                count = len(stored) // csum_size(fs.csum_type)
                data = fs.volume.read(items.key(index)[2], count * fs.sectorsize)
                assert csum_blocks(fs.csum_type, data, fs.sectorsize).tobytes() == stored
                sectors += count
    assert sectors > 100


@pytest.mark.parametrize("function", [csum_size, lambda unknown: checksum(unknown, b"")])
def test_unknown_type(function: type) -> None:
    with pytest.raises(UnsupportedError, match="checksum type 77"):
        function(77)


def test_known_name_hashes() -> None:
    assert name_hash(b"default") == 2378154706
    assert name_hash(b"") == 0xFFFFFFFE


@given(st.lists(st.binary(max_size=70), max_size=20), u64)
def test_hashes_of_many_names(names: list[bytes], parent: int) -> None:
    expected = [register(0xFFFFFFFE, name) for name in names]
    assert [name_hash(name) for name in names] == expected
    assert name_hashes(names).tolist() == expected
    length = [len(name) for name in names]
    position = (np.cumsum([3, *length])[:-1]).tolist()
    buffer = np.frombuffer(b"abc" + b"".join(names), np.uint8)
    assert name_hashes_at(buffer, position, length).tolist() == expected
    of_parent = [register(parent % 2**32, name) for name in names]
    assert [extref_hash(parent, name) for name in names] == of_parent
    parents = np.full(len(names), parent, np.uint64)
    assert extref_hashes_at(parents, buffer, position, length).tolist() == of_parent


@pytest.mark.parametrize(("position", "length"), [(-1, 2), (0, 11), (11, 0), (2, -1)])
def test_names_outside_of_the_buffer(position: int, length: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        name_hashes_at(np.zeros(10, np.uint8), [0, position], [1, length])


@given(st.lists(st.tuples(u64, u64, u64), max_size=5))
def test_extent_data_ref_hashes(refs: list[tuple[int, int, int]]) -> None:
    expected = []
    for root, objectid, offset in refs:
        high = register(0xFFFFFFFF, root.to_bytes(8, "little"))
        low = register(0xFFFFFFFF, objectid.to_bytes(8, "little") + offset.to_bytes(8, "little"))
        expected.append(high << 31 ^ low)
        assert extent_data_ref_hash(root, objectid, offset) == expected[-1]
    columns = np.array(refs, np.uint64).reshape(-1, 3).T
    assert extent_data_ref_hash(*columns).tolist() == expected
