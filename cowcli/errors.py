"""How a command says what went wrong: one clear line, and a hint below it."""

from __future__ import annotations

import sys

from cowlib.errors import CowError


def tell_error(command: str, error: CowError) -> None:
    """Writes an error of the library to standard error, after the name of the command."""
    hint = f"hint: {error.hint}\n" if error.hint else ""
    # Paths of devices may hold any bytes.
    text = f"{command}: {error}\n{hint}"
    sys.stderr.write(text.encode(errors="surrogateescape").decode(errors="backslashreplace"))
