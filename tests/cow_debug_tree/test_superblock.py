"""Superblocks as text and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cow_debug_tree.superblock import superblock_text
from cowlib.checksum import checksum
from cowlib.format import CSUM_SIZE, SUPERBLOCK_SIZE, Superblock
from tests import corpus
from tests.cow_debug_tree.running import run


@pytest.mark.parametrize("name", corpus.kernel_images())
def test_every_copy(name: str) -> None:
    said = run("--super", "--all", corpus.devices(name)[0])
    assert (said.returncode, said.stderr) == (0, "")
    assert re.sub("device=.*", "device=DEVICE", said.stdout) == corpus.text(name, "dump-super")


def test_one_copy_of_several_devices() -> None:
    devices = corpus.devices("raid1")
    said = run("--super", "--super-copy", "1", *devices)
    titles = re.findall(r"^superblock: bytenr=(\d+), device=(.*)", said.stdout, re.MULTILINE)
    assert titles == [(str(64 << 20), str(device)) for device in devices]
    assert run("--super", "--super-copy", "2", devices[0]).returncode == 1


def test_json() -> None:
    said = run("--super", "--all", "--json", corpus.devices("default")[0])
    first, second = map(json.loads, said.stdout.splitlines())
    assert (first["copy"], second["copy"]) == (0, 1)
    assert first["fault"] is None
    assert first["superblock"]["dev_item"]["devid"] == 1
    assert f"generation\t\t{first['superblock']['generation']}\n" in corpus.text("default", "dump-super")
    assert len(first["superblock"]["super_roots"]) == 4


def test_damaged_copies_are_shown_with_a_complaint(tmp_path: Path) -> None:
    image = corpus.copy(corpus.devices("default")[0], tmp_path)
    with image.open("r+b") as file:
        file.seek((64 << 10) + 4000)
        file.write(b"?")
        file.seek(64 << 20)
        file.write(bytes(SUPERBLOCK_SIZE))
    said = run("--super", "--all", image)
    assert said.returncode == 1
    assert "[DON'T MATCH]" in said.stdout
    assert said.stdout.count("superblock: bytenr=") == 2
    assert "superblock copy 0: checksum is" in said.stderr
    assert "superblock copy 1: no btrfs magic" in said.stderr


def _superblock(**fields: object) -> bytes:
    """A superblock with some fields, and zeros else."""
    empty = Superblock.parse(bytes(SUPERBLOCK_SIZE))
    data = bytes(Superblock.build({**empty, **fields}))
    return checksum(0, data[CSUM_SIZE:]).ljust(CSUM_SIZE, b"\0") + data[CSUM_SIZE:]


def test_odd_fields() -> None:
    text, complaints = superblock_text(
        _superblock(
            flags=1 | 1 << 2 | 1 << 33,
            magic=b"_BHRf\0_M",
            label=b"two\twords\xff".ljust(256, b"\0"),
            incompat_flags=1 << 40,
            compat_ro_flags=1 << 2,
        )
    )
    assert not complaints
    for line in (
        b"flags\t\t\t0x200000005\n\t\t\t( WRITTEN |\n\t\t\t  METADUMP |\n\t\t\t  unknown flag: 0x4 )\n",
        b"magic\t\t\t_BHRf._M [DON'T MATCH]\n",
        b"label\t\t\ttwo.words.\n",
        b"compat_ro_flags\t\t0x4\n\t\t\t( VERITY )\n",
        b"incompat_flags\t\t0x10000000000\n\t\t\t( unknown flag: 0x10000000000 )\n",
        b" [match]\nbytenr",
    ):
        assert line in text
    assert b"csum_type\t\t9 (INVALID)\ncsum_size\t\t32\n" in superblock_text(_superblock(csum_type=9))[0]


@pytest.mark.parametrize(
    ("size", "start", "complaint"),
    [
        (5000, b"", "5000"),
        (10, b"", "within a key"),
        (17, bytes(17), "item of type 0"),
        (30, bytes(8) + b"\xe4" + bytes(21), "0 stripes at byte 17"),
        (97, bytes(8) + b"\xe4" + bytes(52) + b"\xff\xff", "65535 stripes"),
    ],
)
def test_broken_system_chunks(size: int, start: bytes, complaint: str) -> None:
    chunks = start.ljust(2048, b"\0")
    text, complaints = superblock_text(_superblock(sys_chunk_array_size=size, sys_chunk_array=chunks))
    assert b"sys_chunk_array[2048]:\n" in text
    assert len(complaints) == 1
    assert complaint in complaints[0]
