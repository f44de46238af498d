"""What already stands on a device: filesystems, partition tables, RAID members and so on, by magic."""

from __future__ import annotations

import os
from collections.abc import Callable

from cowlib.device.device import Device

_HEAD_BYTES = 256 << 10
_TAIL_BYTES = 128 << 10

# (name, byte offset, magic). Where several match, the first does: what stands inside a partition table or
# is a boot sector too comes before the tables.
_MAGICS: tuple[tuple[str, int, bytes], ...] = (
    ("btrfs", 65536 + 64, b"_BHRfS_M"),
    ("XFS", 0, b"XFSB"),
    ("F2FS", 1024, b"\x10\x20\xf5\xf2"),
    ("EROFS", 1024, b"\xe2\xe1\xf5\xe0"),
    ("squashfs", 0, b"hsqs"),
    ("bcachefs", 4096 + 24, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef")),
    ("bcache", 4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    ("ReiserFS", 65536 + 52, b"ReIsEr"),
    ("ReiserFS", 8192 + 52, b"ReIsEr"),
    ("Reiser4", 65536, b"ReIsEr4"),
    ("JFS", 32768, b"JFS1"),
    ("NILFS2", 1024 + 6, b"\x34\x34"),
    ("GFS2", 65536, b"\x01\x16\x19\x70"),
    ("APFS", 32, b"NXSB"),
    ("HFS+", 1024, b"H+\x00\x04"),
    ("HFSX", 1024, b"HX\x00\x05"),
    ("LUKS encrypted volume", 0, b"LUKS\xba\xbe"),
    ("BitLocker encrypted volume", 3, b"-FVE-FS-"),
    ("dm-integrity volume", 0, b"integrt\x00"),
    ("VDO volume", 0, b"dmvdo001"),
    ("NTFS", 3, b"NTFS    "),
    ("exFAT", 3, b"EXFAT   "),
    ("vfat", 82, b"FAT32   "),
    ("vfat", 54, b"FAT16   "),
    ("vfat", 54, b"FAT12   "),
    ("Linux RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("Linux RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    ("UDF", 32768 + 2049, b"NSR0"),
    ("ISO 9660", 32769, b"CD001"),
    ("GPT partition table", 512, b"EFI PART"),
    ("GPT partition table", 4096, b"EFI PART"),
)

_EXT_MAGIC = b"\x53\xef"
_SWAP_MAGICS = (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND", b"LINHIB0001")
_ZFS_UBERBLOCKS = (b"\x0c\xb1\xba\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\xba\xb1\x0c")
_RAID_MAGIC = b"\xfc\x4e\x2b\xa9"


def signature(path: str | os.PathLike[str]) -> str | None:
    """What is on a device or image file, such as 'ext4' or 'GPT partition table'; None if nothing known.

    Looks at the first 256 KiB and the last 128 KiB. Raises `DeviceError` if it cannot be read.
    """
    with Device.open(path) as device:
        head = device.read(0, min(_HEAD_BYTES, device.size)).tobytes()
        tail_at = max(0, device.size - _TAIL_BYTES)
        tail = device.read(tail_at, device.size - tail_at).tobytes()
        size = device.size
    for probe in _PROBES:
        name = probe(head)
        if name:
            return name
    return _at_the_end(tail, size) or _mbr(head)


def _by_magic(head: bytes) -> str | None:
    for name, offset, magic in _MAGICS:
        if head.startswith(magic, offset):
            return name
    return None


def _ext(head: bytes) -> str | None:
    """ext2, 3 or 4: told apart by their feature bits, as the kernel's drivers do."""
    if head[1024 + 56 : 1024 + 58] != _EXT_MAGIC:
        return None
    compat, incompat, ro_compat = (int.from_bytes(head[1024 + at : 1028 + at], "little") for at in (92, 96, 100))
    has_journal, journal_device = 0x4, 0x8
    if incompat & journal_device:
        return "ext journal"
    ext3_incompat, ext3_ro_compat = 0x2 | 0x4 | 0x10, 0x1 | 0x2 | 0x4
    if incompat & ~ext3_incompat or ro_compat & ~ext3_ro_compat:
        return "ext4"
    return "ext3" if compat & has_journal else "ext2"


def _swap(head: bytes) -> str | None:
    """The magic ends the first page, whose size depends on the machine that made it."""
    for page in (4096, 8192, 16384, 32768, 65536):
        if head[page - 10 : page] in _SWAP_MAGICS or head[page - 10 : page - 1] in _SWAP_MAGICS:
            return "swap space"
    return None


def _lvm(head: bytes) -> str | None:
    """The label is in one of the first four 512 byte sectors."""
    for sector in range(0, 2048, 512):
        if head.startswith(b"LABELONE", sector) and head.startswith(b"LVM2 001", sector + 24):
            return "LVM2 physical volume"
    return None


def _zfs(head: bytes) -> str | None:
    """Uberblocks fill the second half of the 256 KiB label, every 1 KiB or more."""
    for at in range(128 << 10, 256 << 10, 1024):
        if head[at : at + 8] in _ZFS_UBERBLOCKS:
            return "ZFS"
    return None


def _at_the_end(tail: bytes, size: int) -> str | None:
    """RAID metadata at the end of its member: md 1.0, md 0.90 and Intel's."""
    start = size - len(tail)
    md_1_0 = (size // 512 - 16) // 8 * 8 * 512
    md_0_90 = size // 65536 * 65536 - 65536
    for at in (md_1_0, md_0_90):
        if at >= start and tail.startswith(_RAID_MAGIC, at - start):
            return "Linux RAID member"
    if tail[-1024:].startswith(b"Intel Raid ISM Cfg Sig. "):
        return "Intel RAID member"
    return None


def _mbr(head: bytes) -> str | None:
    """A DOS partition table: the boot magic, and entries that could be partitions."""
    if head[510:512] != b"\x55\xaa":
        return None
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    plausible = all(entry[0] in (0x00, 0x80) for entry in entries)
    used = any(entry[4] and any(entry[12:16]) for entry in entries)
    return "MBR partition table" if plausible and used else None


_PROBES: tuple[Callable[[bytes], str | None], ...] = (_by_magic, _lvm, _swap, _zfs, _ext)
