"""What builders of images ask for, looked at through the kernel: owners, pseudo files, order, compression by path."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests import oracles
from tests.commands import mkfs, mkfs_refuses, run_command

MIB = 1 << 20


def made(folder: Path, *paths: str, data: bytes = b"data") -> Path:
    """A directory with files of some data."""
    root = folder / "root"
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def tar_of(root: Path) -> Path:
    """The same as an archive."""
    archive = root.with_suffix(".tar")
    words = ["--acls", "--xattrs", "--xattrs-include=*", "--format=pax"]
    subprocess.run(["tar", *words, "-C", root, "-cf", archive, "."], check=True)
    return archive


def owners(root: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        found[str(path.relative_to(root))] = (status.st_uid, status.st_gid)
    return found


def access(path: Path) -> str:
    words: list[str | Path] = ["getfacl", "--numeric", "--omit-header", "--absolute-names", path]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.oracle
@pytest.mark.parametrize("source", ["--rootdir", "--from-tar"])
def test_owners(tmp_path: Path, image: Path, source: str) -> None:
    oracles.require_oracle("root", "mount", "progs", "setfacl", "tar")
    root = made(tmp_path, "a", "b/c", "b/d")
    os.symlink("a", root / "link")
    for path, uid, gid in (("a", 100_000, 100_000), ("b", 100_005, 100_006), ("b/c", 1000, 1000), ("link", 100_001, 0)):
        os.chown(root / path, uid, gid, follow_symlinks=False)
    subprocess.run(["setfacl", "-m", "u:100007:rw,u:3:r,g:100008:r", root / "a"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:100007:rwx", root / "b"], check=True)
    given = tar_of(root) if source == "--from-tar" else root
    owner_map = written(tmp_path, "map", "both 100000 0 65536\nuid 1000 7\n")
    mkfs("-q", "--owner-map", owner_map, source, given, image)
    with oracles.judged(image) as mountpoint:
        assert owners(mountpoint) == {
            ".": (0, 0),
            "a": (0, 0),
            "b": (5, 6),
            "b/c": (7, 1000),
            "b/d": (0, 0),
            "link": (1, 0),
        }
        expected = access(root / "a").replace("100007", "7").replace("100008", "8").splitlines()
        assert sorted(access(mountpoint / "a").splitlines()) == sorted(expected)
        assert access(mountpoint / "b") == access(root / "b").replace("100007", "7")
    mkfs("-q", "-f", "--all-root", source, given, image)
    with oracles.judged(image) as mountpoint:
        assert set(owners(mountpoint).values()) == {(0, 0)}


PSEUDO = """
# what udev is not there to make
dev d 755 0 0
dev/null c 666 root root 1 3
dev/loop7 b 660 0 6 7 7
"run/a fifo" i 600 1 2 f
run/socket i 755 1 2 s
run D 1000000000 711 1 2
etc/issue f 644 0 0 printf 'made \\\\
by a command\\n'
etc/mtab s 0 0 0 ../proc/self/mounts
etc/again L etc/issue
etc/file m 4750 8 9
etc/file x user.note=0tlines\\012
etc/file x security.capability=0x0100000200040000000000000000000000000000
"""


@pytest.mark.oracle
@pytest.mark.parametrize("source", ["--rootdir", "--from-tar", None])
def test_pseudo_files(tmp_path: Path, image: Path, source: str | None) -> None:
    oracles.require_oracle("root", "mount", "progs", "tar")
    root = made(tmp_path, "etc/file")
    text = PSEUDO.replace("\\\\\n", "\\\n")
    given: list[str | Path] = []
    if source is None:
        text += "etc d 755 0 0\netc/file f 600 0 0 printf data\n"
        text = "".join(line + "\n" for line in text.splitlines() if not line.startswith("etc/file m"))
    else:
        given = [source, tar_of(root) if source == "--from-tar" else root]
    mkfs("-q", *given, "--pseudo", written(tmp_path, "defs", text), image, env={"SOURCE_DATE_EPOCH": "1700000000"})
    with oracles.judged(image) as mountpoint:
        found = {
            str(path.relative_to(mountpoint)): (
                stat.filemode(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_rdev,
            )
            for path in sorted(mountpoint.rglob("*"))
            for status in [path.lstat()]
        }
        changed = ("-rw-------", 0, 0, 0) if source is None else ("-rwsr-x---", 8, 9, 0)
        assert found == {
            "dev": ("drwxr-xr-x", 0, 0, 0),
            "dev/null": ("crw-rw-rw-", 0, 0, os.makedev(1, 3)),
            "dev/loop7": ("brw-rw----", 0, 6, os.makedev(7, 7)),
            "etc": ("drwxr-xr-x", 0, 0, 0),
            "etc/again": ("-rw-r--r--", 0, 0, 0),
            "etc/file": changed,
            "etc/issue": ("-rw-r--r--", 0, 0, 0),
            "etc/mtab": ("lrwxrwxrwx", 0, 0, 0),
            "run": ("drwx--x--x", 1, 2, 0),
            "run/a fifo": ("prw-------", 1, 2, 0),
            "run/socket": ("srwxr-xr-x", 1, 2, 0),
        }
        etc = mountpoint / "etc"
        assert (etc / "issue").read_bytes() == b"made by a command\n"
        assert (etc / "again").samefile(etc / "issue")
        assert os.readlink(etc / "mtab") == "../proc/self/mounts"
        assert (etc / "file").read_bytes() == b"data"
        assert os.getxattr(etc / "file", "user.note") == b"lines\n"
        assert os.getxattr(etc / "file", "security.capability").hex() == "0100000200040000000000000000000000000000"
        assert (mountpoint / "run").stat().st_mtime == 1_000_000_000
        assert (mountpoint / "dev" / "null").stat().st_mtime == 1_700_000_000


def test_owners_of_pseudo_files_stand_as_they_are_written(tmp_path: Path) -> None:
    root = made(tmp_path, "file")
    text = "new f 644 5 6 echo\nfile m 600 7 8\n"
    image = tmp_path / "image"
    mkfs("-q", "--all-root", "--rootdir", root, "--pseudo", written(tmp_path, "defs", text), image)
    said = run_command("cow_debug_tree", "-t", "fs", image).stdout
    assert re.findall(r"uid (\d+) gid (\d+)", said) == [("0", "0"), ("7", "8"), ("5", "6")]


def test_pseudo_files_in_subvolumes_and_the_same_every_time(tmp_path: Path) -> None:
    root = made(tmp_path, "home/x")
    defs = written(tmp_path, "defs", "home/y f 644 0 0 seq 100000\nhome/z L home/y\nvar d 755 0 0\nvar/f i 600 0 0 f\n")
    images = [tmp_path / "one", tmp_path / "two"]
    for image in images:
        words: list[str | Path] = ["-U", "5b8e9d3c-2f8a-4d5e-9c63-0a1b2c3d4e5f", "--rootdir", root, "--pseudo", defs]
        words += ["--subvol", "home", "--subvol", "var", "--compress", "zstd,home=lzo", "--compress-property"]
        mkfs("-q", *words, image, env={"SOURCE_DATE_EPOCH": "0"})
        assert run_command("fsck_cow", "--data", image).returncode == 0
    assert images[0].read_bytes() == images[1].read_bytes()


ADDRESS = re.compile(r"^ *0: +0\.\. +\d+: +(\d+)\.\.", re.MULTILINE)


def extents(path: Path) -> str:
    subprocess.run(["sync", "-f", path], check=True)
    return subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True).stdout


def place(path: Path) -> int:
    """Where a file begins on disk, in blocks."""
    found = ADDRESS.search(extents(path))
    assert found is not None
    return int(found[1])


@pytest.mark.oracle
@pytest.mark.parametrize("compress", ["no", "zstd"])
def test_data_is_sorted(tmp_path: Path, image: Path, compress: str) -> None:
    oracles.require_oracle("root", "mount", "progs", "filefrag")
    root = made(tmp_path, "a", "boot/k", "boot/l", "usr/x", "usr/y", "z", data=os.urandom(9000) + b"x" * 90_000)
    order = written(tmp_path, "sort", "z 100\nboot 50\nboot/l 60\nusr/x -1\nnowhere 5\n")
    said = run_command("mkfs_cow", "-q", "--compress", compress, "--rootdir", root, "--sort", order, image)
    assert said.returncode == 0  # such lists are made elsewhere: what is not there any more is no mistake
    assert f"--sort: nowhere: not there (line 5 of {order})" in said.stderr
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(root, mountpoint)
        files = [path for path in mountpoint.rglob("*") if path.is_file()]
        names = [str(path.relative_to(mountpoint)) for path in sorted(files, key=place)]
        assert names == ["z", "boot/l", "boot/k", "a", "usr/y", "usr/x"]
        numbers = {str(path.relative_to(mountpoint)): path.stat().st_ino for path in files}
        assert sorted(numbers, key=lambda name: numbers[name]) == ["a", "z", "boot/k", "boot/l", "usr/x", "usr/y"]


RULES = "zstd:9,boot=no,usr/share=zlib,**/*.so=lzo"


def algorithms(image: Path, name: str) -> set[str]:
    """What the extents of a file are compressed with."""
    items = run_command("cow_debug_tree", "-t", "fs", image).stdout.split("\titem ")
    entries = [item for item in items if "DIR_INDEX" in item and f"name: {name}\n" in item]
    (inode,) = re.findall(r"location key \((\d+) INODE_ITEM", "".join(entries))
    data = [item for item in items if f"key ({inode} EXTENT_DATA " in item]
    return set(re.findall(r"extent compression \d \((\w+)\)", "".join(data)))


@pytest.mark.oracle
def test_compression_by_path(tmp_path: Path, image: Path) -> None:
    oracles.require_oracle("mount", "progs")
    text = b"".join(b"%d\n" % number for number in range(50_000))
    root = made(tmp_path, "boot/k", "usr/share/d", "usr/lib/l.so", "etc/e", data=text)
    mkfs("-q", "--compress", RULES, "--rootdir", root, image)
    with oracles.judged(image) as mountpoint:
        oracles.assert_same_tree(root, mountpoint)
    assert {name: algorithms(image, name) for name in ("k", "d", "l.so", "e")} == {
        "k": {"none"},
        "d": {"zlib"},
        "l.so": {"lzo"},
        "e": {"zstd"},
    }


@pytest.mark.oracle
def test_what_is_written_later_is_compressed_too(tmp_path: Path, image: Path) -> None:
    oracles.require_oracle("mount", "progs", "filefrag")
    text = b"".join(b"%d\n" % number for number in range(50_000))
    root = made(tmp_path, "boot/k", "usr/share/d", "usr/lib/l.so", "etc/e", data=text)
    os.symlink("e", root / "etc" / "link")
    mkfs("-q", "--compress", RULES, "--compress-property", "--rootdir", root, image)
    btrfs = oracles.progs().btrfs

    def property_of(path: Path) -> str:
        words: list[str | Path] = [btrfs, "property", "get", path, "compression"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    with oracles.judged(image) as mountpoint:
        for path, value in (
            (".", "zstd"),
            ("etc", "zstd"),
            ("etc/e", "zstd"),
            ("boot", "none"),
            ("boot/k", "none"),
            ("usr/share", "zlib"),
            ("usr/lib", "zstd"),
            ("usr/lib/l.so", "lzo"),
        ):
            assert property_of(mountpoint / path) == f"compression={value}", path
        (mountpoint / "usr" / "share" / "new").mkdir()
        for path, packed, value in (
            ("etc/new", True, "compression=zstd"),
            ("etc/e", True, "compression=zstd"),
            ("usr/share/new/file", True, "compression=zlib"),
            ("usr/lib/l.so", True, "compression=lzo"),
            ("boot/new", False, ""),
            ("boot/k", False, "compression=none"),
        ):
            (mountpoint / path).write_bytes(text * 2)
            assert ("encoded" in extents(mountpoint / path)) == packed, path
            assert property_of(mountpoint / path) == value, path
    oracles.btrfs_check(image, data=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--compress", "zstd,nowhere=no"], "--compress: nowhere: no such file below the root directory"),
        (["--compress", "zstd,etc/*.so=no"], "--compress: etc/*.so: no such file below the root directory"),
        (["--compress-property"], "--compress-property needs --compress"),
        (["--compress", "no,etc=none", "--compress-property"], "--compress-property needs --compress"),
        (["--inode-flags", "nodatacow:nowhere"], "nowhere: no such file below the root directory"),
        (["--all-root", "--owner-map", "map"], "--all-root and --owner-map exclude each other"),
        (["--owner-map", "nowhere"], "nowhere: No such file or directory"),
        (["--pseudo", "nowhere"], "nowhere: No such file or directory"),
        (["--sort", "nowhere"], "nowhere: No such file or directory"),
        (["--owner-map", "empty"], "empty: defines nothing"),
        (["--pseudo", "empty"], "empty: defines nothing"),
        (["--sort", "empty"], "empty: defines nothing"),
        (["--owner-map", "garbage"], "garbage:1: a NUL byte: this is no text"),
        (["--pseudo", "garbage"], "garbage:1: a NUL byte: this is no text"),
        (["--sort", "garbage"], "garbage:1: a NUL byte: this is no text"),
    ],
)
def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path, "etc/x")
    Path("empty").touch()
    Path("map").write_text("uid 1 2\n")
    Path("garbage").write_bytes(b"\x7fELF\0\1\2\xff")
    assert mkfs_refuses(*words, "--rootdir", "root", "image").splitlines()[0] == f"mkfs.cow: {said}"
    assert not Path("image").exists()


@pytest.mark.parametrize("option", ["--all-root", "--owner-map", "--sort", "--compress"])
def test_options_for_what_goes_in(tmp_path: Path, option: str) -> None:
    image = oracles.sparse(tmp_path / "image", 256 * MIB)
    words = {"--all-root": [], "--compress": ["zstd"]}.get(option, [str(tmp_path / "file")])
    assert f"{option} needs" in mkfs_refuses(option, *words, image)
    assert image.stat().st_blocks == 0


def test_json_of_pseudo_files_alone(tmp_path: Path) -> None:
    defs = written(tmp_path, "defs", "a d 755 0 0\na/b f 644 0 0 echo\n")
    assert json.loads(mkfs("--json", "--pseudo", defs, tmp_path / "image"))["inodes"] == 3


def test_a_property_alone_needs_its_feature(tmp_path: Path) -> None:
    """A kernel that cannot decompress must not mount what the property makes others write."""
    root = tmp_path / "root"
    (root / "lib").mkdir(parents=True)
    image = tmp_path / "image"
    for words, features in (([], set()), (["--compress-property"], {"COMPRESS_ZSTD", "COMPRESS_LZO"})):
        mkfs("-q", "-f", "--compress", "zstd,lib=lzo", *words, "--rootdir", root, image)
        said = run_command("cow_debug_tree", "--super", image).stdout
        assert set(re.findall(r"COMPRESS_\w+", said)) == features
