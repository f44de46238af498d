"""The chunk map: which bytes of which devices stand behind a logical address, as columns.

A chunk's bytes go to its stripes in units of 64 KiB. ``width`` of them in a row make a full stripe ("row");
the column of a unit says which stripe holds it. With parity, stripes move on by one every row: in row N data
column i is on stripe (i + N) % num_stripes, P on (width + N) % num_stripes, Q on the next. Read off images
that the kernel wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowlib.errors import Damage
from cowlib.format import (
    STRIPE_LEN,
    SUPERBLOCK_OFFSETS,
    BlockGroupFlag,
    Chunk,
    ChunkPayload,
    ObjectId,
    Stripe,
    columns,
)
from cowlib.volume.profiles import PROFILES

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_HEAD_SIZE = 48
_STRIPE_SIZE = 32
_MAX_CHUNK = STRIPE_LEN * (2**32 - 1)  # the kernel counts a chunk's units in 32 bits
_MAX_RAID6_WIDTH = 255  # more data columns have no distinct coefficient in GF(256)

MAX_PIECE = 2 << 20
"""Bytes: no piece of a range is longer."""


@dataclass(frozen=True)
class Pieces:
    """Ranges of logical addresses, cut so that each piece is contiguous on its devices. A row a piece.

    ``request`` index of the range it belongs to, ``chunk`` index in the map, ``offset`` bytes from the start
    of the chunk, ``length`` bytes, ``position`` bytes from the start of the caller's buffer. All int64[n].
    """

    request: I64
    chunk: I64
    offset: I64
    length: I64
    position: I64

    def __len__(self) -> int:
        return len(self.request)

    def select(self, which: Any) -> Pieces:
        """The pieces a mask or an index array picks."""
        return Pieces(
            self.request[which],
            self.chunk[which],
            self.offset[which],
            self.length[which],
            self.position[which],
        )


class ChunkMap:
    """Every usable chunk, sorted by logical address, none overlapping.

    Columns, one row a chunk: ``logical`` and ``length`` bytes, ``type`` (`BlockGroupFlag`), ``stripe_len``,
    ``num_stripes``, ``sub_stripes``, ``first_stripe`` (where its stripes begin in the stripe table), and
    derived from the profile: ``width`` data columns, ``copies`` of each byte, ``parity`` stripes a row.
    Stripe table: ``stripe_devid`` and ``stripe_offset`` uint64[m], ``stripe_uuid`` V16[m].

    Chunks that break a rule of the format are left out and listed in ``damage``.
    """

    def __init__(
        self, logical: U64, head: NDArray[np.void], stripes: NDArray[np.void], damage: Iterable[Damage] = ()
    ) -> None:
        """``head``: columns(Chunk)[n]; ``stripes``: columns(Stripe) of all chunks, one after the other."""
        self.damage = list(damage)
        first = _running_start(head["num_stripes"].astype(np.int64))
        order = np.argsort(logical, kind="stable")
        keep = self._sound(logical, head, stripes, first, order)
        self.logical: U64 = logical[keep]
        self.first_stripe: I64 = first[keep]
        head = head[keep]
        self.length: U64 = head["length"].copy()
        self.end: U64 = self.logical + self.length
        self.type: U64 = head["type"].copy()
        self.stripe_len: U64 = head["stripe_len"].copy()
        self.num_stripes: I64 = head["num_stripes"].astype(np.int64)
        self.sub_stripes: I64 = head["sub_stripes"].astype(np.int64)
        self.stripe_devid: U64 = stripes["devid"].copy()
        self.stripe_offset: U64 = stripes["offset"].copy()
        self.stripe_uuid = stripes["dev_uuid"].copy()
        index = _profile_index(self.type)
        self.copies: I64 = _PROFILE_COPIES[index]
        self.parity: I64 = _PROFILE_PARITY[index]
        self._group: I64 = _PROFILE_GROUP[index]
        self.width: I64 = (self.num_stripes - self.parity) // self._group
        self._physical = self.stripe_offset.astype(np.int64)  # only used of sound chunks, where it fits

    @classmethod
    def of(cls, chunks: Iterable[tuple[int, Any]]) -> ChunkMap:
        """From (logical address, `ChunkPayload` container) pairs."""
        payloads = []
        addresses = []
        for logical, chunk in chunks:
            addresses.append(logical)
            payloads.append(ChunkPayload.build(chunk))
        size = np.array([len(payload) for payload in payloads], np.int64)
        buffer = np.frombuffer(b"".join(payloads), np.uint8)
        return cls.from_items(np.array(addresses, np.uint64), buffer, _running_start(size), size)

    @classmethod
    def from_items(cls, logical: U64, buffer: NDArray[np.uint8], position: I64, size: I64) -> ChunkMap:
        """From chunk items in a buffer: key offset, payload position and payload size of each."""
        damage: list[Damage] = []
        whole = (size >= _HEAD_SIZE) & (position >= 0) & (position + size <= len(buffer))
        damage += (Damage(int(at), "chunk item is too short", _TREE) for at in logical[~whole])
        logical, position, size = logical[whole], position[whole], size[whole]
        head = _gather(buffer, position, _HEAD_SIZE).view(columns(Chunk)).reshape(-1)
        count = head["num_stripes"].astype(np.int64)
        whole = size >= _HEAD_SIZE + _STRIPE_SIZE * count
        damage += (
            Damage(int(at), f"chunk has {n} stripes, but its item no room for them", _TREE)
            for at, n in zip(logical[~whole], count[~whole], strict=True)
        )
        logical, position, head, count = logical[whole], position[whole], head[whole], count[whole]
        nth = np.arange(count.sum()) - np.repeat(_running_start(count), count)
        stripes = _gather(buffer, np.repeat(position + _HEAD_SIZE, count) + nth * _STRIPE_SIZE, _STRIPE_SIZE)
        return cls(logical, head, stripes.view(columns(Stripe)).reshape(-1), damage)

    def __len__(self) -> int:
        return len(self.logical)

    def locate(self, logical: U64) -> I64:
        """Index of the chunk that holds each address, -1 where none does. int64[n]."""
        if not len(self):
            return np.full(len(logical), -1, np.int64)
        chunk = np.searchsorted(self.logical, logical, "right").astype(np.int64) - 1
        chunk[(chunk >= 0) & (logical >= self.end[chunk])] = -1
        return chunk

    def map_block(self, logical: U64, mirror: int = 1) -> tuple[U64, U64]:
        """(devid, physical byte offset) of each address in copy ``mirror`` (from 1), uint64[n] each.

        devid 0 (which no device has) where the address is unmapped or has no such direct copy.
        """
        chunk = self.locate(logical)
        found = (chunk >= 0) & (mirror >= 1)
        found &= np.where(found, self.copies[chunk] if len(self) else 0, 0) >= mirror
        devid = np.zeros(len(logical), np.uint64)
        physical = np.zeros(len(logical), np.uint64)
        offset = (logical[found] - self.logical[chunk[found]]).astype(np.int64)
        stripe, at = self.place(chunk[found], offset, mirror)
        devid[found] = self.stripe_devid[stripe]
        physical[found] = at.astype(np.uint64)
        return devid, physical

    def place(self, chunk: I64, offset: I64, mirror: int | I64 = 1) -> tuple[I64, I64]:
        """(index in the stripe table, byte offset on its device) of bytes given by chunk and offset."""
        unit, inner = np.divmod(offset, STRIPE_LEN)
        row, column = np.divmod(unit, self.width[chunk])
        nth = column * self._group[chunk] + (mirror - 1)
        parity = self.parity[chunk] > 0
        nth = np.where(parity, (nth + row) % self.num_stripes[chunk], nth)
        stripe = self.first_stripe[chunk] + nth
        return stripe, self._physical[stripe] + row * STRIPE_LEN + inner

    def row_stripes(self, chunk: int, row: I64) -> tuple[I64, I64]:
        """For rows of one parity chunk: (stripe index, byte offset on its device) of every column.

        Both int64[rows, num_stripes], in the order data columns, P, Q.
        """
        count = int(self.num_stripes[chunk])
        nth = (np.arange(count)[np.newaxis, :] + row[:, np.newaxis]) % count
        stripe = self.first_stripe[chunk] + nth
        return stripe, self._physical[stripe] + row[:, np.newaxis] * STRIPE_LEN

    def superblock_ranges(self) -> tuple[U64, U64]:
        """(start, end) of the logical ranges that are never allocated: uint64[k] each, sorted by start.

        Those are whole stripes (with parity: whole rows of them) that cover a superblock copy on some device, and
        whatever addresses lie below the first copy's place, as the kernel keeps them out of its free space. Two
        ranges may be the same, or overlap.
        """
        parent = np.repeat(np.arange(len(self)), self.num_stripes)
        nth = np.arange(len(parent)) - np.repeat(_running_start(self.num_stripes), self.num_stripes)
        physical = self._physical[self.first_stripe[parent] + nth]
        size = (self.length.astype(np.int64) // self.width)[parent]
        low = np.flatnonzero(self.logical < SUPERBLOCK_OFFSETS[0])
        starts = [self.logical[low]]
        ends = [np.minimum(np.uint64(SUPERBLOCK_OFFSETS[0]), self.end[low])]
        for offset in SUPERBLOCK_OFFSETS:
            hit = np.flatnonzero((physical <= offset) & (offset < physical + size))
            chunk, row = parent[hit], (offset - physical[hit]) // STRIPE_LEN
            width = self.width[chunk]
            parity = self.parity[chunk] > 0
            unit = row * width + np.where(parity, 0, nth[hit] // self._group[chunk])
            start = self.logical[chunk] + (unit * STRIPE_LEN).astype(np.uint64)
            length = np.where(parity, width, 1).astype(np.uint64) * np.uint64(STRIPE_LEN)
            starts.append(start)
            ends.append(start + np.minimum(length, self.end[chunk] - start))
        start, end = np.concatenate(starts), np.concatenate(ends)
        order = np.argsort(start, kind="stable")
        return start[order], end[order]

    def pieces(self, logical: U64, length: I64, position: I64) -> tuple[Pieces, Bool]:
        """Cut ranges at stripe and chunk boundaries (unstriped chunks: every `MAX_PIECE`).

        ``position`` is where each range begins in the caller's buffer. Also gives bool[n]: the whole range
        is mapped.
        """
        mapped = np.ones(len(logical), np.bool_)
        request: I64 = np.arange(len(logical), dtype=np.int64)
        parts = []
        while len(request):
            chunk = self.locate(logical)
            mapped[request[(chunk < 0) & (length > 0)]] = False
            use = (chunk >= 0) & (length > 0)
            if not use.all():
                request, chunk, position = request[use], chunk[use], position[use]
                logical, length = logical[use], length[use]
            room = self.end[chunk] - logical
            taken = np.minimum(length.astype(np.uint64), room).astype(np.int64)
            offset = (logical - self.logical[chunk]).astype(np.int64)
            parts.append(self._cut(Pieces(request, chunk, offset, taken, position)))
            over = taken < length
            request, position, length = request[over], (position + taken)[over], (length - taken)[over]
            logical = logical[over] + taken[over].astype(np.uint64)
        return _concatenate(parts), mapped

    def _cut(self, whole: Pieces) -> Pieces:
        """Cut ranges that lie in one chunk each."""
        unit = np.where(self.width[whole.chunk] > 1, STRIPE_LEN, MAX_PIECE)
        unit[self.parity[whole.chunk] > 0] = STRIPE_LEN
        first = whole.offset // unit
        count = (whole.offset + whole.length - 1) // unit - first + 1
        if (count == 1).all():
            return whole
        parent = np.repeat(np.arange(len(whole)), count)
        nth = np.arange(len(parent)) - np.repeat(_running_start(count), count)
        begin = np.maximum((first[parent] + nth) * unit[parent], whole.offset[parent])
        stop = np.minimum((first[parent] + nth + 1) * unit[parent], (whole.offset + whole.length)[parent])
        return Pieces(
            whole.request[parent],
            whole.chunk[parent],
            begin,
            stop - begin,
            whole.position[parent] + begin - whole.offset[parent],
        )

    def _sound(self, logical: U64, head: NDArray[np.void], stripes: NDArray[np.void], first: I64, order: I64) -> I64:
        """Indices, in order of address, of the chunks that can be used; tells of the others in ``damage``."""
        reason = broken_rules(logical, head)
        count = head["num_stripes"].astype(np.int64)
        parent = np.repeat(np.arange(len(head)), count)
        high = stripes["offset"] > np.uint64(2**63 - 1 - _MAX_CHUNK)
        for bad in parent[high].tolist():
            reason.setdefault(bad, "chunk has a stripe past the largest possible device")
        begin, end = logical[order], (logical + head["length"])[order]
        if not reason and (begin[1:] >= end[:-1]).all():
            return order
        kept = []
        reached = 0
        for index in order.tolist():
            start = int(logical[index])
            if index not in reason and start < reached:
                reason[index] = "chunk overlaps the one before it"
            if index in reason:
                self.damage.append(Damage(start, reason[index], _TREE))
            else:
                kept.append(index)
                reached = start + int(head["length"][index])
        return np.array(kept, np.int64)


_TREE = int(ObjectId.CHUNK_TREE)
_PROFILE_FLAG = np.array([int(profile.flag) for profile in PROFILES], np.uint64)
_PROFILE_COPIES = np.array([profile.copies for profile in PROFILES], np.int64)
_PROFILE_PARITY = np.array([profile.parity for profile in PROFILES], np.int64)
_PROFILE_GROUP = np.array([profile.group for profile in PROFILES], np.int64)
_PROFILE_LEAST = np.array([profile.min_stripes for profile in PROFILES], np.int64)
_PROFILE_EXACT = np.array([profile.exact for profile in PROFILES], np.bool_)


def _profile_index(flags: U64) -> I64:
    """Index in PROFILES of each chunk's profile; 0 (single) also for several profiles at once."""
    bits = flags & np.uint64(BlockGroupFlag.PROFILE_MASK)
    index: I64 = np.argmax(bits[:, np.newaxis] == _PROFILE_FLAG, axis=1)
    return index


