"""What stands on a device is recognised, with libblkid and without it, and is gone after a wipe."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from cowlib.device import Device, blkid, signature, wipe_signatures
from cowlib.device.signature_table import MAGICS, TAIL_MAGICS
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


@pytest.fixture(params=["libblkid", "table"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who is asked: the library, as nearly everywhere, or the table alone, where there is none."""
    if request.param == "table":
        monkeypatch.setattr(blkid, "probe", lambda path: None)
    elif not blkid.available():
        pytest.skip("needs libblkid")
    return str(request.param)


def wiped(path: Path) -> None:
    """After a wipe nothing is there, not for libblkid either."""
    with Device.open(path, write=True) as device:
        wipe_signatures(device)
    assert signature(path) is None
    assert not blkid.probe(path)


@pytest.mark.parametrize(("name", "offset", "magic"), MAGICS)
def test_every_magic(tmp_path: Path, asked: str, name: str, offset: int, magic: bytes) -> None:
    path = image_with(tmp_path / "image", (offset, magic), size=8 * MIB)
    assert signature(path) == name
    wiped(path)


@pytest.mark.parametrize(("name", "back", "magic"), TAIL_MAGICS)
@pytest.mark.parametrize("odd", [0, 512, 3584])
def test_every_magic_at_the_end(tmp_path: Path, asked: str, name: str, back: int, magic: bytes, odd: int) -> None:
    path = image_with(tmp_path / "image", (8 * MIB + odd - back, magic), size=8 * MIB + odd)
    assert signature(path) == name
    wiped(path)


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("LVM2 physical volume", [(512, b"LABELONE"), (512 + 24, b"LVM2 001")]),
        ("ZFS", [((128 << 10) + nth * 1024, b"\x0c\xb1\xba\0\0\0\0\0") for nth in range(8)]),
        ("Linux RAID member", [(8 * MIB - (8 << 10), b"\xfc\x4e\x2b\xa9")]),
        ("Linux RAID member", [(8 * MIB - (64 << 10), b"\xfc\x4e\x2b\xa9")]),
        ("DRBD", [(8 * MIB - 4096 + 60, b"\x83\x74\x02\x6b")]),
        ("MBR partition table", [(446 + 4, b"\x83"), (446 + 12, b"\x01"), (510, b"\x55\xaa")]),
        (
            "GPT partition table",
            [(446 + 4, b"\xee"), (446 + 12, b"\x01"), (510, b"\x55\xaa"), (512, b"EFI PART")],
        ),
        ("vfat", [(82, b"FAT32   "), (510, b"\x55\xaa")]),
        (None, [(510, b"\x55\xaa")]),
    ],
)
def test_what_has_its_own_rules(tmp_path: Path, asked: str, name: str | None, pieces: list[tuple[int, bytes]]) -> None:
    path = image_with(tmp_path / "image", *pieces, size=8 * MIB)
    if asked == "libblkid" and name in (None, "GPT partition table"):
        name = "MBR partition table"  # a header alone makes no GPT, and a table may be empty
    assert signature(path) == name
    wiped(path)


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("VMFS_volume_member", [(1 << 20, b"\x0d\xd0\x01\xc0")]),
        ("VMFS", [(2 << 20, b"\x5e\xf1\xab\x2f")]),
        ("OCFS2 and MBR partition table", [(8192, b"OCFSV2"), (450, b"\x83"), (458, b"\x01"), (510, b"\x55\xaa")]),
        ("sgi partition table", [(0, b"\x0b\xe5\xa9\x41" + bytes(500) + b"\xf4\x1a\x56\xbf")]),
    ],
)
def test_what_only_libblkid_knows(tmp_path: Path, name: str, pieces: list[tuple[int, bytes]]) -> None:
    if not blkid.available():
        pytest.skip("needs libblkid")
    path = image_with(tmp_path / "image", *pieces, size=8 * MIB)
    assert signature(path) == name
    wiped(path)


@pytest.mark.parametrize(("place", "words"), [(64 << 20, "64 MiB"), (256 << 30, "256 GiB")])
def test_a_copy_of_a_superblock(tmp_path: Path, asked: str, place: int, words: str) -> None:
    own, other = place.to_bytes(8, "little"), (64 << 10).to_bytes(8, "little")
    size = place + 4096
    path = image_with(tmp_path / "image", (place + 48, own), (place + 64, b"_BHRfS_M"), size=size)
    assert signature(path) == f"btrfs (superblock copy at {words})"
    image_with(path, (place + 48, other), (place + 64, b"_BHRfS_M"), size=size)  # one that was copied there
    assert signature(path) is None
    image_with(path, (place + 48, own), (place + 64, b"_BHRfS_M"), (65536 + 64, b"_BHRfS_M"), size=size)
    assert signature(path) == "btrfs"
    image_with(path, (place + 48, own), (place + 64, b"_BHRfS_M"), (8192, b"OCFSV2"), size=size)
    assert signature(path) == f"OCFS2 and btrfs (superblock copy at {words})"


def test_a_library_that_cannot_be_used_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise OSError(f"{name}: no such library")

    monkeypatch.setattr(ctypes, "CDLL", load)
    blkid._library.cache_clear()
    try:
        assert not blkid.available()
        assert blkid.probe("/dev/null") is None
    finally:
        blkid._library.cache_clear()
