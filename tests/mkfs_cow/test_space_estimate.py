"""What is reckoned beforehand is enough: for nodes small and large, and trees that are as awkward as they can be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cowlib.checksum import csum_size
from cowlib.format import Compression, CsumType
from mkfs_cow.compression import CompressionChoice, CompressionChoices
from mkfs_cow.data.plan import DataOptions
from mkfs_cow.data.write import estimate_data
from mkfs_cow.features import parse_features
from mkfs_cow.options import Options, SubvolumeSpec
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.subvolumes import partition
from mkfs_cow.space_estimate import metadata_estimate
from tests import oracles
from tests.commands import mkfs, mkfs_refuses

MIB = 1 << 20

Fill = Callable[[Path, int], None]


def inline(size: int) -> Fill:
    def fill(folder: Path, number: int) -> None:
        # What is random stays as long as it is when compressed.
        (folder / f"{number}").write_bytes(os.urandom(min(size, 1950)).ljust(size, b"x"))

    return fill


def links(size: int) -> Fill:
    return lambda folder, number: (folder / f"{number}").symlink_to("t" * size)


def attributes(count: int, size: int) -> Fill:
    def fill(folder: Path, number: int) -> None:
        (folder / f"{number}").touch()
        for which in range(count):
            os.setxattr(folder / f"{number}", f"user.{which}", b"v" * size)

    return fill


def hard_links(folder: Path, number: int) -> None:
    below = folder / f"{number}"
    below.mkdir()
    (below / "file").touch()
    for which in range(12):
        (below / f"{which:0>250}").hardlink_to(below / "file")


def fragments(folder: Path, number: int) -> None:
    with (folder / f"{number}").open("wb") as file:
        for place in range(100):
            file.seek(place * 8192)
            file.write(b"data" * 1024)


CASES: dict[str, tuple[int, Fill, list[str]]] = {
    "nothing": (0, inline(0), []),
    "inline 2000": (400, inline(2000), []),
    "inline 900": (400, inline(900), []),
    "made inline": (400, inline(4096), ["--compress", "zstd"]),
    "links 10": (500, links(10), []),
    "links 2100": (300, links(2100), []),
    "links 3900": (300, links(3900), []),
    "attributes 1": (100, attributes(40, 1), []),
    "attributes 2000": (200, attributes(1, 2000), []),
    "attributes 3500": (200, attributes(1, 3500), []),
    "hard links": (60, hard_links, []),
    "fragments": (30, fragments, []),
    "holes": (30, fragments, ["-O", "^no-holes"]),
    "many checksums": (30, fragments, ["--csum", "sha256"]),
    "subvolumes": (150, lambda folder, number: (folder / f"{number}").mkdir(), ["-O", "quota"]),
}


@pytest.mark.parametrize("nodesize", [4096, 16384])
@pytest.mark.parametrize("case", CASES)
def test_metadata_is_never_more(tmp_path: Path, case: str, nodesize: int) -> None:
    count, fill, given = CASES[case]
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(count):
        fill(tree, number)
    features = parse_features([given[1]] if "-O" in given else [])
    options = Options(
        devices=[],
        rootdir=tree,
        nodesize=nodesize,
        features=features,
        csum_type=CsumType.SHA256 if "--csum" in given else CsumType.CRC32,
        compression=CompressionChoices(CompressionChoice(Compression.ZSTD, 3) if "--compress" in given else None),
        subvolumes=[SubvolumeSpec(b"%d" % n, False, False) for n in range(count)] if case == "subvolumes" else [],
    ).resolve()
    data_options = DataOptions(
        compression=Compression.ZSTD if options.compression else Compression.NONE,
        no_holes="no-holes" in features,
    )
    parts = partition(scan_directory(tree, warn=pytest.fail), [spec.path for spec in options.subvolumes])
    reckoned = metadata_estimate(parts, estimate_data(parts, data_options), options, csum_size(options.csum_type))
    subvolumes = [word for spec in options.subvolumes for word in ("--subvol", os.fsdecode(spec.path))]
    image = oracles.sparse(tmp_path / "image", 1 << 30)
    common = ["--json", "-n", str(nodesize), "-m", "single", "--rootdir", str(tree)]
    made = json.loads(mkfs(*common, *given, *subvolumes, image))
    used = sum(group["used"] for group in made["block_groups"] if group["kind"] != "data")
    assert used <= reckoned < 3 * used + 100 * nodesize


@pytest.mark.oracle
def test_a_new_image_has_room_for_the_kernel(tmp_path: Path) -> None:
    """It counts in nodes: with large ones it wants a lot of room even for one more file."""
    oracles.require_oracle("mount", "progs")
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(12_000):
        (tree / f"{number}").write_bytes(b"x" * 2000)
    image = tmp_path / "image"
    made = json.loads(mkfs("--json", "-n", "64K", "--rootdir", tree, image))
    (metadata,) = (group for group in made["block_groups"] if group["kind"] == "metadata")
    assert metadata["length"] - metadata["used"] > 40 * MIB
    with oracles.judged(image) as mountpoint:
        (mountpoint / "more").write_bytes(os.urandom(MIB))


@pytest.mark.parametrize("algorithm", ["zstd", "lzo"])
def test_compressing_what_does_not_compress_takes_little_more(tmp_path: Path, algorithm: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"{number}").write_bytes(os.urandom(500_000 + number * 1000))
    sizes = []
    for options in ([], ["--compress", algorithm]):
        image = tmp_path / "image"
        mkfs("-q", "--shrink", *options, "--rootdir", tree, image)
        sizes.append(image.stat().st_size)
        image.unlink()
    assert sizes[1] <= sizes[0] + 2 * MIB


@pytest.mark.parametrize("options", [[], ["-M"], ["-m", "single"], ["-n", "4K"]], ids=" ".join)
def test_the_size_that_is_told_is_enough(tmp_path: Path, options: list[str]) -> None:
    image = oracles.sparse(tmp_path / "image", 8 * MIB)
    words = mkfs_refuses(*options, image).split()
    enough = int(words[words.index("MiB") - 1])
    oracles.sparse(image, enough * MIB)
    mkfs("-q", *options, image)
