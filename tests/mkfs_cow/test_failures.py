"""What goes wrong on the way: told in one line, and nothing is left that looks finished."""

from __future__ import annotations

import fcntl
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import environment, mkfs, mkfs_refuses, run_command
from tests.trees import digest

MIB = 1 << 20


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """As on a disk that is full: the system refuses to write beyond ``size`` bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def run(*arguments: str | Path, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mkfs_cow", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(), **options)  # type: ignore[call-overload,no-any-return]


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    image = oracles.sparse(tmp_path / "image", 200 * MIB)
    with files_no_longer_than(50 * MIB):
        said = mkfs_refuses(image)
        made = mkfs_refuses("-b", "200m", tmp_path / "new")
    assert "cannot write" in said
    assert "cannot make it" in made
    assert not (tmp_path / "new").exists()
    assert b"_BHRfS_M" not in image.read_bytes()[65536:70000]


def test_what_was_made_goes_with_the_failure(tmp_path: Path) -> None:
    """When it is another device that fails, too; a file that was there stays."""
    busy = oracles.sparse(tmp_path / "busy", 200 * MIB)
    before = digest(busy)
    with busy.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = run_command("mkfs_cow", "-b", "200m", tmp_path / "new", busy)
    assert said.returncode == 1
    assert "in use" in said.stderr
    assert not (tmp_path / "new").exists()
    assert digest(busy) == before


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_standard_output_that_fails(tmp_path: Path, options: list[str]) -> None:
    image = oracles.sparse(tmp_path / "image", 200 * MIB)
    with open("/dev/full", "wb") as full:
        process = run(*options, image, stdout=full)
        said = process.communicate()[1].decode()
    assert process.returncode == 1
    assert len(said.splitlines()) == 1
    mkfs_refuses(image)  # the filesystem is there


def test_interrupted(tmp_path: Path) -> None:
    image = oracles.sparse(tmp_path / "image", 200 * MIB)
    mkfs("-q", image)
    before = digest(image)
    process = run("-f", "--from-tar", "-", image, stdin=subprocess.PIPE)
    assert process.stdin is not None
    # A file longer than what comes of it. It is more than a pipe holds: once it is written the command is reading.
    head = bytearray(b"file".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"00010000000\0" + b"00000000000\0")
    head += b" " * 8 + b"0".ljust(101, b"\0") + b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    process.stdin.write(head.ljust(512, b"\0") + bytes(MIB))
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1].decode()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert digest(image) == before
