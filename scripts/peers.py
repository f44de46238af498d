"""Runs btrfs-progs' own tests with our commands in the place of theirs: ``make peers PEERS=DIR``, as root.

``PEERS`` is a source tree of btrfs-progs that is built; its tests are its own and stay there. Every test of
``tests/mkfs-tests`` runs twice in a copy of that tree: with its ``mkfs.btrfs``, and with ``mkfs.cow`` under that name.
A test that passes with the one has to pass with the other.

Then ``fsck.cow`` looks at what ``btrfs check --repair`` makes of the damaged images below ``tests/fsck-tests``. It has
to find damage where ``btrfs check`` does; what it alone objects to is listed, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

#: Seconds that one test may take: a hanging one must not hold up the others.
_TIMEOUT = 300

#: What mkfs.cow does not make, and says so: zoned devices, and a tree that is not settled yet.
_ASIDE = ("zoned", "remap-tree")

#: Exit codes of fsck.cow for a filesystem that is sound, and for one that is not.
_CLEAN, _DAMAGED = 0, 4
_WORDS = {_CLEAN: "clean", _DAMAGED: "damaged"}

_ROOT = Path(__file__).resolve().parents[1]

console = Console(soft_wrap=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", type=Path, metavar="PEERS", help="a built source tree of btrfs-progs")
    parser.add_argument("--only", default="", metavar="WORD", help="tests whose name has this in it")
    parser.add_argument("--skip-repairs", action="store_true", help="leave out what btrfs check --repair leaves")
    parser.add_argument("--logs", type=Path, default=Path("build/peers"), metavar="DIR", help="what failing tests said")
    given = parser.parse_args()
    peers = given.peers.resolve()
    lacking = [name for name in ("btrfs", "mkfs.btrfs", "tests/common") if not (peers / name).exists()]
    if lacking:
        parser.error(f"{peers} is no built source tree of btrfs-progs: it has no {', '.join(lacking)}")
    if os.geteuid() != 0:
        parser.error("these tests attach loop devices and mount: run them as root")
    tests = sorted(path.parent.name for path in (peers / "tests/mkfs-tests").glob("*/test.sh"))
    images = [] if given.skip_repairs else _packed_images(peers)
    tests = [name for name in tests if given.only in name]
    images = [path for path in images if given.only in str(path)]
    if not tests and not images:
        parser.error(f"no test has {given.only!r} in its name")
    given.logs.mkdir(parents=True, exist_ok=True)
    failed = _compare_mkfs(peers, tests, given.logs) if tests else 0
    failed += _compare_repairs(peers, images) if images else 0
    return 1 if failed else 0


def _compare_mkfs(peers: Path, names: list[str], logs: Path) -> int:
    """Runs the tests of mkfs with either; gives the number of those that only theirs passes."""
    table = Table("test", "mkfs.btrfs", "mkfs.cow", title="tests/mkfs-tests")
    failed = 0
    with _workplace(peers, ours=False) as theirs, _workplace(peers, ours=True) as own:
        for name in names:
            if any(word in name for word in _ASIDE):
                table.add_row(name, "-", "left out")
                continue
            expected = _logged(theirs, name, logs / f"{name}.theirs.txt")
            found = _logged(own, name, logs / f"{name}.ours.txt")
            bad = expected == "passed" and found != "passed"
            failed += bad
            table.add_row(name, expected, f"[red]{found}[/]" if bad else found)
            console.print(f"{name:<50} {expected:<10} {found}", highlight=False)
    console.print(table)
    return failed


@contextmanager
def _workplace(peers: Path, *, ours: bool) -> Iterator[Path]:
    """A copy of the tests beside links to the programs; with ``ours``, mkfs.btrfs is mkfs.cow."""
    with tempfile.TemporaryDirectory(prefix="peers-", dir=_scratch()) as folder:
        top = Path(folder)
        for entry in peers.iterdir():
            if entry.name not in ("tests", "mkfs.btrfs") and (entry.is_dir() or os.access(entry, os.X_OK)):
                (top / entry.name).symlink_to(entry)
        for name in ("configure.ac", "VERSION"):
            shutil.copy(peers / name, top)
        shutil.copytree(peers / "tests", top / "tests", symlinks=True, ignore=shutil.ignore_patterns("test.img", "*.o"))
        program = top / "mkfs.btrfs"
        if ours:
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mkfs_cow "$@"\n')
            program.chmod(0o755)
        else:
            program.symlink_to(peers / "mkfs.btrfs")
        try:
            yield top
        finally:
            _release(top)


def _logged(top: Path, name: str, log: Path) -> str:
    """Runs one test: what became of it. What a failing one said is kept in ``log``."""
    outcome, said = _run(top, name)
    log.unlink(missing_ok=True)
    if outcome == "FAILED":
        log.write_text(said, errors="surrogateescape")
    return outcome


def _run(top: Path, name: str) -> tuple[str, str]:
    """One test: what became of it, and its log."""
    results = top / "tests/mkfs-tests-results.txt"
    environment = {**os.environ, "TEST": name, "LANG": "C", "PYTHONPATH": str(_ROOT)}
    with (top / "said").open("w+b") as output:
        process = subprocess.Popen(
            ["bash", str(top / "tests/mkfs-tests.sh")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = -1
        _release(top)
        output.seek(0)
        said = output.read().decode(errors="surrogateescape")
    log = results.read_text(errors="surrogateescape") if results.exists() else ""
    if code:
        return "FAILED", said + log
    return ("not run" if "[NOTRUN]" in said or "[SKIPPED]" in said + log else "passed"), said + log


def _release(top: Path) -> None:
    """Unmounts and detaches what a test that broke off has left below ``top``."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed([mount for mount in mounts if mount.startswith(f"{top}/")]):
        subprocess.run(["umount", "-l", place], check=False)
    attached = subprocess.run(
        ["losetup", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"], capture_output=True, text=True, check=True
    )
    for line in attached.stdout.splitlines():
        device, _, backing = line.partition(" ")
        if backing.startswith(f"{top}/"):
            subprocess.run(["losetup", "--detach", device], check=False)


def _packed_images(peers: Path) -> list[Path]:
    """The damaged images that come with the tests."""
    found = (peers / "tests/fsck-tests").rglob("*")
    return sorted(path for path in found if path.name.endswith((".img", ".img.xz", ".raw.xz")))


def _compare_repairs(peers: Path, packed: list[Path]) -> int:
    """Checks damaged images after ``btrfs check --repair``; gives the number of those whose damage was missed."""
    tests = peers / "tests/fsck-tests"
    table = Table("image", "btrfs check", "fsck.cow", title="tests/fsck-tests, repaired")
    missed = stricter = 0
    with tempfile.TemporaryDirectory(prefix="repairs-", dir=_scratch()) as folder:
        for path in packed:
            image = Path(folder) / "image"
            _unpack(peers, path, image)
            _quietly(peers / "btrfs", "check", "--repair", "--force", image)
            expected = _CLEAN if _quietly(peers / "btrfs", "check", image).returncode == 0 else _DAMAGED
            found = _quietly(sys.executable, "-m", "fsck_cow", "--json", image)
            image.unlink()
            if found.returncode == expected:
                continue
            alone = found.returncode == _DAMAGED
            stricter += alone
            missed += not alone
            words = ", ".join(_error_codes(found.stdout)) or f"exit code {found.returncode}"
            table.add_row(str(path.relative_to(tests)), _WORDS[expected], words if alone else f"[red]{words}[/]")
    if table.rows:
        console.print(table)
    console.print(f"{len(packed)} repaired images: damage missed in {missed}, seen by fsck.cow alone in {stricter}")
    return missed


def _error_codes(report: bytes) -> list[str]:
    """The codes of the errors in what ``fsck.cow --json`` prints, each once."""
    lines = (json.loads(line) for line in report.splitlines())
    return sorted({line["code"] for line in lines if line.get("severity") == "error"})


def _unpack(peers: Path, path: Path, image: Path) -> None:
    """Makes a raw image of what a test has: a raw one or a metadump, packed or not."""
    plain = path
    if path.suffix == ".xz":
        plain = image.with_name("unpacked")
        with plain.open("wb") as file:
            subprocess.run(["xz", "--decompress", "--stdout", path], stdout=file, check=True)
    if ".raw" in path.suffixes:
        plain.replace(image)
        return
    subprocess.run([peers / "btrfs-image", "-r", plain, image], capture_output=True, check=True)
    if plain != path:
        plain.unlink()


def _quietly(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Runs a command, with yes to all it may ask."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    return subprocess.run(
        command, input=b"y\n" * 9, capture_output=True, env=environment, timeout=_TIMEOUT, check=False
    )


def _scratch() -> str:
    """Where images go: a place on a disk."""
    return os.environ.get("TMPDIR", "/var/tmp")


if __name__ == "__main__":
    sys.exit(main())
