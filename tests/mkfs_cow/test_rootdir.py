"""Acceptance: what mkfs.cow is given to put in, the kernel shows unchanged, and `btrfs check` finds no fault with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import mkfs, run_command

MIB = 1 << 20

NOT_IN_ARCHIVE = ["special/socket"]  # GNU tar leaves out sockets

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-n", "4096"],
        ["-n", "65536", "--csum", "xxhash"],
        ["--csum", "sha256"],
        ["-O", "^no-holes,^block-group-tree"],
        ["-O", "^free-space-tree,^no-holes,^block-group-tree"],
        ["-O", "^skinny-metadata"],
        ["-O", "^extref"],
        ["-O", "quota"],
        ["-M"],
        ["-d", "dup", "-m", "single"],
    ],
    ids=" ".join,
)
def test_everything_arrives(sample_tree: Path, image: Path, options: list[str]) -> None:
    if "^extref" in options:  # then there are fewer hard links in one folder than the whole tree has
        sample_tree = sample_tree / "contents"
    mkfs("-q", *options, "--rootdir", sample_tree, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(sample_tree, mountpoint, holes=True)


@pytest.mark.parametrize("algorithm", ["zstd", "zstd:15", "zlib", "zlib:9", "lzo"])
@pytest.mark.parametrize("features", ["no-holes", "^no-holes,^block-group-tree"])
def test_compressed(sample_tree: Path, image: Path, algorithm: str, features: str) -> None:
    mkfs("-q", "-O", features, "--compress", algorithm, "--rootdir", sample_tree, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(sample_tree, mountpoint)
    name = algorithm.partition(":")[0]
    assert re.search(rf"extent compression \d \({name}\)", dump(image))


def test_compression_saves_space(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "text").write_bytes(b"the same line again and again\n" * 500_000)
    used = {}
    for algorithm in ("no", "zstd"):
        image = oracles.sparse(tmp_path / algorithm, 256 * MIB)
        mkfs("-q", "--compress", algorithm, "--rootdir", tree, image)
        used[algorithm] = image.stat().st_blocks * 512
    assert used["zstd"] < used["no"] / 2


def test_files_larger_than_extents(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    chunk = os.urandom(MIB)
    with (tree / "large").open("wb") as file:
        for number in range(300):
            file.write(chunk[number:] + chunk[:number])
    image = oracles.sparse(tmp_path / "image", 600 * MIB)
    mkfs("-q", "--rootdir", tree, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(tree, mountpoint)


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (2, ["-d", "raid0", "-m", "raid1"]),
        (2, ["-d", "raid1", "-m", "raid1"]),
        (3, ["-d", "raid5", "-m", "raid1c3"]),
        (4, ["-d", "raid6", "-m", "raid6"]),
        (4, ["-d", "raid10", "-m", "raid10", "--compress", "zstd"]),
    ],
)
def test_on_several_devices(make_devices, sample_tree: Path, count: int, options: list[str]) -> None:  # type: ignore[no-untyped-def]
    oracles.require_oracle("mount", "progs")
    devices = make_devices(count, 512 * MIB)
    mkfs("-q", *options, "--rootdir", sample_tree, *devices)
    oracles.btrfs_check(*devices, data=True)
    with oracles.mounted(devices[0]) as mountpoint:
        oracles.assert_same_tree(sample_tree, mountpoint)
        oracles.scrub(mountpoint)


def test_can_be_written_to(sample_tree: Path, image: Path) -> None:
    """The kernel finds its way in the space left, and through everything it did not write itself."""
    mkfs("-q", "--rootdir", sample_tree, image)
    with oracles.judged(image) as mountpoint:
        shutil.rmtree(mountpoint / "many")
        shutil.rmtree(mountpoint / "links")
        with (mountpoint / "contents" / "big").open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"changed")
        (mountpoint / "more").write_bytes(os.urandom(20 * MIB))
        os.rename(mountpoint / "names", mountpoint / "renamed")
    oracles.btrfs_check(image, data=True)


def test_shrink(sample_tree: Path, image: Path) -> None:
    mkfs("-q", "--shrink", "--rootdir", sample_tree, image)
    assert image.stat().st_size < 256 * MIB
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(sample_tree, mountpoint)


def test_image_file_is_made_as_large_as_it_has_to_be(sample_tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "new"
    mkfs("-q", "--rootdir", sample_tree, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(sample_tree, mountpoint)


# -- subvolumes and flags -----------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A tree whose folders become subvolumes, one in another, with a hard link across."""
    tree = tmp_path / "nested"
    for folder in ("home/user/cache", "var", "etc"):
        (tree / folder).mkdir(parents=True)
    for number, folder in enumerate(("", "home", "home/user", "home/user/cache", "var", "etc")):
        (tree / folder / f"file-{number}").write_bytes(os.urandom(3000 * (number + 1)))
    (tree / "home" / "link").hardlink_to(tree / "file-0")
    return tree


