"""How a command says what went wrong: one clear line, and a hint below it."""

from __future__ import annotations

import contextlib
import sys

from cowlib.errors import CowError


def tell_error(command: str, error: CowError) -> None:
    """Writes an error of the library to standard error, after the name of the command."""
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
    with contextlib.suppress(OSError):  # then the exit code has to do
        sys.stderr.write(f"{command}: {_in_one_line(str(error) + notes)}\n")
        if error.hint:
            sys.stderr.write(f"hint: {_in_one_line(error.hint)}\n")


def _in_one_line(text: str) -> str:
    """Paths of devices may hold any bytes, newlines and what moves a terminal's cursor too."""
    text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
