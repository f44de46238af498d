"""How large things get: shrunk filesystems, room for files, the smallest devices and the largest."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowlib.format import BlockGroupFlag
from cowlib.volume import PROFILES
from mkfs_cow import advice
from mkfs_cow.fit import choose_profiles
from mkfs_cow.options import Options
from mkfs_cow.superblock import system_array
from tests import oracles
from tests.commands import mkfs, mkfs_refuses, run_command
from tests.mkfs_cow.test_space import allocator

KIB, MIB = 1 << 10, 1 << 20

#: Options, and how large a file of 1 MiB makes the filesystem. Each is at most what mkfs.btrfs 6.19 makes of it.
SHRUNK = {
    "-m single": 3200 * KIB,
    "-m dup": 4352 * KIB,
    "-m dup -d dup": 5376 * KIB,
    "-M": 2368 * KIB,
    "-M -d dup": 3712 * KIB,
    "-m single -n 4K": 2368 * KIB,
    "-m single -n 64K": 6464 * KIB,
    "-m dup -n 64K": 10880 * KIB,
}

#: Where it starts from: a file of this size, or a new one (None), and further options.
STARTS = [(None, []), (None, ["-b", "1G"]), (200 * MIB, []), (1 << 40, []), (1 << 40, ["-b", "1G"])]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file of 1 MiB, and one that stays inline."""
    folder = tmp_path_factory.mktemp("tree")
    (folder / "file").write_bytes(os.urandom(MIB))
    (folder / "small").write_bytes(b"x" * 1000)
    for path in (folder, folder / "file", folder / "small"):
        os.utime(path, (1, 1))
    return folder


def start(image: Path, size: int | None) -> Path:
    image.unlink(missing_ok=True)
    return image if size is None else oracles.sparse(image, size)


@pytest.mark.parametrize("options", SHRUNK)
def test_shrink_follows_the_contents_alone(tree: Path, tmp_path: Path, options: str) -> None:
    image, seen = tmp_path / "image", set()
    for size, given in STARTS:
        start(image, size)
        words = ["-q", "-f", "-U", "5b8e9d3c-2f8a-4d5e-9c63-0a1b2c3d4e5f", *options.split(), *given, "--shrink"]
        mkfs(*words, "--rootdir", tree, image, env={"SOURCE_DATE_EPOCH": "1"})
        assert image.stat().st_size == SHRUNK[options]
        seen.add(image.read_bytes())
    assert len(seen) == 1
    oracles.require_oracle("progs")
    oracles.btrfs_check(image, data=True)


@pytest.mark.parametrize("profile", ["raid1", "raid0", "raid10", "raid5", "raid6", "raid1c4"])
def test_shrunk_devices_do_not_depend_on_their_sizes(tree: Path, tmp_path: Path, profile: str) -> None:
    seen = set()
    for size in (256 * MIB, 1 << 40):
        images = [oracles.sparse(tmp_path / f"{n}", size) for n in range(4)]
        mkfs("-q", "-d", profile, "-m", profile, "--shrink", "--rootdir", tree, *images)
        seen.add(tuple(image.stat().st_size for image in images))
        assert run_command("fsck_cow", "--data", *images).returncode == 0
    (sizes,) = seen
    assert max(sizes) < 8 * MIB


@pytest.mark.oracle
@pytest.mark.parametrize("options", ["-m single", "-m dup", "-M -d dup", "-m dup -n 64K"])
def test_a_shrunk_image_is_mounted_emptied_and_grown(tree: Path, tmp_path: Path, options: str) -> None:
    image = tmp_path / "image"
    mkfs("-q", *options.split(), "--shrink", "--rootdir", tree, image)
    with oracles.judged(image) as mountpoint:
        (mountpoint / "file").unlink()
    os.truncate(image, 1 << 30)
    with oracles.judged(image) as mountpoint:
        btrfs = oracles.progs().btrfs
        subprocess.run([btrfs, "filesystem", "resize", "max", mountpoint], check=True, capture_output=True)
        (mountpoint / "more").write_bytes(os.urandom(100 * MIB))
        assert (mountpoint / "small").read_bytes() == b"x" * 1000
    oracles.btrfs_check(image, data=True)


@pytest.mark.oracle
@pytest.mark.parametrize("options", ["-m single", "-m dup", "-d dup", "-M", "-M -d dup", "-m dup -n 64K"])
@pytest.mark.parametrize("shrink", [True, False], ids=["shrunk", "not shrunk"])
def test_slack_can_be_written(tree: Path, tmp_path: Path, options: str, shrink: bool) -> None:
    image = tmp_path / "image"
    mkfs("-q", *options.split(), *["--shrink"] * shrink, "--slack", "10M", "--rootdir", tree, image)
    with oracles.judged(image) as mountpoint:
        for _ in range(2):
            with (mountpoint / "more").open("wb") as file:
                file.write(os.urandom(10 * MIB))
                os.fsync(file.fileno())
            (mountpoint / "more").unlink()


