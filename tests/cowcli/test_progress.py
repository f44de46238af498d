"""The progress bar: never past the end, silent where nobody looks."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from cowcli import progress
from cowcli.progress import ProgressBar
from fsck_cow.engine import check_filesystem
from mkfs_cow.compression import parse_compressions
from mkfs_cow.make import make_filesystem
from mkfs_cow.options import Options
from tests.commands import mkfs

Steps = dict[str, list[tuple[int, int]]]


class Recorder:
    """What a bar is told: (done, total) by step."""

    def __init__(self) -> None:
        self.steps: Steps = defaultdict(list)

    def update(self, step: str, done: int, total: int) -> None:
        self.steps[step].append((done, total))


def assert_within_bounds(steps: Steps, *to_the_end: str) -> None:
    """No step goes back or past its end; those named arrive there."""
    for step, told in steps.items():
        done = [done for done, _ in told]
        assert done == sorted(done), step
        assert [(done, total) for done, total in told if not 0 <= done <= total and total] == [], step
        assert len({total for _, total in told}) == 1, step
    for step in to_the_end:
        last, total = steps[step][-1]
        assert last == total > 0, step


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files that are inline, of single sectors, with holes, and large enough for some batches."""
    folder = tmp_path / "tree"
    folder.mkdir()
    noise = random.Random(7)
    for number, size in enumerate([0, 1, 100, 2048, 2049, 4095, 4096, 4097, 100_000, 5 << 20, 23 << 20]):
        (folder / f"noise-{number}").write_bytes(noise.randbytes(size))
        (folder / f"text-{number}").write_bytes(b"the same, " * (size // 10))
    with (folder / "hole").open("wb") as file:
        file.truncate(30 << 20)
        file.seek(10 << 20)
        file.write(b"x" * 5000)
    return folder


@pytest.mark.parametrize("compress", ["no", "zstd", "lzo"])
@pytest.mark.parametrize("shrink", [False, True], ids=["", "shrink"])
def test_making(tmp_path: Path, tree: Path, compress: str, shrink: bool) -> None:
    recorder = Recorder()
    options = Options(
        devices=[tmp_path / "image"], rootdir=tree, compression=parse_compressions(compress), shrink=shrink
    )
    make_filesystem(options, progress=recorder.update, warn=pytest.fail)
    assert_within_bounds(recorder.steps, "writing data", *["measuring"] * ("measuring" in recorder.steps))
    assert ("measuring" in recorder.steps) == (shrink and compress != "no")


def test_checking(tmp_path: Path, tree: Path) -> None:
    image = tmp_path / "image"
    mkfs("-q", "--rootdir", tree, "-n", "4k", image)
    recorder = Recorder()
    check_filesystem([str(image)], data=True, progress=recorder.update)
    assert_within_bounds(recorder.steps, "verifying data")


class Screen:
    """Stands for rich's bar."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int | None]] = []
        self.running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def add_task(self, step: str, total: int | None) -> str:
        return step

    def remove_task(self, task: str) -> None:
        pass

    def update(self, task: str, completed: int, total: int | None) -> None:
        self.shown.append((task, completed, total))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What stands on a terminal."""
    screen = Screen()
    monkeypatch.setattr(progress, "_make_bar", lambda: screen)
    monkeypatch.setattr(progress, "_DELAY", 0)
    monkeypatch.setattr(progress, "_INTERVAL", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    return screen


def test_the_bar(screen: Screen) -> None:
    with ProgressBar("command", enabled=True) as bar:
        bar.update("one", 1, 2)
        bar.update("one", 2, 2)
        bar.update("two", 5, 0)
        assert screen.running
    assert screen.shown == [("one", 1, 2), ("one", 2, 2), ("two", 5, None)]
    assert not screen.running


@pytest.mark.parametrize(("enabled", "terminal"), [(False, True), (True, False)])
def test_no_bar(screen: Screen, monkeypatch: pytest.MonkeyPatch, enabled: bool, terminal: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with ProgressBar("command", enabled=enabled) as bar:
        bar.update("one", 1, 2)
    assert screen.shown == []


def test_short_work_has_no_bar(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_DELAY", 3600)
    with ProgressBar("command", enabled=True) as bar:
        bar.update("one", 1, 2)
    assert screen.shown == []
