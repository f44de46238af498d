"""Times the commands against btrfs-progs on this machine, in this run, and prints the ratios.

Runs alternate (ours, theirs, ours, theirs...) after one of each that does not count, so that both find the same
page cache and the same noise. Nothing here asserts a time: targets are marked as met or missed, and that is all.

Memory is that of all processes of a run together: the highest sum of their PSS (shared pages counted once), sampled
from /proc/PID/smaps_rollup; beside it stands the largest single process (ru_maxrss: not sampled, and never less than
this script itself, which a new process is a copy of at first).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from scripts import bench_scale

GIB = 1 << 30
MIB = 1 << 20
SAMPLE_SECONDS = 0.05

#: What is aimed for: wall time as a ratio to btrfs-progs, and memory.
TIME_TARGETS = {"mkfs": 0.35, "dump-tree": 1.0, "check": 0.6, "check-dense": 0.6, "check-data": 0.5, "plain-read": 1.15}
SCALE_TARGETS = {"scale-mkfs-tar": 0.35, "scale-mkfs": 0.35, "scale-check": 0.5, "scale-dump": 1.0}
MEMORY_TARGET, SCALE_MEMORY_TARGET = 500 * MIB, 700 * MIB

#: Exit codes of a run that did its work; fsck(8) says 4 of a filesystem with problems, as old mkfs.btrfs make them.
DONE = (0, 4)


@dataclass
class Run:
    """One process tree from start to end: seconds, and bytes of memory."""

    seconds: float
    pss: int
    largest: int


@dataclass
class Comparison:
    """Pairs of runs of the same work, ours and theirs."""

    name: str
    ours: list[Run] = field(default_factory=list)
    theirs: list[Run] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of our time over theirs, pair by pair."""
        return statistics.median(a.seconds / b.seconds for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def memory(self) -> int:
        """The most our runs ever took, in bytes."""
        return max(run.pss for run in self.ours)

    @property
    def time_target(self) -> float:
        """The ratio that is aimed for."""
        return (TIME_TARGETS | SCALE_TARGETS)[self.name]

    @property
    def memory_target(self) -> int:
        """The bytes that are aimed for."""
        return SCALE_MEMORY_TARGET if self.name in SCALE_TARGETS else MEMORY_TARGET


# -- running and measuring -------------------------------------------------------------------------------------


def run(command: list[str | Path], output: Path) -> Run:
    """Run a command to its end with stdout in a file; ends the benchmark if it fails."""
    os.sync()  # whatever the last run left to write is not this one's burden
    with output.open("wb") as stdout, tempfile.TemporaryFile() as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )
        stop = threading.Event()
        peak = [0]
        sampler = threading.Thread(target=sample, args=(process.pid, stop, peak))
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        stop.set()
        sampler.join()
        if process.returncode not in DONE:
            stderr.seek(0)
            said = stderr.read().decode(errors="replace").strip()
            sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}\n{said}")
    largest = usage.ru_maxrss * 1024
    return Run(seconds, peak[0] or largest, largest)


def sample(session: int, stop: threading.Event, peak: list[int]) -> None:
    """Keep the highest sum of PSS over the processes of a session, until told to stop."""
    while not stop.is_set():
        peak[0] = max(peak[0], sum(pss(pid) for pid in members(session)))
        stop.wait(SAMPLE_SECONDS)


