"""In place of mkfs.btrfs for systemd-repart: run by the one that is here, and as newer ones call it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import REPOSITORY, run_command

MIB = 1 << 20
UUID = "8017fe16-c4d5-454a-9aae-f870f451dfa7"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name in ("live/bin", "home/ada", "usr"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_bytes(name.encode() * 5000)
    (folder / "usr/link").symlink_to("file")
    return folder


def partitions(disk: Path) -> dict[str, tuple[int, int]]:
    """Where the partitions of a GPT are, by label: byte offset and length."""
    with disk.open("rb") as file:
        file.seek(2 * 512)
        table = file.read(128 * 128)
    found = {}
    for start in range(0, len(table), 128):
        first, last = struct.unpack_from("<QQ", table, start + 32)
        label = table[start + 56 : start + 128].decode("utf-16-le").rstrip("\0")
        if last:
            found[label] = (first * 512, (last - first + 1) * 512)
    return found


def taken_out(disk: Path, place: tuple[int, int], image: Path) -> Path:
    """A partition as a file of its own."""
    offset, length = place
    with disk.open("rb") as source, oracles.sparse(image, length).open("r+b") as file:
        for at in range(0, length, MIB):
            data = os.pread(source.fileno(), min(MIB, length - at), offset + at)
            if data.strip(b"\0"):
                os.pwrite(file.fileno(), data, at)
    return image


def test_the_one_that_is_here(tree: Path, tmp_path: Path) -> None:
    oracles.require_oracle("systemd-repart", "mount", "progs")
    commands, definitions, calls = tmp_path / "bin", tmp_path / "definitions", tmp_path / "calls"
    commands.mkdir()
    definitions.mkdir()
    script = f'#!/bin/sh\necho "$@" >>{calls}\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m mkfs_cow "$@"\n'
    (commands / "mkfs.btrfs").write_text(script)
    (commands / "mkfs.btrfs").chmod(0o755)
    common = "Format=btrfs\nSizeMinBytes=256M\nSizeMaxBytes=256M\n"
    (definitions / "10-root.conf").write_text(f"[Partition]\nType=linux-generic\nLabel=filled\nCopyFiles=/:/\n{common}")
    (definitions / "20-home.conf").write_text(f"[Partition]\nType=home\nLabel=empty\n{common}")
    disk = tmp_path / "disk"
    options = [f"--definitions={definitions}", f"--root={tree}", "--empty=create", "--size=auto", "--dry-run=no"]
    said = subprocess.run(
        ["systemd-repart", *options, disk],
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert len(calls.read_text().splitlines()) == 2
    found = partitions(disk)
    assert list(found) == ["filled", "empty"]
    for label, contents in (("filled", tree), ("empty", None)):
        with oracles.judged(taken_out(disk, found[label], tmp_path / label)) as mountpoint:
            if contents is None:
                assert os.listdir(mountpoint) == []
            else:
                # It copies the files itself, where it can mount.
                oracles.assert_same_tree(contents, mountpoint, mtime=False)


#: After "mkfs.btrfs": ROOT is a directory, NODE a device. From 257 on --subvol comes last, with the type in front.
AS_CALLED = {
    "252": "-q -L filled -U UUID NODE -r ROOT",
    "252, no discarding": "-q -L filled -U UUID NODE --nodiscard -r ROOT",
    "255": "-L filled -U UUID --nodiscard -r ROOT -q NODE",
    "258": "-L filled -U UUID --nodiscard -r ROOT -q --compress zstd:3 --sectorsize=4096 NODE"
    " --subvol default:/ --subvol ro:/live --subvol /home",
    "258, another default": "-L filled -U UUID -r ROOT -q --sectorsize=4096 NODE"
    " --subvol default-ro:/live --subvol rw:/home --subvol rw:/home/ada",
    "258, with options of one's own": "-L filled -U UUID --nodiscard -r ROOT -q NODE"
    " --subvol ro:/ --subvol default:/home --shrink --reflink -v",
}


@pytest.mark.parametrize("called", AS_CALLED)
def test_as_newer_ones_call_it(tree: Path, tmp_path: Path, called: str) -> None:
    image = oracles.sparse(tmp_path / "image", 256 * MIB)
    names = {"ROOT": str(tree), "NODE": str(image), "UUID": UUID}
    arguments = [names.get(word, word) for word in AS_CALLED[called].split()]
    said = run_command("mkfs_cow", *arguments, env={"SOURCE_DATE_EPOCH": "2000000000"})
    assert said.returncode == 0, said.stderr
    kinds = {
        path.strip("/"): kind or "rw" for kind, path in re.findall(r"--subvol (?:(\S+):)?(\S+)", AS_CALLED[called])
    }
    with oracles.judged(image, "subvolid=5") as mountpoint:
        oracles.assert_same_tree(tree, mountpoint)
        btrfs = oracles.progs().btrfs
        for path, kind in kinds.items():
            said_ro = subprocess.run(
                [btrfs, "property", "get", "-ts", mountpoint / path, "ro"], check=True, capture_output=True, text=True
            )
            assert said_ro.stdout == f"ro={'true' if kind.endswith('ro') else 'false'}\n"
    default = next((path for path, kind in kinds.items() if kind.startswith("default")), "")
    with oracles.loop(image) as device, oracles.mounted(device) as mountpoint:
        oracles.assert_same_tree(tree / default, mountpoint)


def test_in_a_user_namespace(tree: Path, tmp_path: Path) -> None:
    """As it is called with a directory: the owner of that is root in there, others are nobody."""
    oracles.require_oracle("root", "unshare", "mount", "progs")
    inside = ["unshare", "--user", "--map-root-user"]
    probe = subprocess.run([*inside, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no user namespaces: {probe.stderr.strip()}")
    os.chown(tree / "usr/file", 1000, 1000)
    image = oracles.sparse(tmp_path / "image", 256 * MIB)
    said = subprocess.run(
        [*inside, sys.executable, "-m", "mkfs_cow", "-q", "-U", UUID, "-r", tree, image],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stderr) == (0, "")
    with oracles.judged(image) as mountpoint:
        owners = {str(path.relative_to(mountpoint)): path.lstat().st_uid for path in mountpoint.rglob("*")}
        assert {path for path, uid in owners.items() if uid != 0} == {"usr/file"}
        assert owners["usr/file"] == int(Path("/proc/sys/kernel/overflowuid").read_text())
