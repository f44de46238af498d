"""What of the chunks is used: space for data and for nodes is taken from front to back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from cowlib.btree.nodes import I64, U64
from cowlib.errors import NoSpaceError
from cowlib.format import STRIPE_LEN, BlockGroupFlag
from cowlib.volume import Profile
from mkfs_cow.chunks import ChunkAllocator, NewChunk


@dataclass
class BlockGroup:
    """A chunk and what of it is used: everything before ``cursor`` but the ``holes`` (superblock copies) and ``gaps``.

    ``used`` counts bytes. Gaps are ranges passed over because what was asked for did not fit into them: free space.
    """

    chunk: NewChunk
    cursor: int
    holes: list[tuple[int, int]]
    used: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, chunk: NewChunk) -> BlockGroup:
        """An empty block group over a chunk."""
        return cls(chunk, chunk.logical, chunk.superblock_ranges())

    def copy(self) -> BlockGroup:
        """The same use of the same chunk, to try things on."""
        return replace(self, gaps=list(self.gaps))

    def run(self) -> tuple[int, int]:
        """The next free range (start, length); length 0 at the end."""
        for start, length in self.holes:
            if self.cursor < start:
                return self.cursor, start - self.cursor
            if self.cursor < start + length:
                self.cursor = start + length
        return self.cursor, self.chunk.end - self.cursor

    def take(self, length: int) -> int:
        """Takes the front of the current run, which must have room: the address."""
        start = self.cursor
        self.cursor += length
        self.used += length
        return start

    def skip(self, length: int) -> None:
        """Passes over the front of the current run, which stays free."""
        self.gaps.append((self.cursor, length))
        self.cursor += length

    def settle(self, begins: I64, ends: I64) -> None:
        """Everything before the cursor is free but these sorted ranges (i8, shape (n,)) and the holes."""
        self.used = int((ends - begins).sum())
        self.cursor = int(ends[-1]) if len(ends) else self.chunk.logical
        before = np.concatenate([[self.chunk.logical], ends])[: len(begins)]
        loose = np.flatnonzero(begins > before)
        self.gaps = []
        for start, stop in zip(before[loose].tolist(), begins[loose].tolist(), strict=True):
            for hole, size in self.holes:
                if start <= hole < stop:
                    if hole > start:
                        self.gaps.append((start, hole - start))
                    start = hole + size
            if start < stop:
                self.gaps.append((start, stop - start))

    def free_ranges(self) -> list[tuple[int, int]]:
        """What is free, as (start, length), sorted."""
        ranges = list(self.gaps)
        end = self.chunk.end
        at = self.cursor
        for start, length in self.holes:
            if start + length <= at:
                continue
            if start > at:
                ranges.append((at, start - at))
            at = start + length
        if at < end:
            ranges.append((at, end - at))
        return ranges


def _usable(group: BlockGroup, loss: int) -> int:
    """The free bytes of a block group, less up to ``loss`` in each range."""
    return sum(max(0, length - loss) for _, length in group.free_ranges())


class SpaceAllocator:
    """Space of the new filesystem by kind; chunks are added when those there are full."""

    def __init__(self, chunks: ChunkAllocator, profiles: dict[BlockGroupFlag, Profile]) -> None:
        """``profiles`` has a profile for each kind of block group there is; data and metadata are one key if mixed."""
        self.chunks = chunks
        self.profiles = profiles
        self.groups: dict[BlockGroupFlag, list[BlockGroup]] = {kind: [] for kind in profiles}
        self.on_change: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def kind_for(self, purpose: BlockGroupFlag) -> BlockGroupFlag:
        """The kind of block group that holds data, metadata or system blocks."""
        return next(kind for kind in self.profiles if kind & purpose)

    def add_chunk(self, kind: BlockGroupFlag, length: int | None = None) -> BlockGroup:
        """A new block group, by default of the length that suits the kind; raises NoSpaceError."""
        profile = self.profiles[kind]
        wanted = self.chunks.suitable_length(kind, profile) if length is None else length
        return self._add(kind, self.chunks.allocate(kind, profile, wanted))

    def _add(self, kind: BlockGroupFlag, chunk: NewChunk) -> BlockGroup:
        group = BlockGroup.of(chunk)
        self.groups[kind].append(group)
        self.on_change()
        return group

    def free(self, kind: BlockGroupFlag, loss: int = 0) -> int:
        """The free bytes of a kind, less up to ``loss`` in each free range."""
        return sum(_usable(group, loss) for group in self.groups[kind])

    def reserve(self, purpose: BlockGroupFlag, nbytes: int, *, loss: int = 0) -> None:
        """Adds chunks until this much is free for a purpose; raises NoSpaceError.

        ``loss`` bytes of every free range do not count. The last of several chunks for metadata is no longer than it
        has to be and leaves the rest to data, as is one for which a device has no room otherwise; but the first one for
        metadata has the length that the kernel needs. Where chunks are tight, none is longer.
        """
        kind = self.kind_for(purpose)
        free = self.free(kind, loss)
        while free < nbytes:
            least = nbytes - free
            group = self._add_tight(kind, least, loss) if self.chunks.tight else self._add_roomy(kind, least + loss)
            free += _usable(group, loss)

    def _add_roomy(self, kind: BlockGroupFlag, least: int) -> BlockGroup:
        """A chunk of the length that suits, or of ``least`` bytes."""
        length = self.chunks.suitable_length(kind, self.profiles[kind], least)
        short = kind == BlockGroupFlag.METADATA and self.groups[kind]
        try:
            return self.add_chunk(kind, min(length, least) if short else length)
        except NoSpaceError:
            if least >= length or (kind & BlockGroupFlag.METADATA and not self.groups[kind]):
                raise
            return self.add_chunk(kind, least)

    def _add_tight(self, kind: BlockGroupFlag, usable: int, loss: int = 0) -> BlockGroup:
        """A chunk of which this much can be used, and hardly more; less where no chunk is that long."""
        profile = self.profiles[kind]
        length = usable + loss
        while True:
            chunk = self.chunks.allocate(kind, profile, self.chunks.suitable_length(kind, profile, length))
            lack = usable - _usable(BlockGroup.of(chunk), loss)
            if lack <= 0 or chunk.length < length:
                return self._add(kind, chunk)
            self.chunks.release(chunk)
            length += lack

    def trim_nodes(self, spare: int) -> bool:
        """Makes the last chunks anew so that no more than ``spare`` bytes for nodes stay free; whether that is less.

        They must be the last of all and hold nothing but nodes that are not written yet, which lose their places.
        """
        kind = self.kind_for(BlockGroupFlag.METADATA)
        groups = self.groups[kind]
        self.drop_unused(kind, spare)
        last = groups[-1]
        excess = self.free(kind) - spare
        if excess < STRIPE_LEN or not last.used or not self.chunks.release(last.chunk):
            return False
        groups.pop()
        others = self.free(kind)
        self._add_tight(kind, last.used + max(0, spare - others))
        return True

    def give_back_data(self, spare: int) -> None:
        """Gives back what data leaves of its chunks: whole ones, and if tight the end of the last one where that can be
        done in place; but for ``spare`` bytes. Call it before nodes are taken."""
        kind = self.kind_for(BlockGroupFlag.DATA)
        if kind & BlockGroupFlag.METADATA and not self.chunks.tight:
            return  # nodes follow
        self.drop_unused(kind, spare if self.chunks.tight else 0)
        if not self.chunks.tight:
            return
        last = self.groups[kind][-1]
        lack = spare - sum(_usable(group, 0) for group in self.groups[kind][:-1]) - sum(n for _, n in last.gaps)
        end = last.cursor
        for start, length in last.free_ranges():
            if start >= last.cursor and lack > 0:
                end = start + min(length, lack)
                lack -= length
        if end < last.chunk.end and self.chunks.shorten(last.chunk, end - last.chunk.logical):
            last.holes = last.chunk.superblock_ranges()
            self.on_change()

    def _front(self, kind: BlockGroupFlag, nbytes: int) -> BlockGroup:
        """The first block group with anything left, a new one for ``nbytes`` if there is none."""
        for group in self.groups[kind]:
            if group.run()[1]:
                return group
        return self.add_chunk(kind, self.chunks.suitable_length(kind, self.profiles[kind], nbytes))

    def take_data(self, nbytes: int) -> list[tuple[int, int]]:
        """Space for data as (logical, bytes), in as few pieces as superblock copies and chunk ends allow."""
        pieces = []
        kind = self.kind_for(BlockGroupFlag.DATA)
        with self._lock:
            while nbytes:
                group = self._front(kind, nbytes)
                length = min(nbytes, group.run()[1])
                pieces.append((group.take(length), length))
                nbytes -= length
        return pieces

    def take_nodes(self, count: int, nodesize: int, purpose: BlockGroupFlag = BlockGroupFlag.METADATA) -> U64:
        """Addresses for ``count`` nodes, each a multiple of its size: u8, shape (count,)."""
        kind = self.kind_for(purpose)
        parts = []
        with self._lock:
            while count:
                group = self._front(kind, count * nodesize)
                start, length = group.run()
                skip = min(-start % nodesize, length)
                fit = min(count, (length - skip) // nodesize)
                if skip:
                    group.skip(skip)
                if not fit:
                    if length - skip:
                        group.skip(length - skip)
                    continue
                first = group.take(fit * nodesize)
                parts.append(np.uint64(first) + np.arange(fit, dtype=np.uint64) * np.uint64(nodesize))
                count -= fit
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)

    def drop_unused(self, kind: BlockGroupFlag, spare: int = 0) -> None:
        """Gives back chunks of a kind that hold nothing, as far as they are the last that were made and the others have
        ``spare`` free bytes."""
        groups = self.groups[kind]
        while len(groups) > 1 and not groups[-1].used and sum(_usable(group, 0) for group in groups[:-1]) >= spare:
            if not self.chunks.release(groups[-1].chunk):
                break
            groups.pop()
            self.on_change()

    def settle_data(self, start: U64, length: U64) -> None:
        """Gives back what was taken for data but holds none: files that were lost, pieces too short for an extent.

        ``start`` and ``length`` u8 (n,) are the extents that there are. Call it before nodes are taken.
        """
        order = np.argsort(start)
        begins, ends = start[order].astype(np.int64), (start + length)[order].astype(np.int64)
        for group in self.groups[self.kind_for(BlockGroupFlag.DATA)]:
            first, last = np.searchsorted(begins, [group.chunk.logical, group.chunk.end])
            group.settle(begins[first:last], ends[first:last])

    def all_groups(self) -> list[BlockGroup]:
        """Every block group, by address."""
        return sorted((g for groups in self.groups.values() for g in groups), key=lambda g: g.chunk.logical)

    @property
    def bytes_used(self) -> int:
        """What the superblock says is used, each byte once whatever the profile."""
        return sum(group.used for group in self.all_groups())
