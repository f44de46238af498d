"""The kind of command that all commands are: what it is told is done or refused, never silently decided."""

from __future__ import annotations

from typing import ClassVar

import typer
from typer.core import TyperCommand


class Command(TyperCommand):
    """Refuses empty values, which are variables that were not set, and an option given twice that takes one value.

    To be named to typer as ``cls``. ``may_be_empty`` are parameters whose empty value means what it says.
    """

    may_be_empty: ClassVar[frozenset[str]] = frozenset()

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Reads the arguments; raises typer.BadParameter for those that cannot be meant."""
        if not ctx.resilient_parsing:
            self._refuse_what_cannot_be_meant(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_what_cannot_be_meant(self, ctx: typer.Context, args: list[str]) -> None:
        values, _, given = self.make_parser(ctx).parse_args(args=list(args))
        if any(param.is_eager for param in given):
            return  # help is given in any case
        for position, param in enumerate(given):
            several = param.nargs == -1 or getattr(param, "multiple", False) or getattr(param, "count", False)
            if param in given[:position] and not several and not getattr(param, "is_flag", False):
                raise typer.BadParameter("it is given more than once", ctx=ctx, param=param)
            value = values.get(param.name or "")
            if param.name not in self.may_be_empty and "" in (value if isinstance(value, list | tuple) else [value]):
                raise typer.BadParameter("it is empty: is a variable not set?", ctx=ctx, param=param)
