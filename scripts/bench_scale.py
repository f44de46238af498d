"""A filesystem at scale for the benchmark: a million small files, and eight snapshots with changes between them.

Seeded, so that every machine measures the same. The archive is written here; the snapshots are the kernel's own.
"""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILES = 1_000_000
SNAPSHOTS = 8

_SEED = 20260101
_PER_DIRECTORY = 1000
_SIZES = (100, 1500)  # bytes: small enough to stand in the tree, as most small files do
_EPOCH = 1_700_000_000

#: Of the files each snapshot finds so many changed, renamed and gone since the one before: one in a hundred.
_CHANGED = FILES // 100


def write_archive(path: Path, files: int = FILES) -> None:
    """A tar of ``files`` files in directories of a thousand."""
    chance = random.Random(_SEED)
    noise = chance.randbytes(2 * _SIZES[1])
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(files):
            if number % _PER_DIRECTORY == 0:
                folder = tarfile.TarInfo(_name(number).rpartition("/")[0])
                folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, _EPOCH
                archive.addfile(folder)
            member = tarfile.TarInfo(_name(number))
            member.size, member.mode, member.mtime = chance.randint(*_SIZES), 0o644, _EPOCH + number
            archive.addfile(member, io.BytesIO(noise[member.size : 2 * member.size]))


def _name(number: int) -> str:
    directory = number // _PER_DIRECTORY
    return f"part-{directory // 100:03}/{directory % 100:02}/file-{number:07}.txt"


def add_snapshots(image: Path, files: int = FILES) -> None:
    """Takes the snapshots of a filesystem that was made from the archive, changing files before each. As root."""
    chance = random.Random(_SEED)
    with _mounted(image) as top:
        for snapshot in range(SNAPSHOTS):
            for number in chance.sample(range(files), files * _CHANGED // FILES):
                path = top / _name(number)
                if not path.exists():
                    continue
                kind = chance.randrange(10)
                if kind == 0:
                    path.unlink()
                elif kind == 1:
                    path.rename(path.with_suffix(f".{snapshot}"))
                else:
                    path.write_bytes(chance.randbytes(chance.randint(*_SIZES)))
            subprocess.run(
                ["btrfs", "subvolume", "snapshot", "-r", top, top / f"snapshot-{snapshot}"],
                stdout=subprocess.DEVNULL,
                check=True,
            )


@contextmanager
def _mounted(image: Path) -> Iterator[Path]:
    folder = image.with_name("mounted")
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "btrfs", "-o", "loop,noatime", image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()
