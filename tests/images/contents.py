"""What the images hold: one of everything that the kernel writes to a subvolume, from a seed, in little space."""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

from tests import oracles
from tests.sample import colliding, special_files
from tests.workload import Worker, btrfs, clone, noise

_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602
_ENABLE_VERITY = 0x40806685
NOCOW = 0x00800000

#: Words for text that compresses as text does.
_WORDS = b"the cow eats grass and gives milk while trees grow slowly in every field of this valley".split()


def text(source: random.Random, size: int) -> bytes:
    """Words one after another, and after 16 KiB the same again: stripes of them cancel each other out in parity."""
    page = b" ".join(source.choice(_WORDS) for _ in range(6000))[: 16 << 10]
    return (page * (size // len(page) + 1))[:size]


def fill(top: Path, seed: int, *, files: int = 150, steps: int = 24) -> None:
    """Fills a filesystem that was just made and is mounted at ``top``, as root, with ``files`` small files and more."""
    source = random.Random(seed)
    many(top / "many", source, files)
    data(top / "data", source)
    shared(top / "shared", source)
    attributes(top / "attributes")
    odd(top / "odd")
    subvolumes(top, source)
    oracles.sync(top)
    fragment(top / "many")
    btrfs("subvolume", "create", top / "work")
    Worker(top / "work", seed, noise=1).run(steps)


def many(folder: Path, source: random.Random, count: int) -> None:
    """Small files, every fourth a sector long, so that leaves fill."""
    folder.mkdir()
    for number in range(count):
        size = 4096 if number % 4 == 0 else source.randrange(20, 90)
        (folder / f"file-{number:04}").write_bytes((b"%d " % number * 1300)[:size])


def fragment(folder: Path) -> None:
    """Takes every other of the files with a sector of their own, which leaves holes in the free space."""
    for path in sorted(folder.iterdir())[::8]:
        path.unlink()


def data(folder: Path, source: random.Random) -> None:
    """Extents of each kind: plain, overwritten in part, with holes, preallocated, without checksums, compressed."""
    folder.mkdir()
    (folder / "text").write_bytes(text(source, 700_000))
    (folder / "noise").write_bytes(noise(source, 300_000, 4))
    oracles.sync(folder)
    with (folder / "noise").open("r+b") as file:
        for start in (8192, 100_000, 200_001):
            file.seek(start)
            file.write(noise(source, 9000, 8))
    with (folder / "sparse").open("wb") as file:
        for start in (0, 300_000, 1_000_000, 5 << 30):
            file.seek(start)
            file.write(text(source, 10_000))
    with (folder / "allocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 400_000)
        file.write(text(source, 5000))
        file.seek(200_000)
        file.write(text(source, 5000))
    set_flags(folder / "nodatacow", NOCOW)
    (folder / "nodatacow").write_bytes(text(source, 60_000))
    for algorithm in (b"zlib", b"lzo", b"zstd"):
        for size in (1000, 200_000):  # inline, and two extents
            path = folder / f"{algorithm.decode()}-{size}"
            path.touch()
            os.setxattr(path, "btrfs.compression", algorithm)
            path.write_bytes(text(source, size))


def set_flags(path: Path, flags: int) -> None:
    """Makes an empty file or a folder's contents of the kind that these inode flags stand for."""
    if not path.exists():
        path.touch()
    file = os.open(path, os.O_RDONLY)
    try:
        old = bytearray(8)
        fcntl.ioctl(file, _GETFLAGS, old)
        fcntl.ioctl(file, _SETFLAGS, struct.pack("<Q", int.from_bytes(old, "little") | flags))
    finally:
        os.close(file)


def shared(folder: Path, source: random.Random) -> None:
    """Extents with references inside of their items, and so many that some stand outside."""
    folder.mkdir()
    (folder / "one").write_bytes(text(source, 50_000))
    for number in range(3):
        clone(folder / "one", folder / f"copy-{number}")
    (folder / "crowd").write_bytes(text(source, 20_000))
    for number in range(100):
        clone(folder / "crowd", folder / f"crowd-{number:03}")


def attributes(folder: Path) -> None:
    """Owners, modes, times, extended attributes, ACLs, capabilities."""
    folder.mkdir()
    for number, mode in enumerate((0o000, 0o4755, 0o6711, 0o1644)):
        path = folder / f"mode-{mode:04o}"
        path.write_text("x")
        os.chown(path, number * 1000, 2**32 - 2 - number)
        path.chmod(mode)
        os.utime(path, ns=(10**18 + number, (number - 1) * 10**18 + 999_999_999))
    path = folder / "xattrs"
    path.write_text("x")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.long", b"v" * 2500)
    for number, name in enumerate(colliding(b"user.hash", 1)):
        os.setxattr(path, name, b"%d" % number)
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    os.setxattr(path, "trusted.overlay.opaque", b"y")
    (folder / "acl").mkdir()
    entries = [(1, 7, 2**32 - 1), (2, 6, 1234), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1), (32, 5, 2**32 - 1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    for kind in ("access", "default"):
        os.setxattr(folder / "acl", f"system.posix_acl_{kind}", acl)
    (folder / "acl" / "heir").write_text("x")


def odd(folder: Path) -> None:
    """Names, links and kinds of files that are seldom met."""
    folder.mkdir()
    for name in (b"\x01", b"a" * 255, b"\xff" * 200, "größe-文件-🐮".encode(), b"new\nline\ttab", b"c:\\x"):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(name)
    for number, name in enumerate(colliding(b"collide-", 2)):
        (folder / name.decode()).write_text(str(number))
    (folder / "crowd").write_text("the same file under many long names")
    for number in range(80):  # more than one item holds
        (folder / f"{number:02}-{'n' * 240}").hardlink_to(folder / "crowd")
    (folder / "symlink").symlink_to("crowd")
    (folder / "symlink-long").symlink_to("x/" * 700)
    special_files(folder)


def subvolumes(top: Path, source: random.Random) -> None:
    """Subvolumes in subvolumes, snapshots of snapshots which changed since, so that blocks are shared in all ways."""
    btrfs("subvolume", "create", top / "volume")
    folder = top / "volume" / "folder"
    folder.mkdir()
    for number in range(40):
        (folder / f"file-{number:03}").write_bytes(b"%d" % number * source.randrange(5, 40))
    for number in range(4):
        (folder / f"data-{number}").write_bytes(text(source, 30_000))
    btrfs("subvolume", "create", top / "volume" / "inner")
    (top / "volume" / "inner" / "file").write_bytes(text(source, 20_000))
    before = top / "volume"
    for number in range(3):
        oracles.sync(top)
        after = top / f"snapshot-{number}"
        btrfs("subvolume", "snapshot", before, after)
        (before / "folder" / f"file-{number:03}").write_bytes(b"changed in the older")
        (after / "folder" / f"file-{20 + number:03}").write_bytes(b"changed in the newer")
        (after / "folder" / f"data-{number}").write_bytes(text(source, 25_000))
        before = after
    btrfs("subvolume", "snapshot", "-r", top / "volume", top / "frozen")


def crowd(folder: Path, count: int) -> None:
    """A subvolume of ``count`` small files."""
    btrfs("subvolume", "create", folder)
    for number in range(count):
        (folder / f"file-{number:05}").write_bytes(b"%05d" % number * 7)


def grow(top: Path, count: int) -> None:
    """A subvolume of ``count`` small files, whose tree is a few levels high, and a snapshot that shares most of it."""
    crowd(top / "grown", count)
    oracles.sync(top)
    btrfs("subvolume", "snapshot", top / "grown", top / "grown-snapshot")
    for number in range(0, count, count // 5):
        (top / "grown" / f"file-{number:05}").write_bytes(b"changed")
    oracles.sync(top)


def protect(path: Path) -> None:
    """Puts a file under fs-verity."""
    argument = struct.pack("<IIIIQIIQ", 1, 1, 4096, 0, 0, 0, 0, 0).ljust(128, b"\0")
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(file, _ENABLE_VERITY, argument)
    finally:
        os.close(file)


def wake_cleaner(top: Path) -> None:
    """Has the kernel go on with what it does behind the scenes: drop subvolumes that were deleted."""
    folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(folder, 0x9408)  # BTRFS_IOC_SYNC
    finally:
        os.close(folder)


def unmount_at_once(top: Path) -> None:
    """Without the time that starting a program takes."""
    if ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(top), 0):
        raise OSError(ctypes.get_errno(), "cannot unmount", str(top))


def everything(top: Path) -> Iterator[Path]:
    """All paths below a mount point, subvolumes included, in a stable order."""
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted([*folders, *names]):
            yield Path(folder, name)
