"""Definitions of pseudo files: what they say, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowlib.errors import UsageError
from mkfs_cow.source.pseudo import Definition, read_pseudo


def read(tmp_path: Path, text: str | bytes) -> list[Definition]:
    path = tmp_path / "defs"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_pseudo([path])


def one(tmp_path: Path, text: str | bytes) -> Definition:
    (definition,) = read(tmp_path, text)
    return definition


def fields(definition: Definition) -> tuple[object, ...]:
    d = definition
    return d.path, d.kind, d.time, d.mode, d.uid, d.gid, d.rdev, d.text, d.value


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/a/./b// d 755 1 2", (b"a/b", "d", None, 0o755, 1, 2, 0, b"", b"")),
        ("/ d 0700 root root", (b"", "d", None, 0o700, 0, 0, 0, b"", b"")),
        ('"a b" m 4711 0 0', (b"a b", "m", None, 0o4711, 0, 0, 0, b"", b"")),
        (r"a\ b c 666 0 5 4095 1048575", (b"a b", "c", None, 0o666, 0, 5, 2**32 - 1, b"", b"")),
        ("x b 660 0 6 8 17", (b"x", "b", None, 0o660, 0, 6, 8 << 20 | 17, b"", b"")),
        ("x i 600 1 1 s", (b"x", "i", None, 0o600, 1, 1, 0, b"s", b"")),
        ("x i 600 1 1 f", (b"x", "i", None, 0o600, 1, 1, 0, b"f", b"")),
        ("x s 0 1 1 ../to  there ", (b"x", "s", None, 0, 1, 1, 0, b"../to  there", b"")),
        ('x f 444 1 1 echo "a  b" \\\\', (b"x", "f", None, 0o444, 1, 1, 0, b'echo "a  b" \\\\', b"")),
        ('x l "/etc/a file"', (b"x", "l", None, 0, 0, 0, 0, b"/etc/a file", b"")),
        ("x h ../y", (b"x", "h", None, 0, 0, 0, 0, b"../y", b"")),
        ("x L /a//b", (b"x", "L", None, 0, 0, 0, 0, b"a/b", b"")),
        ("x D 801431140 700 0 0", (b"x", "d", 801431140, 0o700, 0, 0, 0, b"", b"")),
        ('x C "1 jan 1980 UTC" 700 0 0 1 2', (b"x", "c", 315532800, 0o700, 0, 0, 1 << 20 | 2, b"", b"")),
        (r"x F 1\ jan\ 1960\ UTC 700 0 0 cat y", (b"x", "f", -315619200, 0o700, 0, 0, 0, b"cat y", b"")),
        ("x x user.a=b = c", (b"x", "x", None, 0, 0, 0, 0, b"user.a", b"b = c")),
        ("x x user.a=", (b"x", "x", None, 0, 0, 0, 0, b"user.a", b"")),
        ("x x user.a=0x00fF10", (b"x", "x", None, 0, 0, 0, 0, b"user.a", b"\0\xff\x10")),
        ("x x security.b=0saGVsbG8Ad29ybGQ=", (b"x", "x", None, 0, 0, 0, 0, b"security.b", b"hello\0world")),
        (r"x x user.a=0thello\000world\7", (b"x", "x", None, 0, 0, 0, 0, b"user.a", b"hello\0world\\7")),
        (b"\xff\xfe s 0 0 0 \xfd", (b"\xff\xfe", "s", None, 0, 0, 0, 0, b"\xfd", b"")),
    ],
)
def test_what_a_line_means(tmp_path: Path, text: str | bytes, meant: tuple[object, ...]) -> None:
    assert fields(one(tmp_path, text)) == meant


def test_lines_go_on(tmp_path: Path) -> None:
    found = read(tmp_path, "# about\na f 444 0 0 \\\n  echo 1; \\\n  echo 2\nb d 755 0 0\n")
    assert [(d.line.number, d.text) for d in found] == [(2, b"echo 1;   echo 2"), (5, b"")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", ":1: the type is missing"),
        ("x q 644 0 0", ":1: 'q' is not a type"),
        ("x dd 644 0 0", ":1: 'dd' is not a type"),
        ("x R 1 644 0 0 10 0 0", ":1: type R is data of a squashfs dump"),
        ("../x d 644 0 0", r":1: '\.\./x' leaves the root directory"),
        (f"{'n' * 256} d 644 0 0", ":1: '.*': a name of more than 255 bytes"),
        ("\nx d", ":2: the mode is missing"),
        ("x d 648 0 0", ":1: the mode '648' is not an octal number up to 7777"),
        ("x d 10000 0 0", ":1: the mode '10000' is not an octal number"),
        ("x d u=rwx 0 0", ":1: the mode 'u=rwx' is not an octal number"),
        ("x d 755 0", ":1: the group is missing"),
        ("x d 755 nobody-of-this-name 0", ":1: this machine has no user 'nobody-of-this-name'"),
        ("x d 755 4294967295 0", ":1: the user 4294967295 is above the highest id"),
        ("x d 755 0 0 0", ":1: '0' is too much"),
        ("x c 666 0 0 1", ":1: the minor number is missing"),
        ("x c 666 0 0 4096 1", ":1: the major number '4096' is not a number from 0 to 4095"),
        ("x b 666 0 0 1 1048576", ":1: the minor number '1048576' is not a number from 0 to 1048575"),
        ("x i 666 0 0 p", ":1: 'p' is neither s, a socket, nor f, a FIFO"),
        ("x s 666 0 0", ":1: the target is missing"),
        (f"x s 666 0 0 {'t' * 4096}", ":1: a target of 4096 bytes: 4095 are possible"),
        ("x f 666 0 0", ":1: the command is missing"),
        ("x l", ":1: the file is missing"),
        ("x l a b", ":1: 'b' is too much"),
        ("x D 755 0 0", ":1: the group is missing"),
        ("x D 'never' 755 0 0", ":1: the time ''never'' is neither seconds nor a date"),
        ("x x user.a", ":1: an attribute is NAME=VALUE"),
        ("x x =a", ":1: an attribute is NAME=VALUE"),
        ("x x system.foo=a", ":1: btrfs has no attributes such as 'system.foo'"),
        ("x x user.a=0xabc", ":1: the value '0xabc' is not what its prefix says"),
        ("x x user.a=0s***", r":1: the value '0s\*\*\*' is not what its prefix says"),
        ('"x d 755 0 0', ":1: the path: a quote is not closed"),
        (b"\x89PNG\r\n\x1a\n\0\0", ":3: a NUL byte: this is no text"),
        (b"\x89\xff\xfe\r\n", ":1: the type is missing"),
        ("", "defines nothing"),
    ],
)
def test_what_is_wrong_with_a_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(tmp_path, text)
