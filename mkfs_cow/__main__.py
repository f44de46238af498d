"""``python -m mkfs_cow``."""

from __future__ import annotations

import sys

#: What a shell says of a program that was interrupted.
_INTERRUPTED = 130


def main() -> None:
    """The command ``mkfs.cow``."""
    try:
        from cowcli.exit import exit_now
        from cowcli.stdout import checked_output
        from mkfs_cow.cli import app

        try:
            with checked_output("mkfs.cow"):
                app(prog_name="mkfs.cow")
        except SystemExit as end:
            exit_now(end.code)
    except KeyboardInterrupt:  # before the command line was read
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
