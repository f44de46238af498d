"""What the kernel leaves behind after random work: fsck.cow finds nothing wrong with it, as `btrfs check` does."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fsck_cow.problems import Severity
from tests import oracles
from tests.fsck_cow import craft
from tests.workload import Worker, btrfs, clone

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
        with oracles.mounted(devices[0], options=mount) as top:
            Worker(top, 10 * seed + part).run(120)
        assert_clean(devices)


def test_quotas(make_devices: MakeDevices) -> None:
    """Groups of two levels, with limits."""
    devices = make_devices(1, 400 * MIB)
    make(devices)
    with oracles.mounted(devices[0]) as top:
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
    with oracles.mounted(devices[0]) as top:
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
    with oracles.mounted(devices[0]) as top:
        Worker(top, 8).run(150)
        btrfs("balance", "start", "--full-balance", top)
        btrfs("balance", "start", "-dconvert=raid0", top)
    assert_clean(devices)


def test_full_of_copies(make_devices: MakeDevices) -> None:
    """One file extent referred to a thousand times, by clones and snapshots."""
    devices = make_devices(1, 300 * MIB)
    make(devices, "-n", "4096")
    with oracles.mounted(devices[0]) as top:
        btrfs("subvolume", "create", top / "one")
        (top / "one" / "first").write_bytes(os.urandom(100_000))
        for number in range(600):
            clone(top / "one" / "first", top / "one" / f"{number}")
        for number in range(5):
            btrfs("subvolume", "snapshot", top / "one", top / f"snapshot-{number}")
        shutil.rmtree(top / "snapshot-2", ignore_errors=True)
    assert_clean(devices)
