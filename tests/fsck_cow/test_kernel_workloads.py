"""What the kernel leaves behind after random work: fsck.cow finds nothing wrong with it, as `btrfs check` does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fsck_cow.problems import Severity
from tests import oracles
from tests.fsck_cow import craft

pytestmark = pytest.mark.oracle

MIB = 1 << 20

#: mkfs.btrfs forgets to take out the free space of block groups that it has only for a while.
LEFT_BY_MKFS = {"free-space.info-orphan"}

MakeDevices = Callable[[int, int], list[str]]


def assert_clean(devices: list[str]) -> None:
    """Neither fsck.cow, reading all data, nor `btrfs check` finds anything worse than a note."""
    report = craft.check([Path(device) for device in devices], data=True)
    bad = [problem for problem in report.problems if problem.severity > Severity.NOTE]
    told = [str(problem) for problem in bad if problem.code not in LEFT_BY_MKFS]
    assert not told, "\n".join(told[:10])
    oracles.btrfs_check(devices[0])


def make(devices: list[str], *options: str) -> None:
    """A fresh filesystem by mkfs.btrfs."""
    oracles.require_oracle("mount", "progs")
    subprocess.run([oracles.progs().mkfs, "-q", "-f", *options, *devices], check=True, capture_output=True)


def btrfs(*arguments: str | Path, check: bool = True) -> None:
    """A btrfs command, which has to succeed unless told otherwise."""
    subprocess.run([oracles.progs().btrfs, *arguments], check=check, capture_output=True)


class Worker:
    """Does one random thing after the other to a mounted filesystem."""

    def __init__(self, top: Path, seed: int) -> None:
        self.top = top
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

    def write(self) -> None:
        size = self.source.choice((0, 30, 2000, 4096, 20_000, 300_000, 2 * MIB))
        body = self.source.randbytes(size) if self.source.random() < 0.5 else b"again " * (size // 6)
        self.new().write_bytes(body)

    def overwrite(self) -> None:
        with self.old().open("r+b") as file:
            file.seek(self.source.randrange(400_000))
            file.write(self.source.randbytes(self.source.randrange(1, 60_000)))
            if self.source.random() < 0.3:
                os.fsync(file.fileno())

    def punch(self) -> None:
        start, length = self.source.randrange(0, 200_000), self.source.randrange(1, 100_000)
        subprocess.run(["fallocate", "-p", "-o", str(start), "-l", str(length), self.old()], capture_output=True)

    def allocate(self) -> None:
        with self.old().open("r+b") as file:
            os.posix_fallocate(file.fileno(), self.source.randrange(500_000), self.source.randrange(1, 500_000))

    def reflink(self) -> None:
        with self.old().open("rb") as source, self.new().open("wb") as target:
            fcntl.ioctl(target, 0x40049409, source.fileno())  # FICLONE

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


@pytest.mark.parametrize(
    ("seed", "count", "options", "mount"),
    [
        (1, 1, (), ()),
        (2, 1, ("-n", "4096", "--csum", "xxhash"), ("compress-force=zstd",)),
        (3, 2, ("-d", "raid1", "-m", "raid1"), ("nodatasum",)),
        (4, 3, ("-d", "raid5", "-m", "raid1"), ("max_inline=0",)),
        (5, 1, ("-M", "-O", "^no-holes", "--csum", "sha256"), ("autodefrag",)),
    ],
)
def test_random_work(
    seed: int, count: int, options: tuple[str, ...], mount: tuple[str, ...], make_devices: MakeDevices
) -> None:
    devices = make_devices(count, 400 * MIB)
    make(devices, *options)
    for part in range(2):
        with oracles.mounted(*devices, options=mount) as top:
            Worker(top, 10 * seed + part).run(120)
        assert_clean(devices)


def test_quotas(make_devices: MakeDevices) -> None:
    """Groups of two levels, with limits."""
    devices = make_devices(1, 400 * MIB)
    make(devices)
    with oracles.mounted(*devices) as top:
        btrfs("quota", "enable", top)
        btrfs("qgroup", "create", "1/7", top)
        Worker(top, 5).run(100)
        btrfs("subvolume", "create", top / "kept")
        (top / "kept" / "file").write_bytes(bytes(MIB))
        number = _subvolume_id(top / "kept")
        btrfs("qgroup", "assign", f"0/{number}", "1/7", top, check=False)
        btrfs("qgroup", "limit", "5M", f"0/{number}", top)
        btrfs("quota", "rescan", "-w", top)
        Worker(top, 6).run(40)
    assert_clean(devices)


def _subvolume_id(path: Path) -> str:
    said = subprocess.run(
        [oracles.progs().btrfs, "inspect-internal", "rootid", path], check=True, capture_output=True, text=True
    )
    return said.stdout.strip()


def test_deletion_under_way(make_devices: MakeDevices) -> None:
    """A subvolume with thousands of files is deleted, and the filesystem unmounted at once."""
    devices = make_devices(1, 400 * MIB)
    make(devices, "-n", "4096")
    with oracles.mounted(*devices) as top:
        btrfs("subvolume", "create", top / "big")
        for number in range(4000):
            (top / "big" / f"file-{number:05}").write_bytes(b"%d" % number * 300)
        btrfs("subvolume", "snapshot", top / "big", top / "snapshot")
        (top / "big" / "file-00007").write_bytes(bytes(9000))
        oracles.sync(top)
        btrfs("subvolume", "delete", "-c", top / "big")
    assert_clean(devices)


def test_balance(make_devices: MakeDevices) -> None:
    """Everything is moved, snapshots that share it too."""
    devices = make_devices(2, 500 * MIB)
    make(devices, "-d", "single", "-m", "raid1")
    with oracles.mounted(*devices) as top:
        Worker(top, 8).run(150)
        btrfs("balance", "start", "--full-balance", top)
        btrfs("balance", "start", "-dconvert=raid0", top)
    assert_clean(devices)


def test_full_of_copies(make_devices: MakeDevices) -> None:
    """One file extent referred to a thousand times, by clones and snapshots."""
    devices = make_devices(1, 300 * MIB)
    make(devices, "-n", "4096")
    with oracles.mounted(*devices) as top:
        btrfs("subvolume", "create", top / "one")
        (top / "one" / "first").write_bytes(os.urandom(100_000))
        for number in range(600):
            with (top / "one" / "first").open("rb") as source, (top / "one" / f"{number}").open("wb") as target:
                fcntl.ioctl(target, 0x40049409, source.fileno())  # FICLONE
        for number in range(5):
            btrfs("subvolume", "snapshot", top / "one", top / f"snapshot-{number}")
        shutil.rmtree(top / "snapshot-2", ignore_errors=True)
    assert_clean(devices)
