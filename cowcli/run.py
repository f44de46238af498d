"""A command from its first line to its exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from cowcli import signals

#: What the option parser exits with after wrong usage.
_PARSER_USAGE = 2


def run(
    name: str,
    load: Callable[[], Callable[[], object]],
    *,
    usage: int = _PARSER_USAGE,
    stopped: int | None = None,
    failed: int = 1,
    piped: bool = False,
) -> NoReturn:
    """Runs the command ``name`` and ends the process.

    ``load`` loads its modules and gives what is to be called then, which ends as `sys.exit` does. ``usage`` is the exit
    code for wrong usage, ``stopped`` the one after ctrl-C, SIGTERM or SIGHUP (None: 128 and the signal), ``failed`` the
    one where standard output fails. Of a command that is ``piped``, into `head` and `less`, it is no failure when
    nobody listens any more: it ends as the signal for that would have ended it.

    Nothing is left open that matters by then, and freeing every column and module one by one takes longer than checking
    a small filesystem: so the interpreter is not taken apart.
    """
    signals.listen(name, stopped)
    # numpy would start threads for linear algebra, which cost time and make forking unsafe.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        command = load()
        signals.loaded()
        code = _exit_code(name, command, failed, piped)
        signals.over()
        number = signals.received()
        if code and number is not None:  # swallowed on its way; what failed then has said so
            signals.end_helpers()
            code = signals.exit_code(number)
    except BaseException as error:
        number = signals.received()
        if number is None:
            raise
        # Whatever it has become on its way through other people's code.
        signals.end_helpers()
        signals.tell(number, getattr(error, "__notes__", []))
        code = signals.exit_code(number)
    os._exit(usage if code == _PARSER_USAGE else code)


def _exit_code(name: str, command: Callable[[], object], failed: int, piped: bool) -> int:
    """What the command exits with, everything written."""
    from cowcli.stdout import UNHEARD, checked_output

    code: object = 0
    try:
        with checked_output(name, failed=failed, unheard=UNHEARD if piped else None):
            command()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)
