"""A volume in memory that holds the nodes a test built: enough of one for `TreeReader`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np

from cowlib.btree import ItemTable, Nodes, NodeStyle, TreeReader, TreeRoot, build, plan
from cowlib.format import CsumType
from cowlib.volume import Volume

STYLE = NodeStyle(4096, CsumType.CRC32, bytes(range(16)), bytes(range(16, 32)), generation=7)
FIRST = 1 << 20


class MemoryVolume:
    """Blocks by logical address; every address has as many copies as it was given blocks."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[bytes]] = {}

    def put(self, batches: Iterable[Nodes]) -> None:
        for nodes in batches:
            for i, bytenr in enumerate(nodes.bytenr.tolist()):
                self.blocks.setdefault(bytenr, []).append(nodes.node(i).tobytes())

    def num_copies(self, logical: int) -> int:
        return len(self.blocks.get(logical, ()))

    def read_many(self, logical, length, mirror=0):
        rows = np.zeros((len(logical), length), np.uint8)
        ok = np.zeros(len(logical), bool)
        for i, at in enumerate(np.asarray(logical).tolist()):
            copies = self.blocks.get(at, [])
            which = max(mirror - 1, 0)
            if which < len(copies):
                rows[i] = np.frombuffer(copies[which], np.uint8)
                ok[i] = True
        return rows, ok


def table_of(rows: list[tuple[int, int, int, bytes]]) -> ItemTable:
    """A sorted table of (objectid, type, offset, payload) rows."""
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    size = np.array([len(payload) for payload in columns[3]], np.int64)
    return ItemTable(
        np.frombuffer(b"".join(columns[3]), np.uint8),
        np.array(columns[0], np.uint64),
        np.array(columns[1], np.uint8),
        np.array(columns[2], np.uint64),
        np.cumsum(size) - size,
        size,
    ).sorted()


def grow(table: ItemTable, style: NodeStyle = STYLE, copies: int = 1) -> tuple[TreeReader, TreeRoot, MemoryVolume]:
    """A tree of these items in memory, and a reader for it."""
    volume = MemoryVolume()
    shape = plan(table, style.nodesize)
    bytenrs = np.uint64(FIRST) + np.arange(shape.node_count, dtype=np.uint64) * np.uint64(style.nodesize)
    for _ in range(copies):
        volume.put(build(shape, bytenrs, 5, style))
    reader = TreeReader(cast(Volume, volume), style.nodesize, style.csum_type, style.fsid)
    return reader, TreeRoot(5, 0, int(bytenrs[-1]), shape.height, style.generation), volume
