"""ctrl-C, SIGTERM and SIGHUP: one line, one exit code, nothing half-done that looks whole, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import environment, mkfs
from tests.cowcli.hanging import HERE
from tests.trees import digest

MIB = 1 << 20

MAGIC = b"_BHRfS_M"

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}

SIGNALS = pytest.mark.parametrize("number", WORDS, ids=lambda number: number.name)

COMMANDS = {"mkfs_cow": "mkfs.cow", "fsck_cow": "fsck.cow", "cow_debug_tree": "cow-debug-tree"}


def exit_code(package: str, number: signal.Signals) -> int:
    """What a command exits with after a signal: fsck(8) has a code of its own."""
    return 32 if package == "fsck_cow" else 128 + number


def start(*command: str | Path, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen[str]:
    """A process in a group of its own, which ignores some signals from the beginning as under nohup(1)."""

    def prepare() -> None:
        for number in WORDS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN if signal.SIGINT in ignored else signal.default_int_handler)

    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=prepare,
        start_new_session=True,
    )


def ended(
    process: subprocess.Popen[str], *numbers: int, send: Callable[[int, int], None] = os.kill
) -> tuple[int, str, str]:
    """Exit code and what was said of a process that gets signals, by ``send``, once it is where it hangs."""
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == HERE
        for number in numbers:
            send(process.pid, number)
        out, err = process.communicate(timeout=60)
        with pytest.raises(ProcessLookupError):  # nobody of its group is left
            os.killpg(process.pid, 0)
        return process.returncode, out, err
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def stopped(package: str, place: str, *arguments: str | Path, numbers: tuple[signal.Signals, ...]) -> tuple[int, str]:
    """Exit code and standard error of a command that gets signals at a place."""
    code, _, err = ended(start("-m", "tests.cowcli.hanging", package, place, *arguments), *numbers)
    return code, err


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a few files."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_bytes(os.urandom(MIB))
    return folder


@pytest.fixture
def filesystem(tmp_path: Path, tree: Path) -> Path:
    """An image of it."""
    image = tmp_path / "filesystem.img"
    mkfs("-q", "--rootdir", tree, "-b", "200m", image)
    return image


@SIGNALS
@pytest.mark.parametrize("module", ["typer", "numpy._core.multiarray", "numpy.linalg"])
@pytest.mark.parametrize("package", COMMANDS)
def test_while_modules_are_loaded(tmp_path: Path, package: str, module: str, number: signal.Signals) -> None:
    options = ["-b", "200m"] if package == "mkfs_cow" else []
    image = tmp_path / "image"
    code, err = stopped(package, f"import {module}", *options, image, numbers=(number,))
    # What mkfs.cow has to do is loaded when its arguments are understood.
    note = ": nothing was changed" if (package, module[:5]) == ("mkfs_cow", "numpy") else ""
    assert (code, err) == (exit_code(package, number), f"{COMMANDS[package]}: {WORDS[number]}{note}\n")
    assert not image.exists()


@SIGNALS
def test_mkfs_before_it_writes(tmp_path: Path, number: signal.Signals) -> None:
    """While names are read: the source is a pipe from which nothing comes."""
    source, image = tmp_path / "pipe", oracles.sparse(tmp_path / "image", 200 * MIB)
    os.mkfifo(source)
    before = digest(image)
    process = start("-m", "tests.cowcli.hanging", "mkfs_cow", "never", "--from-tar", source, image)
    with source.open("wb"):  # returns when the command has opened it
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
    assert (process.returncode, err) == (128 + number, f"mkfs.cow: {WORDS[number]}: nothing was changed\n")
    assert digest(image) == before


@SIGNALS
@pytest.mark.parametrize("step", ["writing data", "building trees", "writing trees"])
@pytest.mark.parametrize("options", [[], ["--compress", "zstd"]], ids=["plain", "compressed"])
def test_mkfs_removes_what_it_made(
    tmp_path: Path, tree: Path, options: list[str], step: str, number: signal.Signals
) -> None:
    image = tmp_path / "image"
    code, err = stopped("mkfs_cow", step, *options, "--rootdir", tree, image, numbers=(number,))
    assert (code, err) == (128 + number, f"mkfs.cow: {WORDS[number]}: {image} is removed\n")
    assert not image.exists()


@SIGNALS
def test_mkfs_says_what_became_of_a_file_that_was_there(tmp_path: Path, tree: Path, number: signal.Signals) -> None:
    first, second = (oracles.sparse(tmp_path / name, 200 * MIB) for name in ("first", "second"))
    mkfs("-q", first)
    code, err = stopped("mkfs_cow", "writing trees", "-f", "--rootdir", tree, first, second, numbers=(number,))
    fate = "is incomplete: what was on it is gone, and it does not mount"
    assert (code, err) == (128 + number, f"mkfs.cow: {WORDS[number]}: {first} {fate}; {second} {fate}\n")
    assert first.stat().st_size == second.stat().st_size == 200 * MIB
    assert MAGIC not in first.read_bytes() + second.read_bytes()


@pytest.mark.oracle
@SIGNALS
def test_mkfs_says_what_became_of_a_device(
    make_devices: Callable[[int, int], list[str]], tree: Path, number: signal.Signals
) -> None:
    oracles.require_oracle("loop")
    (device,) = make_devices(1, 200 * MIB)
    mkfs("-q", device)
    code, err = stopped("mkfs_cow", "writing data", "-f", "--rootdir", tree, device, numbers=(number,))
    fate = "is incomplete: what was on it is gone, and it does not mount"
    assert (code, err) == (128 + number, f"mkfs.cow: {WORDS[number]}: {device} {fate}\n")
    assert MAGIC not in Path(device).read_bytes()


@SIGNALS
def test_superblocks_are_written_at_once(tmp_path: Path, tree: Path, number: signal.Signals) -> None:
    """A signal that comes between them finds the filesystem made."""
    image = tmp_path / "image"
    place = "mkfs_cow.make:write_superblocks"
    code, err = stopped("mkfs_cow", place, "--rootdir", tree, image, numbers=(number,))
    assert (code, err) == (128 + number, f"mkfs.cow: {WORDS[number]}: the filesystem is made\n")
    oracles.btrfs_check(image, data=True)


def test_a_terminal_that_closes_sends_several(tmp_path: Path, tree: Path) -> None:
    """The first one counts; the others do not disturb what it undoes."""
    image = tmp_path / "image"
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    code, err = stopped("mkfs_cow", "writing data", "--rootdir", tree, image, numbers=numbers)
    # Signals that wait at the same time come by number.
    assert code - 128 in numbers
    assert err == f"mkfs.cow: {WORDS[signal.Signals(code - 128)]}: {image} is removed\n"
    assert not image.exists()


@SIGNALS
@pytest.mark.parametrize(("step", "options"), [("reading trees", []), ("verifying data", ["--data"])])
def test_fsck(filesystem: Path, step: str, options: list[str], number: signal.Signals) -> None:
    code, err = stopped("fsck_cow", step, *options, filesystem, numbers=(number,))
    assert (code, err) == (32, f"fsck.cow: {WORDS[number]}\n")


@SIGNALS
def test_debug_tree(filesystem: Path, number: signal.Signals) -> None:
    code, err = stopped("cow_debug_tree", "cow_debug_tree.show:dump", filesystem, numbers=(number,))
    assert (code, err) == (128 + number, f"cow-debug-tree: {WORDS[number]}\n")


@pytest.mark.parametrize("package", COMMANDS)
def test_what_nohup_ignores_stays_ignored(filesystem: Path, package: str) -> None:
    place = {
        "mkfs_cow": "mkfs_cow.make:write_superblocks",
        "fsck_cow": "fsck_cow.engine:check_filesystem",
        "cow_debug_tree": "cow_debug_tree.show:dump",
    }[package]
    options = ["-f"] if package == "mkfs_cow" else []
    command: list[str | Path] = ["-m", "tests.cowcli.hanging", package, place, *options, filesystem]
    code, out, err = ended(start(*command, ignored=(signal.SIGHUP,)), signal.SIGHUP)
    assert (code, err) == (0, "")
    assert out


HELPERS = """
import os, sys, time
from cowcli.run import run

