"""Access control lists: from the text that archives have to the attribute that filesystems have."""

from __future__ import annotations

import struct

from mkfs_cow.source.contents import shown
from mkfs_cow.source.identities import NO_ID, number_of
from mkfs_cow.source.tar_member import BrokenArchive

# The kernel's posix_acl_xattr: a version, then entries in the order of their tags.
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_TAGS = {
    b"user": (_USER_OBJ, _USER),
    b"u": (_USER_OBJ, _USER),
    b"group": (_GROUP_OBJ, _GROUP),
    b"g": (_GROUP_OBJ, _GROUP),
    b"mask": (_MASK, _MASK),
    b"m": (_MASK, _MASK),
    b"other": (_OTHER, _OTHER),
    b"o": (_OTHER, _OTHER),
}


def acl_from_text(text: bytes, *, minimal: bool, unknown: list[str]) -> bytes | None:
    """The value of a ``system.posix_acl_*`` attribute from text such as ``user::rwx,user:ann:r-x:1000,...``.

    The number of a user or group stands behind the permissions, or in place of the name; if neither, this machine is
    asked. Entries for those it does not know are left out, which gives nobody more than the text does, and put into
    ``unknown``. None if the text has no entries, or unless ``minimal`` no more of them than the mode of a file says
    as well. Raises BrokenArchive.
    """
    entries = []
    for line in text.replace(b"\n", b",").split(b","):
        line = line.partition(b"#")[0].strip()
        entry = _entry(line) if line else None
        if entry is not None:
            entries.append(entry)
        elif line:
            unknown.append(shown(line))
    if not entries or (not minimal and len(entries) <= 3):
        return None
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in sorted(entries, key=lambda entry: (entry[0], entry[2])))


def mode_with_acl(mode: int, acl: bytes) -> int:
    """The permissions of a file once it has this ``system.posix_acl_access``: as the kernel would set them."""
    bits = {tag: permissions for tag, permissions, _ in _ENTRY.iter_unpack(acl[len(_VERSION) :])}
    for tag, shift in ((_USER_OBJ, 6), (_MASK if _MASK in bits else _GROUP_OBJ, 3), (_OTHER, 0)):
        if tag in bits:
            mode = mode & ~(7 << shift) | bits[tag] << shift
    return mode


def _entry(line: bytes) -> tuple[int, int, int] | None:
    """One entry: tag, permissions, id; None if nobody knows whose."""
    tag, *rest = (part.strip() for part in line.split(b":"))
    if tag not in _TAGS or not rest:
        raise BrokenArchive(f"{line[:80]!r} is no entry of an access control list")
    who, permissions, *number = rest if len(rest) > 1 else (b"", *rest)
    bits = sum(bit for letter, bit in ((b"r", 4), (b"w", 2), (b"x", 1)) if letter in permissions)
    unnamed, named = _TAGS[tag]
    if unnamed == named or not who:
        return unnamed, bits, NO_ID
    identity = _identity(number[0] if number else who, named == _USER)
    return None if identity is None else (named, bits, identity)


def _identity(who: bytes, user: bool) -> int | None:
    """The number of a user or group, None if it has none."""
    if who.isdigit():
        return int(who) if len(who) <= 10 and int(who) < NO_ID else None
    return number_of(who, user)
