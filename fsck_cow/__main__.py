"""``python -m fsck_cow``."""

from __future__ import annotations

import sys

#: What the option parser exits with, and what fsck(8) says of the same.
_PARSER_USAGE, _USAGE, _INTERRUPTED = 2, 16, 32


def main() -> None:
    """The command ``fsck.cow``."""
    try:
        from cowcli.start import with_optional_values
        from fsck_cow.cli import app

        app(with_optional_values(sys.argv[1:]), prog_name="fsck.cow")
    except SystemExit as end:
        sys.exit(_USAGE if end.code == _PARSER_USAGE else end.code)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
