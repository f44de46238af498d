"""Images that share blocks with the files they are made of."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cowlib.checksum import csum_blocks
from cowlib.format import CsumType
from mkfs_cow.data.plan import DataOptions
from mkfs_cow.data.reflink import Cloner
from mkfs_cow.data.write import write_data
from mkfs_cow.source.directory import scan_directory
from tests import oracles
from tests.commands import mkfs, run_command
from tests.mkfs_cow.data.memory import MemorySink

MIB = 1 << 20
BLOCK = 4096


def never(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(scope="module", params=["btrfs", "xfs"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A filesystem that can share blocks, with a tree in it."""
    kind = request.param
    oracles.require_oracle("mount", f"mkfs.{kind}")
    folder = tmp_path_factory.mktemp("host")
    with oracles.loop(oracles.sparse(folder / "disk", 1500 * MIB)) as device:
        subprocess.run([f"mkfs.{kind}", "-q", device], check=True, capture_output=True)
        mountpoint = folder / "mnt"
        mountpoint.mkdir()
        said = subprocess.run(["mount", "-t", kind, device, mountpoint], capture_output=True, text=True)
        if said.returncode:
            pytest.skip(f"no {kind}: {said.stderr.strip()}")
        try:
            _fill(mountpoint / "tree")
            subprocess.run(["sync", "-f", mountpoint], check=True)
            yield mountpoint
        finally:
            subprocess.run(["umount", mountpoint], check=True)


def _fill(tree: Path) -> None:
    noise = np.random.default_rng(1).bytes
    tree.mkdir()
    (tree / "large").write_bytes(noise(20 * MIB))
    (tree / "odd").write_bytes(noise(3 * MIB + 5))
    (tree / "small").write_bytes(noise(3000))  # fills no block
    (tree / "inline").write_bytes(noise(100))
    os.link(tree / "large", tree / "twin")
    with (tree / "sparse").open("wb") as file:
        file.seek(8 * MIB)
        file.write(noise(MIB))
        file.truncate(32 * MIB)


#: Whole blocks of the tree.
SHARED = (20 + 3 + 1) * MIB


def blocks_of(path: Path) -> set[int]:
    """Where the data of a file is: the number of every block."""
    buffer = bytearray(struct.pack("=QQLLLL", 0, 2**64 - 1, 1, 0, 4096, 0) + bytes(56 * 4096))
    with path.open("rb") as file:
        fcntl.ioctl(file.fileno(), 0xC020660B, buffer)  # FS_IOC_FIEMAP, and to write it out first
    found: set[int] = set()
    for i in range(struct.unpack_from("=L", buffer, 20)[0]):
        _, physical, length = struct.unpack_from("=QQQ", buffer, 32 + 56 * i)
        (flags,) = struct.unpack_from("=L", buffer, 32 + 56 * i + 40)
        if not flags & 0x0300:  # inline data, or in a block with others
            found.update(range(physical // BLOCK, -(-(physical + length) // BLOCK)))
    return found


@pytest.mark.parametrize(
    ("options", "devices", "copies"),
    [
        ([], 1, 1),
        (["-d", "dup"], 1, 2),
        (["-M", "-m", "single", "-d", "single"], 1, 1),
        (["-d", "raid10"], 4, 2),
        (["-d", "raid0"], 2, 1),
    ],
    ids=["single", "dup", "mixed", "raid10", "raid0"],
)
def test_blocks_are_shared(place: Path, options: list[str], devices: int, copies: int) -> None:
    images = [oracles.sparse(place / f"image{i}", 200 * MIB) for i in range(devices)]
    try:
        said = run_command("mkfs_cow", "--json", "--reflink", "--rootdir", place / "tree", *options, *images)
        assert (said.returncode, said.stderr) == (0, "")
        assert json.loads(said.stdout)["shared_bytes"] == SHARED
        wanted = set().union(*(blocks_of(place / "tree" / name) for name in ("large", "odd", "sparse")))
        held = [blocks_of(image) for image in images]
        last = {max(blocks_of(place / "tree/odd"))}  # the end of a file that fills no block
        assert wanted - last <= set().union(*held)
        assert len(wanted) - 1 == SHARED // BLOCK
        if devices == 1:
            with oracles.judged(images[0]) as mountpoint:
                oracles.assert_same_tree(place / "tree", mountpoint)
        else:
            with oracles.loops(images) as loops:
                oracles.scan(loops)
                with oracles.mounted(loops[0]) as mountpoint:
                    oracles.assert_same_tree(place / "tree", mountpoint)
                    oracles.scrub(mountpoint)
    finally:
        for image in images:
            image.unlink()
    assert (place / "tree/large").read_bytes() == np.random.default_rng(1).bytes(20 * MIB)


def test_what_is_shared_is_the_images_own(place: Path) -> None:
    """Writing to the image leaves the files alone."""
    image = oracles.sparse(place / "image", 200 * MIB)
    before = (place / "tree/odd").read_bytes()
    try:
        mkfs("-q", "--reflink", "--rootdir", place / "tree", image)
        with oracles.loop(image) as device, oracles.mounted(device, options=["nodatacow"]) as mountpoint:
            (mountpoint / "odd").write_bytes(b"changed")
        image.write_bytes(bytes(MIB))
        assert (place / "tree/odd").read_bytes() == before
    finally:
        image.unlink()


def test_where_nothing_can_be_shared(place: Path, tmp_path: Path) -> None:
    tree = place / "tree"
    image = oracles.sparse(tmp_path / "image", 400 * MIB)
    said = run_command("mkfs_cow", "--json", "--reflink", "--rootdir", tree, image)
    assert said.returncode == 0
    line = "--reflink: 24 MiB cannot be shared, copied: Invalid cross-device link"
    assert said.stderr == f"mkfs.cow: warning: {line}\n"
    made = json.loads(said.stdout)
    assert (made["shared_bytes"], made["advice"], made["warnings"]) == (0, [line], [])
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(tree, mountpoint)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--compress", "zstd"], "compressed data is never that of the files"),
        (["-d", "raid5"], "parity is reckoned from data that is written"),
    ],
)
def test_what_never_shares(tmp_path: Path, options: list[str], why: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * MIB)
    images = [oracles.sparse(tmp_path / f"image{i}", 256 * MIB) for i in range(2 if "raid5" in options else 1)]
    said = run_command("mkfs_cow", "-q", "--reflink", "--rootdir", tree, *options, *images)
    assert said.returncode == 0
    (line,) = [line for line in said.stderr.splitlines() if "raid5:" not in line]  # which is not recommended
    assert line == f"mkfs.cow: warning: --reflink: nothing can be shared, all data is copied: {why}"


