"""How a command says what went wrong: one clear line, and a hint below it."""

from __future__ import annotations

import contextlib
import sys

from cowlib.errors import CowError


def tell_error(command: str, error: CowError) -> None:
    """Writes an error of the library to standard error, after the name of the command."""
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
    hint = f"hint: {error.hint}\n" if error.hint else ""
    # Paths of devices may hold any bytes.
    text = f"{command}: {error}{notes}\n{hint}"
    with contextlib.suppress(OSError):  # then the exit code has to do
        sys.stderr.write(text.encode(errors="surrogateescape").decode(errors="backslashreplace"))
