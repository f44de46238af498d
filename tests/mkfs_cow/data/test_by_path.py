"""Data that is not all treated alike: several algorithms beside each other, and another order on disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cowlib.format import Compression
from mkfs_cow.data.plan import DataOptions
from mkfs_cow.data.write import Written, measure_data, write_data
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.subvolumes import partition
from mkfs_cow.source.tables import Tree
from tests.mkfs_cow.data.memory import MemorySink, check, expected

NONE, ZLIB, LZO, ZSTD = Compression.NONE, Compression.ZLIB, Compression.LZO, Compression.ZSTD


def never(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Files of every size, in directories; every fifth does not compress, every seventh has a hole."""
    root = tmp_path_factory.mktemp("data")
    source = random.Random(5)
    for folder in ("", "a", "a/b", "c"):
        (root / folder).mkdir(exist_ok=True)
        for number in range(20):
            size = source.choice((1, 100, 2048, 2049, 4096, 4097, 20_000, 140_000, 300_000))
            data = source.randbytes(size) if number % 5 == 0 else (b"%d " % number * size)[:size]
            with (root / folder / f"{number}").open("wb") as file:
                file.seek(50_000 if number % 7 == 3 else 0)
                file.write(data)
    return scan_directory(root, warn=never)


def spread(tree: Tree, name: str, value: Callable[[random.Random], int], seed: int) -> Tree:
    """The tree with some value for every inode."""
    source = random.Random(seed)
    column = np.array([value(source) for _ in range(len(tree))], dtype=getattr(tree, name).dtype)
    changed: dict[str, Any] = {name: column}
    return replace(tree, **changed)


def round_trip(trees: list[Tree], options: DataOptions, sink: MemorySink | None = None) -> tuple[Written, MemorySink]:
    sink = sink or MemorySink()
    written = write_data(trees, sink, options, warn=never)
    for tree, contents in zip(trees, check(written, sink, options), strict=True):
        for inode, data in expected(tree).items():
            assert contents.get(inode, bytes(len(data))) == data
    return written, sink


@pytest.mark.parametrize("default", [NONE, ZSTD])
def test_each_file_has_its_own_algorithm(tree: Tree, default: Compression) -> None:
    mixed = spread(tree, "compression", lambda source: source.randrange(5), 1)
    options = DataOptions(
        batch_bytes=64 << 10,
        threads=2,
        compression=default,
        level=0,
        rules=((ZLIB, 9), (NONE, 0), (LZO, 1), (ZSTD, 15)),
    )
    written, _ = round_trip([mixed], options)
    extents = written.extents
    algorithms = np.array([default, ZLIB, NONE, LZO, ZSTD])
    wanted = algorithms[mixed.compression[extents.inode]]
    packed = extents.compression != NONE
    assert (extents.compression[packed] == wanted[packed]).all()
    for algorithm in {default, ZLIB, LZO, ZSTD} - {NONE}:
        assert (extents.compression == algorithm).sum() > 5
    # What compresses at all is compressed wherever it is meant to be.
    pays = (wanted != NONE) & (extents.ram_bytes > 100)
    alike = spread(tree, "compression", lambda source: 0, 0)
    reference, _ = round_trip([alike], replace(options, compression=ZSTD, rules=()))
    helped = set(reference.extents.inode[reference.extents.compression != NONE].tolist())
    assert set(extents.inode[pays & packed].tolist()) == set(extents.inode[pays].tolist()) & helped


def test_levels_count(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b" ".join(b"%d" % (number * number) for number in range(50_000)))
    tree = scan_directory(tmp_path, warn=never)
    sizes = []
    for rules in (((ZSTD, 1),), ((ZSTD, 15),)):
        options = DataOptions(rules=rules)
        ruled = replace(tree, compression=np.ones(len(tree), dtype=np.uint16))
        sizes.append(measure_data([ruled], options).data)
        written, _ = round_trip([ruled], options)
        assert int(written.extents.disk_num_bytes.sum()) == sizes[-1]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("algorithm", [NONE, ZSTD])
@pytest.mark.parametrize("no_holes", [True, False])
@pytest.mark.parametrize("piece", [1 << 62, 300 << 10], ids=["one", "some"])
def test_data_in_another_order(tree: Tree, algorithm: Compression, no_holes: bool, piece: int) -> None:
    ranked = spread(tree, "priority", lambda source: source.choice((-32768, -1, 0, 0, 5, 32767)), 2)
    trees = partition(ranked, [b"a/b", b"c"])
    options = DataOptions(batch_bytes=64 << 10, threads=2, compression=algorithm, no_holes=no_holes)
    written, _ = round_trip(trees, options, MemorySink(piece=piece))
    extents = written.extents
    stored = np.flatnonzero(extents.disk_bytenr)
    stored = stored[np.argsort(extents.disk_bytenr[stored])]
    order = [
        (-int(trees[tree].priority[inode]), tree, inode)
        for tree, inode in zip(extents.tree[stored].tolist(), extents.inode[stored].tolist(), strict=True)
    ]
    assert order == sorted(order)
    assert len({row[0] for row in order}) == 5


def test_nothing_moves_without_priorities(tree: Tree) -> None:
    written, sink = round_trip([tree], DataOptions())
    again, other = round_trip([replace(tree, priority=np.zeros(len(tree), dtype=np.int16))], DataOptions())
    same = replace(tree, priority=np.full(len(tree), 9, dtype=np.int16))
    alike, third = round_trip([same], DataOptions())
    assert sink.image() == other.image() == third.image()
    assert (written.extents.disk_bytenr == again.extents.disk_bytenr).all()
    assert (written.extents.disk_bytenr == alike.extents.disk_bytenr).all()
