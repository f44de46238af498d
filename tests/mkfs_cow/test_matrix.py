"""Acceptance: whatever mkfs.cow is asked to make, the kernel and btrfs-progs call a good filesystem.

Each case is made on loop devices, checked, mounted, used, scrubbed, unmounted, checked, and read once more.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import oracles, workload
from tests.commands import mkfs

MIB = 1 << 20
LEAST_DEVICES = {
    "single": 1,
    "dup": 1,
    "raid0": 1,
    "raid1": 2,
    "raid1c3": 3,
    "raid1c4": 4,
    "raid10": 2,
    "raid5": 2,
    "raid6": 3,
}
NODE_SIZES = ["4096", "8192", "16384", "32768", "65536"]
CHECKSUMS = ["crc32c", "xxhash", "sha256", "blake2"]
FEATURES = [
    "no-holes",
    "^no-holes,^block-group-tree",
    "^free-space-tree,^block-group-tree",
    "^free-space-tree,^no-holes,^block-group-tree",
    "block-group-tree",
    "^block-group-tree",
    "^skinny-metadata",
    "^extref,^skinny-metadata",
    "quota",
]

MakeDevices = Callable[[int, int], list[str]]

pytestmark = pytest.mark.oracle


def profiles() -> Iterator[tuple[str, str, int]]:
    """(data, metadata, devices): each profile alone with 1 to 5 devices, and mixtures people use."""
    for profile, least in LEAST_DEVICES.items():
        for devices in sorted({least, least + 1, 4, 5 if profile in ("raid10", "raid6") else 4}):
            yield profile, profile, devices
    yield "single", "dup", 1
    yield "dup", "single", 1
    yield "single", "raid1", 2
    yield "raid0", "raid1", 3
    yield "raid6", "raid1c3", 4
    yield "raid10", "raid1c4", 4


def accept(
    devices: list[str],
    *options: str,
    data: str | None = None,
    metadata: str | None = None,
    check_needs: tuple[int, ...] = (),
) -> None:
    """Make the filesystem and have the oracles judge it, empty and used.

    `check_needs` is the first btrfs-progs to know the features asked for: an older one is not asked.
    """
    oracles.require_oracle("mount", "progs")
    checked = oracles.progs().version >= check_needs
    mkfs("-q", *options, *devices)
    # btrfs-progs, unlike the kernel, errs when it rebuilds data from the parity of RAID5 on two devices.
    data_by_parity = not (data == "raid5" and len(devices) == 2)
    if checked:
        oracles.btrfs_check(*devices, data=data_by_parity)
    with oracles.mounted(devices[0]) as mountpoint:
        used = workload.use(mountpoint)
        if data and metadata:
            wanted = {("Data", data), ("Metadata", metadata), ("System", metadata), ("GlobalReserve", "single")}
            assert profiles_in_use(mountpoint) == wanted
        oracles.scrub(mountpoint)
    if checked:
        oracles.btrfs_check(*devices, data=data_by_parity)
    with oracles.mounted(devices[0], options=["ro"]) as mountpoint:
        assert workload.digests(mountpoint) == used


def profiles_in_use(mountpoint: Path) -> set[tuple[str, str]]:
    """Block groups' types and profiles, as the kernel tells them: ("Data", "raid1")..."""
    said = subprocess.run(
        [oracles.progs().btrfs, "filesystem", "df", mountpoint], check=True, capture_output=True, text=True
    )
    return {(kind, profile.lower()) for kind, profile in re.findall(r"^([\w+]+), (\w+):", said.stdout, re.M)}


@pytest.mark.parametrize(("data", "metadata", "count"), list(profiles()))
def test_profiles(make_devices: MakeDevices, data: str, metadata: str, count: int) -> None:
    accept(make_devices(count, 384 * MIB), "-d", data, "-m", metadata, data=data, metadata=metadata)


@pytest.mark.parametrize(("count", "data", "metadata"), [(1, "single", "dup"), (2, "single", "raid1")])
def test_default_profiles(make_devices: MakeDevices, count: int, data: str, metadata: str) -> None:
    accept(make_devices(count, 512 * MIB), data=data, metadata=metadata)


def test_devices_of_different_sizes(make_devices: MakeDevices) -> None:
    devices = make_devices(1, 1024 * MIB) + make_devices(1, 300 * MIB) + make_devices(1, 512 * MIB)
    accept(devices, "-d", "raid1", "-m", "raid1", data="raid1", metadata="raid1")


