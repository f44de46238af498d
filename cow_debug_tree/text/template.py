"""Format strings compiled to rows: ``"\\t\\tsize {size} mode {mode:o}\\n"`` and columns in, a matrix of bytes
out.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cow_debug_tree.text.cells import Segment, join

#: Rows are a multiple of this long, so that they can be moved as words.
WORD = 8

Rows = npt.NDArray[np.uint8]
Writer = Callable[[Any], Segment | list[Segment]]

_writers: dict[str, Writer] = {}


def writer(spec: str) -> Callable[[Writer], Writer]:
    """Registers what turns a column into text where a format string says ``{field:spec}``."""

    def register(function: Writer) -> Writer:
        _writers[spec] = function
        return function

    return register


class Fields:
    """Columns by name, all of length n: those given by keyword, before the fields of a structured array.

    A dot goes on into a nested structure (``inode.size``) or an array (``values.0``). A writer may take
    something else than an array for a column, if that has a length.
    """

    def __init__(self, array: npt.NDArray[Any] | None = None, /, **extra: Any) -> None:
        self._array = array
        self._extra = extra

    def __getitem__(self, path: str) -> Any:
        name, *inside = path.split(".")
        column = self._extra[name] if name in self._extra or self._array is None else self._array[name]
        for part in inside:
            column = column[:, int(part)] if part.isdecimal() else column[part]
        return column

    def __len__(self) -> int:
        return len(self._array) if self._array is not None else len(next(iter(self._extra.values())))

    def and_also(self, **extra: Any) -> Fields:
        """The same and more columns."""
        return Fields(self._array, **(self._extra | extra))


@cache
def _parse(template: str) -> list[tuple[bytes, str | None, str]]:
    return [(literal.encode(), field, spec or "") for literal, field, spec, _ in string.Formatter().parse(template)]


def render(template: str, fields: Fields) -> Rows:
    """The text of n rows (at least one), filled with NUL bytes to one width, a multiple of `WORD`: shape (n,
    width).
    """
    segments: list[Segment] = []
    for literal, name, spec in _parse(template):
        segments.append(literal)
        if name is not None:
            written = _writers[spec](fields[name])
            segments += written if isinstance(written, list) else [written]
    return join(segments, len(fields), WORD)
