"""Completion for fish."""

from __future__ import annotations

from collections.abc import Iterator

from cowcli.help import Values
from scripts.pages.declared import Declared, Option


def completion(command: Declared) -> str:
    """The file for `share/fish/vendor_completions.d`."""
    return "\n".join(_lines(command)) + "\n"


def _lines(command: Declared) -> Iterator[str]:
    yield f"# Completion of {command.name} for fish. Made by `make docs` from the options of the command: do not edit."
    yield ""
    for option in command.options:
        yield f"complete -c {command.name} {_option(option)} -d {_quoted(option.help)}"


def _option(option: Option) -> str:
    words = []
    for name in option.names:
        if name.startswith("--"):
            words.append(f"-l {name[2:]}")
        else:
            words.append(f"-s {name[1:]}" if len(name) == 2 else f"-o {name[1:]}")
    if option.metavar is not None and not option.optional:
        words.append(_value(option.values))
    return " ".join(words)


def _value(values: Values) -> str:
    if values.listed and values.then is None:
        return f"-xa {_quoted('(__fish_append , ' + ' '.join(values.words) + ')')}"
    if values.words:
        words = " ".join(f"{word}:" for word in values.words) if values.then else " ".join(values.words)
        return f"-xa {_quoted(words)}"
    return {"no": "-x", "any": "-rF", "directories": "-xa '(__fish_complete_directories)'"}[values.files]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