def members(session: int) -> Iterator[int]:
    """Processes of a session."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                # after the command, which is in brackets and may hold anything: state ppid pgrp session
                fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[3]) == session:
                    yield int(name)


def pss(pid: int) -> int:
    """Bytes of memory of a process, shared pages divided by those who share them."""
    with contextlib.suppress(OSError):
        found = re.search(rb"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_bytes(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def compare(name: str, runs: int, ours: Callable[[], Run], theirs: Callable[[], Run]) -> Comparison:
    """Alternate both sides, after one run of each that does not count."""
    result = Comparison(name)
    for number in range(runs + 1):
        print(f"{name}: run {number} of {runs}" if number else f"{name}: warming up", file=sys.stderr)
        mine, other = ours(), theirs()
        if number:
            result.ours.append(mine)
            result.theirs.append(other)
    return result


# -- what is compared ------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The tree that images are made of, where they go, and the commands to compare."""

    tree: Path
    folder: Path
    runs: int
    btrfs: str
    mkfs_btrfs: str

    def mkfs(self) -> Comparison:
        """Filling a fresh image file from a directory."""
        image = self.folder / "mkfs.img"
        size = int(tree_bytes(self.tree) * 1.3) + GIB

        def fill(*command: str) -> Run:
            image.unlink(missing_ok=True)
            with image.open("wb") as file:
                file.truncate(size)
            return run([*command, "--rootdir", self.tree, image], self.folder / "mkfs.out")

        result = compare("mkfs", self.runs, lambda: fill(own("mkfs.cow")), lambda: fill(self.mkfs_btrfs))
        fill(own("mkfs.cow"))
        print("mkfs: having it checked", file=sys.stderr)
        run([self.btrfs, "check", image], self.folder / "check.out")
        image.unlink()
        return result

    def image(self, *mkfs: str) -> Path:
        """An image of the tree that a command made, kept until the end."""
        image = self.folder / f"{Path(mkfs[0]).name}.img"
        if not image.exists():
            with image.open("wb") as file:
                file.truncate(int(tree_bytes(self.tree) * 1.3) + GIB)
            run([*mkfs, "--rootdir", self.tree, image], self.folder / "mkfs.out")
        return image

    def dump_tree(self, image: Path | None) -> Comparison:
        """Printing every item of an image, one that btrfs-progs makes unless it is given."""
        image = image or self.image(self.mkfs_btrfs)
        text = self.folder / "ours.txt", self.folder / "theirs.txt"
        theirs: list[str | Path] = [self.btrfs, "inspect-internal", "dump-tree", image]
        return compare(
            "dump-tree",
            self.runs,
            lambda: run([own("cow-debug-tree"), image], text[0]),
            lambda: run(theirs, text[1]),
        )

    def check(self, name: str, image: Path, *options: str) -> Comparison:
        """Checking an image, one of half-full nodes as btrfs-progs makes it, or a dense one of our own."""
        said = self.folder / "ours.txt", self.folder / "theirs.txt"
        theirs = ["--check-data-csum"] if "--data" in options else []
        return compare(
            name,
            self.runs,
            lambda: run([own("fsck.cow"), "-q", *options, image], said[0]),
            lambda: run([self.btrfs, "check", *theirs, image], said[1]),
        )

    def plain_read(self, image: Path) -> Comparison:
        """Verifying all data against nothing but reading the used part of the same image past the page cache."""
        used = image.stat().st_blocks * 512 // (8 * MIB)
        read: list[str | Path] = ["dd", f"if={image}", "of=/dev/null", "bs=8M", "iflag=direct", f"count={used}"]
        said = self.folder / "ours.txt", self.folder / "theirs.txt"
        return compare(
            "plain-read",
            self.runs,
            lambda: run([own("fsck.cow"), "-q", "--data", image], said[0]),
            lambda: run(read, said[1]),
        )


@dataclass
class ScaleBench:
    """The same questions about a million files, and about eight snapshots of them."""

    bench: Bench

    def __post_init__(self) -> None:
        folder = self.bench.folder
        self._archive, self._tree, self._image = folder / "scale.tar", folder / "scale", folder / "scale.img"
        self._said = folder / "ours.txt", folder / "theirs.txt"

    def compare(self) -> Iterator[Comparison]:
        """Makes what is needed on the way, in which the order of these steps counts."""
        print("scale: writing an archive of a million files", file=sys.stderr)
        bench_scale.write_archive(self._archive)
        yield self._from_tar()
        yield self._from_directory()
        print("scale: taking snapshots", file=sys.stderr)
        shutil.rmtree(self._tree)
        self._make("mkfs.cow", "--from-tar", self._archive)
        bench_scale.add_snapshots(self._image)
        yield self.bench.check("scale-check", self._image)
        yield replace(self.bench.dump_tree(self._image), name="scale-dump")

    def _make(self, command: str, *source: str | Path) -> Run:
        self._image.unlink(missing_ok=True)
        with self._image.open("wb") as file:
            file.truncate(16 * GIB)
        program = own(command) if command == "mkfs.cow" else command
        return run([program, *source, self._image], self._said[0])

    def _from_tar(self) -> Comparison:
        """From an archive; with btrfs-progs it has to be unpacked first."""

        def unpacked() -> Run:
            shutil.rmtree(self._tree, ignore_errors=True)
            self._tree.mkdir()
            self._image.unlink(missing_ok=True)
            with self._image.open("wb") as file:
                file.truncate(16 * GIB)
            both = 'tar -xf "$0" -C "$1" && exec "$2" --rootdir "$1" "$3"'
            command: list[str | Path] = [
                "sh",
                "-c",
                both,
                self._archive,
                self._tree,
                self.bench.mkfs_btrfs,
                self._image,
            ]
            return run(command, self._said[1])

        return compare(
            "scale-mkfs-tar", self.bench.runs, lambda: self._make("mkfs.cow", "--from-tar", self._archive), unpacked
        )

    def _from_directory(self) -> Comparison:
        """From the directory that the archive was unpacked into."""
        return compare(
            "scale-mkfs",
            self.bench.runs,
            lambda: self._make("mkfs.cow", "--rootdir", self._tree),
            lambda: self._make(self.bench.mkfs_btrfs, "--rootdir", self._tree),
        )


def own(command: str) -> str:
    """The path of a command of this project, from the environment this script runs in."""
    beside = Path(sys.executable).parent / command
    found = str(beside) if beside.exists() else shutil.which(command)
    return found or sys.exit(f"{command} is not installed beside {sys.executable}: make setup")


def tree_bytes(tree: Path) -> int:
    """The size of all regular files below a directory, hard links counted once."""
    total, seen = 0, set()
    for folder, _, names in os.walk(tree):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            if stat.S_ISREG(status.st_mode) and status.st_ino not in seen:
                total += status.st_size
                if status.st_nlink > 1:
                    seen.add(status.st_ino)
    return total


