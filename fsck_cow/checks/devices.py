"""Devices: the chunk tree's DEV_ITEMs against each other, the superblocks and the devices given; what the device tree
keeps of them besides their extents.

Facts: btrfs on-disk format documentation, what the kernel's tree checker refuses, what ``btrfs check`` compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np

from cowlib.filesystem.superblocks import superblock_copies
from cowlib.format import (
    DevItem,
    DevReplaceItem,
    DevReplaceState,
    KeyType,
    ObjectId,
    Superblock,
    columns,
)
from fsck_cow.batch import LeafBatch
from fsck_cow.checks.reporting import report_items
from fsck_cow.context import Context, Rows
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check
from fsck_cow.space import (
    DEVICE,
    DEVICE_EXTENT,
    is_whole,
    keyed,
    rows_where,
    strangers,
    wrong_sizes,
)

_TREE = int(ObjectId.CHUNK_TREE)


def _key(row: Any) -> tuple[int, int, int]:
    return int(row["objectid"]), int(KeyType.DEV_ITEM), int(row["devid"])


def _problem(row: Any, code: str, message: str, **more: Any) -> Problem:
    return Problem(code, message, tree=_TREE, key=_key(row), **more)


@leaf_check("device", Kind.CHUNKS, codes=("device.item-size", "chunk.stranger"))
def gather_devices(ctx: Context, batch: LeafBatch) -> Iterator[Problem]:
    """DEV_ITEMs have their size, and nothing but devices and chunks stands in the chunk tree."""
    yield from strangers(batch, (KeyType.DEV_ITEM, KeyType.CHUNK_ITEM), "chunk.stranger")
    items = batch.items.of_type(KeyType.DEV_ITEM)
    yield from wrong_sizes(batch, items, columns(DevItem).itemsize, "device.item-size")
    ctx.gather("devices", keyed(DEVICE, batch.heads(DevItem, KeyType.DEV_ITEM), "objectid", "devid"))


@leaf_check("device", Kind.DEVICES, codes=("device.stats-broken", "device.replace-broken", "device.stranger"))
def statistics(ctx: Context, batch: LeafBatch) -> Iterator[Problem]:
    """DEV_STATS and DEV_REPLACE items have the keys and sizes that the kernel reads."""
    known = (KeyType.DEV_EXTENT, KeyType.PERSISTENT_ITEM, KeyType.DEV_REPLACE)
    yield from strangers(batch, known, "device.stranger")
    items = batch.items.of_type(KeyType.PERSISTENT_ITEM)
    wrong = (items.objectid != ObjectId.DEV_STATS) | (items.size % 8 != 0) | (items.size == 0)
    message = f"device statistics do not have object id {int(ObjectId.DEV_STATS)} and some numbers of 8 bytes"
    yield from report_items(
        "device.stats-broken", message, items, wrong & items.in_bounds, tree=batch.tree, found=items.size
    )
    items = batch.items.of_type(KeyType.DEV_REPLACE)
    yield from wrong_sizes(batch, items, columns(DevReplaceItem).itemsize, "device.replace-broken")
    heads = batch.heads(DevReplaceItem, KeyType.DEV_REPLACE)
    items, state = heads.items, heads.rows["replace_state"]
    wrong = (items.objectid != ObjectId.DEV_REPLACE) | (items.offset != 0)
    wrong |= (state > max(DevReplaceState)) | (heads.rows["cont_reading_from_srcdev_mode"] > 1)
    message = "device replacement has a key, mode or state that there is not"
    yield from report_items("device.replace-broken", message, items, wrong, tree=batch.tree, found=state)


@final_check(
    "device",
    codes=(
        "device.key-wrong",
        "device.duplicate",
        "device.bytes-used-wrong",
        "device.total-bytes-wrong",
        "device.fsid-wrong",
        "device.sizes-odd",
    ),
    order=20,
)
def device_items(ctx: Context) -> Iterator[Problem]:
    """Each DEV_ITEM by itself, and against the extents of its device."""
    rows = ctx.columns("devices", DEVICE)
    item = rows["item"]
    for i in rows_where((rows["objectid"] != ObjectId.DEV_ITEMS) | (rows["devid"] != item["devid"])):
        expected = (int(ObjectId.DEV_ITEMS), int(KeyType.DEV_ITEM), int(item["devid"][i]))
        yield _problem(rows[i], "device.key-wrong", "device is not the one that its key names", expected=expected)
    for name in ("devid", "uuid"):
        values = item[name].tolist()
        seen: set[Any] = set()
        for i, value in enumerate(values):
            if value in seen:
                yield _problem(rows[i], "device.duplicate", f"another device has the same {name} {_show(value)}")
            seen.add(value)
    for i in rows_where((item["total_bytes"] == 0) | (item["bytes_used"] > item["total_bytes"])):
        used, total = int(item["bytes_used"][i]), int(item["total_bytes"][i])
        yield _problem(
            rows[i], "device.bytes-used-wrong", f"{used} bytes are allocated of a device that has {total}", found=used
        )
    yield from _used(ctx, rows)
    yield from _fsids(ctx, rows)
    sector = ctx.fs.sectorsize
    for i in rows_where(item["total_bytes"] % np.uint64(sector) != 0):
        message = f"size is not a whole number of sectors of {sector} bytes"
        found = int(item["total_bytes"][i])
        yield _problem(rows[i], "device.total-bytes-wrong", message, severity=Severity.NOTE, found=found)
    # No kernel reads these; a value of its own still tells that something else wrote the item.
    for name, usual in (("type", 0), ("generation", 0), ("start_offset", 0), ("dev_group", 0), ("sector_size", sector)):
        for i in rows_where(item[name] != usual):
            found = int(item[name][i])
            yield _problem(
                rows[i], "device.sizes-odd", f"{name} is unusual", severity=Severity.NOTE, found=found, expected=usual
            )


def _used(ctx: Context, rows: Rows) -> Iterator[Problem]:
    """bytes_used is the sum of a device's extents."""
    if not is_whole(ctx, ObjectId.CHUNK_TREE, ObjectId.DEV_TREE):
        return
    extents = ctx.columns("device-extents", DEVICE_EXTENT)
    order = np.argsort(extents["devid"], kind="stable")
    running = np.concatenate([[0], np.cumsum(extents["item"]["length"][order])]).astype(np.uint64)
    ids = extents["devid"][order]
    devid = rows["item"]["devid"]
    total = running[np.searchsorted(ids, devid, "right")] - running[np.searchsorted(ids, devid, "left")]
    for i in rows_where(total != rows["item"]["bytes_used"]):
        yield _problem(
            rows[i],
            "device.bytes-used-wrong",
            "bytes_used is not the sum of the device's extents",
            found=int(rows["item"]["bytes_used"][i]),
            expected=int(total[i]),
        )


