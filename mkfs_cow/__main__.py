"""``python -m mkfs_cow``."""

from __future__ import annotations

import sys

#: What a shell says of a program that was interrupted.
_INTERRUPTED = 130


def main() -> None:
    """The command ``mkfs.cow``."""
    try:
        from mkfs_cow.cli import app

        app(prog_name="mkfs.cow")
    except KeyboardInterrupt:  # before the command line was read
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
