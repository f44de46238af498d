"""What a check says of a filesystem: problems with a stable code, a place, and what was found and expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How bad a problem is.

    NOTE: odd, but as the format allows. REPAIRABLE: a bad copy with a good one beside it. ERROR: the filesystem
    breaks a rule of the format.
    """

    NOTE = 0
    REPAIRABLE = 1
    ERROR = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    ``code`` is stable, ``subject.what``. ``message`` is a sentence without the place. The place is whichever is known
    of ``device`` (path), ``logical`` (address of a block or extent), ``tree`` (object id), ``key`` and ``path`` (of a
    file). ``found`` and ``expected`` are values as they stand on disk and as they should be.
    """

    code: str
    message: str
    severity: Severity = Severity.ERROR
    device: str | None = None
    logical: int | None = None
    tree: int | None = None
    key: tuple[int, int, int] | None = None
    path: str | None = None
    found: Any = None
    expected: Any = None

    @property
    def subject(self) -> str:
        """The part of the code before the dot."""
        return self.code.partition(".")[0]


@dataclass
class Report:
    """Problems as they are found: all are counted, at most ``limit`` of each code are kept (0: all of them).

    ``wants`` says of a code whether problems with it are taken at all. ``severities`` has the worst of each code.
    """

    limit: int = 0
    wants: Callable[[str], bool] = lambda code: True
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    severities: dict[str, Severity] = field(default_factory=dict)
    worst: Severity | None = None

    def add(self, problem: Problem) -> None:
        """Takes one problem."""
        if not self.wants(problem.code):
            return
        self.counts[problem.code] += 1
        self.severities[problem.code] = max(problem.severity, self.severities.get(problem.code, problem.severity))
        self.worst = problem.severity if self.worst is None else max(self.worst, problem.severity)
        if not self.limit or self.counts[problem.code] <= self.limit:
            self.problems.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Takes several problems."""
        for problem in problems:
            self.add(problem)

    @property
    def clean(self) -> bool:
        """Whether nothing worse than a note was found."""
        return self.worst is None or self.worst == Severity.NOTE