def test_slack_is_a_size_or_a_part_of_the_contents(tmp_path: Path) -> None:
    tree, image = tmp_path / "tree", tmp_path / "image"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(20 * MIB))
    free = {}
    for slack in ("0", "10M", "50%", "200%"):
        image.unlink(missing_ok=True)
        made = json.loads(
            mkfs("--json", "-m", "single", "--shrink", "--slack", slack, "--rootdir", str(tree), str(image))
        )
        (data,) = (group for group in made["block_groups"] if group["kind"] == "data")
        free[slack] = data["length"] - data["used"]
        assert image.stat().st_size == made["total_bytes"]
    assert free["0"] == 0
    assert free["10M"] == 10 * MIB
    assert 10 * MIB < free["50%"] < 11 * MIB
    assert 40 * MIB < free["200%"] < 44 * MIB


def test_slack_that_does_not_fit_is_refused(tree: Path, tmp_path: Path) -> None:
    image = oracles.sparse(tmp_path / "image", 128 * MIB)
    for options in (["--slack", "1G"], ["--slack", "1G", "--shrink"]):
        assert "do not fit" in mkfs_refuses(*options, "--rootdir", tree, image)
    assert "more than 16 TiB" in mkfs_refuses("--slack", "17T", "--rootdir", tree, tmp_path / "other")
    assert "is not a size" in mkfs_refuses("--slack", "10%%", "--rootdir", tree, image)
    assert "--slack needs" in mkfs_refuses("--slack", "1M", image)


#: Options, and the size in MiB of the smallest device that is taken: mkfs.btrfs 6.19 wants 109 for the first of them.
LEAST = {
    "": 81,
    "-m single": 24,
    "-d dup": 89,
    "-M": 14,
    "-M -d dup": 25,
    "-n 4K": 81,
    "-n 64K": 105,
    "-n 64K -m single": 57,
}


@pytest.mark.oracle
@pytest.mark.parametrize("options", LEAST)
def test_the_least_size_can_be_used(tmp_path: Path, options: str) -> None:
    image = oracles.sparse(tmp_path / "image", 4 * MIB)
    words = mkfs_refuses(*options.split(), image).split()
    assert words[words.index("MiB") - 1] == str(LEAST[options])
    oracles.sparse(image, LEAST[options] * MIB)
    mkfs("-q", *options.split(), image)
    with oracles.judged(image) as mountpoint:
        for name in "abc":
            (mountpoint / name).mkdir()
        (mountpoint / "a" / "file").write_bytes(os.urandom(64 * KIB))


#: Sizes, options, and how much mkfs.btrfs 6.19 allocates to anything but data, on one device.
ALLOCATED = [
    (110 * MIB, "", 2 * 40 * MIB),
    (1 << 30, "", 2 * (8 * MIB + 52416 * KIB)),
    (1536 * MIB, "", 2 * (8 * MIB + 78592 * KIB)),
    (4 << 30, "", 2 * 264 * MIB),
    (1 << 40, "", 2 * 1032 * MIB),
    (110 * MIB, "-m single", 12 * MIB),
    (1 << 40, "-m single", 12 * MIB),
]


@pytest.mark.parametrize(("size", "options", "most"), ALLOCATED)
def test_no_more_is_kept_from_files_than_mkfs_btrfs_keeps(tmp_path: Path, size: int, options: str, most: int) -> None:
    image = oracles.sparse(tmp_path / "image", size)
    made = json.loads(mkfs("--json", *options.split(), str(image)))
    copies = {"single": 1, "dup": 2}
    kept = sum(g["length"] * copies[g["profile"]] for g in made["block_groups"] if g["kind"] != "data")
    assert kept <= most


@pytest.fixture
def spacious() -> Iterator[Path]:
    """A folder where files can be longer than any disk."""
    oracles.require_oracle("mount")
    folder = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@pytest.mark.oracle
@pytest.mark.parametrize("size", [1 << 40, 100 << 40, 1 << 60, 6 << 60], ids=["1T", "100T", "1E", "6E"])
def test_huge_devices(spacious: Path, size: int) -> None:
    image = oracles.sparse(spacious / "image", size)
    mkfs("-q", image)
    assert run_command("fsck_cow", image).returncode == 0
    assert run_command("cow_debug_tree", image).returncode == 0
    with oracles.loop(image) as device:
        mkfs("-q", "-f", device)
        with oracles.mounted(device) as mountpoint:
            (mountpoint / "file").write_bytes(b"data")
            assert os.statvfs(mountpoint).f_blocks * os.statvfs(mountpoint).f_frsize == size


