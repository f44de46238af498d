"""An opened filesystem: its superblock, its volume, its trees by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree import Items, TreeReader, TreeRoot
from cowlib.btree.reader import Key
from cowlib.device import Device
from cowlib.errors import Damage, DamagedError, UsageError
from cowlib.filesystem.superblocks import read_superblock, refuse_unknown
from cowlib.format import (
    CsumType,
    IncompatFeature,
    KeyType,
    ObjectId,
    RootItemV0,
    columns,
    parse_sys_chunk_array,
)
from cowlib.volume import ChunkMap, Volume, assemble

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class StartPoint:
    """Where to begin when the newest superblock is not what one wants.

    ``super_copy`` is the index of the superblock copy.  ``backup`` is the index of a backup root (0 to 3), or -1 for
    the newest one that is older than the superblock and can be read.  ``tree_root`` and ``chunk_root`` are logical
    addresses.
    """

    super_copy: int | None = None
    backup: int | None = None
    tree_root: int | None = None
    chunk_root: int | None = None


class Filesystem:
    """A btrfs opened for reading; made by `open_filesystem`.

    ``superblock`` is the parsed structure, ``volume`` its devices as one address space, ``reader`` reads its trees and
    collects damage, ``root_tree`` and ``chunk_tree`` are where they start.
    """

    def __init__(
        self, superblock: Any, volume: Volume, reader: TreeReader, root_tree: TreeRoot, chunk_tree: TreeRoot
    ) -> None:
        self.superblock = superblock
        self.volume = volume
        self.reader = reader
        self.root_tree = root_tree
        self.chunk_tree = chunk_tree

    @property
    def nodesize(self) -> int:
        """Bytes of a tree block."""
        return int(self.superblock.nodesize)

    @property
    def sectorsize(self) -> int:
        """Bytes of a data sector."""
        return int(self.superblock.sectorsize)

    @property
    def csum_type(self) -> CsumType:
        """What checksums nodes and data."""
        return CsumType(self.superblock.csum_type)

    @property
    def damage(self) -> list[Damage]:
        """What could not be read so far."""
        return self.reader.damage

    @property
    def log_root(self) -> TreeRoot | None:
        """The tree of log trees, written by fsync and not replayed yet; None where there is none."""
        bytenr = int(self.superblock.log_root)
        if bytenr == 0:
            return None
        # The log is written in the transaction that is under way, so its generation is one ahead.
        generation = int(self.superblock.generation) + 1
        return TreeRoot(ObjectId.TREE_LOG, 0, bytenr, int(self.superblock.log_root_level), generation)

    @cached_property
    def roots(self) -> list[TreeRoot]:
        """Every ROOT_ITEM of the root tree in key order, as (objectid, key offset, bytenr, level, generation).

        Roots whose item is too short to be one are recorded as damage and left out.
        """
        return list(self.roots_in(self.root_tree))

    def roots_in(self, tree: TreeRoot) -> Iterator[TreeRoot]:
        """The ROOT_ITEMs that a tree of roots (the root tree, or the tree of log trees) holds, in key order."""
        need = columns(RootItemV0).itemsize
        for nodes in self.reader.leaves(tree):
            items = nodes.items().of_type(KeyType.ROOT_ITEM)
            usable = items.in_bounds & (items.size >= need)
            for i in np.flatnonzero(~usable).tolist():
                at = int(nodes.bytenr[items.node[i]])
                self.damage.append(Damage(at, f"root item {items.key(i)} is too short", tree.objectid))
            items = items.select(usable)
            view = items.view(RootItemV0)
            yield from map(
                TreeRoot,
                items.objectid.tolist(),
                items.offset.tolist(),
                view["bytenr"].tolist(),
                view["level"].tolist(),
                view["generation"].tolist(),
            )

    def root(self, objectid: int) -> TreeRoot:
        """Where the tree with this id starts; raises UsageError when the filesystem has none."""
        if objectid == ObjectId.ROOT_TREE:
            return self.root_tree
        if objectid == ObjectId.CHUNK_TREE:
            return self.chunk_tree
        for root in self.roots:
            if root.objectid == objectid:
                return root
        raise UsageError(f"no tree with id {objectid}", device=next(iter(self.paths), None))

    @property
    def paths(self) -> list[str]:
        """The devices that are present, by path, in device id order."""
        return [device.path for _, device in sorted(self.volume.devices.items()) if device is not None]

    def items(
        self, objectid: int, *, low: Key | None = None, high: Key | None = None, min_transid: int = 0
    ) -> Iterator[Items]:
        """The items of a tree in key order, in batches, pruned by key range and by age of their leaves.

        Whole leaves come: the first and last batch may hold keys outside of the range.
        """
        for nodes in self.reader.leaves(self.root(objectid), low=low, high=high, min_transid=min_transid):
            yield nodes.items()

    def close(self) -> None:
        """Closes all devices."""
        self.volume.close()

    def __enter__(self) -> Filesystem:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_filesystem(
    paths: PathLike | Sequence[PathLike],
    *,
    scan: bool = True,
    super_copy: int | None = None,
    backup: int | None = None,
    tree_root: int | None = None,
    chunk_root: int | None = None,
) -> Filesystem:
    """Opens a filesystem for reading from one or more of its devices or images.

    Devices that are not given are looked for by fsid among the machine's block devices when ``scan`` is on; what is
    missing then is survived where the profile allows it.  ``super_copy``, ``backup``, ``tree_root`` and ``chunk_root``
    choose where to start: see `StartPoint`.  Raises NotBtrfsError, DamagedError, UnsupportedError, DeviceError.
    """
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not listed:
        raise UsageError("no device given")
    start = StartPoint(super_copy, backup, tree_root, chunk_root)
    if start.backup is not None and not -1 <= start.backup <= 3:
        raise UsageError(f"there is no backup root {start.backup}", hint="backup roots are 0 to 3")
    superblock, devices = assemble([os.fspath(p) for p in listed], lambda d: read_superblock(d, super_copy), scan=scan)
    try:
        refuse_unknown(superblock, os.fspath(listed[0]))
        return _open(superblock, devices, start)
    except BaseException:
        for device in devices.values():
            if device is not None:
                device.close()
        raise


def _open(superblock: Any, devices: dict[int, Device | None], start: StartPoint) -> Filesystem:
    system = parse_sys_chunk_array(superblock.sys_chunk_array, int(superblock.sys_chunk_array_size))
    volume = Volume(devices, ChunkMap.of((int(key.offset), chunk) for key, chunk in system))
    has_metadata_uuid = int(superblock.incompat_flags) & IncompatFeature.METADATA_UUID
    fsid = superblock.metadata_uuid if has_metadata_uuid else superblock.fsid
    reader = TreeReader(volume, int(superblock.nodesize), CsumType(superblock.csum_type), bytes(fsid))
    reader.damage.extend(volume.chunks.damage)
    chunk_tree = _chunk_root(reader, superblock, start)
    _load_chunks(volume, reader, chunk_tree)
    return Filesystem(superblock, volume, reader, _tree_root(reader, superblock, start), chunk_tree)


def _given_root(reader: TreeReader, tree: ObjectId, bytenr: int) -> TreeRoot:
    """The root at an address that the user gave: what it says of itself is taken."""
    nodes, _ = reader.read(np.array([bytenr], np.uint64), level=None, tree=tree)
    if not len(nodes):
        damage = reader.damage.pop()
        raise DamagedError(damage.reason, logical=bytenr)
    header = nodes.header[0]
    return TreeRoot(tree, 0, bytenr, int(header["level"]), int(header["generation"]))


def _backup_order(superblock: Any, wanted: int) -> list[Any]:
    """The backup roots to try: the one that is asked for, or all that are older than the superblock, newest first."""
    if wanted >= 0:
        return [superblock.super_roots[wanted]]
    older = [b for b in superblock.super_roots if 0 < b.tree_root_gen < superblock.generation]
    return sorted(older, key=lambda b: int(b.tree_root_gen), reverse=True)


def _backup_root(reader: TreeReader, superblock: Any, wanted: int, tree: ObjectId) -> TreeRoot:
    """The first root node among the backups that can be read; raises DamagedError when there is none."""
    name = "chunk_root" if tree == ObjectId.CHUNK_TREE else "tree_root"
    reasons = []
    for backup in _backup_order(superblock, wanted):
        bytenr, generation, level = (int(backup[name + suffix]) for suffix in ("", "_gen", "_level"))
        if bytenr == 0:
            reasons.append("it is empty")
            continue
        nodes, _ = reader.read(
            np.array([bytenr], np.uint64),
            level=level,
            tree=tree,
            generation=np.array([generation], np.uint64),
        )
        if len(nodes):
            return TreeRoot(tree, 0, bytenr, level, generation)
        reasons.append(str(reader.damage.pop()))
    which = "no backup root older than the superblock" if wanted < 0 else f"backup root {wanted}"
    raise DamagedError(f"{which} can be used: {'; '.join(reasons) or 'there is none'}")


def _chunk_root(reader: TreeReader, superblock: Any, start: StartPoint) -> TreeRoot:
    if start.chunk_root is not None:
        return _given_root(reader, ObjectId.CHUNK_TREE, start.chunk_root)
    if start.backup is not None:
        return _backup_root(reader, superblock, start.backup, ObjectId.CHUNK_TREE)
    return TreeRoot(
        ObjectId.CHUNK_TREE,
        0,
        int(superblock.chunk_root),
        int(superblock.chunk_root_level),
        int(superblock.chunk_root_generation),
    )


def _tree_root(reader: TreeReader, superblock: Any, start: StartPoint) -> TreeRoot:
    if start.tree_root is not None:
        return _given_root(reader, ObjectId.ROOT_TREE, start.tree_root)
    if start.backup is not None:
        return _backup_root(reader, superblock, start.backup, ObjectId.ROOT_TREE)
    return TreeRoot(ObjectId.ROOT_TREE, 0, int(superblock.root), int(superblock.root_level), int(superblock.generation))


def _load_chunks(volume: Volume, reader: TreeReader, chunk_tree: TreeRoot) -> None:
    """Replaces the bootstrap chunk map with the chunk tree's, and adds the devices it names but nobody gave."""
    found: list[Items] = []
    for nodes in reader.leaves(chunk_tree):
        items = nodes.items()
        found.append(items.select(items.in_bounds).of_type(KeyType.CHUNK_ITEM))
    if not sum(map(len, found)):
        # The system chunks alone still let one look at what is left of the chunk tree.
        return
    whole = _one_buffer(found)
    chunks = ChunkMap.from_items(whole.offset, whole.buffer, whole.position, whole.size)
    reader.damage.extend(chunks.damage)
    if len(chunks):
        volume.chunks = chunks


def _one_buffer(batches: list[Items]) -> Items:
    """Several batches of items over one buffer."""
    if len(batches) == 1:
        return batches[0]
    shifts = np.cumsum([0] + [b.buffer.size for b in batches[:-1]])

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(batch, name) for batch in batches])

    position = np.concatenate([b.position + shift for b, shift in zip(batches, shifts.tolist(), strict=True)])
    return Items(
        buffer=joined("buffer"),
        objectid=joined("objectid"),
        type=joined("type"),
        offset=joined("offset"),
        position=position,
        size=joined("size"),
        node=joined("node"),
        slot=joined("slot"),
        in_bounds=joined("in_bounds"),
    )
