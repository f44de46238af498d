"""Pax records: what they say about a member."""

from __future__ import annotations

import binascii
import re
from typing import TypeAlias

from mkfs_cow.source.acl import acl_from_text, mode_with_acl
from mkfs_cow.source.tar_member import BrokenArchive, Member, parse_decimal

#: Keys and values in their order; a key may come more than once.
Records: TypeAlias = list[tuple[bytes, bytes]]

_TIME = re.compile(rb"(-?)(\d{1,20})(?:\.(\d*))?")

_NUMBERS = {b"uid": "uid", b"gid": "gid", b"size": "size"}
_DEVICES = {b"SCHILY.devmajor": "major", b"SCHILY.devminor": "minor"}
_NAMES = {b"path": "name", b"linkpath": "link", b"GNU.sparse.name": "name"}
_TIMES = {b"mtime": "mtime", b"atime": "atime", b"ctime": "ctime", b"LIBARCHIVE.creationtime": "otime"}
_ACLS = {
    b"SCHILY.acl.access": b"system.posix_acl_access",
    b"SCHILY.acl.default": b"system.posix_acl_default",
}
_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."


def parse_records(data: bytes) -> Records:
    """The records of a pax header. Raises BrokenArchive."""
    found: Records = []
    start = 0
    while start < len(data) and data[start]:
        space = data.find(b" ", start, start + 11)
        end = start + parse_decimal(data[start : max(space, start)])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if space + 1 >= end or end > len(data) or data[end - 1] != ord("\n") or not equals:
            raise BrokenArchive("broken pax header")
        found.append((key, value))
        start = end
    return found


def apply(member: Member, records: Records) -> None:
    """Puts what the records say over what the header said. Raises BrokenArchive.

    Sparse maps are left to `take_data`. Users and groups are taken by number: names mean something else on every
    machine.
    """
    for key, value in records:
        if key.startswith(_XATTR):
            member.xattrs[_decoded(key.removeprefix(_XATTR))] = value
        elif key.startswith(_LIBARCHIVE_XATTR):
            name, content = _libarchive_xattr(key.removeprefix(_LIBARCHIVE_XATTR), value)
            member.xattrs.setdefault(name, content)
        elif not value:  # takes back what a global header said: the header stands
            continue
        elif key in _NAMES:
            setattr(member, _NAMES[key], value)
        elif key in _NUMBERS:
            setattr(member, _NUMBERS[key], parse_decimal(value))
        elif key in _DEVICES:
            setattr(member, _DEVICES[key], parse_decimal(value))
        elif key in _TIMES:
            setattr(member, _TIMES[key], _nanoseconds(value))
        elif key in _ACLS:
            unknown: list[str] = []
            acl = acl_from_text(value, minimal=key == b"SCHILY.acl.default", unknown=unknown)
            member.lacks += [f"nobody here is meant by '{entry}' of its access list" for entry in unknown]
            if acl is not None:
                member.xattrs[_ACLS[key]] = acl
            if acl is not None and key == b"SCHILY.acl.access":
                member.mode = mode_with_acl(member.mode, acl)
        elif key == b"RHT.security.selinux":
            member.xattrs.setdefault(b"security.selinux", value.rstrip(b"\0") + b"\0")


def _nanoseconds(value: bytes) -> int:
    match = _TIME.fullmatch(value)
    if match is None:
        raise BrokenArchive(f"{value[:40]!r} is no time")
    sign, seconds, fraction = match.groups()
    total = int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -total if sign else total


def _decoded(name: bytes) -> bytes:
    """GNU tar hides the equals sign, and what it hides it with."""
    return name.replace(b"%3D", b"=").replace(b"%25", b"%")


def _libarchive_xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    from urllib.parse import unquote_to_bytes

    try:
        return unquote_to_bytes(name), binascii.a2b_base64(value + b"=" * (-len(value) % 4))
    except binascii.Error:
        raise BrokenArchive(f"broken attribute {name[:80]!r}") from None
