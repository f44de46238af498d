"""How block devices and files stand on each other, and which of them share bytes.

A device or file is known by what it *is*, never by its name: (major, minor) of a block device, (device, inode) of a
file. A loop device stands on a range of a file or of another device, a partition on a range of its disk; what the
device mapper, md and their kin stand on is known (``slaves`` and ``holders`` in sysfs), but not which part of it.

Two of them share bytes if what they stand on at the bottom overlaps. So one goes down from a device to all that is
below it, and from each of those up to all that stands on the same range.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cowlib.device.sysfs import SECTOR, BlockDevice, names_in, read_bytes, read_integer, read_number, read_sectors

END = 1 << 64
"""The end of a range that goes to the end, wherever that is."""

_LOOP_GET_STATUS64 = 0x4C05  # linux/loop.h
_LOOP_INFO64 = struct.Struct("=5Q")  # device, inode, rdevice, offset, sizelimit: the head of struct loop_info64
_LOOP_INFO64_SIZE = 232


class File(NamedTuple):
    """A regular file by its filesystem's device number and its inode number."""

    device: int
    inode: int


Node = BlockDevice | File
Span = tuple[int, int]
"""Bytes from, and up to but without."""


def node_of(status: os.stat_result) -> Node | None:
    """What a stat result is of; None for what is neither a block device nor a regular file."""
    if stat.S_ISBLK(status.st_mode):
        return block_device(status.st_rdev)
    if stat.S_ISREG(status.st_mode):
        return File(status.st_dev, status.st_ino)
    return None


def block_device(number: int) -> BlockDevice:
    """A block device by its ``dev_t``."""
    return BlockDevice(os.major(number), os.minor(number))


@dataclass(frozen=True)
class Loop:
    """An attached loop device: it shows ``span`` of ``backing``.

    ``certain`` says that the kernel itself told what ``backing`` is. Otherwise that is what the ``names`` in sysfs
    lead to from here, if anything: they may be of another mount namespace. ``size`` is in bytes.
    """

    device: BlockDevice
    backing: Node | None
    span: Span
    size: int
    certain: bool
    names: tuple[bytes, ...]


@dataclass(frozen=True)
class Place:
    """A part of a device or file that holds bytes of the one that was asked for.

    ``relation`` is 'itself', 'above' (stands on it), 'below' (it stands on this) or 'beside' (both stand on the
    same). ``exact`` is False where a mapping lies between whose ranges are not known. ``mapped`` is a device that a
    mapping on the way has taken: who else may use it is that one's affair.
    """

    node: Node
    span: Span
    relation: str
    exact: bool = True
    mapped: bool = False


