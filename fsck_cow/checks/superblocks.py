"""Superblocks: the copies on each device, the devices against each other, and against what the trees say.

Facts: btrfs on-disk format documentation; what the kernel compares at mount and ``btrfs check`` when it opens a device.
A write of the log after fsync goes into the first copy alone, so copies of one generation may differ in that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cowlib.btree import TreeRoot
from cowlib.device import Device
from cowlib.errors import CowError
from cowlib.filesystem.superblocks import SuperblockCopy, superblock_copies
from cowlib.format import (
    SUPERBLOCK_MAGIC,
    SUPERBLOCK_SIZE,
    BlockGroupFlag,
    ObjectId,
    Superblock,
    SuperFlag,
    columns,
)
from fsck_cow.checks.block_groups import block_groups
from fsck_cow.checks.superblock_fields import BACKUP_TREES, CODES, check_fields, system_chunks
from fsck_cow.context import Context
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import final_check
from fsck_cow.space import CHUNK, DEVICE, block_group_tree, is_whole

#: Fields that differ from copy to copy.
_OWN_FIELDS = {"csum", "bytenr"}

#: Fields that the first copy may have newer than the others, or one device than another.
_LOG_FIELDS = {"log_root", "log_root_transid", "log_root_level"}

_METADUMP = int(SuperFlag.METADUMP | SuperFlag.METADUMP_V2)


def row_of(data: bytes) -> Any:
    """The 4096 bytes of a superblock as a row of ``columns(Superblock)``."""
    return np.frombuffer(data, columns(Superblock), 1)[0]


def check_device(device: Device) -> Iterator[Problem]:
    """All superblock copies of one device, whether its filesystem can be opened or not."""
    copies = superblock_copies(device)
    chosen = _best(copies)
    if chosen is None or chosen.data is None:
        yield Problem("superblock.missing", "no copy of the superblock is there", device=device.path)
        return
    best = row_of(chosen.data)
    # Where the filesystem ends before the device does, what stands behind it is no copy of this superblock.
    end = int(best["dev_item"]["total_bytes"])
    for copy in copies:
        if copy.data is None or (copy.index and copy.offset + SUPERBLOCK_SIZE >= end):
            continue
        if copy.fault is not None:
            yield _bad_copy(copy, chosen, best, device.path)
        elif copy is not chosen:
            yield from _compare_copy(row_of(copy.data), copy, best, chosen, device.path)
    yield from check_fields(best, device.path)


def _best(copies: list[SuperblockCopy]) -> SuperblockCopy | None:
    """The first copy that is good, else the first that can be told to be one at all."""
    good = [copy for copy in copies if copy.fault is None]
    marked = [copy for copy in copies if copy.data is not None and copy.data[64:72] == SUPERBLOCK_MAGIC]
    return next(iter(good + marked), None)


def _bad_copy(copy: SuperblockCopy, chosen: SuperblockCopy, best: Any, path: str) -> Problem:
    message = f"copy {copy.index} at byte {copy.offset}: {copy.fault}"
    if chosen.fault is not None:
        return Problem("superblock.copy-bad", message, device=path)
    if copy.data is not None and copy.data[64:72] != SUPERBLOCK_MAGIC:
        # A dump of metadata that was written back has the first copy only.
        note = copy.index and int(best["flags"]) & _METADUMP
        return Problem("superblock.copy-missing", message, Severity.NOTE if note else Severity.REPAIRABLE, device=path)
    return Problem("superblock.copy-bad", message, Severity.REPAIRABLE, device=path)


def different_fields(a: Any, b: Any, but: set[str]) -> list[str]:
    """The names of the fields in which two superblocks differ."""
    return [name for name in a.dtype.names if name not in but and a[name].tobytes() != b[name].tobytes()]


def _compare_copy(row: Any, copy: SuperblockCopy, best: Any, chosen: SuperblockCopy, path: str) -> Iterator[Problem]:
    """A good copy against the one that was chosen: as new, and the same."""
    mine, wanted = int(row["generation"]), int(best["generation"])
    if mine != wanted:
        # The copies are written one after the other: a crash in between leaves this, and the next commit mends it.
        message = f"copy {copy.index} is of another transaction than copy {chosen.index}"
        yield Problem("superblock.copy-stale", message, Severity.NOTE, device=path, found=mine, expected=wanted)
        return
    names = different_fields(row, best, _OWN_FIELDS | _LOG_FIELDS)
    if names:
        message = f"copy {copy.index} differs from copy {chosen.index} of the same generation in {', '.join(names)}"
        yield Problem("superblock.copy-differs", message, Severity.REPAIRABLE, device=path)


@final_check(
    "superblock",
    codes=(
        "superblock.missing",
        "superblock.copy-bad",
        "superblock.copy-missing",
        "superblock.copy-stale",
        "superblock.copy-differs",
        "superblock.device-stale",
        "superblock.devices-differ",
        *CODES,
    ),
    order=10,
)
def copies(ctx: Context) -> Iterator[Problem]:
    """Every copy on every device that is there."""
    first: tuple[str, Any] | None = None
    newest = int(ctx.fs.superblock.generation)
    for _, device in sorted(ctx.fs.volume.devices.items()):
        if device is None:
            continue
        yield from check_device(device)
        chosen = _best(superblock_copies(device))
        if chosen is None or chosen.data is None or chosen.fault is not None:
            continue
        row = row_of(chosen.data)
        if int(row["generation"]) < newest:
            message = "device was left behind: its superblock is older than that of others"
            found = int(row["generation"])
            yield Problem("superblock.device-stale", message, device=device.path, found=found, expected=newest)
            continue
        if first is None:
            first = device.path, row
        names = different_fields(row, first[1], _OWN_FIELDS | _LOG_FIELDS | {"dev_item"})
        if names:
            message = f"superblock differs from that of {first[0]} in {', '.join(names)}"
            yield Problem("superblock.devices-differ", message, device=device.path)


@final_check(
    "superblock",
    codes=(
        "superblock.total-bytes-wrong",
        "superblock.num-devices-wrong",
        "superblock.bytes-used-wrong",
        "superblock.address-unmapped",
    ),
    order=40,
)
def sums(ctx: Context) -> Iterator[Problem]:
    """What the superblock says of the whole is the sum of what the trees say of the parts."""
    superblock, path = ctx.fs.superblock, next(iter(ctx.fs.paths), None)
    if is_whole(ctx, ObjectId.CHUNK_TREE):
        devices = ctx.columns("devices", DEVICE)["item"]
        devices = devices[devices["devid"] != 0]
        found, expected = int(superblock.num_devices), len(devices)
        if found != expected:
            message = "num_devices is not the number of DEV_ITEMs"
            yield Problem("superblock.num-devices-wrong", message, device=path, found=found, expected=expected)
        found, expected = int(superblock.total_bytes), sum(devices["total_bytes"].tolist())
        if found != expected:
            # Kernels refuse to mount what is smaller than its devices; a larger sum they forgive.
            severity = Severity.ERROR if found < expected else Severity.NOTE
            message = "total_bytes is not the sum of the devices"
            yield Problem(
                "superblock.total-bytes-wrong", message, severity, device=path, found=found, expected=expected
            )
    if is_whole(ctx, block_group_tree(ctx)):
        found, expected = int(superblock.bytes_used), sum(block_groups(ctx)["item"]["used"].tolist())
        if found != expected:
            message = "bytes_used is not the sum of the block groups"
            yield Problem("superblock.bytes-used-wrong", message, device=path, found=found, expected=expected)
    for name in ("chunk_root", "root", "log_root") if is_whole(ctx, ObjectId.CHUNK_TREE) else ("chunk_root",):
        address = int(superblock[name])
        if address and ctx.fs.volume.chunks.locate(np.array([address], np.uint64))[0] < 0:
            message = f"no chunk holds {name}"
            yield Problem("superblock.address-unmapped", message, device=path, logical=address)


@final_check("superblock", codes=("superblock.system-array-differs",), order=41)
def system_array(ctx: Context) -> Iterator[Problem]:
    """The superblock's system chunks are those of the chunk tree."""
    if not is_whole(ctx, ObjectId.CHUNK_TREE):
        return
    try:
        logical, _, payloads = system_chunks(ctx.fs.superblock)
    except CowError:
        return
    array = dict(zip(logical.tolist(), payloads, strict=True))
    rows = ctx.columns("chunks", CHUNK)
    rows = rows[rows["item"]["type"] & np.uint64(BlockGroupFlag.SYSTEM) > 0]
    tree = {int(row["logical"]): row["item"].tobytes() + _stripes(ctx, int(row["logical"])) for row in rows}
    for address in sorted(array.keys() | tree.keys()):
        if address not in array:
            message = "a system chunk is not in the superblock's array"
        elif address not in tree:
            message = "the superblock's array has a system chunk that the chunk tree has not"
        elif array[address] != tree[address]:
            message = "a system chunk is another in the superblock's array than in the chunk tree"
        else:
            continue
        yield Problem(
            "superblock.system-array-differs", message, device=next(iter(ctx.fs.paths), None), logical=address
        )


