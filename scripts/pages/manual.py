"""Manual pages: roff with the macros of man(7)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cowcli.help import continued, wrapped
from cowlib import __version__
from scripts.pages.declared import Declared, Option

#: The section: programs for who runs the system.
SECTION = 8

#: The day when more than options changed last.
_DATE = "2026-11-26"

_WIDTH = 78

#: How characters are spelled that roff would turn into others, or take for its own.
_SPELLED = str.maketrans({"\\": r"\(rs", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})


def manual(command: Declared) -> str:
    """The manual page of a command."""
    return "\n".join(_lines(command)) + "\n"


def _lines(command: Declared) -> Iterator[str]:
    words = command.words
    yield r".\" Made by `make docs` from the options of the command: do not edit."
    yield f'.TH {command.name.upper().translate(_SPELLED)} {SECTION} {_DATE} "cowtools {__version__}"'
    yield ".SH NAME"
    yield f"{_plain(command.name)} \\- {_plain(words.summary)}"
    yield ".SH SYNOPSIS"
    yield _typed(command.name) + " " + _usage(command.usage)
    yield ".SH DESCRIPTION"
    yield from _paragraphs(command.description)
    yield ".SH OPTIONS"
    for option in command.options:
        yield ".TP"
        yield _heading(option)
        yield from _text(option.help)
        for name in option.names:
            if name in words.details:
                yield ".IP"
                yield from _text(words.details[name])
    for title, paragraphs in words.sections.items():
        yield f".SH {title.translate(_SPELLED)}" if " " not in title else f'.SH "{title.translate(_SPELLED)}"'
        yield from _paragraphs(paragraphs)
    for title, rows in (("EXIT STATUS", words.exit_codes), ("ENVIRONMENT", words.environment)):
        if rows:
            yield f'.SH "{title}"' if " " in title else f".SH {title}"
        for name, text in rows.items():
            yield ".TP"
            yield _typed(name)
            yield from _text(text)
    yield ".SH EXAMPLES"
    for index, example in enumerate(words.examples):
        if index:
            yield ".PP"
        yield from _text(example.words + ":")
        yield from (".PP", ".RS 4", ".EX")
        yield from (_at_start(line.translate(_SPELLED)) for line in continued(example.command, _WIDTH - 12))
        yield from (".EE", ".RE")
    if words.see_also:
        yield '.SH "SEE ALSO"'
        pages = [re.fullmatch(r"(.+)\((\d)\)", page) for page in words.see_also]
        shown = [f".BR {page[1].translate(_SPELLED)} ({page[2]})" for page in pages if page]
        yield from [f"{line} ," for line in shown[:-1]]
        yield shown[-1]


def _usage(usage: str) -> str:
    return re.sub(r"[A-Z]+", lambda found: rf"\fI{found[0]}\fR", _plain(usage))


def _heading(option: Option) -> str:
    text = ", ".join(map(_typed, option.names))
    if option.metavar is None:
        return text
    value = rf"\fI{_plain(option.metavar)}\fR"
    return f"{text} [{value}]" if option.optional else f"{text} {value}"


def _paragraphs(paragraphs: Sequence[str]) -> Iterator[str]:
    for index, paragraph in enumerate(paragraphs):
        if index:
            yield ".PP"
        yield from _text(paragraph)


def _text(text: str) -> Iterator[str]:
    """Prose, each sentence on a line of its own; what stands between stars is to be typed."""
    for sentence in re.split(r"(?<=[.!?]) (?=\S)", text):
        for line in wrapped(_plain(sentence), _WIDTH):
            yield _at_start(line)


def _plain(text: str) -> str:
    return re.sub(r"\*([^*]+)\*", r"\\fB\1\\fR", text.translate(_SPELLED))


def _typed(text: str) -> str:
    return rf"\fB{text.translate(_SPELLED)}\fR"


def _at_start(line: str) -> str:
    return rf"\&{line}" if line.startswith((".", "'")) else line
