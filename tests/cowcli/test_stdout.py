"""Standard output that fails, in each way a command can end: one line, the right code, whatever the buffering."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import environment, mkfs
from tests.fsck_cow import craft

#: What a command says, how it says it, and what it exits with when it cannot: 8 is fsck(8)'s operational error.
CASES = [
    ("mkfs_cow", ["--version"], 1),
    ("mkfs_cow", ["--help"], 1),
    ("mkfs_cow", ["-O", "list-all"], 1),
    ("mkfs_cow", ["-f", "IMAGE"], 1),
    ("mkfs_cow", ["-f", "--json", "IMAGE"], 1),
    ("fsck_cow", ["--version"], 8),
    ("fsck_cow", ["--help"], 8),
    ("fsck_cow", ["IMAGE"], 8),
    ("fsck_cow", ["--json", "IMAGE"], 8),
    ("cow_debug_tree", ["--version"], 1),
    ("cow_debug_tree", ["--help"], 1),
    ("cow_debug_tree", ["IMAGE"], 1),
    ("cow_debug_tree", ["--json", "IMAGE"], 1),
    ("cow_debug_tree", ["--super", "IMAGE"], 1),
    ("cow_debug_tree", ["--stats", "IMAGE"], 1),
]
NAMES = {"mkfs_cow": "mkfs.cow", "fsck_cow": "fsck.cow", "cow_debug_tree": "cow-debug-tree"}

each = pytest.mark.parametrize(
    ("package", "arguments", "code"), CASES, ids=[" ".join([NAMES[p], *a[:-1], a[-1].lower()]) for p, a, _ in CASES]
)
buffering = pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stdout") / "image"
    mkfs("-q", "-b", "128m", path)
    return path


def start(package: str, arguments: list[str], image: Path, env: dict[str, str], stdout: int) -> tuple[int, str]:
    """The exit code, and what is said on standard error."""
    given = [str(image) if argument == "IMAGE" else argument for argument in arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", package, *given],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(env),
        text=True,
        stdout=stdout,
    )
    said = process.communicate()[1]
    return process.returncode, said


def told(package: str, arguments: list[str], reason: str) -> str:
    """The one line: mkfs.cow has made its filesystem by then, and says so."""
    if package == "mkfs_cow" and "IMAGE" in arguments:
        return f"mkfs.cow: the filesystem is made, but standard output fails: {reason}\n"
    return f"{NAMES[package]}: cannot write to standard output: {reason}\n"


@each
@buffering
def test_full(package: str, arguments: list[str], code: int, env: dict[str, str], image: Path) -> None:
    with open("/dev/full", "wb") as full:
        ended = start(package, arguments, image, env, stdout=full.fileno())
    assert ended == (code, told(package, arguments, "No space left on device"))


@each
@buffering
def test_nobody_listens(package: str, arguments: list[str], code: int, env: dict[str, str], image: Path) -> None:
    """cow-debug-tree, whose output goes through `head`, ends as the signal would have ended it."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = start(package, arguments, image, env, stdout=writer)
    finally:
        os.close(writer)
    if package == "cow_debug_tree":
        assert ended == (141, "")
    else:
        assert ended == (code, told(package, arguments, "Broken pipe"))


@each
def test_closed(package: str, arguments: list[str], code: int, image: Path) -> None:
    """As by `>&-`: the device that is opened first does not become standard output."""
    before = image.read_bytes() if package != "mkfs_cow" else b""
    command = [sys.executable, "-m", package, *(str(image) if a == "IMAGE" else a for a in arguments)]
    said = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, env=environment(), text=True
    )
    assert (said.returncode, said.stderr) == (code, told(package, arguments, "Bad file descriptor"))
    assert not before or image.read_bytes() == before


@pytest.mark.parametrize(
    ("package", "arguments", "code"),
    [("mkfs_cow", ["-q", "-f"], 0), ("fsck_cow", ["-q"], 0), ("mkfs_cow", [], 1), ("cow_debug_tree", ["-t", "no"], 1)],
)
def test_nothing_to_say(package: str, arguments: list[str], code: int, image: Path) -> None:
    """Then standard output is not missed: with all standard streams closed the code is what it always is."""
    command = [sys.executable, "-m", package, *arguments, str(image)]
    said = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], env=environment())
    assert said.returncode == code
    assert craft.codes([image]) == set()
