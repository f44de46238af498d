"""Members taken many at once are what they are one by one."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path
from unittest import mock

import pytest

from mkfs_cow.source import tar_header, tar_run
from mkfs_cow.source.archive import scan_tar
from mkfs_cow.source.tables import Tree
from tests.mkfs_cow.source.compared import same_tables

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def archive(path: Path, form: int, seed: int) -> Path:
    """A few hundred members, most of them plain files; names come again, in other kinds too."""
    chance = random.Random(seed)
    kinds = [tarfile.REGTYPE] * 40 + [
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
    ]
    files: list[str] = []
    with tarfile.open(path, "w", format=form) as tar:
        for number in range(400):
            folder = "/".join(f"d{chance.randrange(3)}" for _ in range(chance.randrange(4)))
            name = f"{folder}/{'long' * 20 if chance.random() < 0.1 else 'f'}{chance.randrange(150)}".lstrip("/")
            member = tarfile.TarInfo(name)
            member.type = chance.choice(kinds)
            member.mode, member.mtime = chance.choice([0o644, 0o4755, 0]), chance.choice([0, number, 1 << 32])
            member.uid = member.gid = chance.choice([0, 1000, 2**21 - 1])
            data = b""
            if member.type == tarfile.REGTYPE:
                data = chance.randbytes(chance.choice([0, 1, 511, 512, 513, 5000]))
                member.size = len(data)
                files.append(name)
            elif member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = chance.choice(files or ["nothing"])
            tar.addfile(member, io.BytesIO(data))
    return path


def scanned(path: Path) -> tuple[Tree, list[str]]:
    lines: list[str] = []
    return scan_tar(str(path), warn=lines.append), lines


@pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("seed", range(6))
def test_one_by_one_or_many_at_once(tmp_path: Path, form: int, seed: int) -> None:
    path = archive(tmp_path / "tar", form, seed)
    runs: list[int] = []

    def counted(stream: object) -> tar_run.Run | None:
        run = tar_run.next_run(stream)  # type: ignore[arg-type]
        runs.append(0 if run is None else len(run))
        return run

    with mock.patch.object(tar_header, "next_run", counted):
        many, said = scanned(path)
    assert form == tarfile.PAX_FORMAT or sum(runs) > 200
    with mock.patch.object(tar_header, "next_run", lambda stream: None):
        one_by_one, said_then = scanned(path)
    assert said == said_then
    assert same_tables(many, one_by_one)


@pytest.mark.parametrize(
    ("place", "byte"),
    [(100, b"x"), (124, b"\xff"), (148, b"7"), (156, b"?"), (0, b"\0")],
    ids=["mode", "size", "checksum", "kind", "name"],
)
def test_a_header_that_is_not_plain_ends_the_run(tmp_path: Path, place: int, byte: bytes) -> None:
    """Whatever is said of it is said in the same words."""
    path = tmp_path / "tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(40):
            tar.addfile(tarfile.TarInfo(f"f{number}"))
    data = bytearray(path.read_bytes())
    data[20 * 512 + place : 20 * 512 + place + 1] = byte
    path.write_bytes(data)

    def outcome() -> object:
        try:
            tree, lines = scanned(path)
        except Exception as error:
            return type(error), str(error)
        return list(tree.names.name), lines

    many = outcome()
    with mock.patch.object(tar_header, "next_run", lambda stream: None):
        assert outcome() == many
