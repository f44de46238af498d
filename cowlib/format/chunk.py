"""Chunks: which bytes of which devices stand behind a range of logical addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from construct import Array, Bytes, this

from cowlib.errors import DamagedError, NoSpaceError
from cowlib.format.common import DiskKey
from cowlib.format.constants import SYSTEM_CHUNK_ARRAY_SIZE, UUID_SIZE
from cowlib.format.declare import Struct, UntilEnd, build_whole, counted, u16, u32, u64
from cowlib.format.keys import KeyType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from construct import Container

Stripe = Struct(
    "devid" / u64 * "device",
    "offset" / u64 * "bytes on the device",
    "dev_uuid" / Bytes(UUID_SIZE) * "the device's UUID",
)
"""One device extent of a chunk."""

Chunk = Struct(
    "length" / u64 * "bytes of logical address space",
    "owner" / u64 * "object id of the extent tree",
    "stripe_len" / u64 * "bytes; 65536",
    "type" / u64 * "BlockGroupFlag",
    "io_align" / u32 * "bytes",
    "io_width" / u32 * "bytes",
    "sector_size" / u32 * "bytes",
    "num_stripes" / u16 * "number of stripes that follow",
    "sub_stripes" / u16 * "copies within a raid10 stripe: 2; else 0 or 1",
)
"""The fixed head of a chunk, which `num_stripes` stripes follow.

Chunk tree, key (FIRST_CHUNK_TREE, CHUNK_ITEM, logical address in bytes); those of type SYSTEM stand in the
superblock's array as well.
"""

ChunkPayload = Struct(
    *counted(Chunk, num_stripes="stripes"),
    "stripes" / Array(this.num_stripes, Stripe) * "in the order the profile uses them",
)
"""A whole chunk item."""

RaidStride = Struct(
    "devid" / u64 * "device",
    "physical" / u64 * "bytes on the device",
)
"""Where one device has its part of a data extent, on filesystems that place stripes extent by extent."""

RaidStripePayload = Struct("strides" / UntilEnd(RaidStride))
"""A whole stripe extent. RAID stripe tree, key (logical address, RAID_STRIPE, bytes)."""

_SystemChunk = Struct("key" / DiskKey, "chunk" / ChunkPayload)


def parse_sys_chunk_array(array: bytes, size: int) -> list[tuple[Container, Container]]:
    """The system chunks in the first `size` bytes of a superblock's array: (DiskKey, ChunkPayload) each.

    Raises DamagedError if `size` is more than the array has, if an entry is cut off or is not a chunk, or if
    a chunk has no stripe.
    """
    if size > min(len(array), SYSTEM_CHUNK_ARRAY_SIZE):
        raise DamagedError(f"system chunk array of {size} bytes: {SYSTEM_CHUNK_ARRAY_SIZE} is the most")
    entries = []
    start = 0
    while start < size:
        stripes = start + DiskKey.sizeof() + Chunk.sizeof()
        if stripes > size:
            raise DamagedError(f"system chunk array ends inside the chunk at its byte {start}")
        key = DiskKey.parse(array[start:])
        if key.type != KeyType.CHUNK_ITEM:
            raise DamagedError(f"system chunk array holds a key of type {key.type}")
        count = Chunk.parse(array[start + DiskKey.sizeof() :]).num_stripes
        if not count:
            raise DamagedError(f"system chunk at {key.offset} has no stripes")
        end = stripes + count * Stripe.sizeof()
        if end > size:
            raise DamagedError(f"system chunk at {key.offset} has {count} stripes, the array no room for them")
        entries.append((key, ChunkPayload.parse(array[start + DiskKey.sizeof() : end])))
        start = end
    return entries


def build_sys_chunk_array(chunks: Iterable[tuple[Container, Container]]) -> bytes:
    """The used part of a superblock's array: its length is `sys_chunk_array_size`, zeros follow it on disk.

    Raises NoSpaceError if the chunks do not fit, UsageError if they cannot be built.
    """
    entries = [{"key": key, "chunk": chunk} for key, chunk in chunks]
    array = build_whole(UntilEnd(_SystemChunk), entries, "system chunk array")
    if len(array) > SYSTEM_CHUNK_ARRAY_SIZE:
        raise NoSpaceError(f"system chunks take {len(array)} bytes: {SYSTEM_CHUNK_ARRAY_SIZE} is the most")
    return array
