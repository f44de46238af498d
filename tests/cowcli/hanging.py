"""`python -m tests.cowcli.hanging PACKAGE PLACE ARGUMENTS...`: runs a command that stops at a known place, for good.

PLACE is a step that the command tells its progress bar, ``import MODULE``, or MODULE:FUNCTION. Once it is reached the
word HERE stands on standard error.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from importlib.abc import MetaPathFinder
from typing import Any, NoReturn

HERE = "here\n"


def hang(*_: Any, **__: Any) -> NoReturn:
    """Never ends. A signal that is held back does not end it either."""
    os.write(2, HERE.encode())
    while True:
        time.sleep(10)


def linger(*_: Any, **__: Any) -> None:
    """Takes a second, whatever signals come."""
    os.write(2, HERE.encode())
    end = time.monotonic() + 1
    while time.monotonic() < end:
        time.sleep(0.01)


class HangingImport(MetaPathFinder):
    """Hangs when one module is imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Finds nothing."""
        if fullname == self.name:
            hang()


def prepare(place: str) -> None:
    """Has the command hang at ``place``."""
    if place.startswith("import "):
        sys.meta_path.insert(0, HangingImport(place.removeprefix("import ")))
        return
    if ":" in place:
        module, _, name = place.partition(":")
        target = importlib.import_module(module)
        original = getattr(target, name)

        def lingering(*arguments: Any, **named: Any) -> Any:
            linger()
            return original(*arguments, **named)

        setattr(target, name, lingering)
        return
    from cowcli.progress import ProgressBar

    def update(self: ProgressBar, step: str, done: int, total: int) -> None:
        if step == place:
            hang()

    ProgressBar.update = update  # type: ignore[method-assign]


if __name__ == "__main__":
    package, where, *arguments = sys.argv[1:]
    sys.argv = [package, *arguments]
    prepare(where)
    importlib.import_module(f"{package}.__main__").main()
