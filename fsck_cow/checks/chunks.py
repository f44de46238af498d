"""Chunks and the device extents under them: the shape of each, and that every stripe has its extent and the reverse.

Facts: btrfs on-disk format documentation, what the kernel refuses in its tree checker and when it reads the chunk and
device trees at mount, what ``btrfs check`` compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np

from cowlib.btree.nodes import U64, Mask
from cowlib.format import (
    DEVICE_RANGE_RESERVED,
    BlockGroupFlag,
    Chunk,
    DevExtent,
    IncompatFeature,
    KeyType,
    ObjectId,
    Stripe,
    columns,
)
from cowlib.volume import ChunkMap, broken_rules
from fsck_cow.batch import LeafBatch
from fsck_cow.context import Context, Rows
from fsck_cow.intervals import overlaps
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.space import CHUNK, DEVICE, DEVICE_EXTENT, find_pairs, is_whole, keyed, rows_where, wrong_sizes

_HEAD, _STRIPE = columns(Chunk).itemsize, columns(Stripe).itemsize

_MIXED = int(BlockGroupFlag.DATA | BlockGroupFlag.METADATA)

_KNOWN_FLAGS = int(BlockGroupFlag.TYPE_MASK | BlockGroupFlag.PROFILE_MASK | BlockGroupFlag.REMAPPED)


def _chunk_problem(logical: Any, code: str, message: str, **more: Any) -> Problem:
    key = (int(ObjectId.FIRST_CHUNK_TREE), int(KeyType.CHUNK_ITEM), int(logical))
    return Problem(code, message, logical=int(logical), tree=int(ObjectId.CHUNK_TREE), key=key, **more)


def _extent_problem(row: Any, code: str, message: str, **more: Any) -> Problem:
    key = (int(row["devid"]), int(KeyType.DEV_EXTENT), int(row["physical"]))
    return Problem(code, message, tree=int(ObjectId.DEV_TREE), key=key, **more)


@leaf_check("chunk", Kind.CHUNKS, codes=("chunk.item-size",))
def gather_chunks(ctx: Context, batch: LeafBatch) -> Iterator[Problem]:
    """CHUNK_ITEMs are as long as their stripes make them."""
    heads = batch.heads(Chunk, KeyType.CHUNK_ITEM)
    short = batch.items.of_type(KeyType.CHUNK_ITEM)
    yield from wrong_sizes(batch, short.select(short.size < _HEAD), _HEAD + _STRIPE, "chunk.item-size")
    expected = _HEAD + _STRIPE * heads.rows["num_stripes"].astype(np.int64)
    yield from wrong_sizes(batch, heads.items, expected, "chunk.item-size")
    ctx.gather("chunks", keyed(CHUNK, heads, "objectid", "logical"))


@leaf_check("chunk", Kind.DEVICES, codes=("chunk.device-extent-size", "chunk.tree-uuid-wrong"))
def gather_device_extents(ctx: Context, batch: LeafBatch) -> Iterator[Problem]:
    """DEV_EXTENTs have their size, and name the chunk tree that their leaf's header names."""
    items = batch.items.of_type(KeyType.DEV_EXTENT)
    yield from wrong_sizes(batch, items, columns(DevExtent).itemsize, "chunk.device-extent-size")
    heads = batch.heads(DevExtent, KeyType.DEV_EXTENT)
    rows = keyed(DEVICE_EXTENT, heads, "devid", "physical")
    ctx.gather("device-extents", rows)
    wanted = batch.nodes.header["chunk_tree_uuid"][heads.items.node]
    named = heads.rows["chunk_tree_uuid"]
    for i in rows_where((named != wanted) & (named != np.void(bytes(16)))):
        found, expected = (str(UUID(bytes=bytes(value))) for value in (named[i], wanted[i]))
        message = "device extent names another chunk tree"
        yield _extent_problem(rows[i], "chunk.tree-uuid-wrong", message, found=found, expected=expected)


