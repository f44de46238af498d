"""Devices and a chunk map as one logical address space, whatever the profile."""

from __future__ import annotations

from cowlib.volume.chunks import ChunkMap, Pieces, broken_rules
from cowlib.volume.members import assemble, scan_devices
from cowlib.volume.profiles import PROFILES, Profile, profile_of
from cowlib.volume.volume import Volume

__all__ = [
    "PROFILES",
    "ChunkMap",
    "Pieces",
    "Profile",
    "Volume",
    "assemble",
    "broken_rules",
    "profile_of",
    "scan_devices",
]
