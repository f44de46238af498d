"""Manual pages and completions: up to date, complete, understood by who reads them."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.pages.__main__ import SHARE, commands, pages
from scripts.pages.declared import Declared

COMMANDS = {command.name: command for command in commands()}
PAGES = {place: (command, text) for command in COMMANDS.values() for place, text in pages(command).items()}

every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
every_page = pytest.mark.parametrize("place", PAGES)

#: How each kind of file spells an option.
SPELLED = {
    "man": lambda name: rf"\\fB{re.escape(name.replace('-', chr(92) + '-'))}\\fR",
    "bash-completion": lambda name: rf"(?<= ){re.escape(name)}(?= |$)",
    "zsh": lambda name: rf"(?<=[{{,'*]){re.escape(name)}(?=[=+\[,}}])",
    "fish": lambda name: rf"-l {name[2:]}(?= )" if name.startswith("--") else rf"-s {name[1:]}(?= )",
}


def needs(program: str) -> None:
    """Skip the test where a program that reads these files is not here."""
    if shutil.which(program) is None:
        pytest.skip(f"needs the program {program}")


def files(kind: str) -> list[Path]:
    """All files of a kind below `share/`."""
    return [SHARE / place for place in PAGES if place.startswith(f"{kind}/")]


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a program prints, which has to succeed without a word on stderr."""
    said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, cwd=cwd)
    assert (said.returncode, said.stderr) == (0, ""), said.stdout
    return said.stdout


@every_page
def test_up_to_date(place: str) -> None:
    """`make docs` writes them."""
    assert (SHARE / place).read_text(encoding="utf-8") == PAGES[place][1]


def test_nothing_is_left_of_other_commands() -> None:
    assert {str(path.relative_to(SHARE)) for path in SHARE.rglob("*") if path.is_file()} == set(PAGES)


@every_page
def test_every_option_is_named(place: str) -> None:
    command, text = PAGES[place]
    assert len(command.names) > 10 and "--help" in command.names and "-h" in command.names
    for name in command.names:
        assert re.search(SPELLED[place.split("/")[0]](name), text, re.MULTILINE), name


@every_command
def test_the_manual_says_what_the_help_says(command: Declared) -> None:
    needs("man")
    text = " ".join(run("man", "-l", SHARE / f"man/man8/{command.name}.8", env={"MANWIDTH": "500"}).split())
    for option in command.options:
        value = "" if option.metavar is None else f" [{option.metavar}]" if option.optional else f" {option.metavar}"
        assert f"{', '.join(option.names)}{value} {option.help}" in text, option
    for code, meaning in command.words.exit_codes.items():
        assert f" {code} {meaning}" in text.partition("EXIT STATUS")[2]
    for example in command.words.examples:
        assert example.command in re.sub(r" \\ ", " ", text)


def test_manual_without_warnings() -> None:
    needs("man")
    for path in files("man"):
        run("man", "-l", "--warnings", path, env={"LC_ALL": "C.UTF-8", "MANWIDTH": "80"})


def test_mandoc_finds_nothing() -> None:
    needs("mandoc")
    for path in files("man"):
        assert run("mandoc", "-Tlint", path) == ""


@pytest.mark.parametrize("kind, shell", [("bash-completion", "bash"), ("zsh", "zsh"), ("fish", "fish")])
def test_syntax(kind: str, shell: str) -> None:
    needs(shell)
    for path in files(kind):
        run(shell, "-n", path)


# -- Bash ------------------------------------------------------------------------------------------------------


def completed(folder: Path, *words: str, breaks: str = ":=") -> list[str]:
    """What Bash offers for the last of the words, cut where it cuts them."""
    pieces = [piece for word in words for piece in re.split(f"([{breaks}])" if breaks else "(?!)", word)]
    cut = [pieces[0], *(piece for piece in pieces[1:-1] if piece), pieces[-1]]
    if cut[-1] == "" and cut[-2] in breaks:
        cut.pop()  # for Bash it is the sign itself that is under way
    script = f"""
        source "$1"; shift
        COMP_WORDBREAKS=$1; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _{re.sub(r"[.-]", "_", words[0])}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    source = SHARE / "bash-completion/completions" / words[0]
    return run("bash", "-c", script, "bash", source, f" \n{breaks}", *cut, cwd=folder).split("\n")[:-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a directory and two files."""
    (tmp_path / "tree" / "home").mkdir(parents=True)
    (tmp_path / "tar.gz").touch()
    (tmp_path / "two words").touch()
    return tmp_path


