"""Standard output that fails: one line on standard error and a code, never a traceback, however it is buffered."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from cowcli.errors import tell_error
from cowlib.errors import CowError

#: What a process exits with that nobody listens to any more, as if the signal for that had ended it.
UNHEARD = 128 + 13


class OutputError(CowError):
    """Standard output took less than it was given. ``reason`` is what the system says of it."""

    def __init__(self, error: OSError) -> None:
        self.reason = os.strerror(error.errno) if error.errno else str(error)
        self.unheard = isinstance(error, BrokenPipeError)
        super().__init__(f"cannot write to standard output: {self.reason}")


class _Checked:
    """A text stream whose writes raise OutputError: option parsers have ideas of their own about an OSError.

    Once it has failed, what its buffer still holds is given up, and not told of a second time.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._telling():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        with self._telling():
            self._stream.writelines(lines)

    def flush(self) -> None:
        if not self._failed:
            with self._telling():
                self._stream.flush()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = True
            raise OutputError(error) from None


@contextmanager
def checked_output(name: str, *, failed: int = 1, unheard: int | None = None) -> Iterator[None]:
    """Runs the command ``name`` inside, ends with ``failed`` and one line where standard output fails.

    That is also so where the last of it fails that was in a buffer. Where nobody listens any more, ``unheard`` is the
    code, without a word; if it is None that is told as other failures are.
    """
    _open_what_is_closed()
    sys.stdout = cast(TextIO, _Checked(sys.stdout))
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except OutputError as error:
        if error.unheard and unheard is not None:
            raise SystemExit(unheard) from None
        tell_error(name, error)
        raise SystemExit(failed) from None


def _open_what_is_closed() -> None:
    """Standard streams that were closed when the command began: a device that is opened must not take their numbers.

    They are opened the wrong way round, so that using them fails as it would have.
    """
    for number, flags, stream in ((0, os.O_WRONLY, "stdin"), (1, os.O_RDONLY, "stdout"), (2, os.O_WRONLY, "stderr")):
        if getattr(sys, stream) is None:
            try:
                os.fstat(number)
            except OSError:
                opened = os.open(os.devnull, flags)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
            if number:
                setattr(sys, stream, open(number, "w", errors="backslashreplace", closefd=False))  # noqa: SIM115
