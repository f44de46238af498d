"""Work shared among processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from cow_debug_tree.ordered_workers import Work, run_ordered
from cowcli.stdout import UNHEARD


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


@pytest.fixture(params=[1, 2, 3])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many processes share the work."""
    monkeypatch.setattr("cow_debug_tree.ordered_workers.os.sched_getaffinity", lambda _: range(request.param))
    return int(request.param)


def run(write: Callable[[str], int], render: Callable[[int], str] = str, count: int = 20) -> int:
    """Numbers as text; from 5 on it is worth to share them."""

    def read(number: int) -> int:
        return number

    return run_ordered(
        iter(range(count)),
        Work(read, render, write),
        worth_sharing=lambda number: number == 5,
        before_fork=lambda: None,
    )


def test_results_come_in_order(workers: int, pipe: tuple[int, int]) -> None:
    def render(number: int) -> str:
        time.sleep(0.01 * (number % 3))
        return f"{number} "

    def write(text: str) -> int:
        os.write(pipe[1], text.encode())
        return 0

    assert run(write, render) == 0
    assert os.read(pipe[0], 1000).decode().split() == [str(number) for number in range(20)]


@pytest.mark.parametrize("bad", [3, 5, 6, 19])
def test_the_worst_status_is_returned(workers: int, bad: int) -> None:
    assert run(lambda text: int(text == str(bad))) == 1


def test_an_error_of_another_process_is_shown(
    workers: int, pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    def render(number: int) -> str:
        if number == 6:
            raise RuntimeError("number six")
        return f"{number} "

    def write(text: str) -> int:
        os.write(pipe[1], text.encode())
        return 0

    if workers == 1:
        with pytest.raises(RuntimeError, match="number six"):
            run(write, render)
    else:
        assert run(write, render) == 1
        assert "number six" in capfd.readouterr().err
    assert os.read(pipe[0], 1000).decode().split() == ["0", "1", "2", "3", "4", "5"]


def test_an_error_here_ends_the_others(workers: int) -> None:
    def write(text: str) -> int:
        if text == "5":
            raise RuntimeError("number five")
        return 0

    with pytest.raises(RuntimeError, match="number five"):
        run(write)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)


def test_nobody_listens(workers: int, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    here = os.getpid()

    def write(text: str) -> int:
        if os.getpid() != here or workers == 1:
            os.write(pipe[1], text.encode())
        return 0

    if workers == 1:
        with pytest.raises(BrokenPipeError):
            run(write)
    else:
        assert run(write) == UNHEARD


def test_a_process_that_is_killed(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    here = os.getpid()

    def write(text: str) -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert run(write) == (0 if workers == 1 else 128 + signal.SIGKILL)
    assert ("ended by signal 9" in capfd.readouterr().err) == (workers > 1)
