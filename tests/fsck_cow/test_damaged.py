"""Each damaged filesystem is told of by exactly the codes it should be, and `btrfs check` finds it damaged too."""

from __future__ import annotations

import subprocess

import pytest

from fsck_cow.problems import Severity
from fsck_cow.selection import Selection
from tests import oracles
from tests.commands import run_command
from tests.fsck_cow import craft, damaged


@pytest.mark.parametrize("name", damaged.names())
def test_verdict(name: str) -> None:
    expected = damaged.DAMAGES[name].codes
    report = craft.check([damaged.image(name)])
    assert {problem.code for problem in report.problems if problem.severity > Severity.NOTE} == expected
    assert report.clean == (not expected)
    said = run_command("fsck_cow", "-q", "--noscan", damaged.image(name))
    assert said.returncode == (4 if expected else 0)


@pytest.mark.oracle
@pytest.mark.parametrize("name", damaged.names())
def test_btrfs_check_agrees(name: str) -> None:
    damage = damaged.DAMAGES[name]
    btrfs = oracles.progs(at_least=(6, 19)).btrfs
    code = subprocess.run([btrfs, "check", damaged.image(name)], capture_output=True).returncode
    assert code == (1 if damage.codes and not damage.unseen else 0)


@pytest.mark.parametrize("name", damaged.names())
def test_parts_find_what_the_whole_finds(name: str) -> None:
    """Each subject alone finds its problems, and no other ones."""
    images = [damaged.image(name)]
    whole = craft.check(images).counts
    subjects = sorted({code.partition(".")[0] for code in whole})
    for selection in [*(Selection(frozenset({subject})) for subject in subjects), Selection(trees_only=True)]:
        part = craft.check(images, selection=selection).counts
        assert part == {code: count for code, count in whole.items() if selection.wants(code)}


def test_sound_images_are_among_them() -> None:
    """A check that calls everything damaged would fail."""
    assert any(not damage.codes for damage in damaged.DAMAGES.values())
