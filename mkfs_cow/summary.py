"""What was made, in words and as JSON."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from mkfs_cow.words import size_in_words


@dataclass
class Summary:
    """A new filesystem. Sizes are bytes.

    ``devices`` are (devid, bytes, path); ``groups`` are (kind, profile, bytes allocated, bytes used); ``usage`` is
    where the bytes went, see `mkfs_cow.usage`. ``shared`` is how much data is in blocks of the files it came from, None
    if that was not asked for; ``libraries`` are the versions of those that compressed something. ``warnings`` name what
    was not taken in whole, ``advice`` what may not be as it was meant. ``unregistered`` says why the kernel was not
    told of the block devices among them, None: it was.
    """

    fsid: uuid.UUID
    label: str
    nodesize: int
    sectorsize: int
    csum: str
    features: list[str]
    devices: list[tuple[int, int, str]]
    groups: list[tuple[str, str, int, int]]
    total_bytes: int
    bytes_used: int
    inodes: int
    subvolumes: int
    shared: int | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    unregistered: str | None = None
    advice: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """Lines for people."""
        lines = [
            f"Label:        {self.label or '(none)'}",
            f"UUID:         {self.fsid}",
            f"Node size:    {self.nodesize}",
            f"Sector size:  {self.sectorsize}",
            f"Checksum:     {self.csum}",
            f"Features:     {', '.join(self.features)}",
            f"Size:         {size_in_words(self.total_bytes)}, {size_in_words(self.bytes_used)} used",
        ]
        for kind, profile, length, used in self.groups:
            lines.append(f"  {kind + ':':<12}{profile:<8} {size_in_words(length):>10}, {size_in_words(used)} used")
        if self.inodes:
            extra = f", {self.subvolumes} subvolume(s)" if self.subvolumes else ""
            lines.append(f"Contents:     {self.inodes} inodes{extra}")
        if self.shared is not None:
            lines.append(f"Shared:       {size_in_words(self.shared)} with the files it was made of")
        lines.append(f"Devices:      {len(self.devices)}")
        lines += [f"  {devid:>4}  {size_in_words(size):>10}  {path}" for devid, size, path in self.devices]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "uuid": str(self.fsid),
            "label": self.label,
            "nodesize": self.nodesize,
            "sectorsize": self.sectorsize,
            "csum": self.csum,
            "features": self.features,
            "total_bytes": self.total_bytes,
            "bytes_used": self.bytes_used,
            "inodes": self.inodes,
            "subvolumes": self.subvolumes,
            **({} if self.shared is None else {"shared_bytes": self.shared}),
            "block_groups": [
                dict(zip(("kind", "profile", "length", "used"), group, strict=True)) for group in self.groups
            ],
            "devices": [dict(zip(("devid", "total_bytes", "path"), device, strict=True)) for device in self.devices],
            "libraries": self.libraries,
            "usage": self.usage,
            "warnings": self.warnings,
            "unregistered": self.unregistered,
            "advice": self.advice,
        }