@dataclass
class Machine:
    """The block devices as ``/sys``, ``/dev`` and the loop driver show them at the moment of the first question."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    _loops: list[Loop] | None = field(default=None, repr=False)

    # -- one device --------------------------------------------------------------------------------------------

    def folder(self, device: BlockDevice) -> Path:
        """Its folder in sysfs."""
        return self.sys / "dev" / "block" / f"{device.major}:{device.minor}"

    def name(self, device: BlockDevice) -> str:
        """What the kernel calls it, such as 'sda1'."""
        found = os.path.basename(os.path.realpath(self.folder(device))).replace("!", "/")
        return found or f"{device.major}:{device.minor}"

    def size(self, device: BlockDevice) -> int:
        """Bytes, as far as known."""
        return read_sectors(self.folder(device) / "size") or 0

    def node(self, device: BlockDevice) -> str:
        """A path under ``/dev`` that leads to it; raises `FileNotFoundError`."""
        for path in (self.dev / self.name(device), self.dev / "block" / f"{device.major}:{device.minor}"):
            try:
                if node_of(os.stat(path)) == device:
                    return os.fspath(path)
            except OSError:
                continue
        raise FileNotFoundError(2, f"there is no node for it in {self.dev}")

    def disk(self, device: BlockDevice) -> tuple[BlockDevice, int] | None:
        """The disk that a partition is of, and the byte where it starts there; None for anything else."""
        folder = self.folder(device)
        start = read_sectors(folder / "start")
        if start is None or not (folder / "partition").exists():
            return None
        disk = read_number(Path(os.path.realpath(folder)).parent / "dev")
        return (disk, start) if disk else None

    def partitions(self, device: BlockDevice) -> list[tuple[BlockDevice, Span]]:
        """The partitions of a disk and where they lie there."""
        found = []
        for name in names_in(self.folder(device)):
            folder = self.folder(device) / name
            number, start, size = (
                read_number(folder / "dev"),
                read_sectors(folder / "start"),
                read_sectors(folder / "size"),
            )
            if number and start is not None and size is not None and (folder / "partition").exists():
                found.append((number, (start, start + size)))
        return found

    def holders(self, device: BlockDevice) -> list[str]:
        """Names of the devices of other drivers (device mapper, md, ...) that have taken it."""
        return names_in(self.folder(device) / "holders")

    def slaves(self, device: BlockDevice) -> list[BlockDevice]:
        """The devices that such a device has taken."""
        folder = self.folder(device) / "slaves"
        return [number for name in names_in(folder) if (number := read_number(folder / name / "dev"))]

    # -- loop devices ------------------------------------------------------------------------------------------

    @property
    def loops(self) -> list[Loop]:
        """Every attached loop device."""
        if self._loops is None:
            self._loops = list(self._read_loops())
        return self._loops

    def _read_loops(self) -> Iterator[Loop]:
        for name in names_in(self.sys / "block"):
            folder = self.sys / "block" / name
            backing_file = read_bytes(folder / "loop" / "backing_file") if name.startswith("loop") else None
            device = read_number(folder / "dev")
            if backing_file is None or device is None:
                continue
            size = read_sectors(folder / "size") or 0
            names = _backing_names(backing_file)
            backing: Node | None
            try:
                backing, offset, limit = self._ask(device)
                certain = True
            except OSError as error:
                if error.errno == errno.ENXIO:
                    continue  # detached just now
                # No permission, or no node in a container.
                backing, certain = _first_node(names), False
                offset, limit = (read_integer(folder / "loop" / text) or 0 for text in ("offset", "sizelimit"))
            yield Loop(device, backing, (offset, offset + limit if limit else END), size, certain, names)

    def _ask(self, device: BlockDevice) -> tuple[Node, int, int]:
        """(backing, offset, sizelimit) of a loop device as its driver knows them; raises `OSError`."""
        fd = os.open(self.node(device), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if node_of(os.fstat(fd)) != device:
                raise FileNotFoundError(2, "another device has that name")
            answer = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64_SIZE))
        finally:
            os.close(fd)
        on_device, inode, rdevice, offset, limit = _LOOP_INFO64.unpack_from(answer)
        # An inode of the filesystem that holds it; of a block device's node, the number of that device too.
        backing = block_device(rdevice) if rdevice not in (0, on_device) else File(on_device, inode)
        return backing, offset, limit


@dataclass
class Target:
    """What somebody wants to write to, and all that shares bytes with it. ``path`` is where it was found."""

    node: Node
    path: str
    machine: Machine

    @cached_property
    def below(self) -> list[Place]:
        """The target itself, and all it stands on."""
        found: list[Place] = []
        todo = [Place(self.node, (0, END), "itself")]
        while todo:
            place = todo.pop()
            if place not in found and place.span[0] < place.span[1]:
                found.append(place)
                todo.extend(self._down(place))
        return found

    def _down(self, place: Place) -> Iterator[Place]:
        if not isinstance(place.node, BlockDevice):
            return
        machine = self.machine
        for loop in machine.loops:
            if loop.device == place.node and loop.backing is not None:
                yield Place(loop.backing, _below(place.span, loop.span), "below", place.exact)
        disk = machine.disk(place.node)
        if disk is not None:
            number, start = disk
            span = _below(place.span, (start, start + machine.size(place.node)))
            yield Place(number, span, "below", place.exact, place.mapped)
        for slave in machine.slaves(place.node):
            yield Place(slave, (0, END), "below", exact=False, mapped=True)

    @cached_property
    def places(self) -> list[Place]:
        """All places that share bytes with the target, itself and those below and above it included."""
        mapped = {place.node for place in self.below if place.mapped}
        found = list(self.below)
        for place in found:  # which grows on the way
            for upper in self._up(place):
                seen = any(upper.node == other.node and upper.span == other.span for other in found)
                if not seen and upper.node not in mapped:
                    found.append(upper)
        return found

    def _up(self, place: Place) -> Iterator[Place]:
        relation = "above" if place.relation in ("itself", "above") else "beside"
        for loop in self.machine.loops:
            if loop.backing == place.node or self._may_be(loop, place):
                span = _above(place.span, loop.span)
                if span:
                    yield Place(loop.device, span, relation, place.exact)
        if isinstance(place.node, BlockDevice) and not place.mapped:
            for partition, covers in self.machine.partitions(place.node):
                span = _above(place.span, covers)
                if span:
                    yield Place(partition, span, relation, place.exact)

    def _may_be(self, loop: Loop, place: Place) -> bool:
        """Whether a loop device that nobody can be asked of may stand on the target: a file of that name and size."""
        if loop.certain or place.relation != "itself" or not isinstance(place.node, File):
            return False
        if loop.backing is not None and os.geteuid() != 0:
            return False  # its name leads to another file, and nothing but permission is lacking
        own = os.path.basename(os.path.realpath(os.fsencode(self.path)))
        try:
            rest = os.stat(self.path).st_size - loop.span[0]
        except OSError:
            return False
        fits = loop.size <= rest and (loop.span[1] != END or rest - loop.size < SECTOR)
        return fits and own in {os.path.basename(name) for name in loop.names}

    def overlaps(self, other: Target) -> bool:
        """Whether the two share bytes."""
        return any(
            one.node == two.node and (one.exact or two.exact) and _above(one.span, two.span) is not None
            for one in self.below
            for two in other.below
        )


def find_target(path: str | os.PathLike[str], machine: Machine, fd: int | None = None) -> Target | None:
    """The device or image file at ``path`` (open as ``fd``, if it is); None if it is neither, or cannot be found."""
    try:
        node = node_of(os.stat(path) if fd is None else os.fstat(fd))
    except OSError:
        return None
    return None if node is None else Target(node, os.fspath(path), machine)


def _below(span: Span, covers: Span) -> Span:
    """A range of an upper device, as a range of the lower one whose range ``covers`` it shows."""
    start, end = span
    base, limit = covers
    return min(base + start, limit), min(base + end, limit)


def _above(span: Span, covers: Span) -> Span | None:
    """What an upper device, that shows ``covers`` of a lower one, shows of the lower one's ``span``; None: nothing."""
    start, end = max(span[0], covers[0]), min(span[1], covers[1])
    if start >= end:
        return None
    return start - covers[0], END if end == END else end - covers[0]


def _backing_names(text: bytes) -> tuple[bytes, ...]:
    """What may be the name of a backing file: any byte may stand in it, also at its end."""
    name = text.removesuffix(b"\n")
    deleted = b" (deleted)"
    return (name, name.removesuffix(deleted)) if name.endswith(deleted) else (name,)


def _first_node(names: Iterable[bytes]) -> Node | None:
    for name in names:
        try:
            return node_of(os.stat(name))
        except OSError:
            continue
    return None
