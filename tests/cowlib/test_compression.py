"""Compressed extents: there and back, the framing, and what broken ones do."""

import contextlib
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import cowlib
from cowlib.compression import compress, decompress, libraries
from cowlib.errors import DamagedError, UnsupportedError
from cowlib.filesystem import Filesystem
from cowlib.format import (
    MAX_COMPRESSED,
    Compression,
    FileExtentType,
    InodeItem,
    KeyType,
    ObjectId,
    parse_item,
)
from tests import corpus, oracles

PACKERS = [Compression.ZLIB, Compression.LZO, Compression.ZSTD]
SECTOR = 4096
FIRST_FREE, LAST_FREE = ObjectId.FIRST_FREE, ObjectId.LAST_FREE
TEXT = " ".join(f"{number} bottles of beer on the wall," for number in range(4000)).encode()[:MAX_COMPRESSED]
NOISE = np.random.default_rng(1).bytes(MAX_COMPRESSED)


def test_libraries() -> None:
    assert libraries([Compression.NONE]) == {}
    found = libraries(PACKERS)
    assert list(found) == ["zstandard", "zstd", "zlib", "lzallright"]
    assert found["zstd"] == ".".join(map(str, zstandard.ZSTD_VERSION))
    assert (found["zstandard"], found["zlib"]) == (zstandard.__version__, zlib.ZLIB_RUNTIME_VERSION)


