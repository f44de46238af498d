"""Two directory trees compared in full: names, attributes, links, contents."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHUNK = 1 << 20


@dataclass
class _Comparison:
    """The two sides' options, and which inode of one stands for which of the other."""

    holes: bool
    ignore: frozenset[bytes]
    links: bool
    mtime: bool
    twins: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    twins_back: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)


def assert_same_tree(left: Path | str, right: Path | str, **options: Any) -> None:
    """Fail with what differs, line by line, unless two trees are equal; options are those of `same_tree`."""
    differences = same_tree(left, right, **options)
    if differences:
        pytest.fail("\n".join([f"{left} and {right} differ:", *differences]), pytrace=False)


def same_tree(
    left: Path | str,
    right: Path | str,
    *,
    holes: bool = False,
    links: bool = True,
    mtime: bool = True,
    ignore: Collection[str] = (),
    limit: int = 50,
) -> list[str]:
    """Differences between two directory trees, the roots included, as lines to read; empty if they are equal.

    Compared: every path, type, mode, owner, device number, size and mtime (ns), symlink targets, extended
    attributes (ACLs and capabilities are some), contents, and which names are hard links of one file.
    Not compared: sizes and link counts of directories, which are a filesystem's own affair, and atime, ctime.

    `holes` also compares where the holes are; `links=False` leaves out hard links, some of which may come from outside;
    `ignore` leaves out paths, and all below them. Stops after `limit` differences.
    """
    compared = _Comparison(holes, frozenset(map(os.fsencode, ignore)), links, mtime)
    found: list[str] = []
    for difference in _walk(compared, os.fsencode(left), os.fsencode(right)):
        found.append(difference)
        if len(found) >= limit:
            found.append("... and maybe more")
            break
    return found


def _walk(compared: _Comparison, left: bytes, right: bytes) -> Iterator[str]:
    yield from _compare(compared, b".", left, right, os.lstat(left), os.lstat(right))
    pending = [b"."]
    while pending:
        folder = pending.pop()
        mine = _entries(compared, folder, left)
        others = _entries(compared, folder, right)
        for name in mine.keys() ^ others.keys():
            yield f"{_show(_join(folder, name))}: only on the {'left' if name in mine else 'right'}"
        for name in sorted(mine.keys() & others.keys()):
            path = _join(folder, name)
            a, b = mine[name], others[name]
            one, other = a.stat(follow_symlinks=False), b.stat(follow_symlinks=False)
            yield from _compare(compared, path, a.path, b.path, one, other)
            if stat.S_ISDIR(one.st_mode) and stat.S_ISDIR(other.st_mode):
                pending.append(path)


def _entries(compared: _Comparison, folder: bytes, top: bytes) -> dict[bytes, os.DirEntry[bytes]]:
    with os.scandir(os.path.join(top, folder)) as entries:
        found = {entry.name: entry for entry in entries}
    if compared.ignore:
        return {name: entry for name, entry in found.items() if _join(folder, name) not in compared.ignore}
    return found


def _join(folder: bytes, name: bytes) -> bytes:
    return name if folder == b"." else os.path.join(folder, name)


def _compare(
    compared: _Comparison, path: bytes, left: bytes, right: bytes, one: os.stat_result, other: os.stat_result
) -> Iterator[str]:
    """Differences between two files of the same name."""
    yield from _compare_stat(compared, path, one, other)
    if stat.S_IFMT(one.st_mode) != stat.S_IFMT(other.st_mode):
        return
    if compared.links and not stat.S_ISDIR(one.st_mode) and (one.st_nlink > 1 or other.st_nlink > 1):
        mine, its = (one.st_dev, one.st_ino), (other.st_dev, other.st_ino)
        known = compared.twins.get(mine)
        if known == its:
            return  # another name of a file compared before
        if known is not None or its in compared.twins_back:
            yield f"{_show(path)}: a hard link of another file on each side"
        compared.twins[mine], compared.twins_back[its] = its, mine
    if stat.S_ISLNK(one.st_mode):
        targets = os.readlink(left), os.readlink(right)
        if targets[0] != targets[1]:
            yield f"{_show(path)}: target {targets[0]!r} != {targets[1]!r}"
    yield from _compare_xattrs(path, left, right)
    if stat.S_ISREG(one.st_mode) and one.st_size == other.st_size and one.st_size:
        yield from _compare_contents(compared, path, left, right, one.st_size)


def _compare_stat(compared: _Comparison, path: bytes, one: os.stat_result, other: os.stat_result) -> Iterator[str]:
    fields = ["st_uid", "st_gid"]
    if not stat.S_ISDIR(one.st_mode):
        fields += ["st_size", "st_rdev", "st_nlink"] if compared.links else ["st_size", "st_rdev"]
    if compared.mtime:
        fields.append("st_mtime_ns")
    if one.st_mode != other.st_mode:
        yield f"{_show(path)}: mode {stat.filemode(one.st_mode)} != {stat.filemode(other.st_mode)}"
    for name in fields:
        if getattr(one, name) != getattr(other, name):
            yield f"{_show(path)}: {name.removeprefix('st_')} {getattr(one, name)} != {getattr(other, name)}"


def _compare_xattrs(path: bytes, left: bytes, right: bytes) -> Iterator[str]:
    mine, others = _xattrs(left), _xattrs(right)
    if mine != others:
        for name in sorted(mine.keys() | others.keys()):
            if mine.get(name) != others.get(name):
                yield f"{_show(path)}: xattr {os.fsdecode(name)} {mine.get(name)!r} != {others.get(name)!r}"


def _xattrs(full: bytes) -> dict[bytes, bytes]:
    names = map(os.fsencode, os.listxattr(full, follow_symlinks=False))
    return {name: os.getxattr(full, name, follow_symlinks=False) for name in names}


def _compare_contents(compared: _Comparison, path: bytes, left: bytes, right: bytes, size: int) -> Iterator[str]:
    with open(left, "rb", buffering=0) as one, open(right, "rb", buffering=0) as other:
        if size <= CHUNK and not compared.holes:
            if one.read() != other.read():
                yield f"{_show(path)}: contents differ"
            return
        here, there = data_ranges(one.fileno(), size), data_ranges(other.fileno(), size)
        if compared.holes and here != there:
            yield f"{_show(path)}: data at {here} != {there}"
        for begin, end in here + there if here != there else here:  # holes on both sides are equal
            for start in range(begin, end, CHUNK):
                length = min(CHUNK, end - start)
                if os.pread(one.fileno(), length, start) != os.pread(other.fileno(), length, start):
                    yield f"{_show(path)}: contents differ in the {length} bytes at {start}"
                    return


def digest(path: Path | str) -> str:
    """A digest of the length and every byte of an image or device; quick where there are holes, or zeros."""
    found = hashlib.sha256()
    zeros = bytes(CHUNK)
    with open(path, "rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        found.update(b"%d" % size)
        done = 0
        for begin, end in data_ranges(file.fileno(), size):
            for start in range(max(done, begin // CHUNK * CHUNK), end, CHUNK):
                chunk = os.pread(file.fileno(), CHUNK, start)
                if chunk != zeros[: len(chunk)]:
                    found.update(b"%d:" % start + chunk)
                done = start + CHUNK
    return found.hexdigest()


def data_ranges(descriptor: int, size: int) -> list[tuple[int, int]]:
    """The ranges (start, end) of a file that are not holes."""
    ranges = []
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            break
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        ranges.append((start, end))
    return ranges


def _show(path: bytes) -> str:
    return repr(path)[2:-1]
