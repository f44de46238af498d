"""What users do to a mounted filesystem: in its first second, and at random for longer."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests import oracles

MIB = 1 << 20


def use(mountpoint: Path) -> dict[str, str]:
    """Write files big, small and odd, a subvolume and a snapshot; delete some; return digests by path."""
    source = random.Random(5)
    (mountpoint / "big").write_bytes(source.randbytes(6 << 20))
    (mountpoint / "text").write_bytes(b"the same line again\n" * 100_000)
    folder = mountpoint / "folder"
    folder.mkdir()
    for number in range(200):
        (folder / f"small-{number:03}").write_bytes(source.randbytes(source.randrange(6000)))
    os.link(folder / "small-007", mountpoint / "link")
    (mountpoint / "symlink").symlink_to("folder/small-007")
    os.setxattr(folder, "user.colour", b"green")
    with (mountpoint / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"after the hole")
        os.posix_fallocate(file.fileno(), 8 << 20, 1 << 20)
    subvolume = mountpoint / "subvolume"
    btrfs("subvolume", "create", subvolume)
    (subvolume / "file").write_bytes(source.randbytes(100_000))
    btrfs("subvolume", "snapshot", "-r", subvolume, mountpoint / "snapshot")
    (subvolume / "file").write_bytes(source.randbytes(50_000))
    oracles.sync(mountpoint)
    for number in range(0, 200, 3):
        (folder / f"small-{number:03}").unlink()
    with (mountpoint / "big").open("r+b") as file:
        file.seek(1 << 20)
        file.write(source.randbytes(1 << 20))
    return digests(mountpoint)


def digests(mountpoint: Path) -> dict[str, str]:
    """The sha256 of every regular file below `mountpoint`, by path."""
    found = {}
    for folder, _, names in os.walk(mountpoint):
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                found[str(path.relative_to(mountpoint))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def btrfs(*arguments: str | Path, check: bool = True) -> str:
    """A btrfs command, which has to succeed unless told otherwise; what it prints is returned."""
    said = subprocess.run([oracles.progs().btrfs, *arguments], check=check, capture_output=True, text=True)
    return said.stdout


def clone(source: Path, target: Path) -> None:
    """Makes ``target`` a file that shares all blocks of ``source``."""
    with source.open("rb") as one, target.open("wb") as other:
        fcntl.ioctl(other, 0x40049409, one.fileno())  # FICLONE


def noise(source: random.Random, size: int, share: int = 64) -> bytes:
    """Bytes of which, in each KiB, ``share`` of 64 are random and the rest are the same again."""
    if share == 64:
        return source.randbytes(size)
    unit = 16 * share
    return b"".join((source.randbytes(unit) * (64 // share))[: size - at] for at in range(0, size, 1024))


class Worker:
    """Does one random thing after the other to a mounted filesystem; of random bytes ``noise`` of 64 are."""

    def __init__(self, top: Path, seed: int, noise: int = 64) -> None:
        self.top = top
        self.noise = noise
        self.source = random.Random(seed)
        self.subvolumes = [top]
        self.count = 0
        self.steps = (
            self.write,
            self.write,
            self.overwrite,
            self.punch,
            self.allocate,
            self.reflink,
            self.link,
            self.rename,
            self.remove,
            self.directory,
            self.attributes,
            self.truncate,
            self.compress,
            self.subvolume,
            self.snapshot,
            self.delete_subvolume,
            self.sync,
        )

    def run(self, steps: int) -> None:
        """So many things."""
        for _ in range(steps):
            with contextlib.suppress(OSError, LookupError, subprocess.SubprocessError):  # nothing there, no space
                self.source.choice(self.steps)()

    def new(self) -> Path:
        """A path that does not exist, anywhere."""
        self.count += 1
        folders = [self.top, *self._all(Path.is_dir)]
        name = f"{self.count}-{'n' * self.source.choice((0, 5, 200))}"
        return self.source.choice(folders) / name

    def old(self) -> Path:
        """A regular file."""
        return self.source.choice(self._all(lambda path: path.is_file() and not path.is_symlink()))

    def _all(self, wanted: Callable[[Path], bool]) -> list[Path]:
        return sorted(path for path in self.top.rglob("*") if wanted(path))

    def bytes(self, size: int) -> bytes:
        """Random ones, or some of them again and again."""
        return noise(self.source, size, self.noise)

    def write(self) -> None:
        size = self.source.choice((0, 30, 2000, 4096, 20_000, 300_000, 2 * MIB))
        body = self.bytes(size) if self.source.random() < 0.5 else b"again " * (size // 6)
        self.new().write_bytes(body)

    def overwrite(self) -> None:
        with self.old().open("r+b") as file:
            file.seek(self.source.randrange(400_000))
            file.write(self.bytes(self.source.randrange(1, 60_000)))
            if self.source.random() < 0.3:
                os.fsync(file.fileno())

    def punch(self) -> None:
        start, length = self.source.randrange(0, 200_000), self.source.randrange(1, 100_000)
        subprocess.run(["fallocate", "-p", "-o", str(start), "-l", str(length), self.old()], capture_output=True)

    def allocate(self) -> None:
        with self.old().open("r+b") as file:
            os.posix_fallocate(file.fileno(), self.source.randrange(500_000), self.source.randrange(1, 500_000))

    def reflink(self) -> None:
        clone(self.old(), self.new())

    def link(self) -> None:
        if self.source.random() < 0.5:
            self.new().symlink_to("x" * self.source.randrange(1, 300))
        else:
            self.new().hardlink_to(self.old())

    def rename(self) -> None:
        self.old().rename(self.new())

    def remove(self) -> None:
        for _ in range(self.source.randrange(1, 6)):
            self.old().unlink()

    def directory(self) -> None:
        self.new().mkdir()

    def attributes(self) -> None:
        path = self.old()
        os.setxattr(path, f"user.{self.source.randrange(5)}", self.source.randbytes(self.source.choice((0, 9, 900))))
        path.chmod(self.source.choice((0o600, 0o4755)))

    def truncate(self) -> None:
        os.truncate(self.old(), self.source.randrange(0, 500_000))

    def compress(self) -> None:
        path = self.new()
        path.touch()
        btrfs("property", "set", path, "compression", self.source.choice(("zstd", "lzo", "zlib")))
        path.write_bytes(b"the same words " * self.source.randrange(1, 40_000))

    def subvolume(self) -> None:
        path = self.new()
        btrfs("subvolume", "create", path)
        self.subvolumes.append(path)

    def snapshot(self) -> None:
        path = self.new()
        options = ["-r"] if self.source.random() < 0.3 else []
        btrfs("subvolume", "snapshot", *options, self.source.choice(self.subvolumes), path, check=False)
        if path.exists():
            self.subvolumes.append(path)

    def delete_subvolume(self) -> None:
        if len(self.subvolumes) > 3:
            victim = self.subvolumes.pop(self.source.randrange(1, len(self.subvolumes)))
            btrfs("subvolume", "delete", victim, check=False)

    def sync(self) -> None:
        oracles.sync(self.top)
