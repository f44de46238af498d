"""A sink that keeps what is written, trees made of thin air, and files put together again from their extents."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cowlib.checksum import csum_blocks
from cowlib.compression import decompress
from cowlib.errors import NoSpaceError
from cowlib.format import MAX_COMPRESSED, MAX_EXTENT_SIZE, Compression, FileExtentType, InodeFlag
from mkfs_cow.data.plan import DataOptions
from mkfs_cow.data.write import Written
from mkfs_cow.source.builder import TreeBuilder
from mkfs_cow.source.contents import FileContents
from mkfs_cow.source.tables import S_IFDIR, S_IFREG, Segments, Tree

START = 1 << 20


@dataclass
class MemorySink:
    """Room in pieces of `piece` bytes with a gap after each, `room` bytes in all."""

    piece: int = 1 << 62
    room: int = 1 << 62
    written: dict[int, bytes] = field(default_factory=dict)
    _next: int = START
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allocate(self, nbytes: int) -> list[tuple[int, int]]:
        assert nbytes > 0
        assert nbytes % 4096 == 0
        if nbytes > self.room:
            raise NoSpaceError("full")
        self.room -= nbytes
        pieces = []
        while nbytes:
            left = self.piece - (self._next - START) % (self.piece + 4096)
            if left <= 0:
                self._next += 4096
                continue
            pieces.append((self._next, min(left, nbytes)))
            nbytes -= pieces[-1][1]
            self._next += pieces[-1][1]
        return pieces

    def write(self, logical: int, data: NDArray[np.uint8]) -> None:
        assert logical % 4096 == 0
        assert len(data) % 4096 == 0
        assert data.ctypes.data % 4096 == 0
        with self._lock:
            assert logical not in self.written
            self.written[logical] = data.tobytes()

    def image(self) -> bytes:
        """Everything up to the highest address, what was not written as a pattern."""
        end = max((at + len(data) for at, data in self.written.items()), default=0)
        image = bytearray(b"\xa5" * end)
        for at, data in self.written.items():
            image[at : at + len(data)] = data
        return bytes(image)


def backed_tree(backing: IO[bytes], files: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> Tree:
    """A root with files of some sizes, whose data (offset, length) stands somewhere in an open file."""
    builder = TreeBuilder()
    builder.inode(S_IFDIR | 0o755, 0, 0, 0, 0, (0, 0, 0, 0))
    rows = []
    for number, (size, data) in enumerate(files):
        inode = builder.inode(S_IFREG | 0o644, 0, 0, size, 0, (0, 0, 0, 0))
        builder.name(0, inode, b"%06d" % number)
        rows += [(inode, offset, length, 7 * number + offset // 3) for offset, length in data]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    segments = Segments(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy(), table[:, 3].copy())
    return builder.tree(segments, FileContents(backing), None)


def expected(tree: Tree) -> dict[int, bytes]:
    """The contents of every regular file that has any, by inode, straight from where they are."""
    segments = tree.segments
    found = {i: bytearray(int(tree.size[i])) for i in np.flatnonzero(tree.is_type(S_IFREG) & (tree.size > 0)).tolist()}
    for inode, offset, length, position in zip(
        segments.inode.tolist(),
        segments.offset.tolist(),
        segments.length.tolist(),
        segments.position.tolist(),
        strict=True,
    ):
        fd = tree.contents.open(inode)
        found[inode][offset : offset + length] = os.pread(fd, length, position)
        tree.contents.close(fd)
    return {inode: bytes(data) for inode, data in found.items()}


def check(written: Written, sink: MemorySink, options: DataOptions) -> list[dict[int, bytes]]:
    """What the extents say of every tree: inode to contents, after every rule for extents was checked."""
    image = sink.image()
    extents = written.extents
    sector = options.sectorsize
    found: list[dict[int, bytearray]] = [{} for _ in written.trees]
    ends: dict[tuple[int, int], int] = {}
    used: list[tuple[int, int]] = []
    keys = list(zip(extents.tree.tolist(), extents.inode.tolist(), extents.file_offset.tolist(), strict=True))
    assert keys == sorted(set(keys))
    for row, (tree, inode, offset) in enumerate(keys):
        size = int(written.trees[tree].size[inode])
        data = found[tree].setdefault(inode, bytearray(size))
        stored, length, ram = (int(c[row]) for c in (extents.disk_num_bytes, extents.num_bytes, extents.ram_bytes))
        address, algorithm = int(extents.disk_bytenr[row]), Compression(int(extents.compression[row]))
        assert offset >= ends.get((tree, inode), 0)
        ends[tree, inode] = offset + length
        if extents.type[row] == FileExtentType.INLINE:
            payload = extents.inline[int(extents.payload[row])]
            assert (offset, address, stored) == (0, 0, len(payload))
            assert 0 < len(payload) <= options.inline_limit
            assert length == ram == size
            plain = decompress(algorithm, payload, ram, sector) if algorithm else payload
            assert len(plain) == size
            data[:] = plain
            continue
        assert extents.payload[row] == -1
        assert offset % sector == stored % sector == length % sector == ram % sector == address % sector == 0
        assert offset + length <= -(-size // sector) * sector
        if address == 0:
            assert (stored, ram) == (0, length)
            assert not options.no_holes
            continue
        used.append((address, stored))
        plain = image[address : address + stored]
        if algorithm:
            assert length <= ram <= MAX_COMPRESSED
            assert stored < ram
            plain = decompress(algorithm, plain, ram, sector)
        else:
            assert stored == ram == length <= MAX_EXTENT_SIZE
        data[offset : offset + length] = plain[: max(0, min(length, size - offset))]
        assert not any(plain[max(0, size - offset) : length]), "zeros behind the end of the file"
    used.sort()
    assert all(a + n <= b for (a, n), (b, _) in pairwise(used))
    if not options.no_holes:
        check_no_gaps(written, sector)
    check_sums(written, image, options)
    return [{inode: bytes(data) for inode, data in files.items()} for files in found]


def check_no_gaps(written: Written, sector: int) -> None:
    """Without the no-holes feature extents leave nothing out."""
    extents = written.extents
    for number, tree in enumerate(written.trees):
        rows = extents.tree == number
        covered = np.zeros(len(tree), dtype=np.int64)
        np.add.at(covered, extents.inode[rows], extents.num_bytes[rows].astype(np.int64))
        inline = np.zeros(len(tree), dtype=np.bool_)
        inline[extents.inode[rows & (extents.payload >= 0)]] = True
        size = tree.size.astype(np.int64)
        size = np.where(inline, size, -(-size // sector) * sector)
        kept = tree.is_type(S_IFREG) & (tree.nlink > 0)
        assert (covered[kept] == size[kept]).all()


def check_sums(written: Written, image: bytes, options: DataOptions) -> None:
    """Every sector of every extent of a file with checksums has one, and it is right; no other has."""
    extents, sector = written.extents, options.sectorsize
    flags = [tree.flags for tree in written.trees]
    wanted: list[int] = []
    for row in np.flatnonzero(extents.disk_bytenr).tolist():
        if flags[int(extents.tree[row])][int(extents.inode[row])] & np.uint64(InodeFlag.NODATASUM):
            continue
        start = int(extents.disk_bytenr[row])
        wanted += range(start, start + int(extents.disk_num_bytes[row]), sector)
    assert written.sums.logical.tolist() == sorted(wanted)
    for logical, csum in zip(written.sums.logical.tolist(), written.sums.csum, strict=True):
        assert (csum_blocks(options.csum_type, image[logical : logical + sector], sector)[0] == csum).all()
