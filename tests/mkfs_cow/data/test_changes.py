"""Files that change, shrink or vanish between the scan and the reading, or under it: told, and never inconsistent."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cowlib.format import Compression
from mkfs_cow.data.plan import DataOptions
from mkfs_cow.data.write import Written, write_data
from mkfs_cow.source.directory import scan_directory
from mkfs_cow.source.tables import Tree
from tests import oracles
from tests.mkfs_cow.data.memory import MemorySink, check
from tests.mkfs_cow.source.compared import check_order, paths_of

ALGORITHMS = [Compression.NONE, Compression.ZLIB]
LARGE = 300_000


def never(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "before").write_bytes(b"before" * 3000)
    (root / "sub" / "large").write_bytes(b"0123456789" * (LARGE // 10))
    (root / "sub" / "small").write_bytes(b"small")
    (root / "sub" / "zz-after").write_bytes(b"after" * 3000)
    (root / "twin").hardlink_to(root / "sub" / "large")
    with (root / "sparse").open("wb") as file:
        for start in range(0, 1 << 20, 128 << 10):
            file.seek(start)
            file.write(b"%06d" % start * 1000)
    return root


def written(tree: Tree, algorithm: Compression, no_holes: bool = True) -> tuple[Written, dict[bytes, bytes], list[str]]:
    """The result, the contents of each path in it, and the warnings."""
    options = DataOptions(batch_bytes=64 << 10, threads=2, compression=algorithm, no_holes=no_holes)
    sink = MemorySink()
    lines: list[str] = []
    result = write_data([tree], sink, options, warn=lines.append)
    (data,) = check(result, sink, options)
    found = {
        path: data.get(inode, bytes(int(result.trees[0].size[inode])))
        for path, inode in paths_of(result.trees[0]).items()
        if result.trees[0].mode[inode] & 0o100000
    }
    check_order(result.trees[0])
    return result, found, lines


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("no_holes", [True, False])
@pytest.mark.parametrize("left", [0, 1, 4096, 5000, 100_000, 200_001, LARGE - 1])
def test_shrunk(folder: Path, left: int, algorithm: Compression, no_holes: bool) -> None:
    tree = scan_directory(folder, warn=never)
    os.truncate(folder / "sub" / "large", left)
    result, found, lines = written(tree, algorithm, no_holes)
    assert found[b"sub/large"] == found[b"twin"] == (folder / "twin").read_bytes()
    assert found[b"sub/zz-after"] == b"after" * 3000
    assert len(lines) == 1
    assert "large: changed while it was read" in lines[0] or "twin: changed while it was read" in lines[0]
    inode = tree.find(b"twin")
    assert result.trees[0].size[inode] == left
    rows = result.extents.inode == inode
    assert result.extents.num_bytes[rows].sum() == -(-left // 4096) * 4096


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_grown(folder: Path, algorithm: Compression) -> None:
    tree = scan_directory(folder, warn=never)
    for name in ("sub/large", "sub/small"):
        with (folder / name).open("ab") as file:
            file.write(b"more" * 100_000)
    _, found, lines = written(tree, algorithm)
    assert found[b"twin"] == b"0123456789" * (LARGE // 10)
    assert found[b"sub/small"] == b"small"
    assert len(lines) == 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_overwritten(folder: Path, algorithm: Compression) -> None:
    tree = scan_directory(folder, warn=never)
    (folder / "sub" / "small").write_bytes(b"SMALL")
    _, found, lines = written(tree, algorithm)
    assert found[b"sub/small"] == b"SMALL"
    assert len(lines) == 1
    assert lines[0].endswith("small: changed while it was read")


@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_small_file_shrunk(folder: Path, algorithm: Compression, left: int) -> None:
    tree = scan_directory(folder, warn=never)
    os.truncate(folder / "sub" / "small", left)
    result, found, lines = written(tree, algorithm)
    assert found[b"sub/small"] == b"small"[:left]
    assert result.nbytes[0][tree.find(b"sub/small")] == left
    assert len(lines) == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_sparse_file_shrunk(folder: Path, algorithm: Compression) -> None:
    tree = scan_directory(folder, warn=never)
    os.truncate(folder / "sparse", 300_000)
    _, found, lines = written(tree, algorithm, no_holes=False)
    assert found[b"sparse"].startswith((folder / "sparse").read_bytes())
    assert not any(found[b"sparse"][300_000:])
    assert len(lines) == 1


def vanish(path: Path) -> None:
    path.unlink()


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def parent_goes(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"a file now")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["before", "small"])
@pytest.mark.parametrize("change", [vanish, to_folder, to_fifo, to_link])
def test_gone(folder: Path, change: Callable[[Path], None], name: str, algorithm: Compression) -> None:
    tree = scan_directory(folder, warn=never)
    change(folder / "sub" / name)
    result, found, lines = written(tree, algorithm)
    path = b"sub/" + name.encode()
    assert path not in found
    assert set(found) == {path for path in paths_of(tree) if path not in (b"", b"sub")} - {path}
    assert len(lines) == 1
    assert f"sub/{name}: " in lines[0]
    assert "left out" in lines[0]
    assert result.trees[0].nlink[tree.find(path)] == 0
    assert not (result.extents.inode == tree.find(path)).any()


def test_a_whole_folder_gone(folder: Path) -> None:
    tree = scan_directory(folder, warn=never)
    parent_goes(folder / "sub" / "small")
    _, found, lines = written(tree, Compression.NONE)
    assert set(found) == {b"sub/large", b"twin", b"sparse"}  # large has a name outside, by which it is read
    assert len(lines) == 4  # three files, and one less name of the large one


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("good", [0, 1, 2])
def test_a_disk_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch, algorithm: Compression, good: int) -> None:
    """The file is lost, also if parts of it were read before."""
    tree = scan_directory(folder, warn=never)
    victim = (folder / "twin").stat().st_ino
    done = []

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if not flags and os.fstat(fd).st_ino == victim:
            done.append(offset)
            if len(done) > good:
                raise OSError(errno.EIO, "Input/output error")
        return preadv_itself(fd, buffers, offset, flags)

    preadv_itself = os.preadv
    monkeypatch.setattr("mkfs_cow.data.reader.os.preadv", preadv)
    result, found, lines = written(tree, algorithm)
    assert b"twin" not in found
    assert b"sub/large" not in found
    assert len(lines) == 1
    assert "cannot be read, left out: Input/output error" in lines[0]
    assert not (result.extents.inode == tree.find(b"twin")).any()


def test_short_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read may give less than it was asked for."""
    tree = scan_directory(folder, warn=never)
    preadv_itself = os.preadv

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        return preadv_itself(fd, [buffers[0][: max(1, len(buffers[0]) // 2)]], offset, flags)

    monkeypatch.setattr("mkfs_cow.data.reader.os.preadv", preadv)
    _, found, lines = written(tree, Compression.NONE)
    assert found[b"twin"] == (folder / "twin").read_bytes()
    assert not lines


def test_not_allowed_to_read() -> None:
    """As somebody who is not root, in a place that they can reach."""
    oracles.require_oracle("root")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for path in ("a", "secret", "small-secret", "z"):
            (folder / path).write_bytes(path.encode() * (1 if "small" in path else 5000))
        (folder / "secret").chmod(0o600)
        (folder / "small-secret").chmod(0)
        os.seteuid(65534)
        try:
            tree = scan_directory(folder, warn=never)
            _, found, lines = written(tree, Compression.NONE)
        finally:
            os.seteuid(0)
    assert found == {b"a": b"a" * 5000, b"z": b"z" * 5000}
    assert {line.split(":")[0].rpartition("/")[2] for line in lines} == {"secret", "small-secret"}
    assert all("cannot be read, left out" in line for line in lines)
