"""Filesystems that a kernel wrote, made by `tests/images/make.py`, and more where there are some beside the checkout.

`kernel_images()` and `progs_images()` only list names, so they are free at collection time:

    @pytest.mark.parametrize("name", corpus.kernel_images())
    def test_walk(name):
        with cowlib.open(corpus.devices(name)) as fs: ...

The project's own are named by their shape ("raid1"). A corpus of images that nobody wrote for this project may lie at
`<repository>/../shared/corpus`; there, those of a kernel are named "corpus/raid1", and those of the progs kind come
from the test suite of btrfs-progs. `devices`, `image` and the others unpack on first use, once a session. What they
return is shared: a test which writes takes a `copy`.
"""

from __future__ import annotations

import atexit
import csv
import functools
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tests import oracles

OWN = Path(__file__).resolve().parent / "images"
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
BESIDE = "corpus/"
SUFFIX = ".tar.xz"


@dataclass(frozen=True)
class Verdict:
    """What `btrfs check` said of one image of the progs kind."""

    image: str
    damaged: bool
    damaged_after_repair: bool
    first_errors: str


def kernel_images(*shapes: str) -> list[str]:
    """Names of the filesystems a kernel wrote, all of them clean: all, or those of these shapes."""
    found = [*_names(OWN), *(BESIDE + name for name in _names(CORPUS / "kernel"))]
    return [name for name in found if not shapes or shape(name) in shapes]


def progs_images() -> list[str]:
    """Names of the single-device images from the btrfs-progs test suite. Empty without the corpus."""
    return _names(CORPUS / "progs")


def shape(name: str) -> str:
    """The shape of a kernel image, wherever it comes from."""
    return name.removeprefix(BESIDE)


def unpack(name: str) -> Path:
    """The folder of a kernel image, unpacked once a session."""
    above = CORPUS / "kernel" if name.startswith(BESIDE) else OWN
    return _unpacked(above / f"{shape(name)}{SUFFIX}") / shape(name)


def devices(name: str) -> list[Path]:
    """The device images of the kernel image `name`, in order of their numbers."""
    return _devices(unpack(name))


def image(name: str) -> Path:
    """The one device image of the progs image `name`; skips without the corpus."""
    if not CORPUS.is_dir():
        pytest.skip("no corpus of images beside the checkout")
    return _unpacked(CORPUS / "progs" / f"{name}{SUFFIX}") / f"{name}.raw"


def manifest(name: str) -> list[dict[str, Any]]:
    """What the kernel read back from the kernel image `name`, one dict a path."""
    with (unpack(name) / "manifest.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def text(name: str, which: Literal["dump-tree", "dump-super", "check"]) -> str:
    """What btrfs-progs printed of the kernel image `name`. Odd bytes survive as surrogates."""
    return read_text(unpack(name), which)


def read_text(folder: Path, which: Literal["dump-tree", "dump-super", "check"]) -> str:
    """What btrfs-progs printed of the filesystem that was made in ``folder``."""
    return (folder / f"{which}.txt").read_text(encoding="utf-8", errors="surrogateescape")


def verdicts() -> dict[str, Verdict]:
    """`btrfs check`'s verdict by name of a progs image. Empty without the corpus."""
    try:
        table = (CORPUS / "progs" / "verdicts.csv").open(encoding="utf-8", newline="")
    except FileNotFoundError:
        return {}
    with table:
        return {
            row["image"]: Verdict(
                image=row["image"],
                damaged=row["check"] == "damaged",
                damaged_after_repair=row["check_after_repair"] == "damaged",
                first_errors=row["first_errors"],
            )
            for row in csv.DictReader(table)
        }


def large(name: str) -> tuple[Path, list[Path]]:
    """The folder and the devices of an image too large to be kept in the repository, made when it is first asked for.

    It stays in the user's cache until what makes it changes. Skips where it can't be made.
    """
    folder = _cache() / name
    if not (folder / "manifest.jsonl").exists():
        oracles.require_oracle("mount", "progs")
        from tests.images.make import make
        from tests.images.shapes import LARGE

        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=folder.parent) as scratch:
            make(name, LARGE[name], Path(scratch), files=3000)
            folder.mkdir()
            for path in sorted(Path(scratch).iterdir(), key=lambda path: path.name == "manifest.jsonl"):
                path.rename(folder / path.name)
    return folder, _devices(folder)


def copy(path: Path, folder: Path) -> Path:
    """A sparse copy of one image in `folder`, for a test which writes to it."""
    target = folder / path.name
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", path, target], check=True)
    target.chmod(0o600)
    return target


def _devices(folder: Path) -> list[Path]:
    return sorted(folder.glob("dev*.img"), key=lambda path: int(path.stem.removeprefix("dev")))


def _names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))


def _cache() -> Path:
    """Where images stay between sessions: a folder for each state of what makes them, btrfs-progs included."""
    state = hashlib.sha256(str(oracles.find_progs()).encode())
    for path in sorted([*OWN.glob("*.py"), OWN.parent / "workload.py"]):
        state.update(path.read_bytes())
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(above, "cowtools-tests", f"images-{state.hexdigest()[:12]}")


@functools.cache
def _session_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cowtools-corpus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _unpacked(archive: Path) -> Path:
    """Unpack `archive` with its holes, in a folder of its own: images are up to terabytes long and a few MB heavy."""
    folder = Path(tempfile.mkdtemp(dir=_session_folder()))
    if shutil.which("tar") and shutil.which("xz"):
        subprocess.run(["tar", "-xJSf", archive, "-C", folder, "--no-same-owner"], check=True)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return folder
