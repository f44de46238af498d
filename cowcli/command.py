"""The kind of command that all commands are: what it is told is done or refused, never silently decided."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import typer
from typer.core import TyperCommand

from cowcli.help import Help, help_page


def command_with(words: Help, *, may_be_empty: Set[str] = frozenset()) -> type[TyperCommand]:
    """The class of a typer command that says ``words`` of itself.

    It refuses empty values, which are variables that were not set, and an option given twice that takes one value.
    ``may_be_empty`` are parameters whose empty value means what it says.
    """

    class Command(TyperCommand):
        help_words = words

        def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
            if not ctx.resilient_parsing:
                _refuse_what_cannot_be_meant(self, ctx, args, may_be_empty)
            return super().parse_args(ctx, args)

        def get_help_option_names(self, ctx: Any) -> list[str]:
            return sorted(super().get_help_option_names(ctx), key=len)  # they come from a set, in any order

        def get_help_option(self, ctx: Any) -> Any:
            option = super().get_help_option(ctx)
            if option is not None:
                option.help = "show this help"
            return option

        def format_help(self, ctx: Any, formatter: Any) -> None:
            formatter.write("\n".join(help_page(self, ctx, words)) + "\n")

    return Command


def _refuse_what_cannot_be_meant(
    command: TyperCommand, ctx: typer.Context, args: list[str], may_be_empty: Set[str]
) -> None:
    values, _, given = command.make_parser(ctx).parse_args(args=list(args))
    if any(param.is_eager for param in given):
        return  # help is given in any case
    for position, param in enumerate(given):
        several = param.nargs == -1 or getattr(param, "multiple", False) or getattr(param, "count", False)
        if param in given[:position] and not several and not getattr(param, "is_flag", False):
            raise typer.BadParameter("it is given more than once", ctx=ctx, param=param)
        value = values.get(param.name or "")
        if param.name not in may_be_empty and "" in (value if isinstance(value, list | tuple) else [value]):
            raise typer.BadParameter("it is empty: is a variable not set?", ctx=ctx, param=param)
