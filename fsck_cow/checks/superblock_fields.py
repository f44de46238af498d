"""One superblock by itself: every field that has a rule, whichever copy it stands in.

Facts: btrfs on-disk format documentation, what the kernel and ``btrfs check`` refuse before they read anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntFlag
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from cowlib.errors import CowError
from cowlib.format import (
    MAX_LEVEL,
    MAX_METADATA_BLOCKSIZE,
    SYSTEM_CHUNK_ARRAY_SIZE,
    BlockGroupFlag,
    Chunk,
    ChunkPayload,
    CompatRoFeature,
    IncompatFeature,
    ObjectId,
    SuperFlag,
    columns,
    parse_sys_chunk_array,
)
from cowlib.volume import broken_rules
from fsck_cow.problems import Problem, Severity

CODES = (
    "superblock.field-wrong",
    "superblock.address-wrong",
    "superblock.generation-wrong",
    "superblock.flags-unknown",
    "superblock.flags-odd",
    "superblock.feature-unknown",
    "superblock.features-contradict",
    "superblock.fsid-wrong",
    "superblock.label-open",
    "superblock.system-array-broken",
    "superblock.backup-wrong",
)

#: The trees that a backup root names, by the start of its fields' names.
BACKUP_TREES = {
    "tree_root": ObjectId.ROOT_TREE,
    "chunk_root": ObjectId.CHUNK_TREE,
    "extent_root": ObjectId.EXTENT_TREE,
    "fs_root": ObjectId.FS_TREE,
    "dev_root": ObjectId.DEV_TREE,
    "csum_root": ObjectId.CSUM_TREE,
}

#: `cache_generation` where the filesystem never had an old free-space cache.
NO_CACHE = 2**64 - 1

_LEAST_SECTOR = 4096

#: The fewest nodes there can be, as the kernel counts: one for each tree it cannot do without.
_LEAST_NODES = 6

Rule = tuple[str, bool, str, Any, Any]
"""A code, whether the rule is broken, and of the problem: message, found, expected."""


def check_fields(superblock: Any, path: str) -> Iterator[Problem]:
    """All rules of one superblock that has magic and checksum; ``superblock`` is a row of ``columns(Superblock)``."""
    for rules in (_sizes, _addresses, _generations, _identity):
        for code, broken, message, found, expected in rules(superblock):
            if broken:
                yield Problem(code, message, device=path, found=found, expected=expected)
    yield from _flags(superblock, path)
    yield from _features(superblock, path)
    yield from _system_array(superblock, path)
    yield from _backups(superblock, path)


def _field(name: str, broken: bool, found: int, expected: Any) -> Rule:
    return "superblock.field-wrong", broken, f"{name} is wrong", found, expected


def _is_block_size(value: int, least: int) -> bool:
    return least <= value <= MAX_METADATA_BLOCKSIZE and value & (value - 1) == 0


def _sizes(superblock: Any) -> Iterator[Rule]:
    sector, node, leaf, stripe = (int(superblock[f"{name}size"]) for name in ("sector", "node", "leaf", "stripe"))
    power = "a power of two from {} to " + str(MAX_METADATA_BLOCKSIZE)
    yield _field("sectorsize", not _is_block_size(sector, _LEAST_SECTOR), sector, power.format(_LEAST_SECTOR))
    yield _field("nodesize", not _is_block_size(node, max(sector, _LEAST_SECTOR)), node, power.format("sectorsize"))
    yield _field("leafsize", leaf != node, leaf, f"nodesize, {node}")
    yield _field("stripesize", stripe != sector, stripe, f"sectorsize, {sector}")
    total, used, devices = (int(superblock[name]) for name in ("total_bytes", "bytes_used", "num_devices"))
    yield _field("total_bytes", total == 0, total, "more than 0")
    least = _LEAST_NODES * node
    yield _field("bytes_used", used < least or used > total > 0, used, f"{least} to total_bytes, {total}")
    yield _field("num_devices", devices == 0, devices, "at least 1")
    for name in ("root_level", "chunk_root_level", "log_root_level"):
        level = int(superblock[name])
        yield _field(name, level >= MAX_LEVEL, level, f"less than {MAX_LEVEL}")
    directory = int(superblock["root_dir_objectid"])
    yield _field("root_dir_objectid", directory != ObjectId.ROOT_TREE_DIR, directory, int(ObjectId.ROOT_TREE_DIR))


def _addresses(superblock: Any) -> Iterator[Rule]:
    sector = max(int(superblock["sectorsize"]), 1)
    for name in ("root", "chunk_root", "log_root"):
        address = int(superblock[name])
        broken = address % sector > 0 or (address == 0 and name == "root")
        expected = f"a multiple of {sector}"
        yield "superblock.address-wrong", broken, f"{name} is no address of a block", address, expected


def _generations(superblock: Any) -> Iterator[Rule]:
    generation = int(superblock["generation"])
    yield "superblock.generation-wrong", generation == 0, "generation is 0", 0, "at least 1"
    for name in ("chunk_root_generation", "cache_generation", "uuid_tree_generation"):
        value = int(superblock[name])
        broken = value > generation and not (name == "cache_generation" and value == NO_CACHE)
        yield "superblock.generation-wrong", broken, f"{name} is in the future", value, f"at most {generation}"


def metadata_uuid(superblock: Any) -> bytes:
    """The filesystem id that nodes and device items carry."""
    changed = int(superblock["incompat_flags"]) & IncompatFeature.METADATA_UUID
    return bytes(superblock["metadata_uuid"] if changed else superblock["fsid"])


def _identity(superblock: Any) -> Iterator[Rule]:
    found, expected = bytes(superblock["dev_item"]["fsid"]), metadata_uuid(superblock)
    yield (
        "superblock.fsid-wrong",
        found != expected,
        "its device item belongs to another filesystem",
        str(UUID(bytes=found)),
        str(UUID(bytes=expected)),
    )
    label = bytes(superblock["label"])
    yield "superblock.label-open", 0 not in label, "label does not end with a zero byte", label[-8:].hex(), "00"


def names_of(bits: int, flags: type[IntFlag]) -> str:
    """Each bit that is set, by name if it has one."""
    known = {int(flag): flag.name for flag in flags}
    return ", ".join(known.get(1 << n) or f"bit {n}" for n in range(bits.bit_length()) if bits >> n & 1)


def _known(flags: type[IntFlag]) -> int:
    return sum(int(flag) for flag in flags)


def _flags(superblock: Any, path: str) -> Iterator[Problem]:
    flags = int(superblock["flags"])
    unknown = flags & ~_known(SuperFlag)
    if unknown:
        message = f"flags have {names_of(unknown, SuperFlag)}, which there is not"
        yield Problem("superblock.flags-unknown", message, device=path, found=hex(flags))
    odd = flags & (_known(SuperFlag) & ~int(SuperFlag.WRITTEN | SuperFlag.RELOC | SuperFlag.SEEDING))
    if odd:
        message = f"flags tell of {names_of(odd, SuperFlag)}"
        yield Problem("superblock.flags-odd", message, Severity.NOTE, device=path, found=hex(flags))


def _features(superblock: Any, path: str) -> Iterator[Problem]:
    for name, known in (("incompat_flags", IncompatFeature), ("compat_ro_flags", CompatRoFeature)):
        found = int(superblock[name])
        unknown = found & ~_known(known)
        if unknown:
            message = f"{name} have {names_of(unknown, known)}, which nobody knows"
            yield Problem("superblock.feature-unknown", message, device=path, found=hex(found))
    if int(superblock["compat_flags"]):
        message = "compat_flags are set; none is defined"
        found_flags = hex(int(superblock["compat_flags"]))
        yield Problem("superblock.feature-unknown", message, Severity.NOTE, device=path, found=found_flags)
    incompat, read_only = int(superblock["incompat_flags"]), int(superblock["compat_ro_flags"])
    valid = int(CompatRoFeature.FREE_SPACE_TREE | CompatRoFeature.FREE_SPACE_TREE_VALID)
    rules = (
        (
            read_only & CompatRoFeature.BLOCK_GROUP_TREE
            and (read_only & valid != valid or not incompat & IncompatFeature.NO_HOLES),
            "BLOCK_GROUP_TREE needs NO_HOLES and a valid FREE_SPACE_TREE",
        ),
        (read_only & valid == CompatRoFeature.FREE_SPACE_TREE_VALID, "a FREE_SPACE_TREE is valid that there is not"),
        (
            incompat & IncompatFeature.MIXED_GROUPS and int(superblock["nodesize"]) != int(superblock["sectorsize"]),
            "MIXED_GROUPS needs nodes as large as sectors",
        ),
    )
    for broken, message in rules:
        if broken:
            found_flags = f"incompat {hex(incompat)}, compat_ro {hex(read_only)}"
            yield Problem("superblock.features-contradict", message, device=path, found=found_flags)


def system_chunks(superblock: Any) -> tuple[npt.NDArray[np.uint64], npt.NDArray[Any], list[bytes]]:
    """The system chunk array: logical addresses u8, heads ``columns(Chunk)``, and each whole chunk as bytes.

    Raises DamagedError where it cannot be taken apart.
    """
    size = int(superblock["sys_chunk_array_size"])
    entries = parse_sys_chunk_array(bytes(superblock["sys_chunk_array"]), size)
    payloads = [bytes(ChunkPayload.build(chunk)) for _, chunk in entries]
    width = columns(Chunk).itemsize
    heads = np.frombuffer(b"".join(payload[:width] for payload in payloads), columns(Chunk))
    return np.array([int(key.offset) for key, _ in entries], np.uint64), heads, payloads


def _system_array(superblock: Any, path: str) -> Iterator[Problem]:
    """The array holds at least one chunk, whole ones, all of them system chunks that can be used."""

    def problem(message: str, logical: int | None = None) -> Problem:
        return Problem("superblock.system-array-broken", message, device=path, logical=logical)

    size = int(superblock["sys_chunk_array_size"])
    if not 0 < size <= SYSTEM_CHUNK_ARRAY_SIZE:
        yield problem(f"system chunk array of {size} bytes: 1 to {SYSTEM_CHUNK_ARRAY_SIZE} are possible")
        return
    try:
        logical, heads, _ = system_chunks(superblock)
    except CowError as error:
        yield problem(error.message)
        return
    for i, reason in sorted(broken_rules(logical, heads).items()):
        yield problem(f"system chunk array: {reason}", int(logical[i]))
    for i in np.flatnonzero(heads["type"] & np.uint64(BlockGroupFlag.SYSTEM) == 0).tolist():
        yield problem("system chunk array holds a chunk of another type", int(logical[i]))


def _backups(superblock: Any, path: str) -> Iterator[Problem]:
    """What backup roots there are lie in the past, on levels and at addresses that can be.

    They are written when the next transaction may be under way, so a root may be of that one.
    """
    generation, sector = int(superblock["generation"]), max(int(superblock["sectorsize"]), 1)
    for index, backup in enumerate(superblock["super_roots"]):
        if not int(backup["tree_root"]):
            continue
        newest = int(backup["tree_root_gen"])
        wrong = [] if newest <= generation + 1 else ["tree_root_gen"]
        for name in BACKUP_TREES:
            if int(backup[f"{name}_level"]) >= MAX_LEVEL:
                wrong.append(f"{name}_level")
            if int(backup[name]) % sector:
                wrong.append(name)
            if int(backup[f"{name}_gen"]) > newest + 1:
                wrong.append(f"{name}_gen")
        if wrong:
            found = ", ".join(f"{name} {int(backup[name])}" for name in wrong)
            message = f"backup root {index} cannot have been written"
            yield Problem("superblock.backup-wrong", message, device=path, found=found)
