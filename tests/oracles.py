"""The real oracles: loop devices, the kernel's mount, `btrfs check`, `btrfs scrub`.

Everything here that attaches or mounts undoes it again, also when the test fails, and `release_all` (called
at the end of the session, and at exit) catches what a test forgot.

Set `COW_BTRFS_PROGS=DIR` to ask the `btrfs` and `mkfs.btrfs` in DIR in place of those on PATH, and
`COW_REQUIRE_ORACLES=1` to fail where an oracle is missing, instead of skipping.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from cowlib.device import forget_devices
from tests.trees import assert_same_tree, same_tree

__all__ = [
    "Progs",
    "assert_same_tree",
    "attach",
    "btrfs_check",
    "detach",
    "find_progs",
    "judged",
    "loop",
    "loops",
    "mounted",
    "progs",
    "release_all",
    "require_kernel",
    "require_oracle",
    "same_tree",
    "scan",
    "scrub",
    "sparse",
    "sync",
    "unmount",
]

REQUIRED = os.environ.get("COW_REQUIRE_ORACLES") == "1"
FEATURES = Path("/sys/fs/btrfs/features")

# Words that stand in what `btrfs check` prints of a damaged filesystem and never of a clean one.
SUSPICIOUS = re.compile(
    r"\berrors?\b|warning|mismatch|\bbad\b|invalid|corrupt|missing|wrong|incorrect|unresolved|orphan|failed"
    r"|doesn't|does not|unable|couldn't|cannot",
    re.IGNORECASE,
)
# Lines which hold such words all the same: an old space cache; loop devices of others, coming and going.
CLEAN = re.compile(r"no errors? found|space cache will be invalidated|^Checking filesystem on |cannot scan /dev/")

_loops: dict[str, Path] = {}
_mounts: list[Path] = []


# -- what there is ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progs:
    """One installation of btrfs-progs."""

    btrfs: str
    mkfs: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return "btrfs-progs " + ".".join(map(str, self.version))


@functools.cache
def find_progs() -> Progs | None:
    """The btrfs-progs to ask: those in `COW_BTRFS_PROGS`, else on PATH, else None."""
    folder = os.environ.get("COW_BTRFS_PROGS")
    search = folder if folder else f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    btrfs, mkfs = (shutil.which(name, path=search) for name in ("btrfs", "mkfs.btrfs"))
    if not btrfs or not mkfs:
        return None
    said = subprocess.run([btrfs, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v(\d+(?:\.\d+)*)", said)
    if found is None:
        raise RuntimeError(f"{btrfs} --version says no version: {said!r}")
    return Progs(btrfs, mkfs, tuple(map(int, found[1].split("."))))


def progs(*, at_least: tuple[int, ...] = ()) -> Progs:
    """btrfs-progs, or the test ends: where none is there, and (skipped) where it is older than `at_least`."""
    require_oracle("progs")
    found = find_progs()
    assert found is not None
    if found.version < at_least:
        pytest.skip(f"{found} is older than {'.'.join(map(str, at_least))}")
    return found


def require_oracle(*names: str) -> None:
    """Skip the test, with the reason, unless every oracle named is here; fail it under COW_REQUIRE_ORACLES=1.

    Names: "root", "loop" (loop devices), "mount" (loop devices and the kernel's btrfs), "progs", or any
    program to be found on PATH.
    """
    for name in names:
        lack = _lack(name)
        if lack and REQUIRED:
            pytest.fail(f"a required oracle is missing: {lack}", pytrace=False)
        if lack:
            pytest.skip(lack)


def require_kernel(feature: str) -> None:
    """Skip the test unless the running kernel's btrfs has `feature`, as named in /sys/fs/btrfs/features."""
    require_oracle("mount")
    if not (FEATURES / feature).exists():
        pytest.skip(f"this kernel's btrfs has no {feature}")


@functools.cache
def _lack(name: str) -> str | None:
    """Why the oracle `name` cannot be asked, or None."""
    match name:
        case "root":
            return None if os.geteuid() == 0 else "needs root"
        case "loop":
            return _lack("root") or _lack("losetup") or _lack_of_loop_device()
        case "mount":
            return _lack("loop") or _lack("mount.program") or _lack_of_kernel_btrfs()
        case "mount.program":
            return None if _which("mount") and _which("umount") else "needs the program mount"
        case "progs":
            return None if find_progs() else "needs btrfs-progs"
    return None if _which(name) else f"needs the program {name}"


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _lack_of_loop_device() -> str | None:
    said = _run("losetup", "--find", check=False)
    return None if said.returncode == 0 else f"needs loop devices: {_last_line(said)}"


def _lack_of_kernel_btrfs() -> str | None:
    if not _kernel_knows_btrfs() and _which("modprobe"):
        _run("modprobe", "btrfs", check=False)
    if not _kernel_knows_btrfs():
        return "needs a kernel with btrfs"
    with tempfile.TemporaryDirectory(prefix="cowtools-mount-") as folder:  # containers may forbid mounting
        said = _run("mount", "-t", "tmpfs", "none", folder, check=False)
        if said.returncode:
            return f"needs to be allowed to mount: {_last_line(said)}"
        _run("umount", folder)
    return None


def _kernel_knows_btrfs() -> bool:
    return "btrfs" in Path("/proc/filesystems").read_text().split()


# -- loop devices and mounts --------------------------------------------------------------------------------


def attach(path: Path | str, *options: str) -> str:
    """Attach an image file to a free loop device, which is returned, with losetup's options. The caller detaches it."""
    require_oracle("loop")
    for attempt in range(20):
        # Another process may take the free device between the search and the attaching.
        said = _run("losetup", "--find", "--show", "--direct-io=on", *options, path, check=False)
        device = said.stdout.strip()
        if device:
            _loops[device] = Path(path)
        if said.returncode == 0:
            return device
        if device:
            detach(device)
        if "busy" not in said.stderr.lower() and attempt > 2:
            break
        time.sleep(0.05 * (attempt + 1))
    pytest.fail(f"cannot attach {path} to a loop device: {_last_line(said)}")


def detach(device: str) -> None:
    """Detach a loop device, and make the kernel forget the btrfs it saw there."""
    forget_devices([device])
    _run("losetup", "--detach", device, check=False)
    _loops.pop(device, None)


@contextmanager
def loop(path: Path | str) -> Iterator[str]:
    """The loop device an image file is attached to, detached afterwards whatever happens."""
    device = attach(path)
    try:
        yield device
    finally:
        detach(device)


@contextmanager
def loops(paths: Sequence[Path | str]) -> Iterator[list[str]]:
    """One loop device for each image file, in order."""
    with ExitStack() as stack:
        yield [stack.enter_context(loop(path)) for path in paths]


@contextmanager
def mounted(device: str, *, options: Sequence[str] = ()) -> Iterator[Path]:
    """Mount the btrfs that `device` is of, as a user does, and yield where.

    The kernel finds its other devices only if it was told of them: by who made it, or by `scan`.
    """
    require_oracle("mount")
    folder = Path(tempfile.mkdtemp(prefix="cowtools-mount-"))
    flags = ["-o", ",".join(options)] if options else []
    try:
        said = _run("mount", "-t", "btrfs", *flags, device, folder, check=False)
        if said.returncode:
            pytest.fail(f"the kernel does not mount {device}: {_last_line(said)}\n{_kernel_log()}")
        _mounts.append(folder)
        yield folder
    finally:
        unmount(folder)


def scan(devices: Sequence[str]) -> None:
    """Tell the kernel of devices that were attached with a btrfs on them, as udev does where it runs."""
    _run(progs().btrfs, "device", "scan", *devices)


def unmount(folder: Path) -> None:
    """Unmount `folder` if it is a mount point, lazily if it stays busy, and remove it."""
    for attempt in range(10):
        if not os.path.ismount(folder):
            break
        if _run("umount", folder, check=False).returncode:
            time.sleep(0.05 * (attempt + 1))
    else:
        _run("umount", "--lazy", folder, check=False)
    if folder in _mounts:
        _mounts.remove(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()


def release_all() -> list[str]:
    """Unmount and detach what this process still holds, and say what that was."""
    left = [f"mounted: {folder}" for folder in _mounts]
    for folder in list(_mounts):
        unmount(folder)
    left += [f"attached: {device} ({path})" for device, path in _loops.items()]
    for device in list(_loops):
        detach(device)
    return left


atexit.register(release_all)


# -- asking -------------------------------------------------------------------------------------------------


def btrfs_check(*devices: Path | str, data: bool = False, at_least: tuple[int, ...] = ()) -> str:
    """Assert that `btrfs check` finds nothing at all wrong, in data too if asked; returns what it printed.

    Skips where btrfs-progs is older than `at_least`, for features an old one does not know.
    """
    btrfs = progs(at_least=at_least).btrfs
    with ExitStack() as stack:
        if len(devices) > 1:  # other devices are only found among block devices
            paths = [str(d) if Path(d).is_block_device() else stack.enter_context(loop(d)) for d in devices]
        else:
            paths = [str(devices[0])]
        said = _run(btrfs, "check", *(["--check-data-csum"] if data else []), paths[0], check=False)
    output = said.stdout + said.stderr
    odd = [line for line in output.splitlines() if SUSPICIOUS.search(line) and not CLEAN.search(line)]
    if said.returncode or odd or "no error found" not in output:
        _fail(f"btrfs check of {' '.join(map(str, devices))} exits with {said.returncode}", output)
    return output


def scrub(mountpoint: Path) -> str:
    """Assert that the kernel reads every copy of everything on a mounted btrfs without an error."""
    btrfs = progs().btrfs
    _run("sync", "-f", mountpoint)
    said = _run(btrfs, "scrub", "start", "-B", mountpoint, check=False)
    output = said.stdout + said.stderr
    fsid = re.search(r"UUID:\s*(\S+)|^scrub done for (\S+)", output, re.MULTILINE)
    if fsid:  # the record it keeps of every filesystem ever scrubbed
        Path(f"/var/lib/btrfs/scrub.status.{fsid[1] or fsid[2]}").unlink(missing_ok=True)
    if said.returncode or "no errors found" not in output:
        _fail(f"btrfs scrub of {mountpoint} exits with {said.returncode}", f"{output}\n{_kernel_log()}")
    return output


@contextmanager
def judged(image: Path, *options: str) -> Iterator[Path]:
    """Mount an image which `btrfs check` finds no fault with, data included, and scrub it in the end."""
    require_oracle("mount", "progs")
    btrfs_check(image, data=True)
    with loop(image) as device, mounted(device, options=options) as mountpoint:
        yield mountpoint
        scrub(mountpoint)


def sync(mountpoint: Path) -> None:
    """Have what was done to one mounted filesystem written; `os.sync` would wait for the whole machine."""
    folder = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(folder):
            raise OSError(ctypes.get_errno(), "cannot sync", str(mountpoint))
    finally:
        os.close(folder)


def sparse(path: Path, size: int) -> Path:
    """Make an image file of `size` bytes which takes no space."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def _fail(headline: str, output: str) -> NoReturn:
    pytest.fail(f"{headline}\n{output}", pytrace=False)


def _run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
    }
    return subprocess.run(
        command,
        check=check,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
    )


def _last_line(said: subprocess.CompletedProcess[str]) -> str:
    lines = (said.stderr or said.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {said.returncode}"


def _kernel_log() -> str:
    """What the kernel said last about btrfs."""
    said = _run("dmesg", check=False) if _which("dmesg") else None
    lines = said.stdout.splitlines() if said else []
    return "\n".join([line for line in lines if "BTRFS" in line][-12:])
