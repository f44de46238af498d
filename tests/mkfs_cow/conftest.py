"""The made tree that mkfs.cow fills filesystems from, and an image to fill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import oracles, sample


@pytest.fixture(scope="session")
def sample_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tree with one of everything, for tests that only read it. Needs root."""
    oracles.require_oracle("root", "setfacl")
    folder = tmp_path_factory.mktemp("sample")
    sample.make_tree(folder)
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A fresh image file of 1 GiB which takes no space, gone after the test."""
    path = oracles.sparse(tmp_path / "image", 1 << 30)
    yield path
    path.unlink(missing_ok=True)  # folders of failed tests are kept
