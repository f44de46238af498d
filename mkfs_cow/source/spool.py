"""Room on disk for what can't be read again and need not be in memory: a temporary file that has no name."""

from __future__ import annotations

import os
import tempfile
from typing import IO, cast


def spool_file(buffering: int) -> IO[bytes]:
    """An empty file in ``TMPDIR``, by default in /var/tmp, that is gone when it is closed. Raises OSError."""
    directory = os.environ.get("TMPDIR") or "/var/tmp"
    return cast("IO[bytes]", tempfile.TemporaryFile(buffering=buffering, dir=directory))