def test_a_device_never_shares(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with oracles.loop(oracles.sparse(tmp_path / "image", 256 * MIB)) as device:
        said = run_command("mkfs_cow", "-q", "--reflink", "--rootdir", tree, device)
    assert said.returncode == 0
    why = f"{device} is no image file"
    assert said.stderr == f"mkfs.cow: warning: --reflink: nothing can be shared, all data is copied: {why}\n"


class CloningMemory(MemorySink):
    """A sink in memory that "shares" by copying, and lets something happen after that."""

    def __init__(self, then: Path | None = None, refuse: int = 0) -> None:
        super().__init__()
        self.then = then
        self.refuse = refuse

    def clone(self, logical: int, length: int, fd: int, position: int) -> None:
        if self.refuse:
            self.refuse -= 1
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self.written[logical] = os.pread(fd, length, position)
        if self.then is not None:
            self.then.write_bytes(b"n" * length)

    def read(self, logical: int, length: int) -> NDArray[np.uint8]:
        return np.frombuffer(self.image()[logical : logical + length], np.uint8)


def test_checksums_are_those_of_what_is_shared(tmp_path: Path) -> None:
    """A file that changes right after it was shared is named, and its blocks read back right all the same."""
    (tmp_path / "file").write_bytes(b"o" * 3 * BLOCK)
    tree = scan_directory(tmp_path, warn=never)
    sink = CloningMemory(then=tmp_path / "file")
    told: list[str] = []
    written = write_data([tree], sink, DataOptions(), cloner=Cloner(sink, BLOCK), warn=told.append)
    (address,) = written.extents.disk_bytenr.tolist()
    assert sink.read(address, 3 * BLOCK).tobytes() == b"o" * 3 * BLOCK
    assert (written.sums.csum == csum_blocks(CsumType.CRC32, sink.read(address, 3 * BLOCK), BLOCK)).all()
    assert told == [f"{tmp_path}/file: changed while it was read"]


def test_what_is_refused_is_copied(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * (2 * BLOCK + 1))
    tree = scan_directory(tmp_path, warn=never)
    sink = CloningMemory(refuse=2)
    cloner = Cloner(sink, BLOCK)
    written = write_data([tree], sink, DataOptions(), cloner=cloner, warn=never)
    for name, address in zip("abc", written.extents.disk_bytenr.tolist(), strict=True):
        assert sink.read(address, 3 * BLOCK).tobytes() == (name.encode() * (2 * BLOCK + 1)).ljust(3 * BLOCK, b"\0")
    assert (cloner.shared, cloner.refused, cloner.reason) == (2 * BLOCK, 4 * BLOCK, os.strerror(errno.EXDEV))


def test_a_file_that_became_shorter_is_read(tmp_path: Path) -> None:
    """Beyond its end nothing can be shared."""
    (tmp_path / "file").write_bytes(b"o" * 3 * BLOCK)
    tree = scan_directory(tmp_path, warn=never)
    os.truncate(tmp_path / "file", BLOCK)
    sink = CloningMemory(refuse=1)
    told: list[str] = []
    written = write_data([tree], sink, DataOptions(), cloner=Cloner(sink, BLOCK), warn=told.append)
    assert written.extents.num_bytes.tolist() == [BLOCK]
    assert told == [f"{tmp_path}/file: changed while it was read"]