@pytest.mark.parametrize("breaks", [":=", ":", "=", ""])
@pytest.mark.parametrize(
    "words, expected",
    [
        (["mkfs.cow", "--compr"], ["--compress", "--compress-property"]),
        (["mkfs.cow", "--compress", "z"], ["zstd", "zlib"]),
        (["mkfs.cow", "-f", "-d", "raid1c"], ["raid1c3", "raid1c4"]),
        (["mkfs.cow", "-O", "quota,^no-"], ["quota,^no-holes"]),
        (["mkfs.cow", "-r", "t"], ["tree"]),
        (["mkfs.cow", "--from-tar", "t"], ["tar.gz", "tree", "two words"]),
        (["mkfs.cow", "-q", "ta"], ["tar.gz"]),
        (["mkfs.cow", "--", "--compr"], [""]),
        (["mkfs.cow", "-s", ""], [""]),
        (["mkfs.cow", "-u", "default"], ["default:", "default-ro:"]),
        (["fsck.cow", "--check", "inode.nlink-w"], ["inode.nlink-wrong"]),
        (["fsck.cow", "--super-copy", ""], ["0", "1", "2"]),
        (["cow-debug-tree", "-t", "block-"], ["block-group"]),
        (["cow-debug-tree", "tree/"], ["tree/home"]),
    ],
)
def test_bash_offers(folder: Path, words: list[str], expected: list[str], breaks: str) -> None:
    needs("bash")
    assert sorted(completed(folder, *words, breaks=breaks)) == sorted(expected)


@pytest.mark.parametrize("breaks", [":=", ":", "=", ""])
@pytest.mark.parametrize(
    "word, before, equals, expected",
    [
        # What Bash replaces is what stands after its last cut.
        ("--compress=", "--compress=", "", ["lzo", "no", "zlib", "zstd"]),
        ("--compress=zs", "--compress=", "", ["zstd"]),
        ("--rootdir=tr", "--rootdir=", "", ["tree"]),
        ("--subvol=ro:tr", "--subvol=", "ro:", ["tree"]),
        ("--inode-flags=nodatacow,no", "--inode-flags=", "", ["nodatacow,nodatacow:", "nodatacow,nodatasum:"]),
    ],
)
def test_bash_offers_after_its_cuts(
    folder: Path, word: str, before: str, equals: str, expected: list[str], breaks: str
) -> None:
    needs("bash")
    start = before + equals
    last = max((start.rfind(sign) for sign in breaks), default=-1)
    offered = [start[last + 1 :] + rest for rest in expected]
    assert sorted(completed(folder, "mkfs.cow", word, breaks=breaks)) == offered


def test_bash_completes_a_line(folder: Path) -> None:
    """At a terminal, as a user does: with the key for it."""
    needs("bash")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "INPUTRC": "/dev/null", "PS1": "$ "}
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
    try:
        source = SHARE / "bash-completion/completions/mkfs.cow"
        set_up = f"bind 'set enable-bracketed-paste off'; . {source}; mkfs.cow() {{ printf '<%s>' \"$@\" END; }}"
        _type(terminal, f"{set_up}; echo READ''Y\n", until="READY")
        said = _type(terminal, "mkfs.cow --mix\t--compress zs\t-u default-ro:tre\t tw\t\n", until="<END>")
        assert "<--mixed><--compress><zstd><-u><default-ro:tree/><two words><END>" in said
    finally:
        os.close(terminal)  # which ends the shell
        os.waitpid(child, 0)


def _type(terminal: int, text: str, *, until: str) -> str:
    """Types, and returns what is shown up to and with some words."""
    os.write(terminal, text.encode())
    said = ""
    while until not in said:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, f"no word any more after {said!r}"
        said += os.read(terminal, 4096).decode()
    return said


# -- fish ------------------------------------------------------------------------------------------------------


def test_fish_offers(folder: Path) -> None:
    needs("fish")
    sources = "; ".join(f"source {path}" for path in files("fish"))

    def offered(line: str) -> list[str]:
        said = run("fish", "--no-config", "-c", f"{sources}; complete -C '{line}'", cwd=folder)
        return [entry.split("\t")[0] for entry in said.splitlines()]

    assert offered("mkfs.cow --mix") == ["--mixed"]
    assert offered("mkfs.cow -d raid1c") == ["raid1c3", "raid1c4"]
    assert offered("mkfs.cow -O quota,^no-") == ["quota,^no-holes"]
    assert offered("mkfs.cow -r t") == ["tree/"]
    assert offered("fsck.cow --check inode.nlink-w") == ["inode.nlink-wrong"]
    assert offered("cow-debug-tree ta") == ["tar.gz"]
