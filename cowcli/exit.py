"""Leaving a command without taking the interpreter apart first."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from cowlib.errors import CowError


def exit_now(code: str | int | None) -> None:
    """Exits with what `sys.exit` would exit with, once everything is written.

    Nothing is left open that matters by then, and freeing every column and module one by one takes longer than checking
    a small filesystem. What cannot be written by now has been told of (`cowcli.stdout.checked_output`).
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, CowError):
            stream.flush()
    os._exit(code or 0)