@pytest.mark.parametrize("algo", PACKERS)
@pytest.mark.parametrize("sectorsize", [4096, 16384, 65536])
@pytest.mark.parametrize("length", [MAX_COMPRESSED, MAX_COMPRESSED - 1, 70000, 65537])
def test_there_and_back(algo: Compression, sectorsize: int, length: int) -> None:
    data = TEXT[:length]
    packed = compress(algo, 0, data, sectorsize)
    assert packed is not None
    assert -(-len(packed) // sectorsize) < -(-len(data) // sectorsize)
    on_disk = packed + bytes(-len(packed) % sectorsize)
    assert decompress(algo, on_disk, length, sectorsize) == data
    assert decompress(algo, memoryview(on_disk), 100, sectorsize) == data[:100]
    room = -length % sectorsize
    assert decompress(algo, on_disk, length + room, sectorsize) == data + bytes(room)


@given(
    st.sampled_from(PACKERS),
    st.lists(st.tuples(st.binary(min_size=1, max_size=50), st.integers(1, 400)), max_size=12),
)
def test_any_data(algo: Compression, parts: list[tuple[bytes, int]]) -> None:
    data = b"".join(piece * times for piece, times in parts)[:MAX_COMPRESSED]
    packed = compress(algo, 1, data, SECTOR)
    if packed is not None:
        assert -(-len(packed) // SECTOR) < -(-len(data) // SECTOR)
        assert decompress(algo, packed, len(data), SECTOR) == data
    inline = compress(algo, 1, data[:SECTOR], SECTOR, inline=True)
    if inline is not None:
        assert len(inline) < len(data)
        assert decompress(algo, inline, len(data[:SECTOR]), SECTOR) == data[:SECTOR]


@pytest.mark.parametrize("algo", PACKERS)
def test_what_is_not_worth_it(algo: Compression) -> None:
    assert compress(algo, 0, NOISE, SECTOR) is None
    assert compress(algo, 0, TEXT[:SECTOR], SECTOR) is None, "one sector cannot shrink"
    assert compress(algo, 0, b"", SECTOR) is None
    assert compress(algo, 0, b"ab", SECTOR, inline=True) is None
    assert compress(algo, 0, TEXT[:2000], SECTOR, inline=True) is not None


@pytest.mark.parametrize(("algo", "levels"), [(Compression.ZLIB, [1, 3, 9]), (Compression.ZSTD, [-15, -1, 1, 3, 15])])
def test_levels(algo: Compression, levels: list[int]) -> None:
    for level in levels:
        packed = compress(algo, level, TEXT, SECTOR)
        assert packed is not None
        assert decompress(algo, packed, len(TEXT), SECTOR) == TEXT
    assert compress(algo, 0, TEXT, SECTOR) == compress(algo, 3, TEXT, SECTOR)
    for level in (min(levels) - 1 or -1, max(levels) + 1):
        with pytest.raises(ValueError, match="levels"):
            compress(algo, level, TEXT, SECTOR)


@pytest.mark.parametrize("level", [1, 3, 15])
def test_zstd_window_is_one_the_kernel_accepts(level: int) -> None:
    packed = compress(Compression.ZSTD, level, TEXT, SECTOR)
    assert packed is not None
    assert zstandard.get_frame_parameters(packed).window_size <= MAX_COMPRESSED


def lzo_segments(packed: bytes, sectorsize: int) -> list[tuple[int, int]]:
    """Place and length of each segment, by the kernel's rules; every rule is asserted."""
    total = struct.unpack_from("<I", packed)[0]
    assert total == len(packed)
    segments, position = [], 4
    while position < total:
        if (left := sectorsize - position % sectorsize) < 4:
            assert packed[position : position + left] == bytes(left)
            position += left
        length = struct.unpack_from("<I", packed, position)[0]
        assert 0 < length <= sectorsize + sectorsize // 16 + 64 + 3
        segments.append((position + 4, length))
        position += 4 + length
    assert position == total
    return segments


@pytest.mark.parametrize("sectorsize", [4096, 65536])
@given(seed=st.integers(0, 2**32 - 1), mix=st.integers(1, 60))
def test_lzo_framing(sectorsize: int, seed: int, mix: int) -> None:
    noise = np.random.default_rng(seed).bytes(MAX_COMPRESSED // mix)
    data = (noise + TEXT)[:MAX_COMPRESSED]
    packed = compress(Compression.LZO, 0, data, sectorsize)
    if packed is not None:
        assert len(lzo_segments(packed, sectorsize)) == -(-len(data) // sectorsize)
        assert decompress(Compression.LZO, packed, len(data), sectorsize) == data


def test_lzo_streams_are_what_the_reference_implementation_reads() -> None:
    lzo = pytest.importorskip("lzo")
    packed = compress(Compression.LZO, 0, TEXT, SECTOR)
    assert packed is not None
    segments = lzo_segments(packed, SECTOR)
    plain = [lzo.decompress(packed[start : start + length], False, SECTOR) for start, length in segments]
    assert b"".join(plain) == TEXT


def test_lzo_length_never_crosses_a_sector() -> None:
    """The first segment ends at each place around a sector boundary: the next length needs padding."""
    padding = set()
    for incompressible in range(SECTOR - 60, SECTOR - 2):
        data = NOISE[:incompressible].ljust(SECTOR, b"\0") + TEXT[:40000]
        packed = compress(Compression.LZO, 0, data, SECTOR)
        assert packed is not None
        (first, length), (second, _), *_ = lzo_segments(packed, SECTOR)
        padding.add(second - 4 - first - length)
        assert decompress(Compression.LZO, packed, len(data), SECTOR) == data
    assert padding > {0}


def broken(packed: bytes) -> list[bytes]:
    """The same stream cut off, and with single bits turned over."""
    cuts = [packed[:length] for length in (0, 1, 3, 7, len(packed) // 2, len(packed) - 5)]
    flips = []
    for place in range(0, len(packed), max(1, len(packed) // 150)):
        flipped = bytearray(packed)
        flipped[place] ^= 1 << place % 8
        flips.append(bytes(flipped))
    return cuts + flips


@pytest.mark.parametrize("algo", PACKERS)
def test_broken_streams(algo: Compression) -> None:
    packed = compress(algo, 0, TEXT, SECTOR)
    assert packed is not None
    refused = 0
    for stream in broken(packed):
        try:
            assert len(decompress(algo, stream, len(TEXT), SECTOR)) == len(TEXT)
        except DamagedError:
            refused += 1
    assert refused > 6


@given(st.sampled_from(PACKERS), st.binary(max_size=200), st.integers(0, MAX_COMPRESSED))
def test_any_bytes_are_decompressed_or_refused(algo: Compression, data: bytes, ram_bytes: int) -> None:
    with contextlib.suppress(DamagedError):
        assert len(decompress(algo, data, ram_bytes, SECTOR)) == ram_bytes


@pytest.mark.parametrize("algo", [*PACKERS, Compression.NONE])
def test_size_before_compression_is_bounded(algo: Compression) -> None:
    with pytest.raises(DamagedError, match="at most"):
        decompress(algo, bytes(SECTOR), 2**63, SECTOR)


def test_bombs_stay_small() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=17)
    zeros = bytes(64 << 20)
    bombs = {
        Compression.ZSTD: zstandard.ZstdCompressor(compression_params=parameters).compress(zeros),
        Compression.ZLIB: zlib.compress(zeros),
    }
    for algo, bomb in bombs.items():
        assert decompress(algo, bomb, MAX_COMPRESSED, SECTOR) == bytes(MAX_COMPRESSED)


def test_zstd_windows_the_kernel_refuses() -> None:
    large = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=20, write_content_size=False)
    )
    stream = large.compressobj()
    packed = stream.compress(TEXT) + stream.flush()
    with pytest.raises(DamagedError, match="zstd"):
        decompress(Compression.ZSTD, packed, len(TEXT), SECTOR)


def test_arguments_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="too much"):
        compress(Compression.ZLIB, 3, bytes(MAX_COMPRESSED + 1), SECTOR)
    with pytest.raises(ValueError, match="too much"):
        compress(Compression.ZLIB, 3, bytes(SECTOR + 1), SECTOR, inline=True)
    with pytest.raises(UnsupportedError):
        compress(Compression.NONE, 3, TEXT, SECTOR)
    with pytest.raises(UnsupportedError):
        decompress(9, TEXT, len(TEXT), SECTOR)
    assert decompress(Compression.NONE, TEXT[:5], 7, SECTOR) == TEXT[:5] + bytes(2)


def subvolumes(fs: Filesystem) -> list[int]:
    """The trees that hold files."""
    ids = [root.objectid for root in fs.roots]
    return [tree for tree in ids if tree == ObjectId.FS_TREE or FIRST_FREE <= tree < LAST_FREE]


def file_contents(fs: Filesystem, tree: int) -> tuple[list[bytes], set[int]]:
    """The contents of regular files of a subvolume but for the longest, and the kinds of compression they needed."""
    sizes: dict[int, int] = {}
    contents: dict[int, bytearray] = defaultdict(bytearray)
    used = set()
    for items in fs.items(tree):
        for index in range(len(items)):
            inode, kind, start = items.key(index)
            if kind == KeyType.INODE_ITEM:
                sizes[inode] = InodeItem.parse(items.payload(index)).size
            elif kind == KeyType.EXTENT_DATA and inode >= FIRST_FREE and sizes[inode] <= LONG:
                extent = parse_item(inode, kind, start, items.payload(index))
                contents[inode][start:] = bytes(start - len(contents[inode])) + plain(fs, extent)
                used.add(extent.compression)
    whole = [bytes(data.ljust(sizes[inode], b"\0")[: sizes[inode]]) for inode, data in contents.items()]
    return whole, used


def plain(fs: Filesystem, extent: Any) -> bytes:
    """What one file extent stands for."""
    if extent.type == FileExtentType.INLINE:
        return decompress(extent.compression, extent.data, extent.ram_bytes, fs.sectorsize)
    if extent.type == FileExtentType.PREALLOC or not extent.disk_bytenr:
        return bytes(extent.num_bytes)
    data = fs.volume.read(extent.disk_bytenr, extent.disk_num_bytes).tobytes()
    if extent.compression:
        data = decompress(extent.compression, data, extent.ram_bytes, fs.sectorsize)
    return data[extent.offset : extent.offset + extent.num_bytes]


#: Longer files are nearly all hole, and take long to put together.
LONG = 32 << 20

#: What most of each image is compressed by.
COMPRESSED = {"lzo": Compression.LZO, "single-zstd": Compression.ZSTD, "default": Compression.ZLIB}


@pytest.mark.parametrize("name", corpus.kernel_images(*COMPRESSED))
def test_what_the_kernel_compressed(name: str) -> None:
    """Contents put together from extents are those the kernel read back."""
    found, compressions = set(), set()
    with cowlib.open([str(path) for path in corpus.devices(name)]) as fs:
        for tree in subvolumes(fs):
            contents, used = file_contents(fs, tree)
            found |= {sha256(data).hexdigest() for data in contents}
            compressions |= used
    expected = {
        entry["sha256"] for entry in corpus.manifest(name) if 0 < entry.get("size", 0) <= LONG and "sha256" in entry
    }
    assert expected
    assert expected <= found
    assert COMPRESSED[corpus.shape(name)] in compressions


def compressed_extents(fs: Filesystem) -> Iterator[Any]:
    """Each compressed extent that some subvolume refers to, once."""
    seen = set()
    for tree in subvolumes(fs):
        for items in fs.items(tree):
            for index in np.flatnonzero(items.type == KeyType.EXTENT_DATA).tolist():
                extent = parse_item(*items.key(index), items.payload(index))
                regular = extent.type == FileExtentType.REG and extent.compression
                if regular and extent.disk_bytenr not in seen:
                    seen.add(extent.disk_bytenr)
                    yield extent


@pytest.mark.oracle
@pytest.mark.parametrize("name", corpus.kernel_images(*COMPRESSED))
def test_the_kernel_reads_what_we_compress(name: str, tmp_path: Path) -> None:
    """Each compressed extent is replaced by our compression of the same data; files must not change."""
    oracles.require_oracle("mount")
    image = corpus.copy(corpus.devices(name)[0], tmp_path)
    replaced = 0
    with cowlib.open([str(image)]) as fs, image.open("r+b") as file:
        for extent in compressed_extents(fs):
            old = fs.volume.read(extent.disk_bytenr, extent.disk_num_bytes).tobytes()
            data = decompress(extent.compression, old, extent.ram_bytes, fs.sectorsize)
            packed = compress(extent.compression, 0, data, fs.sectorsize)
            # The extent keeps its length; an LZO stream must reach into its last sector.
            if packed is None or not 0 <= len(old) - len(packed) < fs.sectorsize:
                continue
            devid, place = fs.volume.chunks.map_block(np.array([extent.disk_bytenr], np.uint64))
            assert devid.tolist() == [1]
            file.seek(int(place[0]))
            file.write(packed.ljust(len(old), b"\0"))
            replaced += packed != old[: len(packed)]
    assert replaced
    ignoring_checksums = ["ro", "rescue=idatacsums"]
    with oracles.loop(image) as device, oracles.mounted(device, options=ignoring_checksums) as folder:
        for entry in corpus.manifest(name):
            if "sha256" in entry and entry["size"] <= LONG:
                found = sha256((folder / entry["path"]).read_bytes()).hexdigest()
                assert found == entry["sha256"], entry["path"]
