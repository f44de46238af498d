"""Archives that GNU tar and Python's tarfile make, read into tables: as a scan of what they were made from."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from mkfs_cow.source.archive import scan_tar
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.exclude import excluder
from mkfs_cow.source.tables import Tree
from tests import oracles
from tests.mkfs_cow.source.compared import (
    SECOND,
    Entry,
    check_order,
    data_of,
    in_tables,
    on_disk,
    paths_of,
    same_tables,
)

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "two gzips": lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "two zstds": lambda data: zstandard.compress(data[:5000]) + zstandard.compress(data[5000:]),
}


def never(line: str) -> None:
    raise AssertionError(line)


def gnu_tar(folder: Path, archive: Path, *options: str) -> Path:
    """What GNU tar makes of a folder."""
    tar = shutil.which("tar")
    if tar is None or "GNU" not in subprocess.run([tar, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("no GNU tar")
    # Sockets do not go into archives; a warning and nothing more.
    subprocess.run([tar, *options, "-C", folder, "-cf", archive, "."], check=True, stderr=subprocess.DEVNULL)
    return archive


def made(archive: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    """What Python makes of some members."""
    with tarfile.open(archive, "w", format=form) as file:
        for info, data in members:
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return archive


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mtime = 1000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def contents(tree: Tree, path: bytes) -> bytes:
    """A file with its holes filled."""
    inode = tree.find(path)
    assert inode is not None
    data = bytearray(int(tree.size[inode]))
    for offset, piece in data_of(tree, inode):
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def as_archived(entries: dict[bytes, Entry], *, nanoseconds: bool, xattrs: bool) -> dict[bytes, Entry]:
    """What of a directory an archive can hold: no socket, and no ctime."""
    without = {path: e for path, e in entries.items() if not stat.S_ISSOCK(e.mode)}
    sizes = {path: 0 for path, e in without.items() if stat.S_ISDIR(e.mode)}
    for path in without:
        if path:
            above, _, name = path.rpartition(b"/")
            sizes[above] += 2 * len(name)
    return {
        path: replace(
            e,
            ctime=0,
            mtime=e.mtime if nanoseconds else e.mtime // SECOND * SECOND,
            size=sizes.get(path, e.size),
            xattrs=e.xattrs if xattrs else (),
        )
        for path, e in without.items()
    }


def assert_like(tree: Tree, folder: Path, *, nanoseconds: bool = True, xattrs: bool = False) -> None:
    found = {path: replace(entry, ctime=0) for path, entry in in_tables(tree).items()}
    assert found == as_archived(on_disk(folder), nanoseconds=nanoseconds, xattrs=xattrs)
    check_order(tree)
    for path, inode in paths_of(tree).items():
        if not stat.S_ISREG(int(tree.mode[inode])):
            continue
        with open(os.path.join(os.fsencode(folder), path), "rb") as file:
            ranges = list(data_of(tree, inode))
            for offset, data in ranges:
                file.seek(offset)
                assert file.read(len(data)) == data
            if tree.size[inode] < 10_000_000:  # what is left out is zeros
                file.seek(0)
                assert contents(tree, path) == file.read()


def copied(folder: Path, copy: Path, *without: str) -> Path:
    """A folder less some files: too large to be written out in full, or more than a program can do."""
    subprocess.run(["cp", "-a", folder, copy], check=True)
    for name in without:
        (copy / name).unlink()
    return copy


XATTRS = ["--xattrs", "--xattrs-include=*", "--acls"]


@pytest.mark.parametrize(
    "options",
    [
        ["--format=pax", *XATTRS],
        ["--format=pax", "--sparse", "--sparse-version=0.0", *XATTRS],
        ["--format=pax", "--sparse", "--sparse-version=0.1", *XATTRS],
        ["--format=pax", "--sparse", "--sparse-version=1.0", *XATTRS],
        ["--format=gnu"],
        ["--format=gnu", "--sparse"],
    ],
    ids=" ".join,
)
def test_gnu_tar(sample_tree: Path, tmp_path: Path, options: list[str]) -> None:
    folder = sample_tree
    if "--sparse" not in options:
        folder = copied(sample_tree, tmp_path / "copy", "holes/far", "holes/only")
    tree = scan_tar(str(gnu_tar(folder, tmp_path / "archive", *options)), warn=never)
    pax = "--format=pax" in options
    assert_like(tree, folder, nanoseconds=pax, xattrs=pax)


def test_sparse_files_stay_sparse(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with (folder / "comb").open("wb") as file:
        for number in range(100):  # more pieces than fit into one header
            file.seek(number << 16)
            file.write(b"%d" % number * 1000)
        file.truncate(10 << 20)
    for options in (["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))):
        tree = scan_tar(str(gnu_tar(folder, tmp_path / "archive", "--sparse", *options)), warn=never)
        scanned = scan_directory(folder, warn=never)
        assert tree.segments.length.sum() <= scanned.segments.length.sum()
        assert contents(tree, b"comb") == (folder / "comb").read_bytes()
        assert len(tree.segments) == 100


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_python_tarfile(tmp_path: Path, form: int) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / ("long" * 20)).mkdir()
    (folder / "sub" / ("long" * 20) / ("name" * 10)).write_bytes(b"data" * 1000)
    (folder / "a").write_bytes(b"")
    (folder / "link").symlink_to("sub")
    (folder / "again").hardlink_to(folder / "a")
    if form != tarfile.USTAR_FORMAT:
        (folder / "sub" / "\udcff\udcfe").write_bytes(b"odd")
        (folder / ("x" * 255)).symlink_to("y" * 2000)
    with tarfile.open(tmp_path / "archive", "w", format=form) as file:
        file.add(folder, ".")
    tree = scan_tar(str(tmp_path / "archive"), warn=never)
    assert_like(tree, folder, nanoseconds=False) if form != tarfile.PAX_FORMAT else check_order(tree)
    scanned = scan_directory(folder, warn=never)
    assert bytes(tree.names.name.data) == bytes(scanned.names.name.data)
    assert (tree.names.inode == scanned.names.inode).all()


@pytest.mark.parametrize("packer", PACKERS)
def test_unpacked_by_magic(tmp_path: Path, packer: str) -> None:
    data = os.urandom(200_000)
    plain = made(tmp_path / "archive.tar", member("a/file", data), member("b", b"tail"))
    packed = tmp_path / "archive"
    packed.write_bytes(PACKERS[packer](plain.read_bytes()))
    tree = scan_tar(str(packed), warn=never)
    assert same_tables(tree, scan_tar(str(plain), warn=never))
    assert contents(tree, b"a/file") == data
    assert contents(tree, b"b") == b"tail"


@pytest.mark.parametrize("packer", ["plain", "zstd"])
def test_from_a_pipe(tmp_path: Path, packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = made(tmp_path / "archive.tar", member("a", os.urandom(300_000)))
    program = f"cat '{tmp_path}/packed'; head -c 100000 /dev/zero"  # more than is asked for
    (tmp_path / "packed").write_bytes(PACKERS[packer](plain.read_bytes()))
    if packer != "plain":
        program = f"cat '{tmp_path}/packed'"
    kept = os.dup(0)
    with subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE) as pipe:
        assert pipe.stdout is not None
        os.dup2(pipe.stdout.fileno(), 0)
        try:
            tree = scan_tar("-", warn=never)
        finally:
            os.dup2(kept, 0)
            os.close(kept)
    assert pipe.returncode == 0
    expected = scan_tar(str(plain), warn=never)
    assert same_tables(tree, expected)
    assert contents(tree, b"a") == contents(expected, b"a")


def test_the_last_one_counts(tmp_path: Path) -> None:
    archive = made(
        tmp_path / "archive",
        member("file", b"first"),
        member("twin", kind=tarfile.LNKTYPE, linkname="file"),
        member("file", b"second", mode=0o600),
        member("folder/below", b"kept"),
        member("folder", kind=tarfile.DIRTYPE, mode=0o700, mtime=77),
        member("turns", kind=tarfile.DIRTYPE),
        member("turns", b"into a file"),
        member("other", b"into a directory"),
        member("other/below", b"no"),
        member("other", kind=tarfile.DIRTYPE),
        member("other/below", b"yes"),
    )
    lines: list[str] = []
    tree = scan_tar(str(archive), warn=lines.append)
    assert contents(tree, b"file") == b"second"
    assert contents(tree, b"twin") == b"first"
    assert contents(tree, b"folder/below") == b"kept"
    assert tree.mode[tree.find(b"folder")] == stat.S_IFDIR | 0o700
    assert tree.mtime.sec[tree.find(b"folder")] == 77
    assert contents(tree, b"turns") == b"into a file"
    assert contents(tree, b"other/below") == b"yes"
    assert len(lines) == 1
    assert lines[0].startswith("other/below: ")
    check_order(tree)


def test_directories_without_a_member(tmp_path: Path) -> None:
    archive = made(tmp_path / "archive", member("a/b/c", mtime=5), member("a/d", mtime=9))
    tree = scan_tar(str(archive), warn=never)
    for path in (b"", b"a", b"a/b"):
        inode = tree.find(path)
        assert tree.mode[inode] == stat.S_IFDIR | 0o755
        assert (tree.uid[inode], tree.gid[inode], tree.mtime.sec[inode]) == (0, 0, 5)


def test_the_root_has_a_member(tmp_path: Path) -> None:
    archive = made(tmp_path / "archive", member("a"), member("./", kind=tarfile.DIRTYPE, mode=0o711, uid=3))
    tree = scan_tar(str(archive), warn=never)
    assert (tree.mode[0], tree.uid[0], list(paths_of(tree))) == (stat.S_IFDIR | 0o711, 3, [b"", b"a"])


def test_names_that_lead_elsewhere(tmp_path: Path) -> None:
    archive = made(
        tmp_path / "archive",
        member("/absolute/file", b"stays inside"),
        member("../escape", b"no"),
        member("a/../../escape", b"no"),
        member("lib", kind=tarfile.SYMTYPE, linkname="usr/lib"),
        member("lib/through", b"the link"),
        member("up", kind=tarfile.SYMTYPE, linkname="../../../absolute"),
        member("up/there", b"also inside"),
        member("loop", kind=tarfile.SYMTYPE, linkname="loop"),
        member("loop/x", b"no"),
        member("absolute/file/x", b"no"),
        member("n" * 256, b"no"),
        member("hard", kind=tarfile.LNKTYPE, linkname="nothing"),
        member("harder", kind=tarfile.LNKTYPE, linkname="usr"),
    )
    lines: list[str] = []
    tree = scan_tar(str(archive), warn=lines.append)
    assert set(paths_of(tree)) == {
        *(b"", b"absolute", b"absolute/file", b"absolute/there", b"lib", b"loop", b"up", b"usr", b"usr/lib"),
        b"usr/lib/through",
    }
    assert [line.split(":")[0] for line in lines] == [
        *("../escape", "a/../../escape", "loop/x", "absolute/file/x", "n" * 256, "hard", "harder"),
    ]
    assert all(line.endswith("left out") for line in lines)


def test_excluded(tmp_path: Path) -> None:
    """A file whose first name is left out keeps its data under the second."""
    archive = made(
        tmp_path / "archive",
        member("tmp/file", b"data"),
        member("kept", kind=tarfile.LNKTYPE, linkname="tmp/file"),
        member("also/tmp", b"no directory"),
    )
    tree = scan_tar(str(archive), exclude=excluder(["tmp/"]), warn=never)
    assert set(paths_of(tree)) == {b"", b"also", b"also/tmp", b"kept"}
    assert contents(tree, b"kept") == b"data"
    assert tree.nlink[tree.find(b"kept")] == 1


def test_times_and_attributes_of_pax(tmp_path: Path) -> None:
    headers = {
        "mtime": "1234567890.123456789123",
        "atime": "-1.5",
        "ctime": "3",
        "LIBARCHIVE.creationtime": "4.000000001",
        "LIBARCHIVE.xattr.user.one%25": "AQID",
        "LIBARCHIVE.xattr.user.two": "AQI",
        "SCHILY.xattr.user.a%3Db": "value",
        "SCHILY.xattr.system.nfs4_acl": "of another filesystem",
        "RHT.security.selinux": "system_u:object_r:etc_t:s0",
        "SCHILY.acl.access": "user::rw-,user:ann:r--:1001,group::r--,group:7:rwx,mask::rwx,other::---",
        "uid": "4000000000",
    }
    tree = scan_tar(str(made(tmp_path / "archive", member("a", pax_headers=headers))), warn=never)
    inode = tree.find(b"a")
    assert inode is not None
    times = [(int(t.sec[inode]), int(t.nsec[inode])) for t in (tree.mtime, tree.atime, tree.ctime, tree.otime)]
    assert times == [(1234567890, 123456789), (-2, 500_000_000), (3, 0), (4, 1)]
    assert tree.uid[inode] == 4_000_000_000
    acl = bytes.fromhex(
        "0200000001000600ffffffff02000400e903000004000400ffffffff080007000700000010000700ffffffff20000000ffffffff"
    )
    assert dict(zip(tree.xattrs.name, tree.xattrs.value, strict=True)) == {
        b"security.selinux": b"system_u:object_r:etc_t:s0\0",
        b"system.posix_acl_access": acl,
        b"user.a=b": b"value",
        b"user.one%": b"\1\2\3",
        b"user.two": b"\1\2",
    }


def test_access_lists_by_name(tmp_path: Path) -> None:
    """Who is unknown here gets no entry, and nobody else gets more for it."""
    headers = {"SCHILY.acl.default": "user::rwx\nuser:root:r-x\nuser:no such user:rwx\ngroup::r-x\nother::---\n"}
    archive = made(tmp_path / "archive", member("a", kind=tarfile.DIRTYPE, pax_headers=headers))
    lines: list[str] = []
    tree = scan_tar(str(archive), warn=lines.append)
    assert tree.xattrs.value[0].hex() == ("0200000001000700ffffffff020005000000000004000500ffffffff20000000ffffffff")
    assert len(lines) == 1
    assert "'user:no such user:rwx'" in lines[0]


def test_global_headers(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w", pax_headers={"mtime": "55", "comment": "none"}) as file:
        file.addfile(member("a")[0])
        file.addfile(member("b", pax_headers={"mtime": "66"})[0])
    tree = scan_tar(str(tmp_path / "archive"), warn=never)
    assert [int(tree.mtime.sec[tree.find(name)]) for name in (b"a", b"b")] == [55, 66]


def test_devices_and_kinds(tmp_path: Path) -> None:
    archive = made(
        tmp_path / "archive",
        member("char", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("block", kind=tarfile.BLKTYPE, devmajor=300, devminor=70000),
        member("fifo", kind=tarfile.FIFOTYPE),
        member("contiguous", b"is regular", kind=tarfile.CONTTYPE),
        member("unknown", b"is regular", kind=b"Z"),
        form=tarfile.GNU_FORMAT,
    )
    entries = in_tables(scan_tar(str(archive), warn=never))
    kinds = [stat.S_IFMT(entries[name].mode) for name in (b"char", b"block", b"fifo", b"contiguous", b"unknown")]
    assert kinds == [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFREG, stat.S_IFREG]
    assert (entries[b"char"].rdev, entries[b"block"].rdev) == ((1, 3), (300, 70000))


def test_only_later_times_are_clamped(tmp_path: Path) -> None:
    archive = made(
        tmp_path / "archive",
        member("implied/a", mtime=700),
        member("early", mtime=1000, pax_headers={"mtime": "1000.25", "atime": "1", "ctime": "9000"}),
        member("late", mtime=5000, pax_headers={"atime": "1", "ctime": "9000"}),
    )
    tree = scan_tar(str(archive), clamp=4000, warn=never)
    expected = {b"": (700, 0), b"implied": (700, 0), b"implied/a": (700, 0), b"late": (4000, 0)}
    for name, time in (expected | {b"early": (1000, 250_000_000)}).items():
        inode = tree.find(name)
        for times in (tree.mtime, tree.atime, tree.ctime, tree.otime):
            assert (times.sec[inode], times.nsec[inode]) == time, name


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_long_name_cut_at_a_slash_is_no_directory(tmp_path: Path, form: int) -> None:
    """The header itself has room for a hundred bytes of a name."""
    name = "d" * 99 + "/file"
    tree = scan_tar(str(made(tmp_path / "archive", member(name, b"data"), form=form)), warn=never)
    inode = tree.find(name.encode())
    assert inode is not None
    assert list(data_of(tree, inode)) == [(0, b"data")]


def test_symbolic_links_have_every_permission(tmp_path: Path) -> None:
    archive = made(tmp_path / "archive", member("link", kind=tarfile.SYMTYPE, linkname="a", mode=0o644))
    assert in_tables(scan_tar(str(archive), warn=never))[b"link"].mode == stat.S_IFLNK | 0o777


def test_libarchive(sample_tree: Path, tmp_path: Path) -> None:
    oracles.require_oracle("root")
    bsdtar = shutil.which("bsdtar")
    if bsdtar is None:
        pytest.skip("no bsdtar")
    folder = copied(sample_tree, tmp_path / "copy", "before-the-epoch")  # it gets fractions of negative times wrong
    subprocess.run(
        [bsdtar, "--format=pax", "-C", folder, "-cf", tmp_path / "archive", "."], check=True, stderr=subprocess.DEVNULL
    )
    assert_like(scan_tar(str(tmp_path / "archive"), warn=never), folder, xattrs=True)
