"""What already stands on a device: filesystems, partition tables, RAID members and so on.

libblkid is asked where it is there, as nearly everywhere: it knows them all, and their rules. Copies of btrfs
superblocks are looked for here: a filesystem whose first one is gone can be brought back from them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from cowlib.device import blkid
from cowlib.device.device import Device
from cowlib.device.signature_table import HEAD_BYTES, TAIL_BYTES, Signature, by_table
from cowlib.errors import DeviceError
from cowlib.format import SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSETS, SUPERBLOCK_SIZE

_MAGIC_AT, _BYTENR = 64, slice(48, 56)  # in a superblock
_ROUNDS = 64
_TABLE, _MBR = " partition table", "MBR partition table"
_BOOT_SECTORS = {"exFAT", "NTFS", "vfat"}  # which look like an MBR

# libblkid's names of what people know by another one.
_NAMES = {
    "BitLocker": "BitLocker encrypted volume",
    "DM_integrity": "dm-integrity volume",
    "DM_snapshot_cow": "device mapper snapshot",
    "DM_verity_hash": "dm-verity hashes",
    "LVM1_member": "LVM1 physical volume",
    "LVM2_member": "LVM2 physical volume",
    "PMBR": "MBR",
    "apfs": "APFS",
    "ceph_bluestore": "Ceph BlueStore",
    "crypto_LUKS": "LUKS encrypted volume",
    "ddf_raid_member": "DDF RAID member",
    "dos": "MBR",
    "drbd": "DRBD",
    "erofs": "EROFS",
    "exfat": "exFAT",
    "f2fs": "F2FS",
    "gfs2": "GFS2",
    "gpt": "GPT",
    "hfs": "HFS",
    "hfsplus": "HFS+",
    "hpt37x_raid_member": "HighPoint RAID member",
    "hpt45x_raid_member": "HighPoint RAID member",
    "iso9660": "ISO 9660",
    "isw_raid_member": "Intel RAID member",
    "jbd": "ext journal",
    "jfs": "JFS",
    "linux_raid_member": "Linux RAID member",
    "lsi_mega_raid_member": "LSI RAID member",
    "nilfs2": "NILFS2",
    "ntfs": "NTFS",
    "nvidia_raid_member": "NVIDIA RAID member",
    "ocfs2": "OCFS2",
    "promise_fasttrack_raid_member": "Promise RAID member",
    "reiser4": "Reiser4",
    "reiserfs": "ReiserFS",
    "squashfs3": "squashfs",
    "swap": "swap space",
    "swsuspend": "hibernation image",
    "udf": "UDF",
    "ufs": "UFS",
    "vdo": "VDO volume",
    "xfs": "XFS",
    "zfs_member": "ZFS",
}


def signature(path: str | os.PathLike[str]) -> str | None:
    """What is on a device or image file, such as 'ext4', or 'vfat and GPT partition table'; None if nothing known.

    Raises `DeviceError` if it cannot be read.
    """
    with Device.open(path) as device:
        names = list(dict.fromkeys(found.name for found in _signatures(device)))
        names += [] if "btrfs" in names else _superblock_copies(device)
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or None


def wipe_signatures(device: Device) -> None:
    """Overwrite the magic of all that `signature` knows but superblock copies, on a device that is open for writing.

    Also what is nearer to the end than a whole sector. Raises `DeviceError`.
    """
    for _ in range(_ROUNDS):  # behind one there may be another of the same kind
        found = [one for one in _signatures(device) if one.length]
        for one in found:
            _blank(device, one.offset, one.length)
        if not found:
            return


def _signatures(device: Device) -> list[Signature]:
    found = []
    tables_only = True
    with contextlib.suppress(OSError):  # what cannot be read there cannot be read here either, and is told of below
        for one in blkid.probe(device.path) or ():
            name = _NAMES.get(one.kind, one.kind) + (_TABLE if one.table else "")
            found.append(Signature(name, one.offset, one.length))
            tables_only &= one.table
    if tables_only:  # it sees a table in many a boot sector, and not what else may be there
        found = [one for one in _by_table(device) if not found or not one.name.endswith(_TABLE)] + found
    if _BOOT_SECTORS & {one.name for one in found}:
        found = [one for one in found if one.name != _MBR]
    return found


def _by_table(device: Device) -> Iterator[Signature]:
    head = device.read(0, min(HEAD_BYTES, device.size)).tobytes()
    tail_at = max(0, device.size - TAIL_BYTES)
    tail = device.read(tail_at, device.size - tail_at).tobytes()
    found = by_table(head, tail, device.size)
    if found is not None:
        yield found


def _superblock_copies(device: Device) -> list[str]:
    """Names of superblocks after the first: one counts if it says that it is for this place."""
    names = []
    for offset in SUPERBLOCK_OFFSETS[1:]:
        if offset + SUPERBLOCK_SIZE <= device.size:
            data = device.read(offset, SUPERBLOCK_SIZE).tobytes()
            own = int.from_bytes(data[_BYTENR], "little") == offset
            if own and data.startswith(SUPERBLOCK_MAGIC, _MAGIC_AT):
                place = f"{offset >> 20} MiB" if offset < 1 << 30 else f"{offset >> 30} GiB"
                names.append(f"btrfs (superblock copy at {place})")
    return names


def _blank(device: Device, offset: int, length: int) -> None:
    """Zero any bytes, as libblkid reads them: through the page cache, which knows no sectors."""
    try:
        fd = os.open(device.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes(length), offset)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise DeviceError(f"cannot write {length} bytes at {offset}: {error.strerror}", device=device.path) from error
