"""What is written is what was read: every way of storing data, put together again."""

from __future__ import annotations

import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.errors import NoSpaceError
from cowlib.format import Compression, CsumType, FileExtentType, InodeFlag
from mkfs_cow.data.plan import DataOptions
from mkfs_cow.data.write import Written, estimate_data, measure_data, write_data
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.subvolumes import partition
from mkfs_cow.source.tables import S_IFREG, Tree
from tests.mkfs_cow.data.memory import MemorySink, backed_tree, check, expected

SECTOR = 4096
SMALL = DataOptions(batch_bytes=64 << 10, threads=2)
ALGORITHMS = [Compression.NONE, Compression.ZLIB, Compression.LZO, Compression.ZSTD]


def never(line: str) -> None:
    raise AssertionError(line)


def write(trees: list[Tree], options: DataOptions, sink: MemorySink | None = None) -> tuple[Written, MemorySink]:
    sink = sink or MemorySink()
    return write_data(trees, sink, options, warn=never), sink


def assert_round_trip(trees: list[Tree], options: DataOptions, sink: MemorySink | None = None) -> Written:
    written, sink = write(trees, options, sink)
    found = check(written, sink, options)
    for tree, contents in zip(trees, found, strict=True):
        for inode, data in expected(tree).items():
            assert contents.get(inode, bytes(len(data))) == data
    return written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files around every limit, that compress well, badly and in part; sparse ones; hard links."""
    root = tmp_path_factory.mktemp("data")
    source = random.Random(3)
    for size in (0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 65536, 131072, 131073, 400_000):
        (root / f"text-{size}").write_bytes((b"all work and no play " * 20_000)[:size])
        (root / f"noise-{size}").write_bytes(source.randbytes(size))
    (root / "mixed").write_bytes(b"a" * 300_000 + source.randbytes(300_000) + b"b" * 300_000)
    (root / "twin").hardlink_to(root / "mixed")
    with (root / "sparse").open("wb") as file:
        for start in (0, 1 << 20, (1 << 20) + 8192, 3 << 20):
            file.seek(start)
            file.write(source.randbytes(5000))
        file.truncate((5 << 20) + 1)
    with (root / "hole").open("wb") as file:
        file.truncate(123_456)
    with (root / "small-hole").open("wb") as file:
        file.truncate(100)
    os.symlink("target", root / "link")
    (root / "below").mkdir()
    (root / "below" / "again").hardlink_to(root / "mixed")
    (root / "below" / "other").write_bytes(b"other" * 5000)
    return root


@pytest.fixture(scope="module")
def tree(folder: Path) -> Tree:
    return scan_directory(folder, warn=never)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("no_holes", [True, False])
@pytest.mark.parametrize("piece", [1 << 62, 5 * SECTOR, 300 << 10], ids=["one", "tiny", "some"])
def test_everything_comes_back(tree: Tree, algorithm: Compression, no_holes: bool, piece: int) -> None:
    if algorithm:
        piece = max(piece, 300 << 10)  # a compressed extent is not divided
    options = replace(SMALL, compression=algorithm, no_holes=no_holes)
    assert_round_trip([tree], options, MemorySink(piece=piece))


@pytest.mark.parametrize("csum_type", list(CsumType))
def test_checksums(tree: Tree, csum_type: CsumType) -> None:
    written = assert_round_trip([tree], replace(SMALL, csum_type=csum_type))
    assert len(written.sums)


@pytest.mark.parametrize("algorithm", [Compression.NONE, Compression.ZSTD])
def test_large_sectors(tree: Tree, algorithm: Compression) -> None:
    assert_round_trip([tree], replace(SMALL, sectorsize=16384, compression=algorithm))


@pytest.mark.parametrize("max_inline", [0, 100, 2048, 3000, 1 << 20])
@pytest.mark.parametrize("algorithm", [Compression.NONE, Compression.ZSTD])
def test_inline(tree: Tree, max_inline: int, algorithm: Compression) -> None:
    options = replace(SMALL, max_inline=max_inline, compression=algorithm)
    written = assert_round_trip([tree], options)
    extents = written.extents
    inline = {int(i) for i in extents.inode[extents.type == FileExtentType.INLINE]}
    limit = min(max_inline, SECTOR - 1)
    for name, size in (("noise", 1), ("noise", 2047), ("noise", 2048), ("noise", 2049), ("noise", 4095)):
        assert (tree.find(f"{name}-{size}".encode()) in inline) == (size <= limit)
    for size in (2049, 4095, 4096):  # compressed they are short enough
        assert (tree.find(f"text-{size}".encode()) in inline) == (size <= limit or bool(max_inline and algorithm))
    assert tree.find(b"text-4097") not in inline


def test_compression_pays(tree: Tree) -> None:
    written = assert_round_trip([tree], DataOptions(compression=Compression.ZSTD))
    extents = written.extents
    saved = extents.compression != 0
    assert (extents.disk_num_bytes[saved] < extents.ram_bytes[saved]).all()
    noise = tree.find(b"noise-400000")
    rows = extents.inode == noise
    assert not extents.compression[rows].any()
    assert rows.sum() == 1  # what does not compress is not left in small pieces
    mixed = extents.compression[extents.inode == tree.find(b"mixed")].astype(bool).tolist()
    assert mixed[0]
    assert mixed[-1]
    assert not all(mixed)


def test_flags_stop_compression_and_sums(tree: Tree) -> None:
    flags = tree.flags.copy()
    for name, bits in (
        (b"text-400000", InodeFlag.NODATASUM),
        (b"text-131072", InodeFlag.NODATACOW | InodeFlag.NODATASUM),
        (b"text-131073", InodeFlag.NOCOMPRESS),
    ):
        flags[tree.find(name)] = bits
    flagged = replace(tree, flags=flags)
    for algorithm in ALGORITHMS:
        written = assert_round_trip([flagged], replace(SMALL, compression=algorithm))
        rows = np.isin(written.extents.inode, np.flatnonzero(flags))
        assert not written.extents.compression[rows].any()


def test_nbytes_is_what_is_stored(tree: Tree, folder: Path) -> None:
    written, _ = write([tree], SMALL)
    nbytes = written.nbytes[0]
    assert nbytes[tree.find(b"text-2048")] == 2048
    assert nbytes[tree.find(b"text-2049")] == SECTOR
    assert nbytes[tree.find(b"hole")] == 0
    assert nbytes[tree.find(b"sparse")] == (folder / "sparse").stat().st_blocks * 512
    assert nbytes[tree.find(b"link")] == len("target")
    assert nbytes[0] == 0


def test_several_trees(tree: Tree, folder: Path) -> None:
    parts = partition(tree, [b"below"])
    for algorithm in (Compression.NONE, Compression.ZSTD):
        written = assert_round_trip(parts, replace(SMALL, compression=algorithm))
        assert set(written.extents.tree.tolist()) == {0, 1}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_every_time(tree: Tree, algorithm: Compression) -> None:
    results = []
    for threads in (1, 4):
        written, sink = write([tree], replace(SMALL, compression=algorithm, threads=threads))
        extents = written.extents
        columns = (extents.inode, extents.file_offset, extents.disk_bytenr, extents.num_bytes, written.sums.csum)
        results.append(
            (sink.image(), [c.tobytes() for c in columns], [extents.inline[i] for i in range(len(extents.inline))])
        )
    assert results[0] == results[1]


def test_estimates(tree: Tree) -> None:
    for algorithm in ALGORITHMS:
        options = replace(SMALL, compression=algorithm)
        most, exact = estimate_data([tree], options), measure_data([tree], options)
        written, sink = write([tree], options)
        used = sum(map(len, sink.written.values()))
        assert exact.data == used <= most.data
        assert exact.extents == len(written.extents) - len(written.extents.inline) <= most.extents
        assert exact.inline.tolist() == written.extents.inline.lengths.tolist()
        assert exact.inline.sum() <= most.inline.sum()
        if not algorithm:
            assert most.data == exact.data
            assert most.inline.tolist() == exact.inline.tolist()


def test_no_room(tree: Tree) -> None:
    for algorithm in (Compression.NONE, Compression.ZLIB):
        sink = MemorySink(room=400 << 10)
        with pytest.raises(NoSpaceError):
            write([tree], replace(SMALL, compression=algorithm), sink)
    assert threads_are_gone()


def test_no_room_in_one_piece(tree: Tree) -> None:
    with pytest.raises(NoSpaceError, match="in one piece"):
        write([tree], replace(SMALL, compression=Compression.ZSTD), MemorySink(piece=64 << 10))


class FailingSink(MemorySink):
    def write(self, logical: int, data: np.ndarray) -> None:  # type: ignore[type-arg]
        if logical > 2 << 20:
            raise OSError("the disk is broken")
        super().write(logical, data)


@pytest.mark.parametrize("algorithm", [Compression.NONE, Compression.ZSTD])
def test_a_broken_disk(tree: Tree, algorithm: Compression) -> None:
    with pytest.raises(OSError, match="broken"):
        write([tree], replace(SMALL, compression=algorithm, batch_bytes=8192), FailingSink())
    assert threads_are_gone()


def threads_are_gone() -> bool:
    import threading

    return not [thread for thread in threading.enumerate() if thread.name.startswith(("data", "prefetch"))]


def test_nothing_at_all(tmp_path: Path) -> None:
    for algorithm in (Compression.NONE, Compression.ZSTD):
        written = assert_round_trip([scan_directory(tmp_path, warn=never)], replace(SMALL, compression=algorithm))
        assert (len(written.extents), len(written.sums)) == (0, 0)


def test_only_small_files(backing: IO[bytes]) -> None:
    """More of them than go into one batch."""
    tree = backed_tree(backing, [(100, [(0, 100)])] * 5000)
    for algorithm in (Compression.NONE, Compression.LZO):
        written = assert_round_trip([tree], replace(SMALL, compression=algorithm))
        assert len(written.extents) == 5000


def test_progress(tree: Tree) -> None:
    for algorithm in (Compression.NONE, Compression.ZLIB):
        seen: list[int] = []
        options = replace(SMALL, compression=algorithm)
        write_data([tree], MemorySink(), options, progress=seen.append, warn=never)
        assert seen == sorted(seen)
        assert seen[-1] == estimate_data([tree], options).data


def test_extents_of_the_longest_kind(tmp_path: Path) -> None:
    """300 MiB in one file: plain extents end at 128 MiB."""
    backing = tempfile.TemporaryFile(dir=tmp_path)  # noqa: SIM115 - the tree keeps it
    backing.truncate(300 << 20)
    tree = backed_tree(backing, [(300 << 20, [(0, 300 << 20)])])
    written = write_data([tree], NullSink(), DataOptions(), warn=never)
    assert written.extents.num_bytes.tolist() == [128 << 20, 128 << 20, 44 << 20]


class NullSink(MemorySink):
    def write(self, logical: int, data: np.ndarray) -> None:  # type: ignore[type-arg]
        pass


@pytest.fixture(scope="module")
def backing(tmp_path_factory: pytest.TempPathFactory) -> IO[bytes]:
    """A megabyte of this and that."""
    path = tmp_path_factory.mktemp("backing") / "file"
    source = random.Random(9)
    pieces = [source.randbytes(9000) if n % 3 else bytes([n % 251 + 1]) * 30_000 for n in range(60)]
    path.write_bytes(b"".join(pieces))
    return path.open("rb", buffering=0)


@st.composite
def sparse_file(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A size, and ranges with data that need not begin or end with a sector."""
    bounds = sorted(draw(st.sets(st.integers(0, 300_000), max_size=8)))
    ranges = [(a, b - a) for a, b in zip(bounds[::2], bounds[1::2], strict=False)]
    return (bounds[-1] if bounds else 0) + draw(st.sampled_from([0, 1, 5000])), ranges


FILES = st.lists(
    st.one_of(sparse_file(), st.integers(0, 9000).map(lambda size: (size, [(0, size)] if size else []))), max_size=12
)


@given(
    files=FILES,
    algorithm=st.sampled_from(ALGORITHMS),
    no_holes=st.booleans(),
    piece=st.sampled_from([1 << 62, 212 << 10, 1000 << 10]),
    batch=st.sampled_from([SECTOR, 5 * SECTOR, 200 << 10]),
    max_inline=st.sampled_from([0, 2048, 4095]),
)
def test_any_files(
    backing: IO[bytes],
    files: list[tuple[int, list[tuple[int, int]]]],
    algorithm: Compression,
    no_holes: bool,
    piece: int,
    batch: int,
    max_inline: int,
) -> None:
    tree = backed_tree(backing, files)
    assert len(tree) == len(files) + 1
    assert tree.is_type(S_IFREG).sum() == len(files)
    options = DataOptions(batch_bytes=batch, max_inline=max_inline, compression=algorithm, no_holes=no_holes, threads=2)
    assert_round_trip([tree], options, MemorySink(piece=piece))
