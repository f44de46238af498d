"""Is a device or an image file in use by the kernel?"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from glob import glob

from cowlib.errors import MountedError

Number = tuple[int, int]
"""(major, minor) of a block device."""


def refuse_mounted(path: str | os.PathLike[str]) -> None:
    """Raise `MountedError` if ``path`` is mounted, is swapped to, or another device stands on it.

    All devices of a mounted multi-device btrfs count, a disk's partitions count for the disk and the other
    way round, and an image file counts as its loop devices. A path that does not exist is in use by nobody.
    """
    name = os.fspath(path)
    try:
        status = os.stat(name)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode):
        files = {(status.st_dev, status.st_ino)}
        numbers = {number for number, file in _loops() if file in files}
    elif stat.S_ISBLK(status.st_mode):
        own = _number(status.st_rdev)
        loops = list(_loops())
        files = {file for number, file in loops if number == own}
        numbers = {own} | {number for number, file in loops if file in files}
    else:
        return
    family = set().union(*(_family(number) for number in numbers))
    use = _use_of(numbers, family, files)
    if use:
        raise MountedError(f"is in use: {use}", device=name, hint="unmount or detach it first")


def _use_of(numbers: set[Number], family: set[Number], files: set[tuple[int, int]]) -> str | None:
    """What uses any of these devices (``family``: with their partitions and disk) or files; None: nothing."""
    for number, what in _mounted():
        if number in family:
            return what
    for major, minor in sorted(family):
        holders = _listdir(f"/sys/dev/block/{major}:{minor}/holders")
        if holders:
            return f"device {holders[0]} stands on it"
    for status, name in _swaps():
        if stat.S_ISBLK(status.st_mode) and _number(status.st_rdev) in family:
            return f"swap space {name}"
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) in files:
            return "swap file"
    return None


def _mounted() -> Iterator[tuple[Number, str]]:
    """Every block device that a mounted filesystem uses, with words for where."""
    for line in _lines("/proc/self/mountinfo"):
        # "36 35 8:1 /root /mount-point options [tags] - fstype source superoptions"
        head, _, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if len(fields) < 5 or len(rest) < 2:
            continue
        what = f"mounted at {_unescape(fields[4])}"
        major, _, minor = fields[2].partition(":")
        yield (int(major), int(minor)), what
        # btrfs mounts carry an anonymous number: the device is known by its name only
        if rest[0] == "btrfs":
            source = _stat(_unescape(rest[1]))
            if source is not None and stat.S_ISBLK(source.st_mode):
                yield _number(source.st_rdev), what
    for link in glob("/sys/fs/btrfs/*/devices/*"):
        fsid = link.split("/")[4]
        for text in _lines(f"{link}/dev"):
            yield _parse_number(text), f"device of the mounted btrfs {fsid}"


def _family(number: Number) -> set[Number]:
    """A block device with its partitions, or with the disk it is a partition of."""
    base = "/sys/dev/block/{}:{}".format(*number)
    found = {number}
    for partition in glob(f"{base}/*/partition"):
        found.update(map(_parse_number, _lines(os.path.join(os.path.dirname(partition), "dev"))))
    if os.path.exists(f"{base}/partition"):
        found.update(map(_parse_number, _lines(os.path.join(os.path.realpath(base), "..", "dev"))))
    return found


def _loops() -> Iterator[tuple[Number, tuple[int, int]]]:
    """(number, (st_dev, st_ino) of the backing file) of every attached loop device."""
    for path in glob("/sys/block/loop*/loop/backing_file"):
        base = path.removesuffix("/loop/backing_file")
        backing = [status for line in _lines(path) if (status := _stat(line)) is not None]
        for text in _lines(f"{base}/dev"):
            for status in backing:
                yield _parse_number(text), (status.st_dev, status.st_ino)


def _swaps() -> Iterator[tuple[os.stat_result, str]]:
    for line in _lines("/proc/swaps")[1:]:
        name = _unescape(line.split()[0])
        status = _stat(name)
        if status is not None:
            yield status, name


def _number(device: int) -> Number:
    return os.major(device), os.minor(device)


def _parse_number(text: str) -> Number:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def _unescape(name: str) -> str:
    r"""The kernel writes blanks and backslashes in names as octal (``\040``)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)


def _lines(path: str) -> list[str]:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _listdir(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
