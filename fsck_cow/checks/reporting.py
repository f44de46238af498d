"""Problems out of columns: one for each row that a mask picks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import Items
from fsck_cow.problems import Problem, Severity


def at(column: Any, i: int) -> Any:
    """Element ``i`` of a column as a plain number, or the value that stands for all rows."""
    return column[i].item() if isinstance(column, np.ndarray) else column


def report_items(
    code: str,
    message: str,
    items: Items,
    wrong: npt.NDArray[np.bool_],
    *,
    row: npt.NDArray[np.int64] | None = None,
    tree: int | None = None,
    found: Any = None,
    expected: Any = None,
    severity: Severity = Severity.ERROR,
) -> Iterator[Problem]:
    """A problem for each row where ``wrong`` holds, placed by the key of its item: ``row`` says which (None: the same).

    ``found`` and ``expected`` are columns of the same length as ``wrong``, or values for all rows.
    """
    for i in np.flatnonzero(wrong).tolist():
        yield Problem(
            code,
            message,
            severity,
            tree=tree,
            key=items.key(i if row is None else int(row[i])),
            found=at(found, i),
            expected=at(expected, i),
        )


def report_addresses(
    code: str,
    message: str,
    logical: npt.NDArray[np.uint64],
    wrong: npt.NDArray[np.bool_],
    *,
    tree: int | None = None,
    found: Any = None,
    expected: Any = None,
    severity: Severity = Severity.ERROR,
) -> Iterator[Problem]:
    """A problem for each address where ``wrong`` holds; ``found`` and ``expected`` as in `report_items`."""
    for i in np.flatnonzero(wrong).tolist():
        yield Problem(
            code,
            message,
            severity,
            logical=int(logical[i]),
            tree=tree,
            found=at(found, i),
            expected=at(expected, i),
        )
