"""What stands on a device is recognised by its magic."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cowlib.device import signature
from cowlib.device.signature import _MAGICS
from tests import oracles

MIB = 1 << 20


def image_with(path: Path, *pieces: tuple[int, bytes], size: int = MIB) -> Path:
    oracles.sparse(path, size)
    with path.open("r+b") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 70_000, MIB])
def test_nothing(tmp_path: Path, size: int) -> None:
    assert signature(oracles.sparse(tmp_path / "image", size)) is None


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["mkfs.ext2", "-q", "-F"], "ext2"),
        (["mkfs.ext3", "-q", "-F"], "ext3"),
        (["mkfs.ext4", "-q", "-F"], "ext4"),
        (["mkfs.btrfs", "-q", "-f"], "btrfs"),
        (["mkswap", "-q"], "swap space"),
        (["mkfs.xfs", "-q", "-f"], "XFS"),
        (["mkfs.f2fs", "-q", "-f"], "F2FS"),
        (["mkfs.vfat"], "vfat"),
        (["mkfs.exfat"], "exFAT"),
        (["mkfs.ntfs", "-q", "-F", "-f"], "NTFS"),
        (["mkfs.erofs", "--quiet"], "EROFS"),
    ],
)
def test_what_real_tools_make(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, command: list[str], name: str
) -> None:
    path = oracles.sparse(tmp_path / "image", 400 * MIB)
    try:
        sources = [tmp_path_factory.mktemp("tree")] if command[0] == "mkfs.erofs" else []
        subprocess.run([*command, path, *sources], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"needs the program {command[0]}")
    assert signature(path) == name


@pytest.mark.parametrize(("name", "offset", "magic"), _MAGICS)
def test_every_magic(tmp_path: Path, name: str, offset: int, magic: bytes) -> None:
    assert signature(image_with(tmp_path / "image", (offset, magic))) == name


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("LVM2 physical volume", [(512, b"LABELONE"), (512 + 24, b"LVM2 001")]),
        ("ZFS", [((128 << 10) + 5 * 1024, b"\x0c\xb1\xba\0\0\0\0\0")]),
        ("Linux RAID member", [(MIB - (8 << 10), b"\xfc\x4e\x2b\xa9")]),
        ("Linux RAID member", [(MIB - (64 << 10), b"\xfc\x4e\x2b\xa9")]),
        ("Intel RAID member", [(MIB - 1024, b"Intel Raid ISM Cfg Sig. 1.1.00")]),
        ("MBR partition table", [(446 + 4, b"\x83"), (446 + 12, b"\x01"), (510, b"\x55\xaa")]),
        (
            "GPT partition table",
            [(446 + 4, b"\xee"), (446 + 12, b"\x01"), (510, b"\x55\xaa"), (512, b"EFI PART")],
        ),
        ("vfat", [(82, b"FAT32   "), (510, b"\x55\xaa")]),
        (None, [(510, b"\x55\xaa")]),
    ],
)
def test_what_has_its_own_rules(tmp_path: Path, name: str | None, pieces: list[tuple[int, bytes]]) -> None:
    assert signature(image_with(tmp_path / "image", *pieces)) == name
