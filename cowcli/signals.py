"""Signals that ask a command to end: ctrl-C, SIGTERM, SIGHUP. All three act alike, one is enough, and none is lost.

While modules are loaded nothing has to be undone: the command says what happened and ends within the handler. Later
the handler raises `Stopped`, so that every ``with`` on the way out undoes what it did. More signals (a terminal that
closes sends some, systemd sends two) do not disturb that.

Loads nothing but what the interpreter has loaded already: it comes before everything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

#: The signals, and what is said of a command that one of them ended.
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}

#: Seconds until a `Stopped` that was lost is raised once more.
_AGAIN = 0.01


class Stopped(BaseException):
    """A signal asked the command to end. What became of its work goes into notes (`add_note`)."""

    def __init__(self, number: int) -> None:
        super().__init__(WORDS[signal.Signals(number)])
        self.number = number


class _Run:
    """The command that this process runs."""

    name = ""
    loading = True  # nothing has to be undone yet
    received: int | None = None  # the first signal
    held = 0  # so many steps under way may not be interrupted
    over = False  # nothing is left to be stopped
    exit_code: int | None = None  # of a command that was stopped, if it is not what a shell says of a signal
    helpers: set[int] = set()  # noqa: RUF012 - there is one run in a process


def listen(name: str, exit_code: int | None = None) -> None:
    """From now on the signals end this command, called ``name``; one that was ignored so far (nohup) stays ignored.

    ``exit_code`` is what to exit with then, None: 128 and the signal.
    """
    _Run.name, _Run.exit_code = name, exit_code
    for number in WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _receive)
    sys.unraisablehook = _raise_again


def loaded() -> None:
    """All modules are there and work begins: from now on a signal raises `Stopped`."""
    _Run.loading = False


def over() -> None:
    """The work is done and said: from now on signals change nothing."""
    _Run.over = True


def received() -> int | None:
    """The signal that asked this command to end, None: none did."""
    return _Run.received


def exit_code(number: int) -> int:
    """What to exit with after signal ``number``."""
    return 128 + number if _Run.exit_code is None else _Run.exit_code


def tell(number: int, notes: list[str]) -> None:
    """Says on standard error that signal ``number`` ended the command, and what became of its work."""
    words = ": ".join([_Run.name, WORDS[signal.Signals(number)], "; ".join(notes)]).removesuffix(": ")
    # Not by sys.stderr, which may be in the middle of something; and a terminal that hung up takes no words.
    with contextlib.suppress(OSError):
        os.write(2, f"{words}\n".encode(errors="backslashreplace"))


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Signals wait while this lasts: for a few steps that belong together."""
    # A signal mask would not do: the system then gives a signal to another thread, and Python to this one all the same.
    before = _Run.received
    _Run.held += 1
    try:
        yield
    finally:
        _Run.held -= 1
        if not _Run.held and before is None and _Run.received is not None:
            raise Stopped(_Run.received)


def fork() -> int:
    """`os.fork` for a copy of this process that helps with its work: a signal ends such a helper without a word.

    Whoever has forked calls `wait_for`; helpers that are still there when this process is stopped are ended with it.
    """
    with held():
        child = os.fork()
        if child:
            _Run.helpers.add(child)
            return child
        _Run.helpers.clear()
        for number in WORDS:
            if signal.getsignal(number) is _receive:
                signal.signal(number, signal.SIG_DFL)
        if _Run.received is not None:
            os._exit(exit_code(_Run.received))
        return 0


def wait_for(helper: int) -> int:
    """Waits until a helper is gone and gives its exit code, negative: the signal that ended it."""
    code = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    _Run.helpers.discard(helper)
    return code


def end_helpers() -> None:
    """Ends all helpers that are still there."""
    for helper in list(_Run.helpers):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(helper, signal.SIGTERM)
            wait_for(helper)
    _Run.helpers.clear()


def _receive(number: int, frame: FrameType | None) -> None:
    if _Run.over or _Run.received is not None:
        return
    _Run.received = number
    if _Run.loading:
        tell(number, [])
        os._exit(exit_code(number))
    if not _Run.held:
        raise Stopped(number)


def _raise_again(unraisable: Any) -> None:
    """Python drops what is raised in a destructor. One that a signal fell into must not save the command from it."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    number = unraisable.exc_value.number

    def again(_: int, frame: FrameType | None) -> None:
        if not _Run.over:
            raise Stopped(number)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)
