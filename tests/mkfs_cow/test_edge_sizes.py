"""Files of the sizes at which something changes, up to the largest there can be, under options that change it."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

import cowlib
from cowlib.format import FileExtentItem, FileExtentType, KeyType, ObjectId
from tests import oracles
from tests.commands import mkfs

LARGEST = 2**63 - 1
KIB, MIB = 1 << 10, 1 << 20
SIZES = [0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, MIB]

#: Size, and the ranges of data (offset, length), of files that are mostly holes.
SPARSE: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "tail": (10 * MIB + 7, [(0, 4097)]),
    "head": (3 * MIB, [(2 * MIB + 5, MIB - 5)]),
    "middle": (MIB, [(4096, 1), (8192, 4096)]),
    "largest": (LARGEST, []),
    "largest-begins": (LARGEST, [(0, 5000)]),
    "largest-ends": (LARGEST, [(LARGEST - 7, 7)]),
    "largest-sector": (LARGEST - 4095, [(LARGEST - 4101, 6)]),
}

OPTIONS = {
    "default": [],
    "compressed in small nodes": ["-n", "4K", "--compress", "zstd", "--csum", "sha256"],
    "holes": ["-O", "^no-holes"],
    "compressed, holes": ["-O", "^no-holes", "-n", "4K", "--compress", "zstd", "--csum", "sha256"],
    "nodatacow": ["--inode-flags", "nodatacow:/"],
    "nodatasum": ["--inode-flags", "nodatasum:/"],
    "both, holes": ["--inode-flags", "nodatacow,nodatasum:/", "-O", "^no-holes", "--compress", "lzo"],
    "some": ["--inode-flags", "nodatasum:text-4097", "--inode-flags", "nodatacow:random-1048576", "--compress", "zlib"],
}


def contents(kind: str, size: int) -> bytes:
    """What compresses well or not at all."""
    return (b"a cow " * (size // 6 + 1))[:size] if kind == "text" else random.Random(size).randbytes(size)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of them all, the holes said by pax records."""
    path = tmp_path_factory.mktemp("edges") / "edges.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for kind in ("text", "random"):
            for size in SIZES:
                member = tarfile.TarInfo(f"{kind}-{size}")
                member.size = size
                tar.addfile(member, io.BytesIO(contents(kind, size)))
        for name, (size, ranges) in SPARSE.items():
            data = b"".join(contents("random", length) for _, length in ranges)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            pieces = ",".join(f"{offset},{length}" for offset, length in ranges) or "0,0"
            member.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.map": pieces}
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(params=OPTIONS.values(), ids=list(OPTIONS))
def image(request: pytest.FixtureRequest, archive: Path, tmp_path: Path) -> Path:
    """The image that one set of options makes of the archive."""
    mkfs("-q", "--from-tar", archive, *request.param, tmp_path / "image")
    return tmp_path / "image"


@pytest.mark.oracle
def test_the_kernel_reads_all_of_it(image: Path) -> None:
    with oracles.judged(image) as mountpoint:
        for kind in ("text", "random"):
            for size in SIZES:
                assert (mountpoint / f"{kind}-{size}").read_bytes() == contents(kind, size), (kind, size)
        for name, (size, ranges) in SPARSE.items():
            assert (mountpoint / name).stat().st_size == size
            with (mountpoint / name).open("rb") as file:
                for offset, length in ranges:
                    assert os.pread(file.fileno(), length, offset) == contents("random", length), name
                    before = max(0, offset - 100)
                    assert not any(os.pread(file.fileno(), offset - before, before)), name
                end = max((offset + length for offset, length in ranges), default=0)
                assert not any(os.pread(file.fileno(), min(100, size - end), end)), name


@pytest.mark.parametrize("options", [[], ["--compress", "zstd"], ["-n", "4K"]], ids=" ".join)
def test_holes_reach_to_the_end(archive: Path, tmp_path: Path, options: list[str]) -> None:
    """Without no-holes the extents of a file leave nothing out, whatever its size."""
    mkfs("-q", "--from-tar", archive, "-O", "^no-holes", *options, tmp_path / "image")
    with cowlib.open(tmp_path / "image") as filesystem:
        ends: dict[int, int] = {}
        covered: dict[int, int] = {}
        for items in filesystem.items(ObjectId.FS_TREE):
            rows = items.of_type(KeyType.EXTENT_DATA)
            types = rows.buffer[rows.position + 20]
            regular = rows.select(np.flatnonzero(types == FileExtentType.REG))
            extents = regular.view(FileExtentItem)
            for inode, offset, length in zip(
                regular.objectid.tolist(), regular.offset.tolist(), extents["num_bytes"].tolist(), strict=True
            ):
                assert offset == ends.get(inode, 0), f"a gap before {offset} of inode {inode}"
                ends[inode] = offset + length
                covered[inode] = covered.get(inode, 0) + length
    # Directories and inline files have no such extents; the largest files end with the last sector there is.
    assert sorted(ends.values())[-4:] == [2**63 - 4096, 2**63, 2**63, 2**63]
    assert covered == ends
