"""Damaged images: what can be read is printed, the rest is said, and nothing gets out of hand."""

from __future__ import annotations

import pytest

from tests import corpus
from tests.cow_debug_tree.running import run

MEMORY = 500 << 20


@pytest.mark.parametrize("options", [[], ["--json"], ["--stats"]], ids=["text", "json", "stats"])
@pytest.mark.parametrize("name", corpus.progs_images())
def test_damaged_image(name: str, options: list[str]) -> None:
    said = run("--noscan", *options, corpus.image(name))
    assert said.returncode == (1 if said.stderr else 0)
    assert all(line.startswith(("cow-debug-tree: ", "hint: ")) for line in said.stderr.splitlines())
    assert said.used.ru_maxrss << 10 < MEMORY
    assert said.used.ru_utime + said.used.ru_stime < 20
    if not options and not said.stderr:
        assert "\ntotal bytes " in said.stdout


@pytest.mark.parametrize("name", corpus.progs_images())
def test_damaged_superblocks(name: str) -> None:
    said = run("--super", "--all", corpus.image(name))
    assert said.stdout.startswith("superblock: bytenr=65536, device=")
    assert said.returncode == (1 if said.stderr else 0)