def _stripes(ctx: Context, logical: int) -> bytes:
    """The stripes of the chunk at an address, as they stand in its item."""
    chunks = ctx.fs.volume.chunks
    chunk = int(chunks.locate(np.array([logical], np.uint64))[0])
    if chunk < 0:
        return b""
    first, count = int(chunks.first_stripe[chunk]), int(chunks.num_stripes[chunk])
    parts = []
    for stripe in range(first, first + count):
        parts += [chunks.stripe_devid[stripe].tobytes(), chunks.stripe_offset[stripe].tobytes()]
        parts.append(chunks.stripe_uuid[stripe].tobytes())
    return b"".join(parts)


@final_check("superblock", codes=("superblock.backup-differs",), order=42)
def current_backup(ctx: Context) -> Iterator[Problem]:
    """A backup root of the superblock's own transaction names the roots there are."""
    superblock = ctx.fs.superblock
    generation = int(superblock.generation)
    roots: dict[int, TreeRoot] = {root.objectid: root for root in reversed(ctx.fs.roots)}
    roots[int(ObjectId.ROOT_TREE)] = TreeRoot(
        ObjectId.ROOT_TREE, 0, int(superblock.root), int(superblock.root_level), generation
    )
    roots[int(ObjectId.CHUNK_TREE)] = TreeRoot(
        ObjectId.CHUNK_TREE,
        0,
        int(superblock.chunk_root),
        int(superblock.chunk_root_level),
        int(superblock.chunk_root_generation),
    )
    for index, backup in enumerate(superblock.super_roots):
        if not int(backup.tree_root) or int(backup.tree_root_gen) != generation:
            continue
        wrong = []
        for name, tree in BACKUP_TREES.items():
            root = roots.get(int(tree))
            # Backups are written when the next transaction may be under way: what that has changed cannot be compared.
            if root is None or not int(backup[name]) or int(backup[f"{name}_gen"]) > generation:
                continue
            if int(backup[name]) != root.bytenr or int(backup[f"{name}_level"]) != root.level:
                wrong.append(f"{name} {int(backup[name])} instead of {root.bytenr}")
        if wrong:
            message = f"backup root {index} is of this transaction and names other roots"
            path = next(iter(ctx.fs.paths), None)
            # The kernel takes the roots as they are when it writes the superblock: the next transaction may have made
            # new ones by then. Such a backup is of no use, but no fault.
            yield Problem("superblock.backup-differs", message, Severity.NOTE, device=path, found="; ".join(wrong))
