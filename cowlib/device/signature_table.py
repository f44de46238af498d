"""Signatures by magic: a table for where libblkid is not, and for what it does not name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

HEAD_BYTES = (4 << 20) + 4096
TAIL_BYTES = 128 << 10
"""How much of both ends to look at."""

_UFS = (b"\x54\x19\x01\x00", b"\x00\x01\x19\x54", b"\x19\x01\x54\x19", b"\x19\x54\x01\x19")

# (name, byte offset, magic). Where several match, the first does: what stands inside a partition table or
# is a boot sector too comes before the tables.
MAGICS: tuple[tuple[str, int, bytes], ...] = (
    ("btrfs", 65536 + 64, b"_BHRfS_M"),
    ("XFS", 0, b"XFSB"),
    ("F2FS", 1024, b"\x10\x20\xf5\xf2"),
    ("EROFS", 1024, b"\xe2\xe1\xf5\xe0"),
    ("squashfs", 0, b"hsqs"),
    ("OCFS2", 8192, b"OCFSV2"),
    ("Ceph BlueStore", 0, b"bluestore block device\n"),
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
    *(("LUKS encrypted volume", 16384 << step, b"SKUL\xba\xbe") for step in range(9)),  # the second header
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
    ("HighPoint RAID member", 4608 + 32, b"\xf0\x16\x78\x5a"),
    ("HighPoint RAID member", 4608 + 32, b"\xfd\x16\x78\x5a"),
    *(("UFS", at + 1372, magic) for at in (0, 8192, 65536, 262144) for magic in _UFS),
    ("UDF", 32768 + 2049, b"NSR0"),
    ("ISO 9660", 32769, b"CD001"),
    ("GPT partition table", 512, b"EFI PART"),
    ("GPT partition table", 4096, b"EFI PART"),
)

_EXT_MAGIC = b"\x53\xef"
_SWAP_MAGICS = (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND", b"LINHIB0001")
_ZFS_UBERBLOCKS = (b"\x0c\xb1\xba\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\xba\xb1\x0c")
_DRBD_MAGICS = (b"\x83\x74\x02\x67", b"\x83\x74\x02\x6b")
_RAID_MAGIC = b"\xfc\x4e\x2b\xa9"


# (name, bytes before the end, magic)
TAIL_MAGICS: tuple[tuple[str, int, bytes], ...] = (
    ("Intel RAID member", 1024, b"Intel Raid ISM Cfg Sig. "),
    ("DDF RAID member", 512, b"\xde\x11\xde\x11"),
    ("DDF RAID member", 512, b"\x11\xde\x11\xde"),
    ("NVIDIA RAID member", 1024, b"NVIDIA  "),
    ("LSI RAID member", 512, b"$XIDE$"),
    ("Promise RAID member", 63 * 512, b"Promise Technology, Inc."),
)


class Signature(NamedTuple):
    """Something that stands on a device: its name for people, and the bytes that make it what it is."""

    name: str
    offset: int
    length: int


def by_table(head: bytes, tail: bytes, size: int) -> Signature | None:
    """What stands on a device of ``size`` bytes that begins with ``head`` and ends with ``tail``, if it is known."""
    for probe in _PROBES:
        found = probe(head)
        if found:
            return found
    return _at_the_end(tail, size) or _mbr(head)


def _by_magic(head: bytes) -> Signature | None:
    for name, offset, magic in MAGICS:
        if head.startswith(magic, offset):
            return Signature(name, offset, len(magic))
    return None


def _ext(head: bytes) -> Signature | None:
    at = 1024 + 56
    return Signature(_ext_name(head), at, len(_EXT_MAGIC)) if head.startswith(_EXT_MAGIC, at) else None


def _ext_name(head: bytes) -> str:
    """ext2, 3 or 4: told apart by their feature bits, as the kernel's drivers do."""
    compat, incompat, ro_compat = (int.from_bytes(head[1024 + at : 1028 + at], "little") for at in (92, 96, 100))
    has_journal, journal_device = 0x4, 0x8
    if incompat & journal_device:
        return "ext journal"
    ext3_incompat, ext3_ro_compat = 0x2 | 0x4 | 0x10, 0x1 | 0x2 | 0x4
    if incompat & ~ext3_incompat or ro_compat & ~ext3_ro_compat:
        return "ext4"
    return "ext3" if compat & has_journal else "ext2"


def _swap(head: bytes) -> Signature | None:
    """The magic ends the first page, whose size depends on the machine that made it."""
    for page in (4096, 8192, 16384, 32768, 65536):
        if head[page - 10 : page] in _SWAP_MAGICS or head[page - 10 : page - 1] in _SWAP_MAGICS:
            return Signature("swap space", page - 10, 10)
    return None


def _lvm(head: bytes) -> Signature | None:
    """The label is in one of the first four 512 byte sectors."""
    for sector in range(0, 2048, 512):
        if head.startswith(b"LABELONE", sector) and head.startswith(b"LVM2 001", sector + 24):
            return Signature("LVM2 physical volume", sector, 8)
    return None


def _zfs(head: bytes) -> Signature | None:
    """Uberblocks fill the second half of the 256 KiB label, every 1 KiB or more."""
    for at in range(128 << 10, 256 << 10, 1024):
        if head[at : at + 8] in _ZFS_UBERBLOCKS:
            return Signature("ZFS", at, 8)
    return None


def _at_the_end(tail: bytes, size: int) -> Signature | None:
    """What RAID members, md 1.0 and 0.90 and those of a BIOS, have at their end."""
    start = size - len(tail)
    md_1_0 = (size // 512 - 16) // 8 * 8 * 512
    md_0_90 = size // 65536 * 65536 - 65536
    for at in (md_1_0, md_0_90):
        if at >= start and tail.startswith(_RAID_MAGIC, at - start):
            return Signature("Linux RAID member", at, len(_RAID_MAGIC))
    drbd = size // 4096 * 4096 - 4096 + 60  # in the last whole block
    if drbd >= start and tail.startswith(_DRBD_MAGICS, drbd - start):
        return Signature("DRBD", drbd, 4)
    for name, back, magic in TAIL_MAGICS:
        if len(tail) >= back and tail.startswith(magic, len(tail) - back):
            return Signature(name, size - back, len(magic))
    return None


def _mbr(head: bytes) -> Signature | None:
    """A DOS partition table: the boot magic, and entries that could be partitions."""
    if head[510:512] != b"\x55\xaa":
        return None
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    plausible = all(entry[0] in (0x00, 0x80) for entry in entries)
    used = any(entry[4] and any(entry[12:16]) for entry in entries)
    return Signature("MBR partition table", 510, 2) if plausible and used else None


_PROBES: tuple[Callable[[bytes], Signature | None], ...] = (_by_magic, _lvm, _swap, _zfs, _ext)