@pytest.mark.parametrize(("nodesize", "checksum"), list(itertools.product(NODE_SIZES, CHECKSUMS)))
def test_node_sizes_and_checksums(make_devices: MakeDevices, nodesize: str, checksum: str) -> None:
    accept(make_devices(1, 768 * MIB), "-n", nodesize, "--csum", checksum, "-s", "4096")


@pytest.mark.parametrize("profile", ["raid5", "raid6", "raid10", "raid1c3"])
@pytest.mark.parametrize("nodesize", ["4096", "65536"])
def test_node_sizes_in_stripes(make_devices: MakeDevices, profile: str, nodesize: str) -> None:
    accept(make_devices(4, 512 * MIB), "-d", profile, "-m", profile, "-n", nodesize)


@pytest.mark.parametrize("nodesize", ["4096", "16384"])
@pytest.mark.parametrize("features", FEATURES)
def test_features(make_devices: MakeDevices, features: str, nodesize: str) -> None:
    accept(make_devices(1, 512 * MIB), "-O", features, "-n", nodesize)


def test_simple_quota(make_devices: MakeDevices) -> None:
    oracles.require_kernel("simple_quota")
    accept(make_devices(1, 512 * MIB), "-O", "squota", check_needs=(6, 7))


@pytest.mark.parametrize(("count", "profile"), [(1, "single"), (1, "dup"), (2, "raid1"), (3, "raid0")])
def test_mixed(make_devices: MakeDevices, count: int, profile: str) -> None:
    devices = make_devices(count, 256 * MIB)
    accept(devices, "-M", "-n", "4096", "-d", profile, "-m", profile)


def test_mixed_without_free_space_tree(make_devices: MakeDevices) -> None:
    accept(make_devices(1, 256 * MIB), "--mixed", "-O", "^free-space-tree,^no-holes,^block-group-tree")


@pytest.mark.parametrize("size", [128 * MIB, 192 * MIB + 12345 * 4096, 300 * MIB + 3 * 512, 20 << 30])
def test_sizes_of_device(make_devices: MakeDevices, size: int) -> None:
    accept(make_devices(1, size))


def test_image_file_of_odd_length(tmp_path: Path) -> None:
    image = oracles.sparse(tmp_path / "image", 256 * MIB + 4321)
    mkfs("-q", image)
    with oracles.judged(image) as mountpoint:
        workload.use(mountpoint)
    assert image.stat().st_size == 256 * MIB + 4321


def test_byte_count(make_devices: MakeDevices) -> None:
    devices = make_devices(2, 512 * MIB)
    accept(devices, "-b", "300m", "-d", "raid0", data="raid0")
    assert superblock(devices[0])["total_bytes"] == str(2 * 300 * MIB)


def test_superblock_says_what_was_asked(make_devices: MakeDevices) -> None:
    oracles.require_oracle("progs")
    (device,) = make_devices(1, 512 * MIB)
    fsid, device_uuid = "0b8a2b6e-6d4c-4a43-9a3c-1f2e3d4c5b6a", "7c9e6679-7425-40de-944b-e07fc1f90ae7"
    label = "ein Schild für alle"
    options = ["-L", label, "-U", fsid, "--device-uuid", device_uuid, "-n", "32k", "--csum", "xxhash"]
    mkfs(*options, "-O", "^no-holes,^block-group-tree", device)
    said = superblock(device)
    assert label_of(device) == label
    assert said["fsid"] == fsid
    assert said["dev_item.uuid"] == device_uuid
    assert said["nodesize"] == "32768"
    assert said["sectorsize"] == "4096"
    assert said["csum_type"] == "1 (xxhash64)"
    assert said["total_bytes"] == str(512 * MIB)
    assert int(said["incompat_flags"], 16) & 0x200 == 0  # no-holes
    assert int(said["compat_ro_flags"], 16) == 0x3  # a free space tree, and a valid one


def label_of(device: str) -> str:
    said = subprocess.run(
        [oracles.progs().btrfs, "filesystem", "label", device],
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    return said.stdout.removesuffix("\n")


def superblock(device: str) -> dict[str, str]:
    """Fields of a device's first superblock, as btrfs-progs shows them."""
    btrfs = oracles.progs().btrfs
    said = subprocess.run([btrfs, "inspect-internal", "dump-super", device], check=True, capture_output=True, text=True)
    return dict(re.findall(r"^([a-z_.]+)[ \t]+(.*?)[ \t]*(?:\[match\])?$", said.stdout, re.M))
