"""Leaving a command without taking the interpreter apart first."""

from __future__ import annotations

import os
import sys


def exit_now(code: str | int | None) -> None:
    """Exits with what `sys.exit` would exit with, once everything is written.

    Nothing is left open that matters by then, and freeing every column and module one by one takes longer than checking
    a small filesystem.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 1
    os._exit(code or 0)
