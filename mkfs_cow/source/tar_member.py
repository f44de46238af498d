"""One member of a tar archive, and the numbers in its header."""

from __future__ import annotations

from dataclasses import dataclass, field


class BrokenArchive(Exception):
    """What the archive says makes no sense; the message says what. Becomes a CowError that names the place."""


@dataclass(slots=True)
class Member:
    """What the headers of one member say.

    ``kind`` is the type flag as a character, ``mode`` the permissions alone. Times are nanoseconds, None where the
    archive gives none. ``segments`` are (offset in the file, length, position in the contents) of data; ``lacks``
    tells what of the member cannot be had here.
    """

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    major: int
    minor: int
    link: bytes
    mtime: int
    atime: int | None = None
    ctime: int | None = None
    otime: int | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    segments: list[tuple[int, int, int]] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)


def parse_octal(digits: bytes) -> int | None:
    """Octal digits, ended by NUL or spaces; nothing is 0, and None what is no such number."""
    text = digits.partition(b"\0")[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return None


def parse_number(digits: bytes) -> int:
    """A number of a header: octal, or as GNU writes large and negative ones, base 256. Raises BrokenArchive."""
    if digits[0] & 0x80:
        bits = 8 * len(digits) - 1  # the first says that this is base 256, the next one is the sign
        value = int.from_bytes(digits, "big") & (1 << bits) - 1
        return value - (1 << bits) if value >> bits - 1 else value
    number = parse_octal(digits)
    if number is None:
        raise BrokenArchive(f"{digits!r} is no number")
    return number


def parse_decimal(digits: bytes) -> int:
    """A number of a pax record or a sparse map, not negative. Raises BrokenArchive."""
    if not digits.isdigit() or len(digits) > 20:
        raise BrokenArchive(f"{digits[:40]!r} is no number")
    return int(digits)
