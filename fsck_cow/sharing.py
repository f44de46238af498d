"""Tasks spread over the processors: forked copies of this process do every other one and send their results back.

What a task needs from the disk is read while the one before it is worked on.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cowcli import signals
from cowlib.errors import CowError
from cowlib.volume import Volume

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

#: Fewer tasks than this are done sooner than a process is copied.
_WORTH_A_FORK = 4

_MAX_PROCESSES = 4

_LENGTH = struct.Struct("<Q")


def share(tasks: Sequence[T], read: Callable[[T], D], work: Callable[[D], R], volume: Volume) -> Iterator[R]:
    """The result of each task, in order: ``work`` on what ``read`` brought. Results must be picklable.

    ``read`` may run in a thread beside ``work``. Raises what either raises, wherever it ran; CowError when a process
    ends before its time.
    """
    count = min(_MAX_PROCESSES, len(os.sched_getaffinity(0)))
    if len(tasks) < _WORTH_A_FORK or count < 2:
        yield from (work(read(task)) for task in tasks)
        return
    volume.rest()
    helpers = [_Helper(tasks[number::count], read, work) for number in range(1, count)]
    try:
        own = _read_ahead(tasks[::count], read)
        for index in range(len(tasks)):
            yield work(next(own)) if index % count == 0 else helpers[index % count - 1].result()
    finally:
        for helper in helpers:
            helper.end()


def _read_ahead(tasks: Sequence[T], read: Callable[[T], D]) -> Iterator[D]:
    """What each task needs, while the next one's is being read."""
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(read, task) for task in tasks[:1]]
        for task in tasks[1:]:
            coming.append(reader.submit(read, task))
            yield coming.pop(0).result()
        for last in coming:
            yield last.result()


class _Helper:
    """A forked copy of this process that does some tasks and writes their results to a pipe."""

    def __init__(self, tasks: Sequence[T], read: Callable[[T], D], work: Callable[[D], R]) -> None:
        read_end, write_end = os.pipe()
        self._left = len(tasks)
        self._pid = signals.fork()
        if self._pid == 0:
            os.close(read_end)
            _serve(tasks, read, work, write_end)
        os.close(write_end)
        self._pipe = os.fdopen(read_end, "rb")

    def result(self) -> R:  # type: ignore[type-var]
        """The result of its next task."""
        head = self._pipe.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise CowError("a process that helped ended before its time", hint="was there enough memory?")
        result = pickle.loads(self._pipe.read(_LENGTH.unpack(head)[0]))
        self._left -= 1
        if isinstance(result, BaseException):
            raise result
        return result  # type: ignore[no-any-return]

    def end(self) -> None:
        """Waits until it is gone; what it still has to say is of no use any more."""
        self._pipe.close()
        if self._left:
            os.kill(self._pid, signal.SIGTERM)
        signals.wait_for(self._pid)


def _serve(tasks: Sequence[T], read: Callable[[T], D], work: Callable[[D], R], write_end: int) -> None:
    status = 0
    try:
        with os.fdopen(write_end, "wb") as pipe:
            own = _read_ahead(tasks, read)
            for _ in tasks:
                try:
                    result: R | BaseException = work(next(own))
                except Exception as error:
                    result = error
                data = pickle.dumps(result, protocol=5)
                pipe.write(_LENGTH.pack(len(data)) + data)
                pipe.flush()
    except BrokenPipeError:
        status = 1
    finally:
        os._exit(status)