@final_check(
    "chunk",
    codes=("chunk.unusable", "chunk.flags-wrong", "chunk.field-wrong", "chunk.overlap"),
    order=25,
)
def shapes(ctx: Context) -> Iterator[Problem]:
    """Each chunk has a shape its profile allows, and no two cover the same addresses."""
    rows = ctx.columns("chunks", CHUNK)
    logical, item = rows["logical"], rows["item"]
    broken = broken_rules(logical, item)
    for i, reason in sorted(broken.items()):
        yield _chunk_problem(logical[i], "chunk.unusable", reason)
    yield from flag_faults(ctx.fs.superblock, logical, item)
    sector = np.uint64(ctx.fs.sectorsize)
    fields = (
        ("objectid", rows["objectid"], int(ObjectId.FIRST_CHUNK_TREE)),
        ("owner", item["owner"], int(ObjectId.EXTENT_TREE)),
        ("sector_size", item["sector_size"], ctx.fs.sectorsize),
        ("logical % sectorsize", logical % sector, 0),
        ("length % sectorsize", item["length"] % sector, 0),
    )
    for name, values, expected in fields:
        for i in rows_where(values != expected):
            message = f"{name} of a chunk is wrong"
            yield _chunk_problem(logical[i], "chunk.field-wrong", message, found=int(values[i]), expected=expected)
    sound = np.delete(np.arange(len(rows)), sorted(broken))
    start = logical[sound]
    late, early = overlaps(start, start + item["length"][sound])
    for i, k in zip(late.tolist(), early.tolist(), strict=True):
        yield _chunk_problem(start[i], "chunk.overlap", f"chunk begins inside the one at {int(start[k])}")


def flag_faults(superblock: Any, logical: U64, item: Rows) -> Iterator[Problem]:
    """What chunks hold goes together: system alone, data with metadata only where the filesystem is mixed."""
    flags = item["type"]
    mixed = bool(int(superblock["incompat_flags"]) & IncompatFeature.MIXED_GROUPS)
    both = (flags & np.uint64(_MIXED)) == _MIXED
    with_system = (flags & np.uint64(BlockGroupFlag.SYSTEM) > 0) & (flags & np.uint64(_MIXED) > 0)
    rules: list[tuple[Mask, str]] = [
        (flags & ~np.uint64(_KNOWN_FLAGS) > 0, "chunk has flags that there are not"),
        (with_system, "a system chunk is for data or metadata, too"),
    ]
    if not mixed:
        rules.append((both, "chunk is for data and metadata, but the filesystem has no mixed block groups"))
    for wrong, message in rules:
        for i in rows_where(wrong):
            yield _chunk_problem(logical[i], "chunk.flags-wrong", message, found=hex(int(flags[i])))


@final_check(
    "chunk",
    codes=("chunk.stripe-device-wrong", "chunk.stripe-outside", "chunk.stripe-unaligned", "chunk.reserved-space"),
    order=26,
)
def stripes(ctx: Context) -> Iterator[Problem]:
    """Every stripe lies on a device that there is, inside of it and behind its first MiB."""
    chunks = ctx.fs.volume.chunks
    if not is_whole(ctx, ObjectId.CHUNK_TREE) or not len(chunks):
        return
    stripe, parent, length = _stripes(chunks)
    devid, start = chunks.stripe_devid[stripe], chunks.stripe_offset[stripe]
    devices = ctx.columns("devices", DEVICE)["item"]
    order = np.argsort(devices["devid"], kind="stable")
    at = np.searchsorted(devices["devid"][order], devid)
    known = at < len(order)
    known[known] = devices["devid"][order[at[known]]] == devid[known]
    row = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(at), np.int64)
    tell = partial(_stripe_problem, chunks.logical[parent], devid, start)
    for i in rows_where(~known):
        yield tell(i, "chunk.stripe-device-wrong", "no DEV_ITEM has this id")
    good = np.flatnonzero(known)
    uuid = chunks.stripe_uuid[stripe]
    for i in good[uuid[good] != devices["uuid"][row[good]]].tolist():
        found, expected = (str(UUID(bytes=bytes(v))) for v in (uuid[i], devices["uuid"][row[i]]))
        yield tell(i, "chunk.stripe-device-wrong", "the device has another UUID", found=found, expected=expected)
    for i in good[start[good] + length[good] > devices["total_bytes"][row[good]]].tolist():
        end, size = int(start[i] + length[i]), int(devices["total_bytes"][row[i]])
        yield tell(i, "chunk.stripe-outside", "reaches past the device's end", found=end, expected=f"at most {size}")
    for i in rows_where(start % np.uint64(ctx.fs.sectorsize) > 0):
        yield tell(i, "chunk.stripe-unaligned", "does not begin at a sector", found=int(start[i]))
    # Where early mkfs put its first chunks; the superblock in it is kept out of the free space.
    for i in rows_where(start < DEVICE_RANGE_RESERVED):
        yield tell(
            i,
            "chunk.reserved-space",
            "lies in the first MiB of the device",
            severity=Severity.NOTE,
            found=int(start[i]),
        )


