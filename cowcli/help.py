"""What a command says of itself: `--help` for any width, from its options and a few words declared beside them.

The same declaration makes the manual pages and the completion of shells (`scripts/pages`), at the time of writing them.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

#: Columns: no line of prose is easy to read beyond the one, and below the other nothing fits.
_WIDEST, _NARROWEST = 78, 30

#: Names of options take at most so many columns beside their descriptions, and stand above them on narrow terminals.
_NAMES, _NARROW = 28, 56


@dataclass(frozen=True)
class Values:
    """What an argument can be, for completion: ``words``, or names of ``files``.

    ``listed`` says that several go in one argument, by comma; ``then`` is what follows after a colon.
    """

    words: tuple[str, ...] = ()
    files: Literal["no", "any", "directories"] = "no"
    listed: bool = False
    then: Values | None = None


@dataclass(frozen=True)
class Example:
    """A command line that can be pasted, and what it is good for."""

    words: str
    command: str


@dataclass(frozen=True)
class Help:
    """What a command says of itself beside its options.

    ``summary`` is one line without a full stop. ``values`` gives what arguments can be, by option or metavar; only who
    writes completions calls it, so it may import what takes long. ``details`` (by an option's name) and ``sections``
    (title, paragraphs) stand in the manual page alone; in them, ``*stars*`` are around what is to be typed.
    """

    name: str
    summary: str
    exit_codes: Mapping[str, str]
    examples: Sequence[Example]
    environment: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, Sequence[str]] = field(default_factory=dict)
    see_also: Sequence[str] = ()
    values: Callable[[], Mapping[str, Values]] = dict


def help_page(command: Any, ctx: Any, words: Help) -> Iterator[str]:
    """The lines of ``--help``, which ends with exit codes, environment and examples; as wide as the terminal allows."""
    width = max(min(shutil.get_terminal_size().columns - 2, _WIDEST), _NARROWEST)
    yield from wrapped(" ".join([ctx.command_path, *usage_of(command.get_params(ctx))]), width, "Usage: ", " " * 9)
    for paragraph in (command.help or "").split("\n\n"):
        yield ""
        yield from wrapped(paragraph, width, "  ")
    records: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            records["Options" if param.param_type_name == "option" else "Arguments"].append(record)
    records["Exit codes"] = list(words.exit_codes.items())
    records["Environment"] = list(words.environment.items())
    for title, rows in records.items():
        if rows:
            yield from ("", f"{title}:")
            yield from _definitions(rows, width)
    yield from ("", "Examples:")
    for example in words.examples:
        yield from wrapped(example.words + ":", width, "  ")
        yield from continued(example.command, width, "    ")


def usage_of(params: Iterable[Any]) -> Iterator[str]:
    """What comes after the name of a command with such parameters: optional ones in brackets."""
    yield "[OPTIONS]"
    for param in params:
        if param.param_type_name == "argument":
            metavar = param.metavar or param.name.upper()
            yield metavar if param.required else f"[{metavar}]"


def _definitions(rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    rows = list(rows)
    column = min(max(len(name) for name, _ in rows), _NAMES) + 4
    if width < _NARROW and column > 10:
        column = 6
    for name, text in rows:
        start = f"  {name}"
        if len(start) + 2 > column:
            yield start
            start = ""
        yield from wrapped(text, width, start.ljust(column), " " * column)


def wrapped(text: str, width: int, first: str = "", further: str | None = None) -> Iterator[str]:
    """Lines of at most ``width`` columns (where words are not longer), never broken inside of a word or an option."""
    line, empty = first, True
    for word in text.split():
        if not empty and len(line) + 1 + len(word) > width:
            yield line
            line, empty = first if further is None else further, True
        line += word if empty else f" {word}"
        empty = False
    yield line


def continued(command: str, width: int, indent: str = "") -> Iterator[str]:
    """A command line for a shell in lines of at most ``width`` columns, where its words are not longer.

    Lines end with a backslash where the command goes on, between words only, so that it can be pasted; an option stays
    with its value where that fits.
    """
    parts = list(_parts(command, width - len(indent) - 6))
    line = indent
    for index, part in enumerate(parts):
        room = width - (2 if index < len(parts) - 1 else 0)  # for what says that it goes on
        if line.strip() and len(line) + 1 + len(part) > room:
            yield line + " \\"
            line = indent + "    "
        line += f" {part}" if line.strip() else part
    yield line


def _parts(command: str, room: int) -> Iterator[str]:
    """Words, and options together with the words after them."""
    words = shlex.split(command, posix=False)
    while words:
        part = words.pop(0)
        if part.startswith("-") and words and words[0][0] not in "-|" and len(part) + 1 + len(words[0]) <= room:
            part += " " + words.pop(0)
        yield part
