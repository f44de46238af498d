"""Files of definitions that users write, a line each. Every line keeps its number, so that errors can name it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cowlib.errors import UsageError
from mkfs_cow.source.contents import shown

#: No one writes longer files by hand, and few programs do.
_MOST_BYTES = 64 << 20

_BLANK = b" \t\r\v\f"
_NUMBER = re.compile(rb"[0-9]{1,20}")


@dataclass
class Line:
    """One definition: where it stands (``file``, ``number``) and its ``text``, which is read from the left."""

    file: Path
    number: int
    text: bytes

    def error(self, message: str, hint: str | None = None) -> UsageError:
        """The error that something in this line is wrong."""
        return UsageError(f"{shown(os.fsencode(self.file))}:{self.number}: {message}", hint=hint)

    def word(self, what: str) -> bytes:
        """The next word, which may hold spaces in double quotes or behind backslashes. Raises UsageError."""
        word, quoted, i = bytearray(), False, 0
        text = self.text
        while i < len(text) and (quoted or text[i] not in _BLANK):
            if text[i] == ord('"'):
                quoted = not quoted
            else:
                if text[i] == ord("\\") and i + 1 < len(text):
                    i += 1
                word.append(text[i])
            i += 1
        if quoted:
            raise self.error(f"{what}: a quote is not closed")
        self.text = text[i:].lstrip(_BLANK)
        if not word:
            raise self.error(f"{what} is missing")
        return bytes(word)

    def number_of(self, what: str, highest: int) -> int:
        """The next word as a number from 0. Raises UsageError."""
        word = self.word(what)
        if not _NUMBER.fullmatch(word) or int(word) > highest:
            raise self.error(f"{what} '{shown(word)}' is not a number from 0 to {highest}")
        return int(word)

    def rest(self, what: str) -> bytes:
        """Everything that follows, as it stands. Raises UsageError if that is nothing."""
        rest, self.text = self.text.rstrip(_BLANK), b""
        if not rest:
            raise self.error(f"{what} is missing")
        return rest

    def end(self) -> None:
        """Raises UsageError unless nothing follows."""
        if self.text:
            raise self.error(f"'{shown(self.text[:40])}' is too much")


def read_definitions(path: Path) -> list[Line]:
    """The lines of a file but empty ones and those that begin with ``#``.

    A line that ends in a backslash goes on in the next one. Raises UsageError for a file that cannot be read, is no
    text, or defines nothing at all.
    """
    name = shown(os.fsencode(path))
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{name}: too long for a file of definitions")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise UsageError(f"{name}:{line}: a NUL byte: this is no text")
    lines = [Line(path, number, text) for number, text in _joined(data) if text and not text.startswith(b"#")]
    if not lines:
        raise UsageError(f"{name}: defines nothing")
    return lines


def _joined(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines with what they are continued in, and the number of the first."""
    begun: list[bytes] = []
    first = 1
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        continued = (len(line) - len(line.rstrip(b"\\"))) % 2 == 1
        begun.append(line[:-1] if continued else line)
        if continued and number < len(lines):
            continue
        yield first, b"".join(begun).strip(_BLANK)
        begun, first = [], number + 1
