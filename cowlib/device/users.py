"""Who uses a block device or a file, in words: mounts of every mount namespace, swap space, other drivers.

This is for the message. Whether a device is in use at all, the kernel says when it is opened exclusively.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from cowlib.device.stack import File, Machine, Node, node_of
from cowlib.device.sysfs import BlockDevice, names_in, read_bytes, read_number

_HOLD_FILES = re.compile(r"erofs|fuse($|\.)|fuseblk")
"""Filesystems that can be mounted from an image file without a loop device."""


class Mount(NamedTuple):
    """One line of a mount table. ``process`` is one that sees it, None: we do ourselves."""

    device: BlockDevice
    where: str
    kind: str
    source: str
    process: int | None

    @property
    def words(self) -> str:
        """Where it is mounted, for people."""
        elsewhere = "" if self.process is None else f" in the mount namespace of process {self.process}"
        return f"mounted at {self.where}{elsewhere}"


def use_of(node: Node, machine: Machine) -> str | None:
    """What uses a device or file, itself and not what stands on it, such as 'mounted at /home'; None: nothing known."""
    if isinstance(node, File):
        return _use_of_file(node, machine)
    for mount in mounts(machine):
        if mount.device == node:
            return mount.words
    for fsid in names_in(machine.sys / "fs" / "btrfs"):
        if node in _btrfs_members(fsid, machine):
            return _use_by_btrfs(node, fsid, machine)
    for name in _swaps(machine):
        if _node(name) == node:
            return "swap space"
    holders = machine.holders(node)
    return f"device {holders[0]} stands on it" if holders else None


def _use_by_btrfs(device: BlockDevice, fsid: str, machine: Machine) -> str:
    """The mount table names one of its devices only, if it is one that we can see."""
    members = _btrfs_members(fsid, machine)
    for mount in mounts(machine):
        if mount.kind == "btrfs" and (source := _source(mount, machine)) in members:
            return mount.words if source == device else f"device of the mounted btrfs {fsid}, {mount.words}"
    return f"device of the mounted btrfs {fsid}"


def _use_of_file(file: File, machine: Machine) -> str | None:
    for mount in mounts(machine):
        if _HOLD_FILES.match(mount.kind) and _source(mount, machine) == file:
            return mount.words
    for name in _swaps(machine):
        if _node(name) == file:
            return "swap file"
    return None


def mounted_btrfs(fsid: UUID, machine: Machine | None = None) -> bool:
    """Whether a btrfs with this fsid is mounted, in any mount namespace."""
    folder = (machine or Machine()).sys / "fs" / "btrfs"
    shown = {read_bytes(folder / name / "metadata_uuid") for name in names_in(folder) if "-" in name}
    return (folder / str(fsid) / "devices").is_dir() or f"{fsid}\n".encode() in shown


def mounts(machine: Machine) -> Iterator[Mount]:
    """Everything that is mounted: what we see first, then what only others see."""
    seen = set()
    own = _view(machine.proc / "self")
    for mount in _mount_table(machine.proc / "self", None):
        seen.add(mount[:4])
        yield mount
    views = {own}
    for name in sorted(filter(str.isdigit, names_in(machine.proc)), key=int):
        view = _view(machine.proc / name)
        if view is None or view in views:
            continue
        views.add(view)
        for mount in _mount_table(machine.proc / name, int(name)):
            if mount[:4] not in seen:
                seen.add(mount[:4])
                yield mount


def _view(process: Path) -> tuple[str, str] | None:
    """What decides which mounts a process sees: its mount namespace and its root."""
    try:
        return os.readlink(process / "ns" / "mnt"), os.readlink(process / "root")
    except OSError:
        return None


def _mount_table(process: Path, number: int | None) -> Iterator[Mount]:
    for line in _lines(process / "mountinfo"):
        # "36 35 8:1 /root /mount-point options [tags] - fstype source superoptions"
        head, _, tail = line.partition(b" - ")
        fields, rest = head.split(b" "), tail.split(b" ")
        device = re.fullmatch(rb"(\d+):(\d+)", fields[2]) if len(fields) >= 5 else None
        if device is None or len(rest) < 2:
            continue
        where, kind, source = unescape(fields[4]), unescape(rest[0]), unescape(rest[1])
        yield Mount(BlockDevice(int(device[1]), int(device[2])), where, kind, source, number)


def _source(mount: Mount, machine: Machine) -> Node | None:
    """What is mounted, by its name as the process that mounted it may have given it."""
    if not mount.source.startswith("/"):
        return None
    root = "" if mount.process is None else f"{machine.proc}/{mount.process}/root"
    return _node(root + mount.source) or _node(mount.source)


def _btrfs_members(fsid: str, machine: Machine) -> set[BlockDevice]:
    folder = machine.sys / "fs" / "btrfs" / fsid / "devices"
    return {number for name in names_in(folder) if (number := read_number(folder / name / "dev"))}


def _swaps(machine: Machine) -> list[str]:
    return [unescape(line.split(b" ")[0].split(b"\t")[0]) for line in _lines(machine.proc / "swaps")[1:]]


def unescape(name: bytes) -> str:
    r"""The kernel writes blanks, newlines and backslashes in names as octal (``\040``)."""
    plain = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 0xFF]), name)
    return os.fsdecode(plain)


def _lines(path: Path) -> list[bytes]:
    """Lines end with a newline and nothing else: names are bytes."""
    return [line for line in (read_bytes(path) or b"").split(b"\n") if line]


def _node(path: str) -> Node | None:
    try:
        return node_of(os.stat(path))
    except (OSError, ValueError):
        return None
