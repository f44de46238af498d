"""Every block of the README, pasted as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import REPOSITORY, environment

COMMANDS = {"mkfs.cow": "mkfs_cow", "fsck.cow": "fsck_cow", "cow-debug-tree": "cow_debug_tree"}


def blocks(kind: str) -> list[str]:
    """The README's code blocks of one kind, but those that call make."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in found if not block.startswith("make ")]


def with_commands(folder: Path) -> dict[str, str]:
    """The commands on the PATH, as `pip install` puts them there."""
    shims = folder / "bin"
    shims.mkdir()
    for command, package in COMMANDS.items():
        write_script(shims / command, f'exec "{sys.executable}" -m {package} "$@"')
    # Reads to the end: what stands before `| head` shall fail for a reason only.
    write_script(shims / "head", f'"{shutil.which("head")}" "$@"\nexec cat >/dev/null')
    path = os.pathsep.join([str(shims), os.environ["PATH"], "/usr/sbin", "/sbin"])
    return environment({"PATH": path})


def write_script(path: Path, text: str) -> None:
    """A shell script that can be run."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def paste(block: str, folder: Path, env: dict[str, str]) -> None:
    """Run a block; every command of it has to succeed, also within a pipe."""
    said = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{block}"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert said.returncode == 0, f"{block}\n{said.stdout}"


@pytest.mark.parametrize("block", [block for kind in ("sh", "sh root") for block in blocks(kind)])
def test_every_failure_shows(block: str) -> None:
    """In `a && b && c` bash takes no failure but the last one's for an error."""
    assert [line for line in block.splitlines() if re.search(r"&&|\|\||; |!", line.replace("); ", ""))] == []


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Unmount and detach what a block that failed on its way did not."""
    try:
        yield
    finally:
        oracles.unmount(folder / "mnt")
        for image in folder.glob("*.raw"):
            said = subprocess.run(["losetup", "-j", image], capture_output=True, text=True, check=True)
            for line in said.stdout.splitlines():
                oracles.detach(line.partition(":")[0])


def test_every_block_works(tmp_path: Path) -> None:
    env = with_commands(tmp_path)
    plain, root, python = blocks("sh"), blocks("sh root"), blocks("python")
    assert plain and root and python
    for block in plain:
        paste(block, tmp_path, env)
    for block in python:
        subprocess.run([sys.executable, "-c", block], check=True, cwd=tmp_path, env=env)
    oracles.require_oracle("root", "loop", "mount", "progs")
    for block in root:
        with nothing_left(tmp_path):
            paste(block, tmp_path, env)
