"""What a command declares, as plain data: options, arguments, and what they can be."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.main import get_command

from cowcli.help import Help, Values

#: A range of so few numbers is a list of them.
_FEW = 16


@dataclass(frozen=True)
class Option:
    """One option, by all its ``names``. ``metavar`` stands for its value, which may be ``optional``; None is a flag."""

    names: tuple[str, ...]
    metavar: str | None
    optional: bool
    multiple: bool
    help: str
    values: Values


@dataclass(frozen=True)
class Argument:
    """What stands on the command line without an option before it."""

    metavar: str
    many: bool
    values: Values


@dataclass(frozen=True)
class Declared:
    """A command: its words, and what it takes. ``description`` are paragraphs."""

    words: Help
    description: tuple[str, ...]
    usage: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]

    @property
    def name(self) -> str:
        """What is typed to run it."""
        return self.words.name

    @property
    def names(self) -> list[str]:
        """All names of all options."""
        return [name for option in self.options for name in option.names]


def declared(app: typer.Typer) -> Declared:
    """What the only command of ``app`` declares."""
    from cowcli.help import usage_of

    command: Any = get_command(app)
    words: Help = command.help_words
    context = typer.Context(command, info_name=words.name, **command.context_settings)
    params = command.get_params(context)
    known = words.values()
    return Declared(
        words,
        tuple(" ".join(text.split()) for text in inspect.cleandoc(command.help or "").split("\n\n")),
        " ".join(usage_of(params)),
        tuple(_options(params, context, known)),
        tuple(_arguments(params, known)),
    )


def _options(params: list[Any], context: typer.Context, known: Mapping[str, Values]) -> Iterator[Option]:
    for param in params:
        if param.param_type_name != "option" or param.hidden:
            continue
        names = (*param.opts, *param.secondary_opts)
        metavar = None if param.is_flag or param.count else (param.metavar or param.make_metavar(context)).strip("<>")
        optional = metavar is not None and metavar.startswith("[")
        if metavar is not None and optional:
            metavar = metavar.strip("[]")
        record = param.get_help_record(context)
        text = " ".join(record[1].split())
        values = Values() if metavar is None else _values(param, (*names, metavar), known)
        yield Option(names, metavar, optional, bool(param.multiple), text, values)


def _arguments(params: list[Any], known: Mapping[str, Values]) -> Iterator[Argument]:
    for param in params:
        if param.param_type_name == "argument" and not param.hidden:
            metavar = param.metavar or param.name.upper()
            yield Argument(metavar, param.nargs != 1, _values(param, (metavar,), known))


def _values(param: Any, names: tuple[str, ...], known: Mapping[str, Values]) -> Values:
    """What is declared beside the command, by an option's name or the metavar, which comes last; else what the type
    says, or a metavar that has a meaning everywhere.
    """
    metavar = names[-1]
    for name in names:
        if name in known:
            return known[name]
    choices = getattr(param.type, "choices", None)
    if choices:
        return Values(tuple(str(getattr(choice, "value", choice)) for choice in choices))
    least, most = (getattr(param.type, end, None) for end in ("min", "max"))
    if least is not None and most is not None and most - max(least, 0) < _FEW:
        return Values(tuple(map(str, range(max(least, 0), most + 1))))
    if "DIR" in metavar:
        return Values(files="directories")
    if "FILE" in metavar or "PATH" in metavar or "DEVICE" in metavar:
        return Values(files="any")
    return Values()
