"""What a user may ask for, but is warned of: the filesystem is made all the same."""

from __future__ import annotations

import os
from pathlib import Path

from cowlib.format import BlockGroupFlag
from cowlib.volume import Profile
from mkfs_cow.options import ResolvedOptions

_SECTOR_SIZES = Path("/sys/fs/btrfs/features/supported_sectorsizes")


def advice(options: ResolvedOptions, profiles: dict[BlockGroupFlag, Profile]) -> list[str]:
    """A line for each thing asked for that is not recommended, or that this machine's kernel cannot mount."""
    metadata = next(profile for kind, profile in profiles.items() if kind & BlockGroupFlag.METADATA)
    data = next(profile for kind, profile in profiles.items() if kind & BlockGroupFlag.DATA)
    lines = []
    parity = [profile.name for profile in (data, metadata) if profile.parity]
    if parity:
        text = f"{' and '.join(dict.fromkeys(parity))}: the kernel's raid5 and raid6 are not safe after a power failure"
        lines.append(f"{text}, least of all for metadata; use them for tests only")
    once = metadata.copies + metadata.parity == 1 < data.copies + data.parity
    if once or metadata.tolerated < data.tolerated:
        text = f"metadata ({metadata.name}) survives less than data ({data.name}) does"
        lines.append(f"{text}: what loses the metadata loses the files with it")
    if len(options.devices) > 1 and "dup" in (data.name, metadata.name):
        lines.append("dup on several devices: both copies stand on the same device, raid1 puts them on two")
    sizes = mountable_sector_sizes()
    if options.sectorsize not in sizes:
        text = f"sector size {options.sectorsize}: the kernel of this machine mounts only"
        lines.append(f"{text} {', '.join(map(str, sizes))}; 4096 is mounted everywhere")
    for name in sorted(options.features.given_way):
        lines.append(f"feature {name} is left out, as it needs one that is turned off")
    return lines


def mountable_sector_sizes() -> list[int]:
    """The sector sizes that the running kernel mounts; where it does not say, the size of its pages."""
    try:
        return sorted(map(int, _SECTOR_SIZES.read_text().split()))
    except (OSError, ValueError):
        return [os.sysconf("SC_PAGE_SIZE")]