def _stripe_problem(logical: U64, devid: U64, start: U64, i: int, code: str, message: str, **more: Any) -> Problem:
    return _chunk_problem(logical[i], code, f"stripe at {int(start[i])} of device {int(devid[i])}: {message}", **more)


def _stripes(chunks: ChunkMap) -> tuple[Any, Any, U64]:
    """(index in the stripe table, chunk, bytes on its device) of every stripe of every usable chunk."""
    count = chunks.num_stripes
    parent = np.repeat(np.arange(len(chunks)), count)
    nth = np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count)
    length = chunks.length // chunks.width.astype(np.uint64)
    return chunks.first_stripe[parent] + nth, parent, length[parent]


@final_check(
    "chunk",
    codes=("chunk.device-extent-field-wrong", "chunk.device-extent-overlap", "chunk.reserved-space"),
    order=27,
)
def device_extents(ctx: Context) -> Iterator[Problem]:
    """Device extents by themselves: fields, alignment, no two over the same bytes, all inside their device."""
    rows = ctx.columns("device-extents", DEVICE_EXTENT)
    item, sector = rows["item"], np.uint64(ctx.fs.sectorsize)
    fields = (
        ("chunk_tree", item["chunk_tree"], int(ObjectId.CHUNK_TREE)),
        ("chunk_objectid", item["chunk_objectid"], int(ObjectId.FIRST_CHUNK_TREE)),
        ("physical % sectorsize", rows["physical"] % sector, 0),
        ("chunk_offset % sectorsize", item["chunk_offset"] % sector, 0),
        ("length % sectorsize", item["length"] % sector, 0),
    )
    for name, values, expected in fields:
        for i in rows_where(values != expected):
            yield _extent_problem(
                rows[i],
                "chunk.device-extent-field-wrong",
                f"{name} of a device extent is wrong",
                found=int(values[i]),
                expected=expected,
            )
    order = np.lexsort((rows["physical"], rows["devid"]))
    ordered = rows[order]
    same = ordered["devid"][1:] == ordered["devid"][:-1]
    before = ordered[:-1]
    late = same & (ordered["physical"][1:] - before["physical"] < before["item"]["length"])
    for i in rows_where(late):
        yield _extent_problem(
            ordered[i + 1],
            "chunk.device-extent-overlap",
            f"device extent begins inside the one at {int(before['physical'][i])}",
        )


@final_check(
    "chunk",
    codes=("chunk.device-extent-missing", "chunk.device-extent-orphan", "chunk.device-extent-differs"),
    order=28,
)
def extents_of_stripes(ctx: Context) -> Iterator[Problem]:
    """Every stripe has its device extent, and every device extent its stripe."""
    chunks = ctx.fs.volume.chunks
    if not is_whole(ctx, ObjectId.CHUNK_TREE, ObjectId.DEV_TREE) or not len(chunks):
        return
    rows = ctx.columns("device-extents", DEVICE_EXTENT)
    stripe, parent, length = _stripes(chunks)
    devid, start, logical = chunks.stripe_devid[stripe], chunks.stripe_offset[stripe], chunks.logical[parent]
    tell = partial(_stripe_problem, logical, devid, start)
    extent = find_pairs((rows["devid"], rows["physical"]), (devid, start))
    for i in rows_where(extent < 0):
        yield tell(i, "chunk.device-extent-missing", "is not found in the device tree", expected=int(length[i]))
    paired = np.flatnonzero(extent >= 0)
    item = rows["item"][extent[paired]]
    differs = (item["chunk_offset"] != logical[paired]) | (item["length"] != length[paired])
    for i, row in zip(paired[differs].tolist(), item[differs], strict=True):
        found = f"{int(row['length'])} bytes of chunk {int(row['chunk_offset'])}"
        expected = f"{int(length[i])} bytes of chunk {int(logical[i])}"
        message = "the device extent is of another chunk or length"
        yield tell(i, "chunk.device-extent-differs", message, found=found, expected=expected)
    # Chunks that are unusable, and told of already, are in nobody's map: their extents are no orphans.
    unusable = set(ctx.columns("chunks", CHUNK)["logical"].tolist()) - set(chunks.logical.tolist())
    orphan = find_pairs((devid, start), (rows["devid"], rows["physical"])) < 0
    for i in rows_where(orphan):
        if int(rows["item"]["chunk_offset"][i]) in unusable:
            continue
        yield _extent_problem(
            rows[i],
            "chunk.device-extent-orphan",
            f"no chunk has a stripe here; the device extent names chunk {int(rows['item']['chunk_offset'][i])}",
        )