def test_subvolumes(nested: Path, image: Path) -> None:
    mkfs("-q", "-r", nested, "--subvol", "rw:home", "-u", "ro:home/user", "--subvol", "var", image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(nested, mountpoint, links=False)
        listed = set(re.findall(r"path (\S+)", btrfs("subvolume", "list", mountpoint)))
        assert listed == {"home", "home/user", "var"}
        assert "readonly" in btrfs("subvolume", "show", mountpoint / "home" / "user")
        with pytest.raises(OSError, match="Read-only"):
            (mountpoint / "home" / "user" / "new").touch()
        (mountpoint / "home" / "new").touch()
        btrfs("subvolume", "snapshot", mountpoint / "home", mountpoint / "snapshot")
        btrfs("subvolume", "delete", mountpoint / "var")
    oracles.btrfs_check(image, data=True)


@pytest.mark.parametrize("kind", ["default", "default-ro"])
def test_default_subvolume(nested: Path, image: Path, kind: str) -> None:
    mkfs("-q", "--rootdir", nested, "--subvol", f"{kind}:home", image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(nested / "home", mountpoint, links=False)
        assert ("ro=true" in btrfs("property", "get", mountpoint, "ro")) == (kind == "default-ro")
    with oracles.judged(image, "subvolid=5") as mountpoint:
        oracles.assert_same_tree(nested, mountpoint, links=False)


def test_inode_flags(nested: Path, image: Path) -> None:
    oracles.require_oracle("lsattr")
    flags = ["--inode-flags", "nodatacow:home", "--inode-flags", "nodatasum:var/file-4"]
    mkfs("-q", "--rootdir", nested, *flags, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(nested, mountpoint)
        paths = [mountpoint / name for name in ("home", "home/user/file-2", "var/file-4", "etc")]
        said = subprocess.run(["lsattr", "-d", *paths], check=True, capture_output=True, text=True).stdout
        assert ["C" in line.split()[0] for line in said.splitlines()] == [True, True, False, False]
    inodes = dict(re.findall(r"sequence \d+ flags (0x[0-9a-f]+)\((.*)\)", dump(image)))
    assert any(words == "NODATASUM" for words in inodes.values())
    assert any(set(words.split("|")) >= {"NODATASUM", "NODATACOW"} for words in inodes.values())


@pytest.mark.parametrize(
    ("globs", "gone"),
    [
        (["*.o"], {"a.o", "src/b.o"}),
        (["src"], {"src", "src/b.o", "src/b.c"}),
        (["*.c", "cache"], {"src/b.c", "cache", "cache/x"}),
    ],
)
def test_exclude(tmp_path: Path, image: Path, globs: list[str], gone: set[str]) -> None:
    tree = tmp_path / "tree"
    for path in ("a.o", "src/b.o", "src/b.c", "cache/x", "kept"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)
    mkfs("-q", "--rootdir", tree, *(f"--exclude={glob}" for glob in globs), image)
    with oracles.judged(image) as mountpoint:
        everything = {str(path.relative_to(tree)) for path in tree.rglob("*")}
        assert {str(path.relative_to(mountpoint)) for path in mountpoint.rglob("*")} == everything - gone


# -- archives -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made tree as GNU tar packs it, with holes and extended attributes."""
    oracles.require_oracle("tar")
    path = tmp_path_factory.mktemp("archive") / "sample.tar"
    keep = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse"]
    subprocess.run(
        ["tar", "--format=posix", *keep, "-C", sample_tree, "-cf", path, "."], check=True, capture_output=True
    )
    return path


def test_from_tar(sample_tree: Path, archive: Path, image: Path) -> None:
    mkfs("-q", "--from-tar", archive, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(sample_tree, mountpoint, ignore=NOT_IN_ARCHIVE)


def test_from_tar_on_stdin(sample_tree: Path, archive: Path, image: Path) -> None:
    mkfs("-q", "--compress", "zstd", "--from-tar", "-", image, stdin=archive)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(sample_tree, mountpoint, ignore=NOT_IN_ARCHIVE)


@pytest.mark.parametrize(("suffix", "option"), [("gz", "--gzip"), ("xz", "--xz"), ("bz2", "--bzip2")])
def test_from_compressed_tar(tmp_path: Path, nested: Path, image: Path, suffix: str, option: str) -> None:
    path = tmp_path / f"archive.tar.{suffix}"
    if subprocess.run(["tar", option, "-C", nested, "-cf", path, "."], capture_output=True).returncode:
        pytest.skip(f"this tar has no {option}")
    mkfs("-q", "--from-tar", path, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(nested, mountpoint, mtime=False)  # only whole seconds in this format


def test_damaged_archive(archive: Path, image: Path) -> None:
    path = image.parent / "short.tar"
    path.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    said = run_command("mkfs_cow", "-q", "--from-tar", path, image)
    assert said.returncode == 1
    assert len(said.stderr.strip().splitlines()) <= 2


def btrfs(*arguments: str | Path) -> str:
    return subprocess.run([oracles.progs().btrfs, *arguments], check=True, capture_output=True, text=True).stdout


def dump(image: Path) -> str:
    """Every tree of an image, in the words of btrfs-progs."""
    return subprocess.run(
        [oracles.progs().btrfs, "inspect-internal", "dump-tree", image],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
    ).stdout