@pytest.mark.oracle
def test_more_than_a_filesystem_can_be(spacious: Path) -> None:
    images = [oracles.sparse(spacious / name, 6 << 60) for name in "abc"]
    assert "larger than a filesystem can be" in mkfs_refuses(*images)
    assert all(image.stat().st_blocks == 0 for image in images)
    mkfs("-q", *images[:2])
    assert run_command("fsck_cow", *images[:2]).returncode == 0


@pytest.mark.parametrize("devices", [1, 4, 28, 29, 30, 40, 58, 200])
@pytest.mark.parametrize("name", [profile.name for profile in PROFILES])
def test_two_system_chunks_fit_in_the_superblock(name: str, devices: int) -> None:
    """One over as many devices as its profile spreads to is what the kernel makes beside ours."""
    profile = next(profile for profile in PROFILES if profile.name == name)
    if devices < profile.min_devices:
        pytest.skip("too few devices for the profile")
    options = Options(devices=[Path(f"{n}") for n in range(devices)], metadata_profile=name).resolve()
    system = choose_profiles(options)[BlockGroupFlag.SYSTEM]
    assert system.tolerated >= profile.tolerated
    chunks = allocator(*[1 << 30] * devices)
    made = chunks.allocate(BlockGroupFlag.SYSTEM, system, 8 * MIB)
    array = system_array([made], {device.devid: device for device in chunks.devices}, 4096)
    kernel = 17 + 48 + 32 * system.use_devices(devices) * system.copies_per_device
    assert len(array) + kernel <= 2048
    if devices <= 29:
        assert system is profile


@pytest.mark.oracle
@pytest.mark.parametrize("profile", ["raid0", "raid6"])
def test_many_devices(tmp_path: Path, profile: str) -> None:
    oracles.require_oracle("mount", "progs")
    images = [oracles.sparse(tmp_path / f"{n}", 200 * MIB) for n in range(42)]
    with oracles.loops(images) as devices:
        mkfs("-q", "-d", profile, "-m", profile, *devices)
        for name in ("one", "two"):
            with oracles.mounted(devices[0]) as mountpoint:
                (mountpoint / name).write_bytes(b"data")
                oracles.scrub(mountpoint)


def advised(tmp_path: Path, count: int, *options: str) -> list[str]:
    """What is advised against for options on ``count`` images; the exit code stays 0 and nothing counts as left out."""
    images = [oracles.sparse(tmp_path / f"{n}", 300 * MIB) for n in range(count)]
    said = run_command("mkfs_cow", "-f", "--json", *options, *images)
    assert said.returncode == 0, said.stderr
    made = json.loads(said.stdout)
    assert made["warnings"] == []
    lines = [line.removeprefix("mkfs.cow: warning: ") for line in said.stderr.splitlines()]
    assert lines == made["advice"]
    return lines


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (3, ["-d", "raid5", "-m", "raid1"], ["raid5: "]),
        (3, ["-d", "raid1", "-m", "raid6"], ["raid6: "]),
        (3, ["-d", "raid5", "-m", "raid6"], ["raid5 and raid6: "]),
        (2, ["-d", "raid1", "-m", "single"], ["metadata (single) survives less than data (raid1)"]),
        (1, ["-d", "dup", "-m", "single"], ["metadata (single) survives less than data (dup)"]),
        (2, ["-d", "single", "-m", "dup"], ["dup on several devices"]),
        (1, ["-O", "^no-holes"], ["feature block-group-tree is left out"]),
        (1, ["-O", "^block-group-tree,^no-holes"], []),
        (1, ["-M"], []),
        (1, [], []),
        (2, [], []),
        (4, ["-d", "raid10", "-m", "raid1c3"], []),
    ],
)
def test_advice(tmp_path: Path, count: int, options: list[str], words: list[str]) -> None:
    lines = advised(tmp_path, count, *options)
    assert len(lines) == len(words)
    assert all(line.startswith(start) for line, start in zip(lines, words, strict=True))


def test_a_sector_size_that_this_kernel_cannot_mount(tmp_path: Path) -> None:
    sizes = advice.mountable_sector_sizes()
    for size in (4096, 8192, 16384, 32768, 65536):
        lines = advised(tmp_path, 1, "-s", str(size))
        if size in sizes:
            assert lines == []
        else:
            assert [line.split(":")[0] for line in lines] == [f"sector size {size}"]


def test_sector_sizes_where_the_kernel_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "_SECTOR_SIZES", tmp_path / "sizes")
    assert advice.mountable_sector_sizes() == [os.sysconf("SC_PAGE_SIZE")]
    (tmp_path / "sizes").write_text("4096 16384 \n")
    assert advice.mountable_sector_sizes() == [4096, 16384]
