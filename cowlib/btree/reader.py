"""Reading trees a level at a time: many nodes with few large reads, pruned by key and by transaction id.

A block is used when its checksum, address, filesystem id, level and generation are what its parent promised; other
copies of it are tried before it is given up.  What cannot be used goes to `TreeReader.damage`; the rest is yielded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import Bytes, Mask, Nodes, Pointers, item_capacity, pointer_capacity
from cowlib.checksum import csum_rows, csum_size
from cowlib.errors import Damage
from cowlib.format import CSUM_SIZE, MAX_LEVEL, CsumType
from cowlib.volume import Volume

Key = tuple[int, int, int]

#: Bytes of nodes in flight at a time: large enough for long reads, small enough to keep several batches in memory.
BATCH_BYTES = 16 << 20


@dataclass(frozen=True)
class TreeRoot:
    """Where a tree starts: its objectid and key offset in the root tree, and its root node.

    ``bytenr`` is the logical address of the root node, ``level`` its height (0: a single leaf), ``generation`` the
    transaction that wrote it.
    """

    objectid: int
    offset: int
    bytenr: int
    level: int
    generation: int


@dataclass(frozen=True)
class BadCopy:
    """A copy of a block that could not be used although another could: ``mirror`` counts from 1."""

    logical: int
    mirror: int
    reason: str
    tree: int | None = None


@dataclass
class _Expected:
    """What a parent says of its children: ``generation`` u8 (n,) and ``level`` (None: it says nothing), the tree."""

    level: int | None
    tree: int | None
    generation: npt.NDArray[np.uint64] | None

    def select(self, which: npt.NDArray[Any]) -> _Expected:
        return _Expected(self.level, self.tree, None if self.generation is None else self.generation[which])


@dataclass
class TreeReader:
    """Reads tree blocks of one filesystem through a volume.

    ``fsid`` is what the node headers carry (the metadata uuid where the filesystem has one), 16 bytes.  ``damage``
    grows by one record for each block that none of its copies could give, ``bad_copies`` by one for each copy that
    another one had to stand in for.
    """

    volume: Volume
    nodesize: int
    csum_type: CsumType
    fsid: bytes
    damage: list[Damage] = field(default_factory=list)
    bad_copies: list[BadCopy] = field(default_factory=list)

    def read(
        self,
        bytenrs: npt.NDArray[np.uint64],
        *,
        level: int | None,
        tree: int | None = None,
        generation: npt.NDArray[np.uint64] | None = None,
    ) -> tuple[Nodes, npt.NDArray[np.int64]]:
        """The usable blocks among ``bytenrs`` (u8, shape (n,)) and their indices in it, in the order asked for.

        ``level`` and ``generation`` (u8, shape (n,)) are what the parents promise, None to take what is there.  A block
        that fails is read again from each of its other copies; one that has no good copy is recorded in ``damage``
        and left out.
        """
        rows, ok = self.volume.read_many(bytenrs, self.nodesize)
        expected = _Expected(level, tree, generation)
        good = ok & self._matches(rows, bytenrs, expected, ok)
        if not good.all():
            self._retry(rows, good, bytenrs, expected)
        index = np.flatnonzero(good)
        if len(index) != len(bytenrs):
            rows, bytenrs = rows[index], bytenrs[index]
        return Nodes(rows.reshape(-1), self.nodesize, bytenrs), index

    def _retry(self, rows: Bytes, good: Mask, bytenrs: npt.NDArray[np.uint64], expected: _Expected) -> None:
        """Fills the rows that are not good yet from other copies, one bad block at a time: they are rare."""
        for i in np.flatnonzero(~good):
            at, one = int(bytenrs[i]), expected.select(np.array([i]))
            reasons: dict[int, str] = {}
            copies = self.volume.num_copies(at)
            for mirror in range(1, copies + 1):
                row, ok = self.volume.read_many(bytenrs[i : i + 1], self.nodesize, mirror=mirror)
                if not ok[0]:
                    reasons[mirror] = "cannot be read"
                elif self._matches(row, bytenrs[i : i + 1], one, ok)[0]:
                    rows[i], good[i] = row[0], True
                    break
                else:
                    reasons[mirror] = self.describe(row[0], at, one)
            if good[i]:
                self.bad_copies += [BadCopy(at, mirror, reason, expected.tree) for mirror, reason in reasons.items()]
            else:
                told = [reason for reason in reasons.values() if reason != "cannot be read"] or [*reasons.values()]
                self.damage.append(Damage(at, told[0] if told else "no chunk maps this address", expected.tree))

    def _matches(
        self, rows: Bytes, bytenrs: npt.NDArray[np.uint64], expected: _Expected, ok: Mask
    ) -> npt.NDArray[np.bool_]:
        """Which rows (n, nodesize) are the block that was asked for: bool (n,)."""
        header = Nodes(rows.reshape(-1), self.nodesize, bytenrs).header
        inner, leaf = pointer_capacity(self.nodesize), item_capacity(self.nodesize)
        capacity = np.where(header["level"] > 0, inner, leaf)
        good = header["bytenr"] == bytenrs
        good &= (header["level"] < MAX_LEVEL) if expected.level is None else (header["level"] == expected.level)
        good &= header["fsid"] == np.void(self.fsid)
        good &= header["nritems"] <= capacity
        if expected.generation is not None:
            good &= header["generation"] == expected.generation
        found = csum_rows(self.csum_type, rows[:, CSUM_SIZE:])
        good &= (rows[:, : csum_size(self.csum_type)] == found).all(axis=1)
        return np.asarray(good, np.bool_)

    def describe(self, row: Bytes, bytenr: int, expected: _Expected) -> str:
        """Says in words what is wrong with one block that did not match."""
        header = Nodes(row, self.nodesize, np.array([bytenr], np.uint64)).header[0]
        size = csum_size(self.csum_type)
        found = csum_rows(self.csum_type, row.reshape(1, -1)[:, CSUM_SIZE:])[0]
        if not np.array_equal(row[:size], found):
            return f"checksum is {row[:size].tobytes().hex()}, its bytes give {found.tobytes().hex()}"
        if int(header["bytenr"]) != bytenr:
            return f"says it is block {int(header['bytenr'])}"
        if bytes(header["fsid"]) != self.fsid:
            return f"belongs to filesystem {bytes(header['fsid']).hex()}"
        if expected.level is not None and int(header["level"]) != expected.level:
            return f"level is {int(header['level'])}, its parent says {expected.level}"
        if int(header["level"]) >= MAX_LEVEL:
            return f"level is {int(header['level'])}, the highest there can be is {MAX_LEVEL - 1}"
        if expected.generation is not None and int(header["generation"]) != int(expected.generation[0]):
            return f"generation is {int(header['generation'])}, its parent says {int(expected.generation[0])}"
        return f"claims {int(header['nritems'])} items, more than a node holds"

    def walk(
        self,
        root: TreeRoot,
        *,
        low: Key | None = None,
        high: Key | None = None,
        min_transid: int = 0,
        batch_bytes: int = BATCH_BYTES,
    ) -> Iterator[tuple[int, Nodes]]:
        """All nodes of a tree as (level, batch), each batch in key order, parents' batches before their children's.

        ``low`` and ``high`` (inclusive keys) prune by key; ``min_transid`` prunes what is older: a subtree's root is
        never older than what is below it.  Memory stays at one batch a level.
        """
        if not 0 <= root.level < MAX_LEVEL:
            self.damage.append(Damage(root.bytenr, f"level {root.level} is out of range", root.objectid))
            return
        if root.generation < min_transid:
            return
        first = Pointers.to_root(root.bytenr, root.generation)
        seen: list[set[int]] = [set() for _ in range(MAX_LEVEL)]
        batch = max(1, batch_bytes // self.nodesize)
        yield from self._descend(first, root.level, root.objectid, low, high, min_transid, batch, seen)

    def _descend(
        self,
        pointers: Pointers,
        level: int,
        tree: int,
        low: Key | None,
        high: Key | None,
        min_transid: int,
        batch: int,
        seen: list[set[int]],
    ) -> Iterator[tuple[int, Nodes]]:
        for start in range(0, len(pointers), batch):
            part = self._first_visits(pointers.select(slice(start, start + batch)), tree, seen[level])
            nodes, _ = self.read(part.blockptr, level=level, tree=tree, generation=part.generation)
            if not len(nodes):
                continue
            yield level, nodes
            if level:
                below = prune(nodes.pointers(), low, high, min_transid)
                yield from self._descend(below, level - 1, tree, low, high, min_transid, batch, seen)

    def _first_visits(self, pointers: Pointers, tree: int, seen: set[int]) -> Pointers:
        """Drops pointers to blocks visited before: a crafted tree must not make the walk longer than the device."""
        before = len(seen)
        asked = pointers.blockptr.tolist()
        fresh = seen.union(asked) if not seen else None
        if fresh is not None and len(fresh) == before + len(asked):
            seen.update(fresh)
            return pointers
        keep = np.ones(len(asked), bool)
        for i, bytenr in enumerate(asked):
            if bytenr in seen:
                keep[i] = False
                self.damage.append(Damage(bytenr, "is referenced twice in one tree", tree))
            seen.add(bytenr)
        return pointers.select(keep)

    def leaves(
        self,
        root: TreeRoot,
        *,
        low: Key | None = None,
        high: Key | None = None,
        min_transid: int = 0,
        batch_bytes: int = BATCH_BYTES,
    ) -> Iterator[Nodes]:
        """The leaves of a tree in key order, in batches; pruned like `walk`."""
        for level, nodes in self.walk(root, low=low, high=high, min_transid=min_transid, batch_bytes=batch_bytes):
            if level == 0:
                yield nodes


def key_order(pointers: Pointers, key: Key) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which pointers' keys are below ``key`` and which are equal to it: two bool arrays (n,)."""
    objectid, kind, offset = (np.uint64(key[0]), np.uint8(key[1]), np.uint64(key[2]))
    same_object = pointers.objectid == objectid
    same_type = same_object & (pointers.type == kind)
    below = pointers.objectid < objectid
    below |= same_object & (pointers.type < kind)
    below |= same_type & (pointers.offset < offset)
    return below, same_type & (pointers.offset == offset)


def prune(pointers: Pointers, low: Key | None, high: Key | None, min_transid: int) -> Pointers:
    """The pointers below which keys from ``low`` to ``high`` and blocks of ``min_transid`` or newer can be."""
    keep = np.ones(len(pointers), bool)
    if high is not None and len(pointers):
        below, same = key_order(pointers, high)
        keep &= below | same
    if low is not None and len(pointers) > 1:
        # A pointer's keys reach up to the next pointer's first key, whichever node that stands in.
        below, same = key_order(pointers, low)
        keep[:-1] &= ~(below[1:] | same[1:])
    if min_transid:
        keep &= pointers.generation >= np.uint64(min_transid)
    return pointers if keep.all() else pointers.select(keep)
