"""File extents and checksums of data."""

from __future__ import annotations

import numpy as np

from cow_debug_tree.printers.listing import I64, Group, Listing, Parts, Structs, printer
from cow_debug_tree.text.cells import Cells, pick, table
from cow_debug_tree.text.template import Fields
from cowlib.format import (
    CSUM_SIZE,
    FileExtentHead,
    FileExtentItem,
    FileExtentType,
    KeyType,
)

_GENERATION = "\t\tgeneration {generation} type {type} ({type:extent_type})\n"
_COMPRESSION = " compression {compression} ({compression:compression})\n"
_INLINE = "\t\tinline extent data size {size} ram_bytes {ram_bytes}" + _COMPRESSION
_PREALLOC = (
    "\t\tprealloc data disk byte {disk_bytenr} nr {disk_num_bytes}\n\t\tprealloc data offset {offset} nr {num_bytes}\n"
)
_REGULAR = (
    "\t\textent data disk byte {disk_bytenr} nr {disk_num_bytes}\n"
    "\t\textent data offset {offset} nr {num_bytes} ram {ram_bytes}\n"
    "\t\textent" + _COMPRESSION
)


@printer(KeyType.EXTENT_DATA)
def file_extent(listing: Listing, group: Group) -> None:
    """Where a range of a file is."""
    (inline, heads), (other, extents) = file_extents(listing, group)
    if len(inline):
        size = inline.items.size - FileExtentHead.sizeof()
        listing.put(inline, _GENERATION + _INLINE, Fields(heads, size=size))
    prealloc = extents["type"] == FileExtentType.PREALLOC
    for where, text in ((prealloc, _PREALLOC), (~prealloc, _REGULAR)):
        listing.put(other.select(where), _GENERATION + text, Fields(extents[where]))


def file_extents(listing: Listing, group: Group) -> tuple[tuple[Group, Structs], tuple[Group, Structs]]:
    """Inline file extents with their heads, and all others with what they consist of."""
    group = listing.whole(group, FileExtentHead.sizeof())
    heads = group.items.view(FileExtentHead)
    inline = heads["type"] == FileExtentType.INLINE
    other = listing.whole(group.select(~inline), FileExtentItem.sizeof())
    return (group.select(inline), heads[inline]), (other, other.items.view(FileExtentItem))


@printer(KeyType.EXTENT_CSUM)
def extent_csum(listing: Listing, group: Group) -> None:
    """Checksums of consecutive sectors of data."""
    style = listing.style
    count = group.items.size // style.csum_size
    length = (count * style.sectorsize).astype(np.uint32)
    start = group.items.offset
    fields = Fields(start=start, end=start + length, length=length)
    listing.put(group, "\t\trange start {start} end {end} length {length}\n", fields)
    if not style.csum_items:
        return
    sums = Parts.of(group, np.dtype((np.void, style.csum_size)))
    sums.put(
        listing,
        "{before:cells}[{offset}] 0x{value:hexbytes}",
        before=_separators(sums.nth, max(1, CSUM_SIZE // style.csum_size // 2)),
        offset=np.repeat(start, count) + (sums.nth * style.sectorsize).astype(np.uint64),
    )
    listing.put(group, "\n", first=False)


def _separators(nth: I64, per_line: int) -> Cells:
    """What stands before the nth checksum of an item, if so many go on one line."""
    begins = nth % per_line == 0
    return pick(table([b" ", b"\n\t\t", b"\t\t"]), np.where(nth == 0, 2, begins.astype(np.int64)))
