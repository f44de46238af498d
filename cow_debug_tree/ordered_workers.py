"""Several processes share the tasks of one stream and write their results in turn, as if there were only one.

What a task needs from the disk is read while the one before it is worked on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, TypeVar

from cow_debug_tree.output import complain
from cowcli import signals
from cowcli.stdout import UNHEARD
from cowlib.errors import CowError

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

#: More do not help: writing is one after the other.
MAX_WORKERS = 4


@dataclass(frozen=True)
class Work(Generic[T, D, R]):
    """How tasks of type T are done: ``read`` gets their data, ``render`` makes the result of it, and
    ``write`` writes that and returns a status, 0 or more.
    """

    read: Callable[[T], D]
    render: Callable[[D], R]
    write: Callable[[R], int]


def run_ordered(
    tasks: Iterator[T],
    work: Work[T, D, R],
    *,
    worth_sharing: Callable[[T], bool],
    before_fork: Callable[[], None],
) -> int:
    """Does all tasks, in order. Returns the largest status.

    The first task that is ``worth_sharing`` makes this process fork, ``before_fork`` having been called. The
    copies go on with ``tasks`` where it stands, each for itself, and do every other one; each writes when it
    is its turn. Raises what the work raises here; in the other processes such an error is shown on stderr.
    """
    status = 0
    for task in tasks:
        if worth_sharing(task):
            before_fork()
            team = _Team(min(MAX_WORKERS, len(os.sched_getaffinity(0))))
            return max(status, _share(team, chain([task], tasks), work))
        status = max(status, work.write(work.render(work.read(task))))
    return status


class _PeerGone(Exception):
    """The process whose turn it was has ended before its time."""


class _Team:
    """The processes that share the work: worker 0 was there before. Each has a pipe on which its predecessor
    tells it that its turn has come.
    """

    def __init__(self, size: int) -> None:
        pipes = [os.pipe() for _ in range(size)]
        self.size = size
        self.me = 0
        self._children: list[int] = []
        for number in range(1, size):
            child = signals.fork()
            if child == 0:
                self.me, self._children = number, []
                break
            self._children.append(child)
        self._mine, self._next = pipes[self.me][0], pipes[(self.me + 1) % size][1]
        for end in chain.from_iterable(pipes):
            if end not in (self._mine, self._next):
                os.close(end)
        self._begins = self.me == 0

    def wait_for_turn(self) -> None:
        """Returns when all that comes before has been written."""
        if self._begins:
            self._begins = False
        elif not os.read(self._mine, 1):
            raise _PeerGone

    def pass_on(self) -> None:
        """Lets the next one write."""
        # Without a reader: it had nothing left to do, or its exit status will tell what ended it.
        with suppress(BrokenPipeError):
            os.write(self._next, b".")

    def part(self) -> int:
        """Waits for all others, which stop as soon as they would have to wait for us: their worst exit
        status.
        """
        os.close(self._next)
        worst = 0
        for child in self._children:
            code = signals.wait_for(child)
            if code < 0:
                complain([f"a process that helped was ended by signal {-code}"])
            worst = max(worst, code if code >= 0 else 128 - code)
        return worst


def _share(team: _Team, tasks: Iterator[T], work: Work[T, D, R]) -> int:
    if team.me:
        os._exit(_help(team, tasks, work))
    status = 0
    try:
        status = _work(team, tasks, work)
    except _PeerGone:
        pass  # its exit status tells why
    except signals.Stopped:
        raise  # the others are ended with us
    except BaseException:
        team.part()
        raise
    return max(status, team.part())


def _help(team: _Team, tasks: Iterator[T], work: Work[T, D, R]) -> int:
    """The work of a forked process, and what to exit with."""
    try:
        return _work(team, tasks, work)
    except _PeerGone:
        return 0
    except BrokenPipeError:
        return UNHEARD
    except CowError as error:
        complain([str(error)])
        return error.exit_code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


def _work(team: _Team, tasks: Iterator[T], work: Work[T, D, R]) -> int:
    status = 0
    for data in _read_ahead(islice(tasks, team.me, None, team.size), work.read):
        result = work.render(data)
        team.wait_for_turn()
        status = max(status, work.write(result))
        team.pass_on()
    return status


def _read_ahead(tasks: Iterator[T], read: Callable[[T], D]) -> Iterator[D]:
    """The data of each task, while that of the next one is being read."""
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for task in tasks:
            coming = reader.submit(read, task)
            if ahead is not None:
                yield ahead.result()
            ahead = coming
        if ahead is not None:
            yield ahead.result()
