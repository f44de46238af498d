"""Every block of the README, pasted as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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
        shim = shims / command
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {package} "$@"\n')
        shim.chmod(0o755)
    path = os.pathsep.join([str(shims), os.environ["PATH"], "/usr/sbin", "/sbin"])
    return environment({"PATH": path})


def test_every_block_works(tmp_path: Path) -> None:
    env = with_commands(tmp_path)
    plain, root, python = blocks("sh"), blocks("sh root"), blocks("python")
    assert plain and root and python
    for block in plain:
        subprocess.run(["bash", "-eu", "-c", block], check=True, cwd=tmp_path, env=env)
    for block in python:
        subprocess.run([sys.executable, "-c", block], check=True, cwd=tmp_path, env=env)
    oracles.require_oracle("root", "loop", "mount", "progs")
    for block in root:
        subprocess.run(["bash", "-eu", "-c", block], check=True, cwd=tmp_path, env=env)
