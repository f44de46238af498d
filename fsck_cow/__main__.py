"""``python -m fsck_cow``."""

from __future__ import annotations

import gc
import os
import sys

#: What the option parser exits with, and what fsck(8) says of the same.
_PARSER_USAGE, _USAGE, _OPERATIONAL, _INTERRUPTED = 2, 16, 8, 32


def main() -> None:
    """The command ``fsck.cow``."""
    # numpy would start threads for linear algebra, which cost time and make forking unsafe.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Modules and columns are no garbage: looking for cycles among them is a tenth of a short run.
    gc.set_threshold(100_000, 20, 20)
    from cowcli.exit import exit_now

    try:
        from cowcli.start import with_optional_values
        from cowcli.stdout import checked_output
        from fsck_cow.cli import app

        with checked_output("fsck.cow", failed=_OPERATIONAL):
            app(with_optional_values(sys.argv[1:]), prog_name="fsck.cow")
    except SystemExit as end:
        exit_now(_USAGE if end.code == _PARSER_USAGE else end.code)
    except KeyboardInterrupt:
        exit_now(_INTERRUPTED)


if __name__ == "__main__":
    main()
