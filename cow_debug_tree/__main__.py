"""``python -m cow_debug_tree``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The command ``cow-debug-tree``."""
    # numpy would start threads for linear algebra, which cost time and make forking unsafe.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from cow_debug_tree.cli import app
    from cow_debug_tree.output import UNHEARD
    from cowcli.exit import exit_now
    from cowcli.start import with_optional_values
    from cowcli.stdout import checked_output

    try:
        with checked_output("cow-debug-tree", unheard=UNHEARD):
            app(with_optional_values(sys.argv[1:]), prog_name="cow-debug-tree")
    except SystemExit as end:
        exit_now(end.code)


if __name__ == "__main__":
    main()
