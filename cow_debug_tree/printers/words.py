"""Names of flags and of enumerated values, as they are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntFlag

import numpy as np

from cow_debug_tree.text.cells import Column, Segment, each_value, pick, table
from cow_debug_tree.text.template import writer
from cowlib.format import (
    BlockGroupFlag,
    Compression,
    CsumType,
    DevReplaceState,
    ExtentFlag,
    FileExtentType,
    FileType,
    HeaderFlag,
    InodeFlag,
    QgroupStatusFlag,
    RootFlag,
)

_INODE_FLAGS = [flag for flag in InodeFlag if flag < 1 << 32]
_QGROUP_STATUS_MASK = sum(QgroupStatusFlag)

#: Profiles in the order they are looked for, should a chunk claim several.
_PROFILES = [
    BlockGroupFlag.RAID10,
    BlockGroupFlag.RAID1,
    BlockGroupFlag.RAID1C3,
    BlockGroupFlag.RAID1C4,
    BlockGroupFlag.DUP,
    BlockGroupFlag.RAID0,
    BlockGroupFlag.RAID5,
    BlockGroupFlag.RAID6,
]
_BLOCK_GROUP_TYPES = [
    BlockGroupFlag.DATA,
    BlockGroupFlag.METADATA,
    BlockGroupFlag.SYSTEM,
    BlockGroupFlag.METADATA_REMAP,
]

#: Names of checksums by type, as people know them.
CSUM_NAMES: dict[int, str] = {
    CsumType.CRC32: "crc32c",
    CsumType.XXHASH: "xxhash64",
    CsumType.SHA256: "sha256",
    CsumType.BLAKE2: "blake2b",
}

#: Whether a device that is being replaced is still read.
_REPLACE_MODES = {0: "ALWAYS", 1: "AVOID"}

_FILE_TYPES = {int(kind): kind.name for kind in FileType if kind} | {int(FileType.REG_FILE): "FILE"}
_COMPRESSIONS: dict[int, str] = {kind: kind.name.lower() for kind in Compression}
_EXTENT_TYPES: dict[int, str] = {
    FileExtentType.INLINE: "inline",
    FileExtentType.PREALLOC: "prealloc",
    FileExtentType.REG: "regular",
}


def set_names(value: int, flags: Iterable[IntFlag]) -> list[str]:
    """Names of those ``flags`` that are set in ``value``."""
    return [str(flag.name) for flag in flags if value & flag]


def inode_flags(value: int) -> str:
    """Flags of an inode; unknown bits as a number."""
    names = set_names(value, _INODE_FLAGS)
    unknown = value & ~sum(_INODE_FLAGS)
    if unknown:
        names.append(f"UNKNOWN: 0x{unknown:x}")
    return "|".join(names) or "none"


def block_group_flags(value: int) -> str:
    """Type and profile of a chunk or block group. Unknown bits are not shown.

    Types that do not go together stand without a bar between them, as in btrfs-progs.
    """
    profile = next((str(flag.name) for flag in _PROFILES if value & flag), "single")
    between = "|" if value & BlockGroupFlag.DATA else ""
    return between.join(set_names(value, _BLOCK_GROUP_TYPES)) + f"|{profile}"


def extent_flags(value: int) -> str:
    """Flags of an extent item."""
    text = "|".join(set_names(value, (ExtentFlag.DATA, ExtentFlag.TREE_BLOCK)))
    return text + ("|FULL_BACKREF" if value & ExtentFlag.FULL_BACKREF else "")


def header_flags(value: int) -> str:
    """Flags of a node's header."""
    return "|".join(set_names(value, HeaderFlag))


def root_flags(value: int) -> str:
    """Flags of a root item."""
    return "RDONLY" if value & RootFlag.SUBVOL_RDONLY else "none"


def qgroup_status_flags(value: int) -> str:
    """Flags of the state of quotas."""
    text = "ON" if value & QgroupStatusFlag.ON else "OFF"
    text += "|SIMPLE_MODE" if value & QgroupStatusFlag.SIMPLE_MODE else ""
    text += "|SCANNING" if value & QgroupStatusFlag.RESCAN else ""
    text += "|INCONSISTENT" if value & QgroupStatusFlag.INCONSISTENT else ""
    unknown = value & ~_QGROUP_STATUS_MASK
    return text + (f"|UNKNOWN(0x{unknown:x})" if unknown else "")


def _flags_writer(spec: str, text: Callable[[int], str]) -> None:
    def write(column: Column) -> Segment:
        return each_value(np.ascontiguousarray(column), lambda value: text(value).encode())

    writer(spec)(write)


def _byte_writer(spec: str, names: dict[int, str], unknown: str) -> None:
    """For a column of bytes: ``names``, or ``unknown`` with the number in place of a ``%d``."""
    texts = [names[value] if value in names else unknown.replace("%d", str(value)) for value in range(256)]
    known = [text.encode() for text in texts]
    lookup = table(known)

    def write(column: Column) -> Segment:
        low, high = int(column.min()), int(column.max())
        return known[low] if low == high else pick(lookup, np.ascontiguousarray(column))

    writer(spec)(write)


def _replace_state(value: int) -> str:
    return DevReplaceState(value).name if value in DevReplaceState.__members__.values() else f"unknown({value})"


def _replace_mode(value: int) -> str:
    return _REPLACE_MODES.get(value, f"unknown({value})")


_flags_writer("replace_state", _replace_state)
_flags_writer("replace_mode", _replace_mode)
_flags_writer("csum_type", lambda value: CSUM_NAMES[value])
_flags_writer("inode_flags", inode_flags)
_flags_writer("block_group_flags", block_group_flags)
_flags_writer("extent_flags", extent_flags)
_flags_writer("header_flags", header_flags)
_flags_writer("root_flags", root_flags)
_flags_writer("qgroup_status_flags", qgroup_status_flags)
_byte_writer("file_type", _FILE_TYPES, "DIR_ITEM.%d")
_byte_writer("compression", _COMPRESSIONS, "UNKNOWN.%d")
_byte_writer("extent_type", _EXTENT_TYPES, "unknown")
