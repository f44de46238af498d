"""Reading trees: pruning, other copies, and damage that ends nothing."""

from __future__ import annotations

import numpy as np
import pytest

from cowlib.btree import TreeRoot
from cowlib.checksum import csum_rows
from cowlib.format import CSUM_SIZE, CsumType
from tests.cowlib.btree.memory import FIRST, STYLE, MemoryVolume, grow, table_of

LEAVES = 30


@pytest.fixture
def tree():
    return grow(table_of([(i, 1, 0, bytes(1900)) for i in range(2 * LEAVES)]), copies=2)


def keys(reader, root, **pruned):
    return [int(o) for nodes in reader.leaves(root, **pruned) for o in nodes.items().objectid]


def spoil(volume: MemoryVolume, bytenr: int, copy: int, at: int, value: int, *, reseal: bool = True) -> None:
    """Writes one byte of a block, and with ``reseal`` a checksum that goes with it."""
    block = bytearray(volume.blocks[bytenr][copy])
    block[at] = value
    if reseal:
        rows = np.frombuffer(bytes(block), np.uint8).reshape(1, -1)
        block[:4] = csum_rows(CsumType.CRC32, rows[:, CSUM_SIZE:]).tobytes()
    volume.blocks[bytenr][copy] = bytes(block)


@pytest.mark.parametrize(("low", "high"), [(0, 59), (7, 7), (7, 21), (58, 200), (100, 200)])
def test_a_key_range_brings_its_leaves_and_few_others(tree, low, high):
    reader, root, _ = tree
    found = keys(reader, root, low=(low, 0, 0), high=(high, 255, 2**64 - 1))
    wanted = set(range(low, min(high, 2 * LEAVES - 1) + 1))
    assert wanted <= set(found)
    assert len(found) <= len(wanted) + 4


def test_small_batches_bring_the_same(tree):
    reader, root, _ = tree
    assert keys(reader, root, batch_bytes=1) == list(range(2 * LEAVES))


@pytest.mark.parametrize(("at", "value"), [(200, 9), (48, 9), (32, 9), (80, 9), (100, 3), (97, 255)])
def test_another_copy_stands_in_for_a_bad_one(tree, at, value):
    """Content, address, filesystem id, generation, level, item count: each is looked at."""
    reader, root, volume = tree
    spoil(volume, FIRST, 0, at, value, reseal=at != 200)
    assert keys(reader, root) == list(range(2 * LEAVES))
    assert not reader.damage


def test_a_block_without_a_good_copy_is_named_and_the_rest_is_read(tree):
    reader, root, volume = tree
    for copy in (0, 1):
        spoil(volume, FIRST, copy, 200, 9, reseal=False)
    assert keys(reader, root) == list(range(2, 2 * LEAVES))
    (damage,) = reader.damage
    assert damage.logical == FIRST
    assert damage.tree == 5
    assert "checksum" in damage.reason


def test_older_blocks_are_left_out(tree):
    reader, root, _ = tree
    assert keys(reader, root, min_transid=STYLE.generation)
    assert keys(reader, root, min_transid=STYLE.generation + 1) == []


def test_a_block_that_is_referenced_twice_is_read_once(tree):
    reader, root, volume = tree
    nodes = next(nodes for level, nodes in reader.walk(root) if level == 1)
    second = nodes.pointers().blockptr[1]
    for copy in (0, 1):
        block = bytearray(volume.blocks[root.bytenr][copy])
        start = 101 + 2 * 33 + 17
        block[start : start + 8] = int(second).to_bytes(8, "little")
        volume.blocks[root.bytenr][copy] = bytes(block)
        spoil(volume, root.bytenr, copy, 101, block[101])
    assert len(keys(reader, root)) == 2 * LEAVES - 2
    assert "twice" in str(reader.damage[0])


def test_an_impossible_level_is_damage(tree):
    reader, root, _ = tree
    assert keys(reader, TreeRoot(5, 0, root.bytenr, 200, 7)) == []
    assert "level 200" in str(reader.damage[0])
