"""A progress bar on standard error, once there is something to wait for."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

#: Work shorter than this needs no bar.
_DELAY = 0.5

#: Seconds between two updates.
_INTERVAL = 0.1


class ProgressBar:
    """Shows the step that is under way; silent where standard error is no terminal, and for short work.

    ``name`` is the command's.
    """

    def __init__(self, name: str, *, enabled: bool) -> None:
        self._name = name
        self._enabled = enabled and sys.stderr.isatty()
        self._start = time.monotonic()
        self._last = 0.0
        self._bar: Any = None
        self._task: Any = None
        self._step = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: str, done: int, total: int) -> None:
        """Says that ``done`` of ``total`` (0: not known) of a step is done."""
        now = time.monotonic()
        if not self._enabled or now - self._start < _DELAY:
            return
        if step == self._step and now - self._last < _INTERVAL and done != total:
            return
        self._last = now
        if self._bar is None:
            self._bar = _make_bar()
            self._bar.start()
        if step != self._step:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._step = self._bar.add_task(step, total=total or None), step
        self._bar.update(self._task, completed=done, total=total or None)

    def warn(self, text: str) -> None:
        """Prints a warning above the bar."""
        line = f"{self._name}: warning: {text}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr)


def _make_bar() -> Any:
    # rich takes longer to load than many a command takes in all.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
