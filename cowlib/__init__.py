"""The btrfs on-disk format as columns to program on.

``cowlib.open(paths)`` gives a `cowlib.filesystem.Filesystem`; see ``docs/architecture.md`` for the layers below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cowlib.filesystem import open_filesystem as open

__all__ = ["__version__", "open"]


def __getattr__(name: str) -> object:
    # Loaded on first use: a command that only formats a device never pays for the reader.
    if name == "open":
        from cowlib.filesystem import open_filesystem

        return open_filesystem
    raise AttributeError(f"module 'cowlib' has no attribute {name!r}")
