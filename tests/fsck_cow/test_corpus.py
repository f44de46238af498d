"""fsck.cow judges real images as the kernel and `btrfs check` do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsck_cow.catalogue import all_codes
from tests import corpus, oracles
from tests.commands import environment
from tests.images.shapes import LARGE

#: Images of profiles that do without any one of their devices, and how many they have.
REDUNDANT = {"raid1": 2, "raid10": 4, "raid1c3": 3, "raid1c4": 4, "raid5": 3, "raid6": 4}


@dataclass(frozen=True)
class Verdict:
    """What a run said: its exit code, the problems and the summary."""

    code: int
    problems: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def first(self) -> str:
        """Some of the problems, to be read when a test fails."""
        return "\n".join(map(str, self.problems[:8]))


def fsck(*arguments: str | Path) -> Verdict:
    """Run fsck.cow --json as a process of its own."""
    command = [sys.executable, "-m", "fsck_cow", "--json", "--noscan", *map(str, arguments)]
    said = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert "Traceback" not in said.stderr, said.stderr
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert said.returncode in (0, 4), f"exit code {said.returncode}: {said.stderr}"
    assert lines[-1]["type"] == "summary"
    verdict = Verdict(said.returncode, lines[:-1], lines[-1])
    assert verdict.summary["clean"] == (said.returncode == 0)
    assert set(verdict.summary["codes"]) <= all_codes()
    return verdict


@pytest.mark.parametrize("name", corpus.kernel_images())
def test_kernel_image_is_clean(name: str) -> None:
    """With --data too, so that every copy of everything is read."""
    verdict = fsck("--data", *corpus.devices(name))
    assert verdict.code == 0, verdict.first


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_image_is_clean(name: str) -> None:
    """So many files that work is shared among processes."""
    verdict = fsck("--data", *corpus.large(name)[1])
    # What mkfs.btrfs has left behind from 5.15 to 6.16.
    left = {"free-space.info-orphan"} if (5, 15) <= oracles.progs().version < (6, 17) else set()
    assert {problem["code"] for problem in verdict.problems if problem["severity"] == "error"} == left, verdict.first


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, n) for name in corpus.kernel_images(*REDUNDANT) for n in range(1, REDUNDANT[corpus.shape(name)] + 1)],
)
def test_a_missing_device(name: str, number: int) -> None:
    """Is told of, and is no error where the profile does without it."""
    devices = corpus.devices(name)
    verdict = fsck("--data", *devices[: number - 1], *devices[number:])
    assert verdict.summary["errors"] == 0, verdict.first
    assert any(problem["code"] == "device.missing" for problem in verdict.problems), verdict.first


@pytest.mark.parametrize("name", corpus.progs_images())
def test_progs_image(name: str) -> None:
    """Every damaged image has a problem, no clean one has."""
    expected = corpus.verdicts()[name]
    verdict = fsck(corpus.image(name))
    if expected.damaged:
        assert verdict.code == 4, f"btrfs check says: {expected.first_errors}"
    else:
        assert verdict.code == 0, verdict.first
