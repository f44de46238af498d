"""Superblocks as text: what ``btrfs inspect-internal dump-super -f`` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from cow_debug_tree.printers.device import CHUNK_FIELDS, STRIPE_FIELDS
from cow_debug_tree.printers.words import CSUM_NAMES, set_names
from cow_debug_tree.text import writers  # noqa: F401
from cow_debug_tree.text.template import Fields, render
from cowlib.checksum import checksum, csum_size
from cowlib.filesystem import SuperblockCopy
from cowlib.format import (
    CSUM_SIZE,
    SUPERBLOCK_MAGIC,
    Chunk,
    CompatRoFeature,
    DiskKey,
    IncompatFeature,
    KeyType,
    Stripe,
    Superblock,
    SuperFlag,
    columns,
)

_FIRST = """\
csum_type\t\t{csum_type} ({csum_name:text})
csum_size\t\t{csum_size}
csum\t\t\t0x{csum_text:text}
bytenr\t\t\t{bytenr}
flags\t\t\t0x{flags:x}
{flag_names:text}magic\t\t\t{magic_text:text}
fsid\t\t\t{fsid:uuid}
metadata_uuid\t\t{metadata_uuid:uuid}
label\t\t\t{label_text:text}
generation\t\t{generation}
root\t\t\t{root}
sys_array_size\t\t{sys_chunk_array_size}
chunk_root_generation\t{chunk_root_generation}
root_level\t\t{root_level}
chunk_root\t\t{chunk_root}
chunk_root_level\t{chunk_root_level}
log_root\t\t{log_root}
log_root_transid (deprecated)\t{log_root_transid}
log_root_level\t\t{log_root_level}
total_bytes\t\t{total_bytes}
bytes_used\t\t{bytes_used}
sectorsize\t\t{sectorsize}
nodesize\t\t{nodesize}
leafsize (deprecated)\t{leafsize}
stripesize\t\t{stripesize}
root_dir\t\t{root_dir_objectid}
num_devices\t\t{num_devices}
compat_flags\t\t0x{compat_flags:x}
compat_ro_flags\t\t0x{compat_ro_flags:x}
{compat_ro_names:text}incompat_flags\t\t0x{incompat_flags:x}
{incompat_names:text}cache_generation\t{cache_generation}
uuid_tree_generation\t{uuid_tree_generation}
"""

_DEVICE = """\
dev_item.uuid\t\t{uuid:uuid}
dev_item.fsid\t\t{fsid:uuid} {verdict:text}
dev_item.type\t\t{type}
dev_item.total_bytes\t{total_bytes}
dev_item.bytes_used\t{bytes_used}
dev_item.io_align\t{io_align}
dev_item.io_width\t{io_width}
dev_item.sector_size\t{sector_size}
dev_item.devid\t\t{devid}
dev_item.dev_group\t{dev_group}
dev_item.seek_speed\t{seek_speed}
dev_item.bandwidth\t{bandwidth}
dev_item.generation\t{generation}
"""

_BACKUP = """\
\t\tbackup_tree_root:\t{tree_root}\tgen: {tree_root_gen}\tlevel: {tree_root_level}
\t\tbackup_chunk_root:\t{chunk_root}\tgen: {chunk_root_gen}\tlevel: {chunk_root_level}
\t\t{extent_name:text}:\t{extent_root}\tgen: {extent_root_gen}\tlevel: {extent_root_level}
\t\tbackup_fs_root:\t\t{fs_root}\tgen: {fs_root_gen}\tlevel: {fs_root_level}
\t\tbackup_dev_root:\t{dev_root}\tgen: {dev_root_gen}\tlevel: {dev_root_level}
\t\tcsum_root:\t{csum_root}\tgen: {csum_root_gen}\tlevel: {csum_root_level}
\t\tbackup_total_bytes:\t{total_bytes}
\t\tbackup_bytes_used:\t{bytes_used}
\t\tbackup_num_devices:\t{num_devices}