def _fsids(ctx: Context, rows: Rows) -> Iterator[Problem]:
    """A device belongs to this filesystem; a device that is not there may be the seed it has grown from."""
    own = ctx.fs.reader.fsid
    for i in rows_where(rows["item"]["fsid"] != np.void(own)):
        present = ctx.fs.volume.devices.get(int(rows["item"]["devid"][i])) is not None
        message = "belongs to another filesystem" + ("" if present else ": a seed device")
        yield _problem(
            rows[i],
            "device.fsid-wrong",
            message,
            severity=Severity.ERROR if present else Severity.NOTE,
            found=str(UUID(bytes=bytes(rows["item"]["fsid"][i]))),
            expected=str(UUID(bytes=own)),
        )


def _show(value: Any) -> str:
    return str(UUID(bytes=value)) if isinstance(value, bytes) else str(value)


@final_check(
    "device",
    codes=("device.missing", "device.unknown", "device.too-small", "device.superblock-differs"),
    order=21,
)
def devices_given(ctx: Context) -> Iterator[Problem]:
    """The devices there are those the chunk tree knows, as large as it says, and their superblocks agree."""
    rows = ctx.columns("devices", DEVICE)
    known = {int(devid): rows[i] for i, devid in enumerate(rows["item"]["devid"].tolist())}
    devices = ctx.fs.volume.devices
    whole = is_whole(ctx, ObjectId.CHUNK_TREE)
    for devid in sorted({*known, *ctx.fs.volume.missing}):
        if devices.get(devid) is None and (devid in known or not whole):
            yield Problem("device.missing", f"device {devid} is missing", Severity.NOTE)
    for devid, device in sorted(devices.items()):
        if device is None:
            continue
        row = known.get(devid)
        if row is None:
            if whole:
                yield Problem("device.unknown", f"no DEV_ITEM has its id {devid}", device=device.path)
            continue
        if int(row["item"]["total_bytes"]) > device.size:
            yield _problem(
                row,
                "device.too-small",
                "device is smaller than the filesystem takes it for",
                device=device.path,
                found=device.size,
                expected=int(row["item"]["total_bytes"]),
            )
        for copy in superblock_copies(device):
            if copy.fault is None and copy.data is not None:
                yield from _own_item(copy.data, row, device.path, ctx)
                break


def _own_item(data: bytes, row: Any, path: str, ctx: Context) -> Iterator[Problem]:
    """What a device's superblock says of the device is what the chunk tree says."""
    superblock = np.frombuffer(data, columns(Superblock), 1)[0]
    if int(superblock["generation"]) != int(ctx.fs.superblock.generation):
        return
    mine, item = superblock["dev_item"], row["item"]
    for name in columns(DevItem).names or ():
        if mine[name].tobytes() != item[name].tobytes():
            found, expected = (v.tobytes().hex() if v.dtype.kind == "V" else int(v) for v in (mine[name], item[name]))
            message = f"the superblock says another {name} of its device than the chunk tree"
            yield _problem(row, "device.superblock-differs", message, device=path, found=found, expected=expected)
