"""Statistics of trees."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from cow_debug_tree.stats import COLUMNS, TreeStats, show_table
from tests import corpus
from tests.cow_debug_tree.running import run


def test_numbers_are_those_of_the_dump() -> None:
    devices = corpus.devices("node4k-bgt")
    said = run("--noscan", "--stats", "--json", *devices)
    assert (said.returncode, said.stderr) == (0, "")
    found = [json.loads(line) for line in said.stdout.splitlines()]
    text = corpus.text("node4k-bgt", "dump-tree")
    leaves = re.findall(r"^leaf \d+ items (\d+) free space (\d+) ", text, re.MULTILINE)
    assert sum(one["leaves"] for one in found) == len(leaves)
    assert sum(one["items"] for one in found) == sum(int(count) for count, _ in leaves)
    assert sum(one["free"] for one in found) == sum(int(free) for _, free in leaves)
    inner = re.findall(r"^node \d+ level (\d+) items (\d+) ", text, re.MULTILINE)
    assert sum(one["nodes"] for one in found) == len(leaves) + len(inner)
    assert sum(one["pointers"] for one in found) == sum(int(count) for _, count in inner)
    assert Counter(one["level"] for one in found)[1] == sum(level == "1" for level, _ in inner)
    for one in found:
        assert 0 <= one["fill"] <= 1
        assert 1 <= one["runs"] <= one["leaves"]


def test_table() -> None:
    said = run("--noscan", "--stats", *corpus.devices("default"))
    lines = said.stdout.splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert lines[1].startswith("ROOT_TREE ")
    assert lines[-1].startswith("all ")
    assert len({len(line) for line in lines}) == 1
    one = run("--noscan", "--stats", "-t", "fs", *corpus.devices("default"))
    assert [line.split()[0] for line in one.stdout.splitlines()] == ["tree", "FS_TREE"]
    none = run("--noscan", "--stats", "-t", "quota", *corpus.devices("default"))
    assert none.returncode == 1
    assert "no tree" in none.stderr


def test_table_on_a_terminal() -> None:
    row = ("FS_TREE", "1", "3", "2", "1,000", "12.0 KiB", "50.0%", "1.0%", "100.0%")
    assert all(word in show_table([row], terminal=True) for word in (*COLUMNS, *row))


def test_rates() -> None:
    empty = TreeStats(5, 0, "FS_TREE", 0)
    assert (empty.fill(4096), empty.inner_fill(), empty.scatter()) == (None, None, None)
    tree = TreeStats(5, 0, "FS_TREE", 1, leaves=3, free=3 * 3995 // 2, runs=2, pointers=3, inner_capacity=12)
    assert tree.fill(4096) == pytest.approx(0.5, abs=1e-3)
    assert (tree.inner_fill(), tree.scatter()) == (0.25, 0.5)
