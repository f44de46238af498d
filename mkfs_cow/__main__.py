"""``python -m mkfs_cow``."""

from __future__ import annotations

from collections.abc import Callable

from cowcli.run import run


def main() -> None:
    """The command ``mkfs.cow``."""
    run("mkfs.cow", _load)


def _load() -> Callable[[], object]:
    from mkfs_cow.cli import app

    return lambda: app(prog_name="mkfs.cow")


if __name__ == "__main__":
    main()
