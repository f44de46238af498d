"""What no leaf can hold is told and left out, or refused before a device is touched; what just fits goes in."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from cowlib.checksum import name_hash
from tests import oracles
from tests.commands import mkfs, mkfs_refuses, run_command
from tests.trees import digest

MIB = 1 << 20

#: The longest payload of an item in nodes of 4 KiB, and the heads of a directory entry and of an inline extent.
ROOM, ENTRY, INLINE = 3970, 30, 21

#: The polynomial of crc32c, lowest bit first: whatever is changed by it keeps its hash.
NEUTRAL = sum(1 << i for i in range(33) if 0x11EDC6F41 >> (32 - i) & 1).to_bytes(5, "little")


def archive(path: Path, members: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def file_with(name: str, attributes: dict[str, int]) -> tarfile.TarInfo:
    """A small file with extended attributes of these sizes."""
    member = tarfile.TarInfo(name)
    member.size = 5
    member.pax_headers = {f"SCHILY.xattr.{key}": "v" * size for key, size in attributes.items()}
    return member


def link_to(name: str, length: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "t" * length
    return member


def same_hash(count: int, length: int) -> list[bytes]:
    """So many names of one length and one hash."""
    names = []
    for number in range(count):
        name = bytearray(b"m" * length)
        for bit in range(number.bit_length()):
            if number >> bit & 1:
                name[5 * bit : 5 * bit + 5] = bytes(a ^ b for a, b in zip(name[5 * bit :], NEUTRAL, strict=False))
        names.append(bytes(name))
    assert len({name_hash(name) for name in names}) == 1
    assert not any(set(name) & set(b"\0/") for name in names)
    return names


@pytest.mark.oracle
def test_long_attributes_and_links(tmp_path: Path, image: Path) -> None:
    oracles.require_oracle("mount", "progs")
    fits = ROOM - ENTRY - len("user.a")
    members = [
        file_with("fits", {"user.a": fits}),
        file_with("folder/long", {"user.a": fits + 1, "user.b": 10, "user.c": 60_000}),
        link_to("folder/far", ROOM - INLINE),
        link_to("folder/farther", ROOM - INLINE + 1),
    ]
    path = archive(tmp_path / "tar", members)
    said = run_command("mkfs_cow", "-q", "-n", "4K", "--from-tar", path, image)
    assert said.returncode == 1
    warnings = said.stderr.splitlines()
    assert len(warnings) == 4
    for what in ("folder/long: its attribute user.a", "folder/long: its attribute user.c", "folder/farther"):
        assert sum(what in line for line in warnings) == 1
    with oracles.judged(image) as mountpoint:
        assert len(os.getxattr(mountpoint / "fits", "user.a")) == fits
        assert os.listxattr(mountpoint / "folder" / "long") == ["user.b"]
        assert len(os.readlink(mountpoint / "folder" / "far")) == ROOM - INLINE
        assert not (mountpoint / "folder" / "farther").is_symlink()
    mkfs("-q", "-f", "-n", "64K", "--from-tar", path, image)


@pytest.mark.oracle
def test_names_with_one_hash(tmp_path: Path, image: Path) -> None:
    """They share items: as many as a leaf holds go in, names of files and of attributes."""
    oracles.require_oracle("mount", "progs", "root")
    names = same_hash(ROOM // (ENTRY + 240) + 1, 240)
    tree = tmp_path / "tree"
    tree.mkdir()
    paths = [tree / os.fsdecode(name) for name in names]
    for path in paths[:-2]:
        path.write_bytes(os.fsencode(path))
    paths[-2].hardlink_to(paths[0])
    for name in same_hash(8, 40):
        os.setxattr(tree, b"user." + name, name)
    mkfs("-q", "-n", "4K", "--rootdir", tree, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(tree, mountpoint)
    paths[-1].touch()
    before = digest(image)
    assert "hash" in mkfs_refuses("-f", "-n", "4K", "--rootdir", tree, image)
    assert digest(image) == before


def test_hard_links_without_extref(tmp_path: Path, image: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").touch()
    for number in range(100):
        (tree / "folder" / f"{number:0>50}").hardlink_to(tree / "folder" / "file")
    before = digest(image)
    said = mkfs_refuses("-n", "4K", "-O", "^extref", "--rootdir", tree, image)
    assert "folder/" in said
    assert "extref" in said
    assert digest(image) == before
