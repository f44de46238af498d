"""Completion for zsh, with its function `_arguments`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cowcli.help import Values
from scripts.pages.declared import Declared, Option


def completion(command: Declared) -> str:
    """The file for `share/zsh/site-functions`, whose name is that of the command after an underscore."""
    return "\n".join(_lines(command)) + "\n"


def _lines(command: Declared) -> Iterator[str]:
    yield f"#compdef {command.name}"
    yield "# Made by `make docs` from the options of the command: do not edit."
    yield ""
    for option in command.options:
        if option.values.then is not None:
            yield from _pair(_function(command, option), option.values)
    yield "_arguments -s -S \\"
    for option in command.options:
        yield f"    {_option(command, option)} \\"
    specs = [
        f"'{'*' if argument.many else ''}:{argument.metavar}:{_action(argument.values)}'"
        for argument in command.arguments
    ]
    yield "    " + " \\\n    ".join(specs)


def _option(command: Declared, option: Option) -> str:
    value = _value(command, option)
    end = _inside(f"[{_escaped(option.help)}]{value}")
    star = "*" if option.multiple else ""
    names = [_with_value(name, option) for name in option.names]
    if len(names) == 1:
        return f"'{star}{names[0]}{end}'"
    return f"'{star or '(' + ' '.join(option.names) + ')'}'{{{','.join(names)}}}'{end}'"


def _with_value(name: str, option: Option) -> str:
    if option.metavar is None:
        return name
    return f"{name}=" if name.startswith("--") else f"{name}+"


def _value(command: Declared, option: Option) -> str:
    if option.metavar is None:
        return ""
    action = _function(command, option) if option.values.then is not None else _action(option.values)
    colons = "::" if option.optional else ":"
    return f"{colons}{option.metavar.replace(':', chr(92) + ':')}:{action}"


def _action(values: Values) -> str:
    words = _words(values)
    if values.listed:
        return f"_sequence compadd - {words}"
    if values.words:
        return f"({words})"
    return {"no": " ", "any": "_files", "directories": "_directories"}[values.files]


def _function(command: Declared, option: Option) -> str:
    return f"_{command.name}_{option.names[-1].lstrip('-')}"


def _pair(function: str, values: Values) -> Iterator[str]:
    """A function for two values with a colon between them."""
    assert values.then is not None
    words = _words(values)
    first = f"_sequence -n 2 compadd -S : - {words}" if values.listed else f"compadd -S : -q - {words}"
    after = values.then
    second = f"compadd - {_words(after)}" if after.words else _action(after).strip() or ":"
    yield f"(( $+functions[{function}] )) || {function}() {{"
    yield "    if compset -P '*:'; then"
    yield f"        {second}"
    yield "    else"
    yield f"        {first}"
    yield "    fi"
    yield "}"
    yield ""


def _words(values: Values) -> str:
    """Words as zsh reads them: whatever could be a pattern is none."""
    return " ".join(re.sub(r"([^\w./,+-])", r"\\\1", word) for word in values.words)


def _escaped(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def _inside(text: str) -> str:
    """Text between single quotes."""
    return text.replace("'", "'\\''")
