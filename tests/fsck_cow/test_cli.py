"""The command as a user, a script and fsck(8) run it: options, words, exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cowlib.format import InodeItem, KeyType
from tests import oracles
from tests.commands import environment, run_command
from tests.fsck_cow import craft


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A fresh filesystem."""
    return craft.small(tmp_path)[0]


@pytest.fixture
def damaged(clean: Path) -> Path:
    """One with five files that have a link too many."""
    with craft.Editor([clean]) as edit:
        inodes = [place for place in edit.places(5) if place.key[1] == KeyType.INODE_ITEM]
        files = [place for place in inodes if stat.S_ISREG(edit.parsed(place).mode)]
        for place in files[:5]:
            edit.set_fields(place, InodeItem, nlink=edit.parsed(place).nlink + 1)
    return clean


def fsck(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run fsck.cow."""
    return run_command("fsck_cow", *arguments)


def test_clean(clean: Path) -> None:
    said = fsck(clean)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout == f"{clean}: clean\n"
    assert fsck("-q", clean).stdout == ""


@pytest.mark.parametrize(
    "options", [("-n",), ("-f",), ("--data",), ("--tree-only",), ("--noscan",), ("--check", "inode")]
)
def test_clean_whatever_is_asked_for(clean: Path, options: tuple[str, ...]) -> None:
    said = fsck(*options, clean)
    assert said.returncode == 0, said.stdout + said.stderr


def test_problems_are_grouped(damaged: Path) -> None:
    said = fsck("--limit", "2", damaged)
    assert said.returncode == 4
    lines = said.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("inode.nlink-wrong"))
    assert lines[first] == "inode.nlink-wrong: 5 errors"
    assert re.match(r"    tree FS_TREE, key \(\d+ INODE_ITEM 0\): .*found \d+, expected \d+", lines[first + 1])
    assert "... and 3 more" in lines[first + 3]
    assert lines[-1].startswith(f"{damaged}: ") and lines[-1].endswith("nothing was changed")
    assert "more" not in fsck("--limit", "0", damaged).stdout


def test_json(damaged: Path) -> None:
    said = fsck("--json", damaged)
    assert said.returncode == 4
    *problems, summary = map(json.loads, said.stdout.splitlines())
    assert {problem["type"] for problem in problems} == {"problem"}
    one = problems[0]
    assert (one["code"], one["severity"], one["tree"]) == ("inode.nlink-wrong", "error", 5)
    assert one["key"][1:] == [1, 0]
    assert one["found"] == one["expected"] + 1
    assert summary["type"] == "summary" and not summary["clean"]
    assert summary["errors"] == len(problems) and summary["codes"] == {"inode.nlink-wrong": 5}


def test_selections(damaged: Path) -> None:
    """What is not asked for is not told."""
    assert fsck("--check", "inode.nlink-wrong", damaged).returncode == 4
    assert fsck("--check", "extent", "--check", "inode", damaged).returncode == 4
    assert fsck("--check", "extent", damaged).returncode == 0
    assert fsck("--tree-only", damaged).returncode == 0
    said = fsck("--check", "nothing-like-this", damaged)
    assert said.returncode == 16
    assert "no check is called nothing-like-this" in said.stderr and "extent" in said.stderr


@pytest.mark.parametrize("option", ["-a", "-p", "-y"])
def test_nothing_is_repaired(damaged: Path, option: str) -> None:
    before = damaged.read_bytes()[: 1 << 20]
    said = fsck(option, damaged)
    assert said.returncode == 4
    assert "repairs nothing" in said.stderr
    assert damaged.read_bytes()[: 1 << 20] == before


@pytest.mark.parametrize("arguments", [(), ("--no-such-option", "x"), ("-n", "-y", "x"), ("--super-copy", "3", "x")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert fsck(*arguments).returncode == 16


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    said = fsck(tmp_path / "missing.img")
    assert said.returncode == 8
    assert len(said.stderr.splitlines()) == 1
    other = tmp_path / "other.img"
    other.write_bytes(bytes(1 << 20))
    said = fsck(other)
    assert said.returncode == 8
    assert "not a btrfs filesystem" in said.stderr


def test_start_points(clean: Path) -> None:
    """Superblock copies, and roots by address."""
    with craft.Editor([clean]) as edit:
        root, chunk = edit.root(1).bytenr, edit.root(3).bytenr
    assert fsck("--super-copy", "1", clean).returncode == 0
    assert fsck("--tree-root", str(root), "--chunk-root", hex(chunk), clean).returncode == 0
    assert fsck("--tree-root", "7", clean).returncode == 4
    assert fsck("--tree-root", "x", clean).returncode == 16


def test_a_wrong_superblock_is_told(clean: Path) -> None:
    with craft.Editor([clean]) as edit:
        edit.set_superblock(copies=[0], generation=7, mend=False)
    said = fsck(clean)
    assert said.returncode == 4
    assert "superblock." in said.stdout
    assert fsck("--super-copy", "1", clean).returncode == 4, "the first copy is still wrong"


def test_version_and_help() -> None:
    assert fsck("-V").stdout.startswith("fsck.cow, part of cowtools v")
    said = fsck("--help")
    assert said.returncode == 0
    assert "repairs nothing" in " ".join(said.stdout.split())


@pytest.mark.oracle
def test_mounted_is_refused(clean: Path) -> None:
    oracles.require_oracle("mount")
    with oracles.loop(clean) as device, oracles.mounted(device):
        for path in (device, clean):
            said = fsck(path)
            assert said.returncode == 8
            assert "mounted" in said.stderr


@pytest.mark.oracle
def test_by_fsck_of_util_linux(clean: Path, tmp_path: Path) -> None:
    """fsck(8) finds the command by the type that fstab gives, and passes on options and the exit code."""
    oracles.require_oracle("fsck", "loop")
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "fsck.cow"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fsck_cow "$@"\n')
    command.chmod(0o755)
    found = shutil.which("fsck", path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert found is not None
    env = environment({"PATH": f"{folder}:{os.environ['PATH']}"})
    with oracles.loop(clean) as device:
        table = tmp_path / "fstab"
        table.write_text(f"{device} /nowhere cow defaults 0 2\n")
        env["FSTAB_FILE"] = str(table)
        said = subprocess.run([found, "-t", "cow", device, "-n"], env=env, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert f"{device}: clean" in said.stdout
