"""The dump of a filesystem of thousands of files, against what btrfs-progs print of it."""

from __future__ import annotations

import pytest

from tests import corpus, oracles
from tests.cow_debug_tree.test_dump import assert_same, printed
from tests.images.shapes import LARGE


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_whole_dump(name: str) -> None:
    oracles.progs(at_least=(6, 19))
    folder, devices = corpus.large(name)
    assert_same(printed(*devices), corpus.read_text(folder, "dump-tree").partition("\n")[2])
