"""Superblocks of real images: round trips, checksums, and what btrfs-progs read in them."""

import re
from pathlib import Path

import pytest

from cowlib.checksum import checksum
from cowlib.errors import DamagedError, NoSpaceError
from cowlib.format import (
    CSUM_SIZE,
    SUPERBLOCK_MAGIC,
    SYSTEM_CHUNK_ARRAY_SIZE,
    Superblock,
    build_sys_chunk_array,
    columns,
    parse_sys_chunk_array,
)
from tests import corpus
from tests.cowlib.format.leaves import superblock_bytes

# dump-super's words for fields it calls otherwise.
RENAMED = {"sys_array_size": "sys_chunk_array_size", "root_dir": "root_dir_objectid"}


def images(name: str, kind: str) -> list[Path]:
    return corpus.devices(name) if kind == "kernel" else [corpus.image(name)]


ALL = [
    *((name, "kernel") for name in corpus.kernel_images()),
    *((name, "progs") for name in corpus.progs_images()),
]


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_round_trip(name: str, kind: str) -> None:
    for image in images(name, kind):
        data = superblock_bytes(image)
        superblock = Superblock.parse(data)
        assert superblock.magic == SUPERBLOCK_MAGIC
        assert Superblock.build(superblock) == data
        try:
            chunks = parse_sys_chunk_array(superblock.sys_chunk_array, superblock.sys_chunk_array_size)
        except DamagedError:
            assert kind == "progs"
        else:
            assert superblock.sys_chunk_array.startswith(build_sys_chunk_array(chunks))


@pytest.mark.parametrize("name", corpus.kernel_images())
def test_checksum(name: str) -> None:
    for image in corpus.devices(name):
        data = superblock_bytes(image)
        digest = checksum(Superblock.parse(data).csum_type, data[CSUM_SIZE:])
        assert data[:CSUM_SIZE] == digest.ljust(CSUM_SIZE, b"\0")


@pytest.mark.parametrize("name", corpus.kernel_images())
def test_fields_are_what_progs_read(name: str) -> None:
    superblock = Superblock.parse(superblock_bytes(corpus.devices(name)[0]))
    dump = corpus.text(name, "dump-super").split("sys_chunk_array[2048]:")[0]
    compared = 0
    line = re.compile(r"^([a-z_.]+)(?: \(deprecated\))?\t+(0x[0-9a-f]+|\d+)(?=\s)", re.MULTILINE)
    for word, value in line.findall(dump):
        container, field = superblock, RENAMED.get(word, word)
        if field.startswith("dev_item."):
            container, field = superblock.dev_item, field.removeprefix("dev_item.")
        if field in container and field != "csum":
            assert container[field] == int(value, 0), word
            compared += 1
    assert compared > 30


def test_backup_roots_are_what_progs_read() -> None:
    superblock = Superblock.parse(superblock_bytes(corpus.devices("quota")[0]))
    dump = corpus.text("quota", "dump-super").split("backup_roots[4]:")[1].split("superblock:")[0]
    lines = re.findall(r"(?:backup_)?([a-z]+_root):\s+(\d+)\s+gen: (\d+)\s+level: (\d+)", dump)
    assert len(lines) == 24
    for number, (root, bytenr, generation, level) in enumerate(lines):
        backup = superblock.super_roots[number // 6]
        found = backup[root], backup[f"{root}_gen"], backup[f"{root}_level"]
        assert found == (int(bytenr), int(generation), int(level))


@pytest.fixture
def superblock() -> bytes:
    return superblock_bytes(corpus.devices("raid1")[0])


def test_columns_of_many_superblocks(superblock: bytes) -> None:
    import numpy as np

    rows = np.frombuffer(superblock * 3, columns(Superblock))
    assert rows["magic"].tobytes() == SUPERBLOCK_MAGIC * 3
    assert rows["dev_item"]["devid"].tolist() == [1, 1, 1]
    assert rows["super_roots"].shape == (3, 4)


@pytest.mark.parametrize("size", [1, 17, 65, 128, 160, SYSTEM_CHUNK_ARRAY_SIZE + 1, 2**32 - 1])
def test_sys_chunk_array_of_a_wrong_size(superblock: bytes, size: int) -> None:
    parsed = Superblock.parse(superblock)
    with pytest.raises(DamagedError):
        parse_sys_chunk_array(parsed.sys_chunk_array, size)


def test_sys_chunk_array_without_stripes(superblock: bytes) -> None:
    """The number of stripes is none, where stripes follow."""
    parsed = Superblock.parse(superblock)
    array = bytearray(parsed.sys_chunk_array)
    at = 17 + 44  # after the key
    assert array[at : at + 2] == b"\2\0"
    array[at : at + 2] = bytes(2)
    with pytest.raises(DamagedError):
        parse_sys_chunk_array(bytes(array), parsed.sys_chunk_array_size)


def test_sys_chunk_array_must_hold_chunks_with_stripes(superblock: bytes) -> None:
    parsed = Superblock.parse(superblock)
    [(key, chunk)] = parse_sys_chunk_array(parsed.sys_chunk_array, parsed.sys_chunk_array_size)
    empty = build_sys_chunk_array([(key, chunk | {"stripes": []})])
    with pytest.raises(DamagedError, match="no stripes"):
        parse_sys_chunk_array(empty, len(empty))
    other = build_sys_chunk_array([(key | {"type": 1}, chunk)])
    with pytest.raises(DamagedError, match="type 1"):
        parse_sys_chunk_array(other, len(other))


def test_sys_chunk_array_is_bounded(superblock: bytes) -> None:
    parsed = Superblock.parse(superblock)
    chunks = parse_sys_chunk_array(parsed.sys_chunk_array, parsed.sys_chunk_array_size)
    assert build_sys_chunk_array([]) == b""
    with pytest.raises(NoSpaceError):
        build_sys_chunk_array(chunks * 20)
