"""Standard output and standard error of a command that writes a lot."""

from __future__ import annotations

import json
import os
import sys

from cowlib.errors import CowError

NAME = "cow-debug-tree"


def write_out(text: bytes | bytearray) -> None:
    """All of ``text`` to standard output, past Python's buffers.

    Raises CowError where that cannot take it, and BrokenPipeError where nobody listens any more.
    """
    rest = memoryview(text)
    fd = sys.stdout.fileno()
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CowError(f"cannot write to standard output: {error.strerror}") from None


def write_json(value: object) -> None:
    """One line of JSON to standard output."""
    write_out(json.dumps(value).encode() + b"\n")


def complain(lines: list[str]) -> None:
    """Each line to standard error, after the name of the command."""
    if lines:
        text = "".join(f"{NAME}: {line}\n" for line in lines)
        os.write(sys.stderr.fileno(), text.encode(errors="surrogateescape"))
