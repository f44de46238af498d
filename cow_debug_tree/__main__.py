"""``python -m cow_debug_tree``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cowcli.run import run


def main() -> None:
    """The command ``cow-debug-tree``."""
    run("cow-debug-tree", _load, piped=True)


def _load() -> Callable[[], object]:
    from cow_debug_tree.cli import app
    from cowcli.start import with_optional_values

    return lambda: app(with_optional_values(sys.argv[1:]), prog_name="cow-debug-tree")


if __name__ == "__main__":
    main()
