"""Makes the images: `COW_BTRFS_PROGS=DIR python -m tests.images.make [NAME...]`, as root.

A filesystem is made by mkfs.btrfs, filled through the kernel from a seed, and packed with what the kernel read back
and what btrfs-progs print of it. UUIDs and times are of the day they are made; everything else follows from the seed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests import oracles
from tests.images import contents
from tests.images.shapes import SHAPES, Shape
from tests.trees import data_ranges

FOLDER = Path(__file__).resolve().parent
INDEX = FOLDER / "index.csv"
SUFFIX = ".tar.xz"

#: Another one gives other filesystems of the same shapes.
SEED = 1


def seed_of(name: str) -> int:
    """The seed of one image."""
    return zlib.crc32(name.encode()) ^ SEED


def make(name: str, shape: Shape, folder: Path, **sizes: int) -> None:
    """Makes the filesystem ``name`` in ``folder``: devN.img, manifest.jsonl, and what btrfs-progs print."""
    oracles.require_oracle("mount", "progs")
    images = [oracles.sparse(folder / f"dev{number}.img", shape.size) for number in range(1, shape.count + 1)]
    command: list[str | Path] = [oracles.progs().mkfs, "-q", "-f", "-K", "-L", name, *shape.mkfs, *images]
    subprocess.run(command, check=True, capture_output=True)
    taken = []
    with _mounted(images, shape.mount) as top:
        if shape.first:
            shape.first(top)
        contents.fill(top, seed_of(name), **sizes)
        if shape.last:
            shape.last(top)
        if shape.cut:
            taken = [_copy(image, image.with_suffix(".cut")) for image in images]
    for image, cut in zip(images, taken, strict=False):
        cut.rename(image)
    if shape.later:
        shape.later(images)
    _describe(folder, images)


def _describe(folder: Path, images: list[Path]) -> None:
    """What the kernel reads, and what btrfs-progs print: the dumps are from before the kernel may replay a log."""
    btrfs = oracles.progs().btrfs
    with ExitStack() as stack:
        devices = stack.enter_context(oracles.loops(images))
        for which, arguments in {
            "dump-tree": ["inspect-internal", "dump-tree"],
            "dump-super": ["inspect-internal", "dump-super", "-fa"],
            "check": ["check"],
        }.items():
            said = subprocess.run(
                [btrfs, *arguments, devices[0]],
                capture_output=True,
                env={"TZ": "UTC", "LC_ALL": "C", "PATH": os.defpath},
            )
            if said.returncode:
                raise RuntimeError(f"btrfs {' '.join(arguments)}: {said.stderr.decode(errors='replace')}")
            text = said.stdout.replace(f"device={devices[0]}\n".encode(), b"device=DEVICE\n")
            (folder / f"{which}.txt").write_bytes(text)
    copies = [_copy(image, image.with_suffix(".read")) for image in images]
    with _mounted(copies, ("skip_balance",)) as top, (folder / "manifest.jsonl").open("w", encoding="utf-8") as lines:
        for entry in manifest(top):
            lines.write(json.dumps(entry, sort_keys=True) + "\n")
    for copy in copies:
        copy.unlink()


@contextmanager
def _mounted(images: list[Path], options: tuple[str, ...] = ()) -> Iterator[Path]:
    with oracles.loops(images) as devices:
        oracles.scan(devices)
        with oracles.mounted(devices[0], options=options) as top:
            yield top


def manifest(top: Path) -> Iterator[dict[str, Any]]:
    """What there is below a mount point, a dict a path; subvolumes are walked into."""
    for path in [top, *contents.everything(top)]:
        status = path.lstat()
        entry: dict[str, Any] = {
            "path": str(path.relative_to(top)),
            "mode": oct(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime": status.st_mtime_ns,
        }
        if not stat.S_ISDIR(status.st_mode):
            entry |= {"nlink": status.st_nlink, "size": status.st_size}
        if stat.S_ISREG(status.st_mode):
            entry["sha256"] = _digest(path)
        elif stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(path)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            entry["rdev"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
        names = os.listxattr(path, follow_symlinks=False)
        if names:
            entry["xattrs"] = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(names)}
        yield entry


def _digest(path: Path) -> str:
    """The sha256 of a file's bytes, of the zeros in its holes too."""
    found, zeros, at = hashlib.sha256(), bytes(1 << 20), 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for start, end in [*data_ranges(file.fileno(), size), (size, size)]:
            for hole in range(at, start, len(zeros)):
                found.update(zeros[: start - hole])
            for at in range(start, end, len(zeros)):
                found.update(os.pread(file.fileno(), min(len(zeros), end - at), at))
            at = end
    return found.hexdigest()


def _copy(image: Path, target: Path) -> Path:
    subprocess.run(["cp", "--sparse=always", image, target], check=True)
    return target


def pack(folder: Path, archive: Path) -> None:
    """All that is in ``folder``, with its holes; copies of a block are there once."""
    scratch = archive.with_suffix(".part")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "XZ_OPT": "-9e", "LC_ALL": "C"}
    owners = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@0"]
    command: list[str | Path] = ["tar", "-cJSf", scratch, *owners, "-C", folder.parent, folder.name]
    subprocess.run(command, check=True, env=environment)
    scratch.rename(archive)


def main(names: list[str]) -> None:
    """Makes these images, or all, packs them, and keeps the index."""
    unknown = set(names) - set(SHAPES)
    if unknown:
        sys.exit(f"no such shapes: {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    for name in names or SHAPES:
        with tempfile.TemporaryDirectory(prefix="cowtools-images-") as scratch:
            folder = Path(scratch, name)
            folder.mkdir()
            make(name, SHAPES[name], folder)
            archive = FOLDER / f"{name}{SUFFIX}"
            pack(folder, archive)
        enter(name)
        print(f"{name}: {archive.stat().st_size:,} bytes", flush=True)


def enter(name: str) -> None:
    """Notes in the index that an image was just made, and by what."""
    rows = {}
    if INDEX.exists():
        with INDEX.open(encoding="utf-8", newline="") as table:
            rows = {row["image"]: row for row in csv.DictReader(table)}
    rows[name] = {
        "image": name,
        "seed": str(seed_of(name)),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "progs": ".".join(map(str, oracles.progs().version)),
        "what": SHAPES[name].why,
    }
    with INDEX.open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, ["image", "seed", "kernel", "progs", "what"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[known] for known in SHAPES if known in rows)


if __name__ == "__main__":
    if shutil.which("tar") is None or shutil.which("xz") is None:
        sys.exit("needs the programs tar and xz")
    main(sys.argv[1:])
