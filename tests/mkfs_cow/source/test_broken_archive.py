"""Archives that lie, or end too early: one clear error, and neither a traceback nor all of the memory."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cowlib.errors import CowError
from mkfs_cow.source.archive import scan_tar
from mkfs_cow.source.tar_member import BrokenArchive, parse_number
from mkfs_cow.source.tar_pax import parse_records


def archive_of(*infos: tarfile.TarInfo, data: bytes = b"", form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as file:
        for info in infos:
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def info(name: str = "file", **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def resummed(block: bytearray) -> bytes:
    """A header with its checksum put right."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def with_field(start: int, value: bytes, archive: bytes) -> bytes:
    """An archive with something else in its first header."""
    block = bytearray(archive[:512])
    block[start : start + len(value)] = value
    return resummed(block) + archive[512:]


def sparse_records(**records: str) -> bytes:
    headers = {"GNU.sparse." + key: value for key, value in records.items()}
    return archive_of(info(size=1024, pax_headers=headers), data=bytes(1024))


def old_gnu(*pieces: tuple[int, int], real: int) -> bytes:
    """A sparse file as GNU tar once wrote them, with 1024 bytes of data."""
    block = bytearray(archive_of(info(size=1024), data=bytes(1024), form=tarfile.GNU_FORMAT)[:512])
    block[156:157] = b"S"
    for i, (offset, length) in enumerate(pieces):
        block[386 + 24 * i : 410 + 24 * i] = b"%011o\0%011o\0" % (offset, length)
    block[483:495] = b"%011o\0" % real
    return resummed(block) + bytes(1024) + bytes(1024)


FILE = archive_of(info(size=3000), data=b"x" * 3000, form=tarfile.GNU_FORMAT)
GZIPPED = gzip.compress(FILE, mtime=0)

BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "text": b"no archive at all\n" * 100,
    "zeros and no end": bytes(100),
    "cut in the header": FILE[:300],
    "cut in the data": FILE[:1000],
    "cut gzip": GZIPPED[:-20],
    "damaged gzip": GZIPPED[:30] + b"\xff" * 20 + GZIPPED[50:],
    "cut zstd": zstandard.compress(random.Random(1).randbytes(5000) + FILE)[:5005],
    "damaged zstd": zstandard.compress(FILE)[:6] + b"\xff" * 30,
    "damaged xz": b"\xfd7zXZ\0" + b"x" * 100,
    "damaged bzip2": b"BZh9" + b"x" * 100,
    "no number": with_field(124, b"99999999999", FILE),
    "huge size": with_field(124, b"\x80" + b"\x7f" * 11, FILE),
    "negative size": with_field(124, b"\xff" * 12, FILE),
    "larger than the archive": with_field(124, b"77777777777\0", FILE),
    "negative owner": with_field(108, b"\xff" * 8, FILE),
    "wrong checksum": FILE[:100] + b"1" + FILE[101:],
    "endless long name": with_field(124, b"77777777777\0", with_field(156, b"L", FILE)),
    "endless pax header": with_field(124, b"77777777777\0", with_field(156, b"x", FILE)),
    "one volume of several": with_field(156, b"M", FILE),
    "sparse, unsorted": old_gnu((4096, 512), (0, 512), real=8192),
    "sparse, overlapping": old_gnu((0, 512), (100, 512), real=8192),
    "sparse, behind the end": old_gnu((0, 512), (8000, 512), real=8192),
    "sparse, too short": old_gnu((0, 512), real=8192),
    "sparse, too long": old_gnu((0, 2048), real=8192),
    "sparse, half a map": sparse_records(size="9999", map="0,512,600"),
    "sparse, no numbers": sparse_records(size="9999", map="a,b"),
    "sparse, no map in the data": sparse_records(major="1", minor="0", realsize="9999"),
    "sparse, huge": sparse_records(size="9" * 19, map="0,1024"),
    "sparse, long digits": sparse_records(size="9" * 5000, map="0,1024"),
    "bad time": archive_of(info(pax_headers={"mtime": "yesterday"})),
    "long time": archive_of(info(pax_headers={"mtime": "1" * 5000})),
    "bad access list": archive_of(info(pax_headers={"SCHILY.acl.access": "who::knows"})),
    "bad base64": archive_of(info(pax_headers={"LIBARCHIVE.xattr.user.a": "A"})),
    "a name with NUL": archive_of(info(pax_headers={"path": "a\0b"})),
}


@pytest.mark.parametrize("what", BROKEN)
def test_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "archive").write_bytes(BROKEN[what])
    with pytest.raises(CowError, match="archive"):
        scan_tar(str(tmp_path / "archive"), warn=lambda _: None)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CowError, match="No such file"):
        scan_tar(str(tmp_path / "archive"), warn=lambda _: None)


def test_a_map_in_the_data_that_never_ends(tmp_path: Path) -> None:
    """Twenty million numbers were promised, and come."""
    lines = b"20000000\n" + b"0\n" * 10_000_000
    size = -(-len(lines) // 512) * 512
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    archive = archive_of(info(size=size, pax_headers=headers), data=lines.ljust(size, b"\0"))
    (tmp_path / "archive").write_bytes(archive)
    with pytest.raises(CowError, match="too many pieces"):
        scan_tar(str(tmp_path / "archive"), warn=lambda _: None)


@pytest.mark.parametrize("make", [lambda b: b, gzip.compress], ids=["plain", "gzip"])
def test_without_its_end(tmp_path: Path, make: Callable[[bytes], bytes]) -> None:
    """The blocks of zeros at the end may be missing, as well as what fills up the last block. It is said."""
    (tmp_path / "archive").write_bytes(make(FILE[: 512 + 3000]))
    lines: list[str] = []
    tree = scan_tar(str(tmp_path / "archive"), warn=lines.append)
    assert tree.size[tree.find(b"file")] == 3000
    assert len(lines) == 1
    assert "something may be missing" in lines[0]


SAMPLE = archive_of(
    info("a", size=700, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
    info("a/b" * 60, type=tarfile.SYMTYPE, linkname="c" * 150),
    info("d", size=700, pax_headers={"GNU.sparse.map": "0,700", "GNU.sparse.size": "5000"}),
    data=b"7" * 700,
) + archive_of(info("n" * 150, size=700), data=b"7" * 700, form=tarfile.GNU_FORMAT)


@given(data=st.data())
def test_damage_is_never_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    archive = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
        block = at // 512 * 512  # let some of it pass the checksum
        if data.draw(st.booleans()) and block + 512 <= len(archive):
            archive[block : block + 512] = resummed(archive[block : block + 512])
    (tmp_path / "archive").write_bytes(archive[: data.draw(st.integers(1, len(archive)))])
    try:
        scan_tar(str(tmp_path / "archive"), warn=lambda _: None)
    except CowError as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=60))
def test_pax_records_from_anything(data: bytes) -> None:
    try:
        records = parse_records(data)
    except BrokenArchive:
        return
    assert sum(len(key) + len(value) for key, value in records) <= len(data)


@given(st.integers(-(2**62), 2**62 - 1))
def test_numbers_of_base_256(number: int) -> None:
    digits = bytearray((number & (2**95 - 1)).to_bytes(12, "big"))
    digits[0] |= 0x80
    assert parse_number(bytes(digits)) == number