"""

#: In the order they are shown; ERROR counts as unknown.
_SUPER_FLAGS = [
    SuperFlag.WRITTEN,
    SuperFlag.RELOC,
    SuperFlag.CHANGING_FSID,
    SuperFlag.CHANGING_FSID_V2,
    SuperFlag.SEEDING,
    SuperFlag.METADUMP,
    SuperFlag.METADUMP_V2,
    SuperFlag.CHANGING_BG_TREE,
    SuperFlag.CHANGING_DATA_CSUM,
    SuperFlag.CHANGING_META_CSUM,
]

_MATCH, _NO_MATCH = b"[match]", b"[DON'T MATCH]"


def title(copy: SuperblockCopy, path: str) -> bytes:
    """The two lines above a superblock."""
    line = f"superblock: bytenr={copy.offset}, device=".encode() + path.encode(errors="surrogateescape")
    return line + b"\n---------------------------------------------------------\n"


def superblock_text(data: bytes) -> tuple[bytes, list[str]]:
    """The text of 4096 bytes, whatever they are, and what is wrong with its array of system chunks."""
    fields = np.frombuffer(data, columns(Superblock))
    one = fields[0]
    incompat = int(one["incompat_flags"])
    name, size, verdict = _checksum(data, int(one["csum_type"]))
    magic = bytes(one["magic"])
    label = bytes(one["label"]).partition(b"\0")[0]
    text = _line(
        _FIRST,
        fields,
        csum_name=name,
        csum_size=np.array([size]),
        csum_text=data[:size].hex().encode() + b" " + verdict,
        flag_names=_flag_lines(int(one["flags"]), _SUPER_FLAGS),
        magic_text=_printable(magic) + b" " + (_MATCH if magic == SUPERBLOCK_MAGIC else _NO_MATCH),
        label_text=_printable(label),
        compat_ro_names=_flag_lines(int(one["compat_ro_flags"]), CompatRoFeature),
        incompat_names=_flag_lines(incompat, IncompatFeature),
    )
    own = one["metadata_uuid" if incompat & IncompatFeature.METADATA_UUID else "fsid"]
    same = bytes(one["dev_item"]["fsid"]) == bytes(own)
    text += _line(_DEVICE, fields["dev_item"], verdict=_MATCH if same else _NO_MATCH)
    chunks, complaints = _system_chunks(one)
    text += b"sys_chunk_array[%d]:\n" % one["sys_chunk_array"].itemsize + chunks
    text += b"backup_roots[%d]:\n" % len(one["super_roots"])
    extent_name = b"backup_block_group_root" if incompat & IncompatFeature.EXTENT_TREE_V2 else b"backup_extent_root"
    for slot, backup in enumerate(one["super_roots"]):
        if backup["tree_root"] or backup["tree_root_gen"]:
            text += b"\tbackup %d:\n" % slot
            text += _line(_BACKUP, one["super_roots"][slot : slot + 1], extent_name=extent_name)
    return text, complaints


def _line(template: str, row: npt.NDArray[Any], **extra: Any) -> bytes:
    """The template filled with one structure."""
    return render(template, Fields(row, **extra)).tobytes().replace(b"\0", b"")


def _checksum(data: bytes, kind: int) -> tuple[bytes, int, bytes]:
    """Name of a checksum type, its size in bytes, and whether the superblock's own is right."""
    if kind not in CSUM_NAMES:
        return b"INVALID", CSUM_SIZE, b"[UNKNOWN CSUM TYPE OR SIZE]"
    size = csum_size(kind)
    right = checksum(kind, data[CSUM_SIZE:]) == data[:size]
    return CSUM_NAMES[kind].encode(), size, _MATCH if right else _NO_MATCH


def _printable(data: bytes) -> bytes:
    return bytes(byte if 32 <= byte < 127 else ord(".") for byte in data)


def _flag_lines(value: int, flags: Iterable[IntFlag]) -> bytes:
    flags = list(flags)
    names = set_names(value, flags)
    unknown = value & ~sum(flags)
    if unknown:
        names.append(f"unknown flag: 0x{unknown:x}")
    between = " |\n\t\t\t  "
    return f"\t\t\t( {between.join(names)} )\n".encode() if names else b""


def _system_chunks(superblock: Any) -> tuple[bytes, list[str]]:
    array, size = superblock["sys_chunk_array"].tobytes(), int(superblock["sys_chunk_array_size"])
    if size > len(array):
        return b"", [f"sys_chunk_array_size is {size}, the array has {len(array)} bytes"]
    text, complaints = b"", []
    for line, complaint in _system_items(array[:size]):
        text += line
        complaints += [f"sys_chunk_array {complaint}"] if complaint else []
    return text, complaints


def _system_items(array: bytes) -> Iterator[tuple[bytes, str]]:
    """Lines about each key and chunk, and what is wrong; that ends it."""
    at = nth = 0
    while at < len(array):
        if at + DiskKey.sizeof() > len(array):
            yield b"", f"ends within a key, at byte {at}"
            return
        key = np.frombuffer(array, columns(DiskKey), 1, at)
        yield _line("\titem {nth} {key:key}\n", key, nth=np.array([nth]), key=key), ""
        at += DiskKey.sizeof()
        if key["type"][0] != KeyType.CHUNK_ITEM:
            yield b"", f"has an item of type {key['type'][0]} before byte {at}"
            return
        room = len(array) - at - Chunk.sizeof()
        chunk = np.frombuffer(array, columns(Chunk), 1, at) if room >= 0 else None
        count = 0 if chunk is None else int(chunk["num_stripes"][0])
        if chunk is None or not count or count * Stripe.sizeof() > room:
            yield (
                b"",
                f"has a chunk of {count} stripes at byte {at}, where {max(room, 0)} bytes are left for them",
            )
            return
        stripes = np.frombuffer(array, columns(Stripe), count, at + Chunk.sizeof())
        yield _line(CHUNK_FIELDS, chunk) + _line(STRIPE_FIELDS, stripes, nth=np.arange(count)), ""
        at += Chunk.sizeof() + count * Stripe.sizeof()
        nth += 1
