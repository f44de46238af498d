"""Users and groups as numbers: which there can be, and what this machine calls them."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

#: As a user or group this means: none.
NO_ID = 2**32 - 1

#: The highest number that a user or group can have.
HIGHEST_ID = NO_ID - 1


@cache
def number_of(name: bytes, user: bool) -> int | None:
    """The number that this machine has for the name of a user, or of a group; None if it knows none."""
    import grp
    import pwd

    with suppress(KeyError, ValueError):
        text = name.decode(errors="surrogateescape")
        return pwd.getpwnam(text).pw_uid if user else grp.getgrnam(text).gr_gid
    return None
