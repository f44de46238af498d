"""``python -m fsck_cow``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from cowcli.run import run

#: What fsck(8) says of a check that could not be done, of wrong usage, and of a check that was called off.
_OPERATIONAL, _USAGE, _CANCELLED = 8, 16, 32


def main() -> None:
    """The command ``fsck.cow``."""
    run("fsck.cow", _load, usage=_USAGE, stopped=_CANCELLED, failed=_OPERATIONAL)


def _load() -> Callable[[], object]:
    # Modules and columns are no garbage: looking for cycles among them is a tenth of a short run.
    gc.set_threshold(100_000, 20, 20)
    from cowcli.start import with_optional_values
    from fsck_cow.cli import app

    return lambda: app(with_optional_values(sys.argv[1:]), prog_name="fsck.cow")


if __name__ == "__main__":
    main()
