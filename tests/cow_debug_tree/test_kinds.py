"""Items of every kind, from hand-made leaves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cowlib.format import HEADER_SIZE, Header, KeyPtr, KeyType
from tests.cow_debug_tree import kinds
from tests.cow_debug_tree.crafted import CraftedImage, RandomItems
from tests.cow_debug_tree.running import run
from tests.cow_debug_tree.test_dump import asked, assert_same, printed


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> CraftedImage:
    """An image whose leaf every test writes anew."""
    return CraftedImage(tmp_path_factory.mktemp("crafted"))


def test_rare_kinds(image: CraftedImage) -> None:
    image.put(kinds.leaf())
    assert_same(printed("-b", str(image.bytenr), image.path), kinds.TEXT.read_text(encoding="utf-8"))


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(8))
def test_random_items(image: CraftedImage, seed: int) -> None:
    image.put(RandomItems(seed).leaf(image.nodesize - HEADER_SIZE))
    options: list[str | Path] = ["-b", str(image.bytenr), "--csum-items", "--csum-headers", image.path]
    said = run("--noscan", *options, env={"TZ": "UTC"})
    complaints = [line for line in said.stderr.splitlines() if "no multiple of 8" not in line]
    assert complaints == []
    assert_same(said.stdout.partition("\n")[2], asked(*options))


def test_payloads_that_are_too_short(image: CraftedImage) -> None:
    """The items' own lines are printed, and what is wrong goes to stderr."""
    types = [kind for kind in range(256) if kind not in (KeyType.UUID_KEY_SUBVOL, KeyType.UUID_KEY_RECEIVED_SUBVOL)]
    items = [((256, kind, 0), b"\x01") for kind in types]
    image.put(items)
    text = printed("-b", str(image.bytenr), image.path, status=1)
    assert len(re.findall(r"^\titem \d+ key", text, re.MULTILINE)) == len(types)
    said = run("--json", "--noscan", "-b", str(image.bytenr), image.path)
    assert said.returncode == 1
    assert said.stdout.count("\n") == len(types)


def test_names_and_payloads_beyond_their_items(image: CraftedImage) -> None:
    name = b"\x07" * 8 + b"\xff\xff" + b"name"  # an INODE_REF that claims 65535 bytes of name
    image.put([((256, KeyType.INODE_REF, 5), name), ((257, KeyType.ORPHAN_ITEM, 0), b"")], [(16000, 14), (16300, 0)])
    text = printed("-b", str(image.bytenr), image.path, status=1)
    assert "namelen" in text
    image.put([((256, KeyType.INODE_REF, 5), b""), ((257, KeyType.ORPHAN_ITEM, 0), b"")], [(2**32 - 1, 2**32 - 1)] * 2)
    text = printed("-b", str(image.bytenr), image.path, status=1)
    assert "item 1 key (257 ORPHAN_ITEM 0) itemoff 4294967295 itemsize 4294967295\n" in text


@pytest.mark.parametrize("kind", [KeyType.INODE_REF, KeyType.UUID_KEY_SUBVOL, KeyType.EXTENT_CSUM, KeyType.DIR_ITEM])
def test_payloads_that_overlap_do_not_become_gigabytes(image: CraftedImage, kind: int) -> None:
    items = [((256, kind, nth), b"") for nth in range(400)]
    start = 400 * 25
    image.put(items, [(start, image.nodesize - HEADER_SIZE - start)] * 400)
    said = run("--noscan", "--csum-items", "-b", str(image.bytenr), image.path)
    assert said.returncode == 1
    assert said.stderr.count("overlaps") == 399
    assert len(said.stdout) < 1 << 20


def test_a_tree_that_points_in_circles(image: CraftedImage) -> None:
    """A node whose children are all itself."""
    head = Header.build({**image.header, "level": 1, "nritems": 100})
    key = {"objectid": 256, "type": 1, "offset": 0}
    pointer = KeyPtr.build({"key": key, "blockptr": image.bytenr, "generation": image.header["generation"]})
    image.write((head + pointer * 100).ljust(image.nodesize, b"\0"))
    said = run("--noscan", "--follow", "-b", str(image.bytenr), image.path)
    assert said.returncode == 1
    assert said.stdout.count("\tkey (256 INODE_ITEM 0)") == 100
    assert "more than once" in said.stderr
    assert "level is 1, its parent says 0" in said.stderr
