"""Whole dumps, and each option that chooses what is dumped, against what btrfs-progs printed."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cowlib
from tests import corpus, oracles
from tests.commands import environment, run_command
from tests.cow_debug_tree.running import run

UTC = {"TZ": "UTC"}

#: Runs the command with batches of 64 KiB, so that even small trees are shared among processes.
IN_SMALL_BATCHES = (
    "import cow_debug_tree.dump as dump; dump.BATCH_BYTES = 1 << 16;from cow_debug_tree.__main__ import main; main()"
)


def printed(*arguments: str | Path, status: int = 0) -> str:
    """What the command prints, without the line about its version."""
    said = run("--noscan", *arguments, env=UTC)
    assert said.returncode == status, said.stderr
    assert bool(said.stderr) == bool(status), said.stderr
    version, _, text = said.stdout.partition("\n")
    assert version == f"cowtools v{cowlib.__version__}"
    return text


def asked(*arguments: str | Path) -> str:
    """What btrfs-progs prints for the same arguments."""
    btrfs = oracles.progs(at_least=(6, 19)).btrfs
    command = [btrfs, "inspect-internal", "dump-tree", *arguments]
    said = subprocess.run(command, capture_output=True, env={**UTC, "LC_ALL": "C"}, check=True)
    return said.stdout.decode(errors="surrogateescape").partition("\n")[2]


def assert_same(ours: str, theirs: str) -> None:
    """Equal, or the first differences."""
    if ours != theirs:
        lines = difflib.unified_diff(theirs.splitlines(), ours.splitlines(), "expected", "printed", n=1, lineterm="")
        pytest.fail("\n".join(list(lines)[:30]), pytrace=False)


@pytest.mark.parametrize("name", corpus.kernel_images())
def test_whole_dump(name: str) -> None:
    assert_same(printed(*corpus.devices(name)), corpus.text(name, "dump-tree").partition("\n")[2])


@pytest.mark.oracle
@pytest.mark.parametrize(
    "options",
    [
        "-e",
        "-d",
        "-d -r",
        "-r",
        "-R",
        "-u",
        "-e -d",
        "-t fs",
        "-t BTRFS_CSUM_TREE_OBJECTID",
        "-t root",
        "-t chunk",
        "-t block-group",
        "-t 256 -r",
        "--bfs",
        "--dfs",
        "--csum-headers",
        "--csum-items",
        "--csum-headers --csum-items -t checksum",
    ],
)
@pytest.mark.parametrize("name", ["node4k-bgt", "raid1"])
def test_options(name: str, options: str) -> None:
    devices = corpus.devices(name)
    assert_same(printed(*options.split(), *devices), asked(*options.split(), *devices))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["blake2-holes", "node64k-xxh"])
def test_other_checksums(name: str) -> None:
    options = ["-t", "csum", "--csum-headers", "--csum-items"]
    assert_same(printed(*options, *corpus.devices(name)), asked(*options, *corpus.devices(name)))


@pytest.mark.oracle
@pytest.mark.parametrize("options", ["", "--follow", "--follow --dfs"])
def test_blocks(options: str) -> None:
    devices = corpus.devices("node4k-bgt")
    nodes = re.findall(r"^(?:node|leaf) (\d+) (?:level|items)", corpus.text("node4k-bgt", "dump-tree"), re.MULTILINE)
    blocks = [argument for bytenr in (nodes[0], nodes[-1], nodes[9]) for argument in ("-b", bytenr)]
    assert_same(printed(*blocks, *options.split(), *devices), asked(*blocks, *options.split(), *devices))


@pytest.mark.oracle
def test_hidden_names() -> None:
    devices = corpus.devices("default")
    expected = asked("--hide-names", *devices)
    # btrfs-progs leaves the names of subvolumes as they are; we take its manual page at its word.
    expected = re.sub(r"(?<= sequence )(\d+) name .*", r"\1 name HIDDEN", expected)
    assert_same(printed("--hide-names", *devices), expected)


def test_log_tree() -> None:
    """An image with a log to replay."""
    (image,) = corpus.devices("dirty-log")
    text = printed(image)
    assert "\nlog root tree\n" in text
    assert "\nlog tree key (TREE_LOG ROOT_ITEM 5) \n" in text
    assert printed("-t", "TREE_LOG", image).startswith("log root tree\nleaf ")


@pytest.mark.parametrize("options", [[], ["--dfs"], ["--json"], ["-e"]])
def test_sharing_among_processes_changes_nothing(options: list[str]) -> None:
    devices = corpus.devices("node4k-bgt")
    command: list[str | Path] = [sys.executable, "-c", IN_SMALL_BATCHES, "--noscan", *options, *devices]
    said = subprocess.run(command, capture_output=True, env=environment(UTC))
    assert (said.returncode, said.stderr) == (0, b"")
    whole = run("--noscan", *options, *devices, env=UTC)
    assert_same(said.stdout.decode(errors="surrogateescape"), whole.stdout)


@pytest.mark.parametrize("script", [IN_SMALL_BATCHES, IN_SMALL_BATCHES.replace("1 << 16", "1 << 30")])
def test_a_reader_who_stops_listening_is_no_error(script: str) -> None:
    command = [sys.executable, "-c", script, *map(str, corpus.devices("node4k-bgt"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith(b"cowtools v")
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("script", [IN_SMALL_BATCHES, IN_SMALL_BATCHES.replace("1 << 16", "1 << 30")])
def test_no_room_for_the_text(script: str) -> None:
    command = [sys.executable, "-c", script, *map(str, corpus.devices("node4k-bgt"))]
    with open("/dev/full", "wb") as full:
        said = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment())
    assert said.returncode == 1
    assert b"cannot write to standard output: No space left on device" in said.stderr
    assert b"Traceback" not in said.stderr


def test_only_new_nodes() -> None:
    devices = corpus.devices("node4k-bgt")
    heading = re.compile(r"^(?:node|leaf) \d+ (?:level|items) .* generation (\d+) owner", re.MULTILINE)
    generations = [int(found) for found in heading.findall(corpus.text("node4k-bgt", "dump-tree"))]
    newest = max(generations)
    new = [int(found) for found in heading.findall(printed("--min-transid", str(newest), *devices))]
    assert new == [newest] * generations.count(newest)
    assert len(new) < len(generations)


def test_other_starting_points(tmp_path: Path) -> None:
    image = corpus.copy(corpus.devices("default")[0], tmp_path)
    whole = printed(image)
    with image.open("r+b") as file:  # the first superblock is gone
        file.seek(64 << 10)
        file.write(bytes(4096))
    lost = run("--noscan", image)
    assert lost.returncode == 1
    assert "--super-copy 1" in lost.stderr
    assert printed("--super-copy", "1", image) == whole
    backups = printed("--super-copy", "1", "-R", image)
    found = re.search(r"slot 1\n\ttree root gen (\d+) block (\d+)", backups)
    assert found is not None
    old = printed("--super-copy", "1", "--backup", "1", "-t", "root", image)
    assert old.startswith(f"root tree\nleaf {found[2]} items ")
    assert f" generation {found[1]} owner ROOT_TREE\n" in old
    newest_old = printed("--super-copy", "1", "-t", "root", image, "--backup")
    assert newest_old == old
    assert printed("--super-copy", "1", "-t", "root", "--tree-root", found[2], image) == old


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["/nowhere"], 1, "No such file"),
        (["/dev/null"], 1, "cow-debug-tree: /dev/null"),
        (["-t", "nonsense", "x"], 1, "no such tree: nonsense"),
        (["-b", "nonsense", "x"], 2, "no address"),
        (["--all", "x"], 2, "--super"),
        (["--super", "-e", "x"], 2, "--super"),
        (["--stats", "-e", "x"], 2, "--stats"),
        (["--json", "--csum-headers", "x"], 2, "--json"),
        ([], 2, "DEVICE"),
    ],
)
def test_mistakes(arguments: list[str], status: int, words: str) -> None:
    said = run_command("cow_debug_tree", *arguments)
    assert (said.returncode, said.stdout) == (status, "")
    assert words in said.stderr


def test_help_has_an_example_to_paste() -> None:
    said = run_command("cow_debug_tree", "--help")
    assert "cow-debug-tree /dev/sdX" in said.stdout
