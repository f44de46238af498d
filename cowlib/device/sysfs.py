"""Small files and folders of ``/sys`` and ``/proc``: None or nothing where they are not there, or may not be read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
"""Bytes: the unit of sizes in sysfs, whatever the sectors of the device are."""


class BlockDevice(NamedTuple):
    """A block device by its number."""

    major: int
    minor: int


def read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def read_integer(path: Path) -> int | None:
    text = (read_bytes(path) or b"").strip()
    return int(text) if text.isdigit() else None


def read_sectors(path: Path) -> int | None:
    """A number of sectors in sysfs, in bytes."""
    count = read_integer(path)
    return None if count is None else count * SECTOR


def read_number(path: Path) -> BlockDevice | None:
    match = re.fullmatch(rb"(\d+):(\d+)\s*", read_bytes(path) or b"")
    return None if match is None else BlockDevice(int(match[1]), int(match[2]))


def names_in(path: Path) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
