"""Where the bytes went, by what the summary says as JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.commands import mkfs, run_command

TEXT = b"".join(b"%d\n" % number for number in range(30_000))


def summary(*words: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mkfs("--json", *words))
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "home").mkdir(parents=True)
    (root / "small").write_bytes(b"x" * 100)
    (root / "home" / "small").write_bytes(b"y" * 2000)
    (root / "home" / "noise").write_bytes(random.Random(1).randbytes(10_000))
    (root / "text").write_bytes(TEXT)
    with (root / "hole").open("wb") as file:
        file.truncate(1_000_001)
    with (root / "sparse").open("wb") as file:
        file.seek(100 * 4096)
        file.write(b"data" * 1024)
    return root


def test_plain(root: Path, tmp_path: Path) -> None:
    whole = -(-len(TEXT) // 4096) * 4096
    found = summary("--rootdir", root, "--subvol", "home", tmp_path / "image")
    usage = found["usage"]
    data = 3 * 4096 + whole + 4096
    assert usage["data"] == [{"compression": "none", "extents": 3, "bytes": data, "file_bytes": data}]
    assert usage["inline"] == [{"compression": "none", "files": 2, "bytes": 2100, "file_bytes": 2100}]
    assert usage["holes"] == 245 * 4096 + 100 * 4096
    assert usage["checksums"] == {"sectors": data // 4096, "bytes": data // 1024}
    assert usage["subvolumes"] == [
        {"id": 5, "path": "", "inodes": 5, "data_bytes": whole + 4096, "inline_bytes": 100, "tree_bytes": 16384},
        {"id": 256, "path": "home", "inodes": 3, "data_bytes": 12288, "inline_bytes": 2000, "tree_bytes": 16384},
    ]
    names = [
        "root",
        "extent",
        "chunk",
        "dev",
        "fs",
        "csum",
        "uuid",
        "free-space",
        "block-group",
        "subvolume",
        "data-reloc",
    ]
    assert [tree["name"] for tree in usage["trees"]] == names
    assert [tree["id"] for tree in usage["trees"]] == [1, 2, 3, 4, 5, 7, 9, 10, 11, 256, -9]
    agrees(found)


@pytest.mark.parametrize("words", [[], ["-M"], ["-n", "4k", "-O", "quota"], ["--csum", "sha256", "--compress", "zstd"]])
def test_the_parts_are_the_whole(root: Path, tmp_path: Path, words: list[str]) -> None:
    agrees(summary(*words, "--rootdir", root, "--subvol", "home", tmp_path / "image"))


def agrees(found: dict[str, Any]) -> None:
    """Trees and data are what is used of the block groups, and what is used and free of a group is all of it."""
    usage = found["usage"]
    used = sum(group["used"] for group in found["block_groups"])
    data = sum(row["bytes"] for row in usage["data"])
    assert data == sum(row["data_bytes"] for row in usage["subvolumes"])
    assert data + sum(tree["bytes"] for tree in usage["trees"]) == used == found["bytes_used"]
    for group in found["block_groups"]:
        assert 0 <= group["length"] - group["used"] - usage["free"][group["kind"]] <= 2 * 65536  # superblock copies
    assert sum(row["inodes"] for row in usage["subvolumes"]) == found["inodes"]
    assert sum(row["inline_bytes"] for row in usage["subvolumes"]) == sum(row["bytes"] for row in usage["inline"])


def test_by_compression(root: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    found = summary("--rootdir", root, "--compress", "zstd,text=lzo,small=no", image)
    data = {row["compression"]: row for row in found["usage"]["data"]}
    whole = -(-len(TEXT) // 4096) * 4096
    assert data["lzo"]["file_bytes"] == whole
    assert data["lzo"]["extents"] == -(-len(TEXT) // 131072)
    assert data["lzo"]["bytes"] < whole
    # Noise, and a single sector: nothing is saved there.
    assert data["none"] == {"compression": "none", "extents": 2, "bytes": 16384, "file_bytes": 16384}
    inline = {row["compression"]: row for row in found["usage"]["inline"]}
    assert inline["none"] == {"compression": "none", "files": 1, "bytes": 100, "file_bytes": 100}
    assert (inline["zstd"]["files"], inline["zstd"]["file_bytes"]) == (1, 2000)
    assert inline["zstd"]["bytes"] < 100
    said = run_command("cow_debug_tree", "-t", "fs", image).stdout
    assert said.count("(lzo)") == data["lzo"]["extents"]


def test_an_empty_filesystem(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    found = summary(image)
    assert found["usage"]["data"] == found["usage"]["inline"] == []
    assert found["usage"]["holes"] == 0
    allocated = found["total_bytes"] - found["usage"]["free"]["unallocated"]
    copies = {"dup": 2, "single": 1}
    groups = sum(group["length"] * copies[group["profile"]] for group in found["block_groups"])
    assert allocated == groups + (1 << 20)  # what is reserved at the beginning
