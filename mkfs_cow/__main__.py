"""``python -m mkfs_cow``."""

from __future__ import annotations


def main() -> None:
    """The command ``mkfs.cow``."""
    from mkfs_cow.cli import app

    app(prog_name="mkfs.cow")


if __name__ == "__main__":
    main()
