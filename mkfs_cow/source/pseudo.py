"""Pseudo files: what is to be added to a tree or changed in it, in the words of mksquashfs.

A definition is a line ``PATH TYPE ...``::

    PATH d mode uid gid                 a directory
    PATH m mode uid gid                 other permissions and owners for what is there
    PATH b|c mode uid gid major minor   a device
    PATH i mode uid gid s|f             a socket or a FIFO
    PATH s mode uid gid target          a symbolic link
    PATH f mode uid gid command         a file with what a shell command prints
    PATH l|h file                       a file of this machine; h follows a symbolic link
    PATH L path                         another name for a file in the tree
    PATH x name=value                   an extended attribute

``D M B C I S F`` are the same with a time before the mode: seconds, or a date as date(1) reads it.
"""

from __future__ import annotations

import base64
import binascii
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cowlib.format import NAME_LEN
from mkfs_cow.source.builder import storable
from mkfs_cow.source.contents import shown
from mkfs_cow.source.definitions import Line, read_definitions
from mkfs_cow.source.identities import HIGHEST_ID, number_of

_HIGHEST_MAJOR, _HIGHEST_MINOR = 0xFFF, 0xFFFFF
_LONGEST_TARGET = 4095
_TIMED = "DMBCISF"
_TYPES = (*"dmbcisflhLx", *_TIMED)
_OCTAL = re.compile(rb"[0-7]{1,6}")
_SECONDS = re.compile(rb"[0-9]{1,18}")
_OCTAL_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Definition:
    """One definition, and the ``line`` it stands in.

    ``path`` is relative to the root, ``kind`` the type in lower case (but ``L``, which means something else). ``time``
    is in seconds, None if it has none. ``rdev`` is as btrfs stores it. ``text`` is what the type has of its own: a
    command, a target, a path, ``s`` or ``f``, the name of an attribute, whose ``value`` that is.
    """

    line: Line
    path: bytes
    kind: str
    time: int | None = None
    mode: int = 0
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    text: bytes = b""
    value: bytes = b""


def read_pseudo(paths: Sequence[Path]) -> list[Definition]:
    """The definitions in these files. Raises UsageError for what is wrong with any of them."""
    return [_definition(line) for path in paths for line in read_definitions(path)]


def _definition(line: Line) -> Definition:
    path = relative_path(line, line.word("the path"))
    letter = line.word("the type").decode("latin-1")
    if letter == "R":
        raise line.error("type R is data of a squashfs dump, which only mksquashfs reads")
    if letter in ("l", "h", "L"):
        text = line.word("the file")
        line.end()
        return Definition(line, path, letter, text=relative_path(line, text) if letter == "L" else text)
    if letter == "x":
        return _attribute(line, path)
    if letter not in _TYPES:
        raise line.error(f"'{shown(letter.encode()[:40])}' is not a type", f"types are {' '.join(_TYPES)}")
    time = _time(line) if letter in _TIMED else None
    mode = _mode(line)
    uid, gid = _identity(line, "user"), _identity(line, "group")
    kind, rdev, text = letter.lower(), 0, b""
    if kind in "bc":
        rdev = line.number_of("the major number", _HIGHEST_MAJOR) << 20
        rdev |= line.number_of("the minor number", _HIGHEST_MINOR)
    elif kind == "i":
        text = line.word("s or f")
        if text not in (b"s", b"f"):
            raise line.error(f"'{shown(text[:40])}' is neither s, a socket, nor f, a FIFO")
    elif kind == "s":
        text = line.rest("the target")
        if len(text) > _LONGEST_TARGET:
            raise line.error(f"a target of {len(text)} bytes: {_LONGEST_TARGET} are possible")
    elif kind == "f":
        text = line.rest("the command")
    line.end()
    return Definition(line, path, kind, time, mode, uid, gid, rdev, text)


def relative_path(line: Line, path: bytes) -> bytes:
    """A path relative to the root in one spelling, the root's is empty. Raises UsageError."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise line.error(f"'{shown(path)}' leaves the root directory")
    if any(len(part) > NAME_LEN for part in parts):
        raise line.error(f"'{shown(path[:40])}...': a name of more than {NAME_LEN} bytes")
    return b"/".join(parts)


def _mode(line: Line) -> int:
    word = line.word("the mode")
    if not _OCTAL.fullmatch(word) or int(word, 8) > 0o7777:
        raise line.error(f"the mode '{shown(word[:40])}' is not an octal number up to 7777")
    return int(word, 8)


def _identity(line: Line, kind: str) -> int:
    """The number of a user or group, given as such or by its name on this machine."""
    word = line.word(f"the {kind}")
    if word.isdigit():
        if len(word) > 10 or int(word) > HIGHEST_ID:
            raise line.error(f"the {kind} {shown(word[:40])} is above the highest id, {HIGHEST_ID}")
        return int(word)
    number = number_of(word, kind == "user")
    if number is None:
        raise line.error(f"this machine has no {kind} '{shown(word[:40])}'", "give its number")
    return number


def _time(line: Line) -> int:
    word = line.word("the time")
    if _SECONDS.fullmatch(word):
        return int(word)
    try:
        said = subprocess.run(["date", "-d", word, "+%s"], capture_output=True).stdout.strip()
    except OSError:
        said = b""
    if not re.fullmatch(rb"-?[0-9]{1,18}", said):
        raise line.error(f"the time '{shown(word[:80])}' is neither seconds nor a date that date(1) reads")
    return int(said)


def _attribute(line: Line, path: bytes) -> Definition:
    name, equals, value = line.rest("the attribute").partition(b"=")
    if not equals or not name:
        raise line.error("an attribute is NAME=VALUE")
    if len(name) > NAME_LEN:
        raise line.error(f"a name of more than {NAME_LEN} bytes")
    if not storable(name):
        raise line.error(f"btrfs has no attributes such as '{shown(name[:80])}'", "user.NAME, security.NAME ... are")
    return Definition(line, path, "x", text=name, value=_value(line, value))


def _value(line: Line, text: bytes) -> bytes:
    """The value of an attribute: as it stands, or behind 0x in hexadecimal, 0s in base64, 0t with octal escapes."""
    try:
        if text.startswith((b"0x", b"0X")):
            return binascii.unhexlify(text[2:])
        if text.startswith((b"0s", b"0S")):
            return base64.b64decode(text[2:], validate=True)
    except (binascii.Error, ValueError):
        raise line.error(f"the value '{shown(text[:80])}' is not what its prefix says") from None
    if text.startswith((b"0t", b"0T")):
        return _OCTAL_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 255]), text[2:])
    return text
