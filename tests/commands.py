"""Runs the project's commands as a user does: a process each, with an exit code and words on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

#: What a command may know of the environment the tests run in. PYTHON* and the like would make them pass here alone.
PASSED_ON = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command that is run as `python -m PACKAGE`, from wherever, with ``more`` variables."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed_on, "PYTHONPATH": str(REPOSITORY), **(more or {})}


def run_command(
    package: str,
    *arguments: str | bytes | Path,
    env: Mapping[str, str] | None = None,
    stdin: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m PACKAGE ARGUMENTS...`, whatever it exits with, but never with a traceback."""
    with (stdin or Path(os.devnull)).open("rb") as standard_input:
        said = subprocess.run(
            [sys.executable, "-m", package, *arguments],
            stdin=standard_input,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env=environment({"NO_COLOR": "1", "COLUMNS": "200", **(env or {})}),
        )
    assert "Traceback" not in said.stderr, said.stderr
    return said


def mkfs(*arguments: str | bytes | Path, env: Mapping[str, str] | None = None, stdin: Path | None = None) -> str:
    """Run mkfs.cow, which has to succeed; what it prints is returned."""
    said = run_command("mkfs_cow", *arguments, env=env, stdin=stdin)
    assert said.returncode == 0, f"exit code {said.returncode}: {said.stderr}"
    return said.stdout


def mkfs_refuses(*arguments: str | bytes | Path) -> str:
    """Run mkfs.cow, which has to refuse: exit code 1, one clear line (and a hint), which are returned."""
    said = run_command("mkfs_cow", *arguments)
    assert said.returncode == 1, f"exit code {said.returncode}: {said.stdout}{said.stderr}"
    lines = said.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2, said.stderr
    return said.stderr.strip()
