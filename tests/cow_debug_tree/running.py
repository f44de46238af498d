"""Runs the command in a copy of this process: what takes longest, loading Python's modules, is done only once."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from resource import struct_rusage
from typing import BinaryIO, NoReturn

import typer.main

# Loaded on demand in a process of its own.
import cow_debug_tree.dump
import cow_debug_tree.json_lines
import cow_debug_tree.show
import cow_debug_tree.stats
import cow_debug_tree.superblock  # noqa: F401
from cow_debug_tree.__main__ import main
from cow_debug_tree.cli import app

# Understanding arguments loads more.
typer.main.get_command(app).make_context("cow-debug-tree", ["DEVICE"])


@dataclass
class Said:
    """How a run ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str
    used: struct_rusage


def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Said:
    """Run `cow-debug-tree ARGUMENTS...`, whatever it exits with, but never with a traceback."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _become([str(argument) for argument in arguments], out, err, env or {})
        _, status, used = os.wait4(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="surrogateescape"))
    said = Said(os.waitstatus_to_exitcode(status), texts[0], texts[1], used)
    assert "Traceback" not in said.stderr, said.stderr
    return said


def _become(arguments: list[str], out: BinaryIO, err: BinaryIO, env: Mapping[str, str]) -> NoReturn:
    status = 1
    try:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ.update(env, NO_COLOR="1", COLUMNS="200")
        time.tzset()
        sys.argv = ["cow-debug-tree", *arguments]
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