def broken_rules(logical: U64, head: NDArray[np.void]) -> dict[int, str]:
    """Index of each chunk that the kernel would refuse to load, with the reason.

    ``logical`` u8 (n,) are their addresses, ``head`` (n,) has dtype ``columns(Chunk)``.
    """
    flags, length = head["type"], head["length"]
    count, sub = head["num_stripes"].astype(np.int64), head["sub_stripes"].astype(np.int64)
    profile = _profile_index(flags)
    group = _PROFILE_GROUP[profile]
    raid10 = (flags & np.uint64(BlockGroupFlag.RAID10)) > 0
    sector = np.uint64(4095)
    rules = (
        (count == 0, "chunk has no stripes"),
        (head["stripe_len"] != STRIPE_LEN, "chunk's stripe_len is not 65536"),
        ((length == 0) | (length & sector > 0), "chunk's length is not a positive number of sectors"),
        (length > np.uint64(_MAX_CHUNK), "chunk is impossibly long"),
        (logical & sector > 0, "chunk does not begin at a sector"),
        (logical > np.uint64(2**64 - 1) - length, "chunk reaches past the end of the address space"),
        (
            flags & np.uint64(BlockGroupFlag.TYPE_MASK) == 0,
            "chunk is neither of data, metadata nor system type",
        ),
        (
            flags & np.uint64(BlockGroupFlag.PROFILE_MASK) != _PROFILE_FLAG[profile],
            "chunk has several profiles",
        ),
        (raid10 & ((sub != 2) | (count % 2 > 0)), "raid10 chunk's stripes are not in pairs"),
        (count < _PROFILE_LEAST[profile], "chunk has too few stripes for its profile"),
        (_PROFILE_EXACT[profile] & (count > group), "chunk has too many stripes for its profile"),
        (
            (_PROFILE_PARITY[profile] == 2) & (count > _MAX_RAID6_WIDTH + 2),
            "raid6 chunk has more stripes than can be recovered",
        ),
    )
    reason: dict[int, str] = {}
    for broken, text in rules:
        for index in np.flatnonzero(broken).tolist():
            reason.setdefault(index, text)
    return reason


def _running_start(count: I64) -> I64:
    """Where each of several runs begins when they stand one after the other."""
    return np.cumsum(count) - count


def _gather(buffer: NDArray[np.uint8], position: I64, size: int) -> NDArray[np.uint8]:
    """``size`` bytes from each position: uint8[n, size], contiguous."""
    rows: NDArray[np.uint8] = buffer[position[:, np.newaxis] + np.arange(size)]
    return rows


def _concatenate(parts: list[Pieces]) -> Pieces:
    if len(parts) == 1:
        return parts[0]
    empty = np.zeros(0, np.int64)
    names = ("request", "chunk", "offset", "length", "position")
    return Pieces(*(np.concatenate([getattr(part, name) for part in parts] or [empty]) for name in names))
