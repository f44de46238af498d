"""The shapes of filesystems that are made: how, mounted how, and what happens to them beside what happens to all."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import oracles
from tests.images import contents
from tests.workload import Worker, btrfs, clone, noise

MIB = 1 << 20

#: Something done to the mounted filesystem.
Step = Callable[[Path], None]

#: Something done to the device images of an unmounted one.
Later = Callable[[list[Path]], None]

_NO_FREE_SPACE_TREE = "^free-space-tree,^block-group-tree"


@dataclass(frozen=True)
class Shape:
    """How a filesystem is made.

    ``count`` devices of ``size`` bytes, ``mkfs`` and ``mount`` are options. ``first`` comes before the contents,
    ``last`` after them; ``cut``: the devices are taken while it is mounted, as if power failed; ``later`` is done to
    the images.
    """

    why: str
    count: int = 1
    size: int = 256 * MIB
    mkfs: tuple[str, ...] = ()
    mount: tuple[str, ...] = ()
    first: Step | None = None
    last: Step | None = None
    cut: bool = False
    later: Later | None = None


def _allocate_a_chunk(top: Path) -> None:
    """Space beyond what mkfs.btrfs set aside: only block groups of more than 100 MiB have a cache."""
    with (top / "room").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 20 * MIB)


def _delete_a_subvolume(top: Path) -> None:
    """It is gone for users; its tree goes later."""
    oracles.sync(top)
    btrfs("subvolume", "delete", top / "snapshot-2")


def _quotas(top: Path) -> None:
    btrfs("quota", "enable", top)


def _groups(top: Path) -> None:
    """Groups of two levels, with limits, counted to the end."""
    number = btrfs("inspect-internal", "rootid", top / "volume").strip()
    btrfs("qgroup", "create", "1/7", top)
    btrfs("qgroup", "assign", "--no-rescan", f"0/{number}", "1/7", top)
    btrfs("qgroup", "limit", "500M", f"0/{number}", top)
    btrfs("quota", "rescan", "-w", top)


def _simple_quotas(top: Path) -> None:
    btrfs("quota", "enable", "--simple", top)


def _log(top: Path) -> None:
    """Much that was synced by itself, and is in no commit yet."""
    oracles.sync(top)
    folder = top / "logged"
    folder.mkdir()
    for number in range(12):
        path = folder / f"file-{number}"
        path.write_bytes(b"%d" % number * 3000)
        _fsync(path)
    (top / "data" / "text").rename(folder / "renamed")
    _fsync(folder / "renamed")
    (folder / "linked").hardlink_to(top / "data" / "noise")
    with (top / "data" / "noise").open("r+b") as file:
        file.seek(50_000)
        file.write(b"a few bytes more")
        os.fsync(file.fileno())
    os.setxattr(folder, "user.colour", b"green")
    (top / "many" / "file-0001").unlink()
    _fsync(top / "many")
    (top / "volume" / "logged").write_bytes(b"in another subvolume" * 500)
    _fsync(top / "volume" / "logged")


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _grow(top: Path) -> None:
    contents.grow(top, 1200)


def _crowd(top: Path) -> None:
    contents.crowd(top / "crowd", 2500)


def _half_dropped(images: list[Path]) -> None:
    """Deletes a subvolume of many nodes and unmounts while the kernel is at it, as often as that takes."""
    kept = images[0].with_suffix(".before")
    subprocess.run(["cp", "--sparse=always", images[0], kept], check=True)
    for attempt in range(60):
        with oracles.loop(images[0]) as device, oracles.mounted(device) as top:
            btrfs("subvolume", "delete", top / "crowd")
            oracles.sync(top)
            contents.wake_cleaner(top)
            time.sleep(0.0005 * attempt)
            contents.unmount_at_once(top)
        if _drop_progress(images[0]):
            kept.unlink()
            return
        subprocess.run(["cp", "--sparse=always", kept, images[0]], check=True)
    raise RuntimeError("the kernel was never caught while it dropped a subvolume")


def _drop_progress(image: Path) -> bool:
    said = btrfs("inspect-internal", "dump-tree", "-t", "root", image)
    return re.search(r"drop_progress key \([^0]", said) is not None


def _pause_a_balance(top: Path) -> None:
    """Leaves its item behind; nothing of it is needed."""
    oracles.sync(top)
    process = subprocess.Popen(
        [oracles.progs().btrfs, "balance", "start", "--full-balance", top],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while subprocess.run([oracles.progs().btrfs, "balance", "pause", top], capture_output=True).returncode:
        if process.poll() is not None:
            raise RuntimeError("the balance was over before it could be paused")
    process.wait()


def _balance(top: Path) -> None:
    oracles.sync(top)
    btrfs("balance", "start", "--full-balance", top)


def _chain(top: Path) -> None:
    """Snapshots of snapshots of snapshots; each third one is deleted."""
    before = top / "volume"
    for number in range(20):
        after = top / f"link-{number:02}"
        btrfs("subvolume", "snapshot", before, after)
        (after / "folder" / f"file-{number:03}").write_bytes(b"%d" % number * 30)
        before = after
    oracles.sync(top)
    for number in range(0, 20, 3):
        btrfs("subvolume", "delete", top / f"link-{number:02}")


def _many_references(top: Path) -> None:
    """One extent in so many files of so many snapshots that it has references of all kinds outside of its item."""
    btrfs("subvolume", "create", top / "clones")
    (top / "clones" / "first").write_bytes(b"shared " * 3000)
    for number in range(300):
        clone(top / "clones" / "first", top / "clones" / f"{number}")
    for number in range(3):
        oracles.sync(top)
        btrfs("subvolume", "snapshot", top / "clones", top / f"clones-{number}")
        for other in range(number, 300, 60):
            (top / "clones" / f"{other}").unlink()


def _metadata_uuid(images: list[Path]) -> None:
    program = shutil.which("btrfstune", path=str(Path(oracles.progs().btrfs).parent))
    if program is None:
        raise RuntimeError("btrfstune is not beside btrfs")
    subprocess.run([program, "-f", "-m", images[0]], check=True, capture_output=True)


def _received(top: Path) -> None:
    """A subvolume that was sent and received here."""
    (top / "received").mkdir()
    btrfs("subvolume", "snapshot", "-r", top / "volume", top / "sent")
    oracles.sync(top)
    program = oracles.progs().btrfs
    stream = subprocess.run([program, "send", "-q", top / "sent"], check=True, capture_output=True).stdout
    subprocess.run([program, "receive", "-q", top / "received"], input=stream, check=True, capture_output=True)


SHAPES: Mapping[str, Shape] = {
    "default": Shape("as mkfs.btrfs makes it", last=_delete_a_subvolume),
    "node4k-bgt": Shape("4 KiB nodes, and so trees of several levels", mkfs=("-n", "4096")),
    "node64k-xxh": Shape("64 KiB nodes, xxhash", mkfs=("-n", "65536", "--csum", "xxhash")),
    "sha256-nofst": Shape(
        "sha256, a free-space cache of old",
        mkfs=("--csum", "sha256", "-O", _NO_FREE_SPACE_TREE),
        mount=("space_cache=v1",),
    ),
    "space-cache": Shape(
        "crc32c, a free-space cache of old",
        size=2048 * MIB,
        mkfs=("-O", _NO_FREE_SPACE_TREE),
        mount=("space_cache=v1",),
        first=_allocate_a_chunk,
    ),
    "blake2-holes": Shape("blake2, explicit holes", mkfs=("--csum", "blake2", "-O", "^no-holes,^block-group-tree")),
    "noskinny": Shape("no skinny metadata, no block-group tree", mkfs=("-O", "^skinny-metadata,^block-group-tree")),
    "mixed": Shape("data and metadata mixed", mkfs=("-M",), last=_many_references),
    "single-zstd": Shape("everything compressed by zstd", mkfs=("-m", "single"), mount=("compress-force=zstd",)),
    "lzo": Shape("everything compressed by lzo", mount=("compress-force=lzo",)),
    "raid0": Shape("striped", 2, mkfs=("-d", "raid0", "-m", "raid0")),
    "raid1": Shape("mirrored", 2, mkfs=("-d", "raid1", "-m", "raid1")),
    "raid10": Shape("mirrored and striped", 4, mkfs=("-d", "raid10", "-m", "raid10")),
    "raid1c3": Shape("three copies", 3, mkfs=("-d", "raid1c3", "-m", "raid1c3")),
    "raid1c4": Shape("four copies", 4, mkfs=("-d", "raid1c4", "-m", "raid1c4")),
    "raid5": Shape("one parity", 3, mkfs=("-d", "raid5", "-m", "raid5")),
    "raid6": Shape("two parities", 4, mkfs=("-d", "raid6", "-m", "raid6")),
    "quota": Shape("quota groups of two levels", first=_quotas, last=_groups),
    "squota": Shape("simple quotas", first=_simple_quotas),
    "dirty-log": Shape("a log to replay", mount=("commit=300",), last=_log, cut=True),
    "half-dropped": Shape("a subvolume being deleted", mkfs=("-n", "4096"), last=_crowd, later=_half_dropped),
    "grown": Shape("trees of three levels, shared by snapshots", mkfs=("-n", "4096"), last=_grow),
    "chain": Shape("snapshots of snapshots", last=_chain),
    "paused-balance": Shape("a balance to go on with", last=_pause_a_balance),
    "balanced": Shape("everything moved by a balance", last=_balance),
    "metadata-uuid": Shape("another fsid since", later=_metadata_uuid),
    "received": Shape("a subvolume that was received", last=_received),
}
"""The small ones, by name."""


def _more(seed: int, steps: int) -> Step:
    def work(top: Path) -> None:
        for part in range(2):
            Worker(top / "work", 10 * seed + part).run(steps)
            oracles.sync(top)
        (top / "big").write_bytes(noise(random.Random(seed), 40 * MIB))

    return work


LARGE: Mapping[str, Shape] = {
    "large": Shape("thousands of files, dozens of MiB", size=2048 * MIB, last=_more(1, 400)),
}
"""Those that are made on the spot."""
