"""`--help`: every width, every option, exit codes, and examples that can be pasted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from cowcli.help import Help, continued, wrapped
from scripts.pages.__main__ import commands
from scripts.pages.declared import Declared
from tests.commands import REPOSITORY

PACKAGES = {"mkfs.cow": "mkfs_cow", "fsck.cow": "fsck_cow", "cow-debug-tree": "cow_debug_tree"}
COMMANDS = {command.name: command for command in commands()}
WIDTHS = (40, 60, 80, 200)

every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
every_width = pytest.mark.parametrize("columns", WIDTHS)


def shown(command: Declared, columns: int) -> str:
    """What `--help` prints on a terminal of so many columns."""
    return subprocess.run(
        [sys.executable, "-m", PACKAGES[command.name], "--help"],
        env={**os.environ, "COLUMNS": str(columns), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout


def after(text: str, heading: str) -> str:
    """What stands below a heading, as one line."""
    return " ".join(text.split(f"\n{heading}:\n")[1].split("\n\n")[0].split())


def joined(help_text: str) -> str:
    """The help as a shell reads it: lines that end in a backslash go on."""
    return re.sub(r" \\\n +", " ", help_text)


@every_width
@every_command
def test_help_says_everything(command: Declared, columns: int) -> None:
    text = shown(command, columns)
    for option in command.options:
        assert re.search(rf"^  {re.escape(', '.join(option.names))}\b", text, re.MULTILINE), option
        assert option.help in " ".join(text.split())
    for code, meaning in command.words.exit_codes.items():
        assert f"{code} {meaning}" in after(text, "Exit codes")
    for variable, meaning in command.words.environment.items():
        assert f"{variable} {meaning}" in after(text, "Environment")
    for example in command.words.examples:
        assert f"    {example.command}\n" in joined(text)


@every_width
@every_command
def test_no_line_is_too_long(command: Declared, columns: int) -> None:
    """But those of one word that is longer by itself."""
    for line in shown(command, columns).splitlines():
        assert len(line) <= min(columns, 80) or len(line.removesuffix(" \\").split()) == 1, line


@every_command
def test_examples_are_understood(command: Declared) -> None:
    """Options of examples are there; programs after a pipe are not ours."""
    for example in command.words.examples:
        words = shlex.split(example.command.split("|")[0])
        assert command.name in words
        options = [word for word in words if word.startswith("-")]
        assert set(options) <= set(command.names), example


@every_command
def test_details_are_of_options_that_are_there(command: Declared) -> None:
    assert set(command.words.details) <= set(command.names)


def test_wrapping_breaks_no_option() -> None:
    text = "one two --from-tar three-four"
    assert list(wrapped(text, 12, "  ")) == ["  one two", "  --from-tar", "  three-four"]
    assert list(wrapped("", 12)) == [""]


def test_commands_go_on_after_a_backslash() -> None:
    command = "A=1 mkfs.cow --label 'my disk' --rootdir tree/ --shrink /dev/disk/by-id/something-long | cat"
    for width in (20, 30, 40, 60, 100):
        lines = list(continued(command, width, "  "))
        assert all(line.endswith(" \\") for line in lines[:-1])
        assert all(len(line) <= width or len(line.removesuffix(" \\").split()) == 1 for line in lines)
        assert joined("\n".join(lines)).strip() == command
    assert list(continued("x --label name y", 20)) == ["x --label name y"]
    assert list(continued("x --label name y", 15)) == ["x --label \\", "    name y"]


def test_an_option_stays_with_its_value() -> None:
    assert list(continued("mkfs.cow --force --label name disk.img", 27)) == [
        "mkfs.cow --force \\",
        "    --label name disk.img",
    ]


def test_help_has_no_words_that_nobody_declared() -> None:
    """What is left empty stands nowhere."""
    words = Help("x", "does something", {"0": "done"}, ())
    assert words.environment == {} and words.values() == {}
