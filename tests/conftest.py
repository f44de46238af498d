"""Hypothesis profiles, the marks' meaning, and what every test may ask for."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import oracles

# COW_HYPOTHESIS=fuzz looks for what nobody has seen yet; the default finds the same in every run.
settings.register_profile(
    "ci",
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "fuzz", parent=settings.get_profile("ci"), max_examples=5000, derandomize=False, print_blob=True
)
settings.load_profile(os.environ.get("COW_HYPOTHESIS", "ci"))


@pytest.fixture
def make_devices(tmp_path: Path) -> Iterator[Callable[[int, int], list[str]]]:
    """`make_devices(count, size)`: so many fresh loop devices of `size` bytes, gone after the test."""
    with ExitStack() as stack:
        taken = itertools.count(1)

        def make(count: int, size: int) -> list[str]:
            images = [oracles.sparse(tmp_path / f"device{next(taken)}.img", size) for _ in range(count)]
            for image in images:
                stack.callback(image.unlink)  # folders of failed tests are kept
            return stack.enter_context(oracles.loops(images))

        yield make


def pytest_configure() -> None:
    """Have a terminated session end as an interrupted one does, with everything detached and removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why cases were skipped, with how many for each reason: what this machine left untested, at a glance."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[why.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section(f"{reasons.total()} skipped")
        for why, count in reasons.most_common():
            terminalreporter.write_line(f"{count:6}  {why}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Undo what a test attached or mounted and did not undo itself; that is a failure of its own."""
    left = oracles.release_all()
    if left:
        print(f"\nleft behind by the tests:\n{os.linesep.join(left)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
