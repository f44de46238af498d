"""Damaged images: what can be read is printed, the rest is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import corpus
from tests.cow_debug_tree.running import run
from tests.fsck_cow import damaged

EVERY = [*damaged.names(), *corpus.progs_images()]


def image_of(name: str) -> Path:
    """One of the project's own damaged images, or of the corpus beside it."""
    return damaged.image(name) if name in damaged.DAMAGES else corpus.image(name)


@pytest.mark.parametrize("options", [[], ["--json"], ["--stats"]], ids=["text", "json", "stats"])
@pytest.mark.parametrize("name", EVERY)
def test_damaged_image(name: str, options: list[str]) -> None:
    said = run("--noscan", *options, image_of(name))
    assert said.returncode == (1 if said.stderr else 0)
    assert all(line.startswith(("cow-debug-tree: ", "hint: ")) for line in said.stderr.splitlines())
    if not options and not said.stderr:
        assert "\ntotal bytes " in said.stdout


@pytest.mark.parametrize("name", EVERY)
def test_damaged_superblocks(name: str) -> None:
    said = run("--super", "--all", image_of(name))
    assert said.stdout.startswith("superblock: bytenr=65536, device=")
    assert said.returncode == (1 if said.stderr else 0)
