"""What every command refuses: empty values, an option given twice, options of which one would change nothing."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cowcli.start import NEWEST_BACKUP, with_optional_values
from tests.commands import mkfs, run_command

PACKAGES = ["mkfs_cow", "fsck_cow", "cow_debug_tree"]

#: What an option parser exits with after wrong usage, and fsck(8).
USAGE = {"mkfs_cow": 2, "fsck_cow": 16, "cow_debug_tree": 2}

#: Where an empty value means what it says.
MAY_BE_EMPTY = {("mkfs_cow", "--label")}


def command(package: str) -> Any:
    """The declaration of a command."""
    return typer.main.get_command(importlib.import_module(f"{package}.cli").app)


def valued(package: str) -> list[Any]:
    """The options of a command that take a value."""
    found = [p for p in command(package).params if p.param_type_name == "option" and not p.is_flag and not p.count]
    return [param for param in found if not param.is_eager]


OPTIONS = [(package, param) for package in PACKAGES for param in valued(package)]

ONCE = [(package, param) for package, param in OPTIONS if not param.multiple]


def name(value: Any) -> str:
    return value if isinstance(value, str) else str(value.opts[-1])


def refused(package: str, *arguments: str | Path) -> str:
    """Why a command refuses its arguments, in its last line: for wrong usage."""
    said = run_command(package, *arguments)
    assert said.returncode == USAGE[package], said.stdout + said.stderr
    assert said.stdout == ""
    return said.stderr.splitlines()[-1]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_command_is_of_this_kind(package: str) -> None:
    assert type(command(package)).__module__ == "cowcli.command"
    assert len(valued(package)) >= 6


@pytest.mark.parametrize(("package", "param"), OPTIONS, ids=name)
def test_no_value_may_be_empty(tmp_path: Path, package: str, param: Any) -> None:
    image = tmp_path / "image"
    for option in param.opts:
        arguments = [f"{option}="] if option.startswith("--") else [option, ""]
        if (package, param.opts[-1]) in MAY_BE_EMPTY:
            mkfs("-q", "-f", "-b", "200m", *arguments, image)
            image.unlink()
            continue
        said = refused(package, *arguments, image)
        assert option in said and said.endswith("it is empty: is a variable not set?")
        assert not image.exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_device_may_be_empty(tmp_path: Path, package: str) -> None:
    for devices in ([""], [tmp_path / "one", ""]):
        said = refused(package, *devices)
        assert said == "Error: Invalid value for 'DEVICE...': it is empty: is a variable not set?"


@pytest.mark.parametrize(("package", "param"), ONCE, ids=name)
def test_one_value_is_given_once(tmp_path: Path, package: str, param: Any) -> None:
    """By whichever name, and though both say the same."""
    for one, two in itertools.product(param.opts, repeat=2):
        said = refused(package, one, "1", two, "1", tmp_path / "image")
        assert param.opts[-1] in said and said.endswith("it is given more than once")


def test_what_may_be_said_twice(tmp_path: Path) -> None:
    image = tmp_path / "image"
    mkfs("-q", "-q", "-f", "--force", "-O", "^no-holes", "-O", "quota", "-b", "200m", image)
    assert run_command("fsck_cow", "-n", "-n", "--check", "inode", "--check", "inode", image).returncode == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_help_is_given_in_any_case(package: str) -> None:
    said = run_command(package, "--help", "")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("Usage: ")


PAIRS = [
    ("fsck_cow", "-n -y", "-a (or -p), -n and -y exclude each other"),
    ("fsck_cow", "-a -y", "-a (or -p), -n and -y exclude each other"),
    ("fsck_cow", "--tree-only --check inode", "--tree-only leaves out inode"),
    ("fsck_cow", "--backup --tree-root 1 --chunk-root 2", "--backup says nothing beside both"),
    ("cow_debug_tree", "--backup 1 --tree-root 1 --chunk-root 2", "--backup says nothing beside both"),
    ("cow_debug_tree", "--bfs --dfs", "--bfs does not go with --dfs"),
    ("cow_debug_tree", "--follow", "--follow goes with --block"),
    ("cow_debug_tree", "--all", "--all goes with --super"),
    ("cow_debug_tree", "--super --all --super-copy 1", "--all does not go with --super-copy"),
    ("cow_debug_tree", "--json --csum-headers", "--json does not go with --csum-headers"),
    ("cow_debug_tree", "-e --dfs", "--extents does not go with --dfs"),
    ("cow_debug_tree", "-b 1 --dfs", "--block without --follow does not go with --dfs"),
    ("cow_debug_tree", "-b 1 --min-transid 5", "--block without --follow does not go with --min-transid"),
    *(
        ("cow_debug_tree", f"{option} {other}", f"{option} does not go with {other.split()[0]}")
        for option, others in {
            "--super": "--extents --device --roots --backups --uuid --stats --tree=1 --block=1 --follow --bfs --dfs"
            " --csum-headers --csum-items --hide-names --min-transid=2 --backup --tree-root=1 --chunk-root=1",
            "--stats": "--extents --device --roots --backups --uuid --block=1 --follow --bfs --dfs --csum-headers"
            " --csum-items",
            "--roots": "--block=1 --bfs --dfs --csum-headers --csum-items",
            "--backups": "--block=1 --bfs --dfs --csum-headers --csum-items",
            "--block": "--extents --device --uuid --tree=1",
            "--uuid": "--extents --device --tree=1",
            "--extents": "--tree=1",
            "--device": "--tree=1",
        }.items()
        for other in (text.replace("=", " ") for text in others.split())
    ),
]


@pytest.mark.parametrize(("package", "arguments", "words"), PAIRS, ids=[f"{p} {a}" for p, a, _ in PAIRS])
def test_options_of_which_one_would_change_nothing(tmp_path: Path, package: str, arguments: str, words: str) -> None:
    given = arguments.replace("--block -", "--block 4096 -").split()
    assert words in refused(package, *given, tmp_path / "image")


def test_a_backup_without_a_number() -> None:
    newest = f"--backup={NEWEST_BACKUP}"
    assert with_optional_values(["--backup", "a.img"]) == [newest, "a.img"]
    assert with_optional_values(["--backup", "2", "a.img"]) == ["--backup", "2", "a.img"]
    assert with_optional_values(["a.img", "--backup"]) == ["a.img", newest]
    assert with_optional_values(["--backup", "--", "--backup"]) == [newest, "--", "--backup"], "a file of that name"
    assert with_optional_values([]) == []
