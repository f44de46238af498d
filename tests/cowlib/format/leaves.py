"""Items of an image without a reader: every intact leaf that lies about, old ones and lost ones too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cowlib.checksum import checksum
from cowlib.format import (
    CSUM_SIZE,
    HEADER_SIZE,
    MAX_METADATA_BLOCKSIZE,
    SUPERBLOCK_OFFSETS,
    SUPERBLOCK_SIZE,
    Header,
    IncompatFeature,
    Item,
    Superblock,
    columns,
)
from tests.trees import data_ranges

BLOCK = 4096


@dataclass(frozen=True)
class RawItem:
    """One item: its key and its payload."""

    objectid: int
    type: int
    offset: int
    payload: bytes

    @property
    def key(self) -> tuple[int, int, int]:
        return self.objectid, self.type, self.offset


def superblock_bytes(image: Path) -> bytes:
    """The first superblock of an image, as it is."""
    with image.open("rb") as file:
        file.seek(SUPERBLOCK_OFFSETS[0])
        return file.read(SUPERBLOCK_SIZE)


def items(images: list[Path]) -> Iterator[RawItem]:
    """Every item of every leaf with a good checksum on the devices of one filesystem; copies of a leaf once.

    Items that reach outside of their leaf are left out.
    """
    superblock = Superblock.parse(superblock_bytes(images[0]))
    if not SUPERBLOCK_SIZE <= superblock.nodesize <= MAX_METADATA_BLOCKSIZE:
        return
    seen = set()
    for image in images:
        for node in _nodes(image, superblock):
            if (digest := node[:CSUM_SIZE]) not in seen:
                seen.add(digest)
                yield from _items(node)


def _nodes(image: Path, superblock: Any) -> Iterator[bytes]:
    other = superblock.incompat_flags & IncompatFeature.METADATA_UUID
    fsid = np.frombuffer(superblock.metadata_uuid if other else superblock.fsid, "V16")[0]
    with image.open("rb") as file:
        for start, end in data_ranges(file.fileno(), os.fstat(file.fileno()).st_size):
            start -= start % BLOCK
            data = os.pread(file.fileno(), end - start + superblock.nodesize, start)
            blocks = np.frombuffer(data, np.uint8, len(data) // BLOCK * BLOCK).reshape(-1, BLOCK)
            heads = np.ascontiguousarray(blocks[:, :HEADER_SIZE]).view(columns(Header))[:, 0]
            for block in np.flatnonzero((heads["fsid"] == fsid) & (heads["level"] == 0)).tolist():
                node = data[block * BLOCK : block * BLOCK + superblock.nodesize]
                digest = checksum(superblock.csum_type, node[CSUM_SIZE:])
                if len(node) == superblock.nodesize and node.startswith(digest):
                    yield node


def _items(leaf: bytes) -> Iterator[RawItem]:
    count = Header.parse(leaf).nritems
    count = min(count, (len(leaf) - HEADER_SIZE) // Item.sizeof())
    for item in np.frombuffer(leaf, columns(Item), count, HEADER_SIZE):
        start, size = HEADER_SIZE + int(item["offset"]), int(item["size"])
        if start + size <= len(leaf):
            objectid, kind, offset = item["key"].tolist()
            yield RawItem(objectid, kind, offset, leaf[start : start + size])
