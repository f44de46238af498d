"""Real images nobody wrote for this project, found at `<repository>/../shared/corpus`.

`kernel_images()` and `progs_images()` only list names, so they are free at collection time:

    @pytest.mark.parametrize("name", corpus.kernel_images())
    def test_walk(name):
        with cowlib.open(corpus.devices(name)) as fs: ...

`devices`, `image` and the others unpack on first use, once a session. What they return is shared: a test
which writes takes a `copy`. Where the corpus is absent the lists are empty (pytest skips such a test) and
everything else skips with the reason.
"""

from __future__ import annotations

import atexit
import csv
import functools
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
SUFFIX = ".tar.xz"

Kind = Literal["kernel", "progs"]


@dataclass(frozen=True)
class Verdict:
    """What `btrfs check` said of one image of the progs kind."""

    image: str
    damaged: bool
    damaged_after_repair: bool
    first_errors: str


def kernel_images() -> list[str]:
    """Names of the filesystems a kernel wrote, all of them clean. Empty without the corpus."""
    return _names("kernel")


def progs_images() -> list[str]:
    """Names of the single-device images from the btrfs-progs test suite. Empty without the corpus."""
    return _names("progs")


def unpack(kind: Kind, name: str) -> Path:
    """The folder of a kernel image, or the image file of a progs one; unpacked once a session."""
    return _unpacked(_require_archive(kind, name))


def devices(name: str) -> list[Path]:
    """The device images of the kernel image `name`, in order of their numbers."""
    folder = unpack("kernel", name)
    return sorted(folder.glob("dev*.img"), key=lambda path: int(path.stem.removeprefix("dev")))


def image(name: str) -> Path:
    """The one device image of the progs image `name`."""
    return unpack("progs", name)


def manifest(name: str) -> list[dict[str, Any]]:
    """What the kernel read back from the kernel image `name`, one dict a path."""
    with (unpack("kernel", name) / "manifest.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def text(name: str, which: Literal["dump-tree", "dump-super", "check"]) -> str:
    """What btrfs-progs printed of the kernel image `name`. Odd bytes survive as surrogates."""
    path = unpack("kernel", name) / f"{which}.txt"
    return path.read_text(encoding="utf-8", errors="surrogateescape")


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


def copy(path: Path, folder: Path) -> Path:
    """A sparse copy of one image in `folder`, for a test which writes to it."""
    target = folder / path.name
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", path, target], check=True)
    target.chmod(0o600)
    return target


def _names(kind: Kind) -> list[str]:
    return sorted(path.name.removesuffix(SUFFIX) for path in (CORPUS / kind).glob(f"*{SUFFIX}"))


def _require_archive(kind: Kind, name: str) -> Path:
    if not CORPUS.is_dir():
        pytest.skip(f"no corpus of images at {CORPUS}")
    return CORPUS / kind / f"{name}{SUFFIX}"


@functools.cache
def _session_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cowtools-corpus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _unpacked(archive: Path) -> Path:
    """Unpack `archive` with its holes: images are up to terabytes long and a few MB heavy."""
    kind, name = archive.parent.name, archive.name.removesuffix(SUFFIX)
    folder = _session_folder() / kind
    folder.mkdir(exist_ok=True)
    if shutil.which("tar") and shutil.which("xz"):
        subprocess.run(["tar", "-xJSf", archive, "-C", folder, "--no-same-owner"], check=True)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return folder / name if kind == "kernel" else folder / f"{name}.raw"
