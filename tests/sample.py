"""A made tree of files with one of everything a filesystem can hold, and some of what it seldom does."""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import crc32c

NANOSECONDS = 10**9
TIMES = {
    "y2k": 946684800 * NANOSECONDS + 1,
    "before-the-epoch": -123456789 * NANOSECONDS + 987654321,
    "after-2106": 2**32 * NANOSECONDS + 999999999,
}


def make_tree(folder: Path) -> None:
    """Fill `folder`, as root. Every file has a time of its own with nanoseconds, folders too."""
    source = random.Random(11)
    contents(folder / "contents", source)
    holes(folder / "holes", source)
    names(folder / "names")
    links(folder / "links", source)
    special(folder / "special")
    attributes(folder / "attributes")
    many(folder / "many", source)
    set_times(folder, source)


def contents(folder: Path, source: random.Random) -> None:
    """Files around the limits of inline data and of extents, some of which compress and some not."""
    folder.mkdir()
    for size in (0, 1, 100, 2047, 2048, 2049, 3900, 4095, 4096, 4097, 8191, 65536, 131072, 131073, 1 << 20):
        (folder / f"random-{size}").write_bytes(source.randbytes(size))
        (folder / f"text-{size}").write_bytes((b"btrfs " * (size // 6 + 1))[:size])
    (folder / "half").write_bytes(b"x" * 300_000 + source.randbytes(300_000) + b"y" * 300_000)
    (folder / "big").write_bytes(source.randbytes(5_000_001))
    (folder / "zeros").write_bytes(bytes(500_000))


def holes(folder: Path, source: random.Random) -> None:
    folder.mkdir()
    shapes = {
        "only": (1 << 30, []),
        "first": (1 << 20, [((1 << 20) - 5000, 5000)]),
        "middle": (3 << 20, [(0, 4096), (2 << 20, 1 << 20)]),
        "last": (9 << 20, [(0, 123_456)]),
        "comb": (2 << 20, [(start, 4096) for start in range(0, 2 << 20, 65536)]),
        "far": (5 << 30, [(3 << 30, 10), ((4 << 30) + 4097, 10)]),
        "small": (4000, []),
    }
    for name, (size, parts) in shapes.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
            for start, length in parts:
                file.seek(start)
                file.write(source.randbytes(length))
            os.fsync(file.fileno())


def names(folder: Path) -> None:
    """Names of every kind of bytes; among them two pairs whose hashes collide."""
    folder.mkdir()
    odd = [bytes([byte]) for byte in range(1, 256) if byte not in b"./"]
    odd += [
        b"...",
        b" ",
        b"-rf",
        b"a" * 255,
        b"\xff" * 255,
        "größe-文件-🐮".encode(),
        b"new\nline\ttab",
        b"c:\\x",
    ]
    for name in odd:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(name)
    for number, name in enumerate(colliding(b"collide-", 2)):
        (folder / name.decode()).write_text(str(number))


def colliding(prefix: bytes, pairs: int) -> Iterator[bytes]:
    """Names, two by two of one length and one crc32c: their hash in a directory is then the same too."""
    seen: dict[int, bytes] = {}
    for number in range(10**7):
        name = b"%s%08x" % (prefix, number * 2654435761 % 2**32)
        twin = seen.setdefault(crc32c.crc32c(name), name)
        if twin is not name:
            yield from (twin, name)
            pairs -= 1
            if not pairs:
                return
    raise AssertionError(f"no two names from {prefix!r} collide")


def links(folder: Path, source: random.Random) -> None:
    """Hard links near and far, so many that they need extended references; symlinks."""
    folder.mkdir()
    (folder / "one").write_bytes(source.randbytes(10_000))
    (folder / "below").mkdir()
    for name in ("two", "below/three", "below/" + "four" * 50):
        (folder / name).hardlink_to(folder / "one")
    (folder / "crowd").write_text("the same file under many long names")
    for number in range(300):
        (folder / f"{number:04}-{'n' * 240}").hardlink_to(folder / "crowd")
    (folder / "symlink").symlink_to("one")
    (folder / "symlink-dangling").symlink_to("../no such file")
    (folder / "symlink-odd").symlink_to(os.fsdecode(b"\xff\xfe\x01"))
    (folder / "symlink-long").symlink_to("x/" * 1000)
    (folder / "symlink-hard").hardlink_to(folder / "symlink")


def special(folder: Path) -> None:
    folder.mkdir()
    special_files(folder)


def special_files(folder: Path) -> None:
    """A FIFO, devices and a socket."""
    os.mkfifo(folder / "fifo", 0o622)
    os.mknod(folder / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(folder / "block", 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(folder, os.O_PATH)  # a socket's path has to be short
        try:
            listener.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)


def attributes(folder: Path) -> None:
    """Owners, modes, extended attributes, ACLs, capabilities."""
    folder.mkdir()
    for number, mode in enumerate((0o000, 0o400, 0o777, 0o4755, 0o2755, 0o6711, 0o1644)):
        path = folder / f"mode-{mode:04o}"
        path.write_text("x")
        os.chown(path, number * 1000, 2**32 - 2 - number)
        path.chmod(mode)
    (folder / "sticky").mkdir()
    (folder / "sticky").chmod(0o3777)
    path = folder / "xattrs"
    path.write_text("x")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.bytes", bytes(range(256)))
    os.setxattr(path, "user.long", b"v" * 2500)
    os.setxattr(path, "trusted.overlay.opaque", b"y")
    for number, name in enumerate(colliding(b"user.hash", 1)):
        os.setxattr(path, name, b"%d" % number)
    os.symlink("xattrs", folder / "symlink")
    os.setxattr(folder / "symlink", "trusted.of-a-symlink", b"1", follow_symlinks=False)
    (folder / "capable").write_text("x")
    os.setxattr(folder / "capable", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    (folder / "acl").mkdir()
    (folder / "acl" / "file").write_text("x")
    for entries in (["-m", "u:1234:rwx,g:4321:r-x"], ["-d", "-m", "u:99:rw-"]):
        subprocess.run(["setfacl", *entries, folder / "acl"], check=True)
    subprocess.run(["setfacl", "-m", "u:1:r--,m::r--", folder / "acl" / "file"], check=True)


def many(folder: Path, source: random.Random) -> None:
    """Enough files for trees of several levels, some deep down."""
    folder.mkdir()
    for number in range(3000):
        (folder / f"file-{number:05}").write_bytes(source.randbytes(source.randrange(200)))
    deep = folder
    for level in range(60):
        deep = deep / f"level-{level}"
        deep.mkdir()
    (deep / "bottom").write_text("deep down")


def set_times(folder: Path, source: random.Random) -> None:
    """Give everything a time to the nanosecond, and a few files very old and very new ones."""
    for name, time in TIMES.items():
        (folder / name).write_text(name)
        os.utime(folder / name, ns=(time, time))
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in sorted([*folders, *files]):
            if name in TIMES:
                continue
            path = os.path.join(parent, name)
            time = source.randrange(10**18, 17 * 10**17)
            os.utime(path, ns=(time, time), follow_symlinks=False)
    os.utime(folder, ns=(10**18, 10**18 + 7))
