"""What a user does to a fresh filesystem in its first second, through the kernel."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

from tests import oracles


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
    _btrfs("subvolume", "create", subvolume)
    (subvolume / "file").write_bytes(source.randbytes(100_000))
    _btrfs("subvolume", "snapshot", "-r", subvolume, mountpoint / "snapshot")
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


def _btrfs(*arguments: str | Path) -> None:
    subprocess.run([oracles.progs().btrfs, *arguments], check=True, capture_output=True)