# -- words -----------------------------------------------------------------------------------------------------


def show(results: list[Comparison], against: str, tree: Path) -> None:
    """Print the medians, ratios and targets as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{tree} against {against}, medians of {len(results[0].ours)} paired runs")
    for column in ("", "ours", "theirs", "ratio", "target", "memory ours", "theirs", "target"):
        table.add_column(column, justify="right" if column else "left")
    for result in results:
        target = result.time_target
        table.add_row(
            result.name,
            seconds(result.ours),
            seconds(result.theirs),
            f"{result.ratio:.2f}x",
            verdict(f"{target:.2f}x", result.ratio <= target),
            memory(result.ours),
            memory(result.theirs),
            verdict(f"{result.memory_target // MIB} MiB", result.memory <= result.memory_target),
        )
    table.caption = "memory: highest PSS of all processes together (largest single process)"
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def verdict(target: str, met: bool) -> str:
    return f"{target} [green]met[/]" if met else f"{target} [red]missed[/]"


def seconds(runs: list[Run]) -> str:
    return f"{statistics.median(run.seconds for run in runs):.2f} s"


def memory(runs: list[Run]) -> str:
    return f"{max(run.pss for run in runs) / MIB:.0f} ({max(run.largest for run in runs) / MIB:.0f}) MiB"


def report(results: list[Comparison], against: str, tree: Path) -> dict[str, object]:
    """All that was measured, for a program to read. Seconds and bytes."""
    return {
        "tree": str(tree),
        "against": against,
        "comparisons": [
            {
                **asdict(result),
                "ratio": round(result.ratio, 4),
                "time_target": result.time_target,
                "time_met": result.ratio <= result.time_target,
                "memory": result.memory,
                "memory_target": result.memory_target,
                "memory_met": result.memory <= result.memory_target,
            }
            for result in results
        ],
    }


def parse_arguments() -> argparse.Namespace:
    environ = os.environ.get
    parser = argparse.ArgumentParser(description="Compare time and memory with btrfs-progs.")
    parser.add_argument("--tree", type=Path, default=Path(environ("BENCH_TREE", "/usr")), help="BENCH_TREE, or /usr")
    parser.add_argument(
        "--dir", type=Path, default=environ("BENCH_DIR"), help="where images go: BENCH_DIR, or temporary"
    )
    parser.add_argument("--runs", type=int, default=int(environ("RUNS", "3")), help="pairs that count: RUNS, or 3")
    parser.add_argument("--only", choices=[*TIME_TARGETS, "scale"], help="compare only this")
    parser.add_argument(
        "--scale",
        action="store_true",
        default=environ("BENCH_SCALE", "0") not in ("", "0"),
        help="also a million files and eight snapshots, as root; takes 12 GB and many minutes (BENCH_SCALE=1)",
    )
    parser.add_argument("--image", type=Path, help="the image to dump and check, in place of one made for it")
    parser.add_argument("--json", action="store_true", help="print everything measured, for programs")
    parser.epilog = "COW_BTRFS_PROGS=DIR compares with the btrfs and mkfs.btrfs in DIR, in place of those on PATH."
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    search = os.environ.get("COW_BTRFS_PROGS") or f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    btrfs, mkfs_btrfs = (shutil.which(name, path=search) for name in ("btrfs", "mkfs.btrfs"))
    if not btrfs or not mkfs_btrfs:
        sys.exit("there is nothing to compare with: btrfs-progs is not installed")
    said = subprocess.run([btrfs, "--version"], capture_output=True, text=True, check=True).stdout
    against = said.splitlines()[0]
    with tempfile.TemporaryDirectory(prefix="cowtools-bench-", dir=arguments.dir) as folder:
        bench = Bench(arguments.tree, Path(folder), max(arguments.runs, 1), btrfs, mkfs_btrfs)
        results = []
        if arguments.only in (None, "mkfs"):
            results.append(bench.mkfs())
        if arguments.only in (None, "dump-tree"):
            results.append(bench.dump_tree(arguments.image))
        if arguments.only in (None, "check"):
            results.append(bench.check("check", arguments.image or bench.image(bench.mkfs_btrfs)))
        if arguments.only in (None, "check-dense"):
            results.append(bench.check("check-dense", bench.image(own("mkfs.cow"))))
        if arguments.only in (None, "check-data"):
            results.append(bench.check("check-data", bench.image(own("mkfs.cow")), "--data"))
        if arguments.only in (None, "plain-read"):
            results.append(bench.plain_read(bench.image(own("mkfs.cow"))))
        if arguments.scale or arguments.only == "scale":
            if os.geteuid() != 0:
                sys.exit("snapshots are the kernel's: --scale is for root")
            results += ScaleBench(bench).compare()
    if arguments.json:
        print(json.dumps(report(results, against, arguments.tree), indent=2))
    else:
        show(results, against, arguments.tree)


if __name__ == "__main__":
    main()