def work(number):
    if os.getpid() != parent and number == 1:
        os.write(2, b"here\\n")
    time.sleep(60)

class NoVolume:
    def rest(self): pass

def check():
    from fsck_cow import sharing
    list(sharing.share(range(8), lambda task: task, work, NoVolume()))

def dump():
    from cow_debug_tree.ordered_workers import Work, run_ordered
    run_ordered(iter(range(8)), Work(lambda task: task, work, lambda _: 0),
                worth_sharing=lambda task: True, before_fork=lambda: None)

parent = os.getpid()
os.sched_getaffinity = lambda _: range(3)
run("command", lambda: {"check": check, "dump": dump}[sys.argv[1]])
"""


@SIGNALS
@pytest.mark.parametrize("group", [False, True], ids=["alone", "with its group"])
@pytest.mark.parametrize("what", ["check", "dump"])
def test_helpers_end_with_the_command(what: str, group: bool, number: signal.Signals) -> None:
    """Whether the signal is meant for all of them, as from a terminal, or for the one that was started."""
    process = start("-c", HELPERS, what)
    code, _, err = ended(process, number, send=os.killpg if group else os.kill)
    assert (code, err) == (128 + number, f"command: {WORDS[number]}\n")


LOST = """
import os, sys, time
from cowcli.run import run

class Busy:
    def __del__(self):
        os.write(2, b"here\\n")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            time.sleep(0.01)

def work():
    busy = Busy()
    del busy
    time.sleep(60)

run("command", lambda: work)
"""


@SIGNALS
def test_a_signal_during_a_destructor_is_not_lost(number: signal.Signals) -> None:
    code, _, err = ended(start("-c", LOST), number)
    assert (code, err) == (128 + number, f"command: {WORDS[number]}\n")
