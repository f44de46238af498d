"""Chunks, devices, and what is kept about work on them."""

from __future__ import annotations

import numpy as np

from cow_debug_tree.printers.listing import I64, Group, Listing, Parts, Structs, declare, printer
from cow_debug_tree.printers.words import CSUM_NAMES
from cow_debug_tree.text.template import Fields
from cowlib.format import (
    BalanceItem,
    Chunk,
    DevExtent,
    DevItem,
    DevReplaceItem,
    DevStatsItem,
    KeyType,
    ObjectId,
    RaidStride,
    Stripe,
    columns,
)

declare(
    KeyType.DEV_ITEM,
    DevItem,
    "\t\tdevid {devid} total_bytes {total_bytes} bytes_used {bytes_used}\n"
    "\t\tio_align {io_align} io_width {io_width} sector_size {sector_size} type {type}\n"
    "\t\tgeneration {generation} start_offset {start_offset} dev_group {dev_group}\n"
    "\t\tseek_speed {seek_speed} bandwidth {bandwidth}\n"
    "\t\tuuid {uuid:uuid}\n"
    "\t\tfsid {fsid:uuid}\n",
)
declare(
    KeyType.DEV_EXTENT,
    DevExtent,
    "\t\tdev extent chunk_tree {chunk_tree}\n"
    "\t\tchunk_objectid {chunk_objectid} chunk_offset {chunk_offset} length {length}\n"
    "\t\tchunk_tree_uuid {chunk_tree_uuid:uuid}\n",
)
# btrfs-progs shows the time of the start in both places; scripts that compare want the same.
declare(
    KeyType.DEV_REPLACE,
    DevReplaceItem,
    "\t\tsrc devid {src_devid:d} cursor left {cursor_left} cursor right {cursor_right}"
    " mode {cont_reading_from_srcdev_mode:replace_mode}\n"
    "\t\tstate {replace_state:replace_state} write errors {num_write_errors}"
    " uncorrectable read errors {num_uncorrectable_read_errors}\n"
    "\t\tstart time {time_started:seconds}\n"
    "\t\tstop time {time_started:seconds}\n",
)

CHUNK_FIELDS = (
    "\t\tlength {length} owner {owner} stripe_len {stripe_len} type {type:block_group_flags}\n"
    "\t\tio_align {io_align} io_width {io_width} sector_size {sector_size}\n"
    "\t\tnum_stripes {num_stripes} sub_stripes {sub_stripes}\n"
)
STRIPE_FIELDS = "\t\t\tstripe {nth} devid {devid} offset {offset}\n\t\t\tdev_uuid {dev_uuid:uuid}\n"


@printer(KeyType.CHUNK_ITEM)
def chunk_item(listing: Listing, group: Group) -> None:
    """Which bytes of which devices a range of logical addresses is."""
    group = listing.whole(group, Chunk.sizeof())
    if not len(group):
        return
    chunks = group.items.view(Chunk)
    listing.put(group, CHUNK_FIELDS, Fields(chunks))
    stripes = Parts.of(group, columns(Stripe), skip=Chunk.sizeof(), count=stripe_count(listing, group, chunks))
    stripes.put(listing, STRIPE_FIELDS)


def stripe_count(listing: Listing, group: Group, chunks: Structs) -> I64:
    """How many stripes each chunk item has: those it says it has, if there is room for them."""
    wanted: I64 = chunks["num_stripes"].astype(np.int64)
    room = (group.items.size - Chunk.sizeof()) // Stripe.sizeof()
    listing.complain(group, wanted > room, lambda i: f"says {wanted[i]} stripes, holds {room[i]}")
    fitting: I64 = np.minimum(wanted, room)
    return fitting


@printer(KeyType.RAID_STRIPE)
def raid_stripe(listing: Listing, group: Group) -> None:
    """Where the parts of one data extent are."""
    listing.heads(group)
    strides = Parts.of(group, columns(RaidStride))
    strides.put(listing, "\t\t\tstripe {nth} devid {devid} physical {physical}\n")


_STATS = (
    "\t\tdevice stats\n\t\twrite_errs {write} read_errs {read} flush_errs {flush}"
    " corruption_errs {corruption} generation {generation}\n"
)


@printer(KeyType.PERSISTENT_ITEM)
def persistent_item(listing: Listing, group: Group) -> None:
    """Error counters of a device; no other kind is known."""
    line = "\t\tpersistent item objectid {owner} offset {offset}\n"
    stats = group.items.objectid == ObjectId.DEV_STATS
    other = group.select(~stats)
    fields = Fields(owner=other.items.objectid, offset=other.items.offset)
    listing.put(other, line + "\t\tunknown persistent item objectid {owner}\n", fields)
    group = listing.whole(group.select(stats), DevStatsItem.sizeof())
    if not len(group):
        return
    values = group.items.view(DevStatsItem)["values"]
    names = ("write", "read", "flush", "corruption", "generation")
    counters = {name: values[:, i] for i, name in enumerate(names)}
    line = line.replace("{owner}", "DEV_STATS")
    listing.put(group, line + _STATS, Fields(offset=group.items.offset, **counters))
    _unknown_counters(listing, group)


def _unknown_counters(listing: Listing, group: Group) -> None:
    """Counters of a newer kernel than this was written for."""
    size, known = group.items.size, DevStatsItem.sizeof()
    longer = size > known
    if not longer.any():
        return
    group, extra = group.select(longer), (size[longer] - known)
    listing.put(group, "\t\tunknown stats item bytes {extra}", Fields(extra=extra), first=False)
    counters = Parts.of(group, np.dtype("<u8"), skip=known)
    at = known + 8 * counters.nth
    counters.put(listing, "\t\tunknown item {number} offset {at} value {value}\n", number=at // 8, at=at)


_BALANCE_ARGS = (
    "\t\tprofiles {profiles} devid {devid} target {target} flags {flags}\n"
    "\t\tusage_min {usage_min} usage_max {usage_max} pstart {pstart} pend {pend}\n"
    "\t\tvstart {vstart} vend {vend} limit_min {limit_min} limit_max {limit_max}\n"
    "\t\tstripes_min {stripes_min} stripes_max {stripes_max}\n"
)


@printer(KeyType.TEMPORARY_ITEM)
def temporary_item(listing: Listing, group: Group) -> None:
    """A paused balance, or a change of checksums that is under way."""
    line = "\t\ttemporary item objectid {owner:objectid} offset {offset}\n"
    balance = group.items.objectid == ObjectId.BALANCE
    csum = group.items.objectid == ObjectId.CSUM_CHANGE
    known_csum = csum & (group.items.offset < len(CSUM_NAMES))
    for where, text in (
        (known_csum, "\t\ttarget csum type {offset:csum_type} ({offset})\n"),
        (csum & ~known_csum, "\t\tunknown csum type {offset}\n"),
        (~balance & ~csum, "\t\tunknown temporary item objectid {owner}\n"),
    ):
        some = group.select(where)
        listing.put(some, line + text, Fields(owner=some.items.objectid, offset=some.items.offset))
    group = listing.whole(group.select(balance), BalanceItem.sizeof())
    if not len(group):
        return
    items = group.items.view(BalanceItem)
    owner = Fields(items, owner=group.items.objectid, offset=group.items.offset)
    listing.put(group, line + "\t\tbalance status flags {flags}\n", owner)
    for name, title in (("data", "DATA"), ("meta", "METADATA"), ("sys", "SYSTEM")):
        listing.put(group, f"\t\t{title}\n" + _BALANCE_ARGS, _balance_args(items[name]), first=False)


def _balance_args(args: Structs) -> Fields:
    """Filters of a balance. Usage and limit are one number in old filters; now its halves are the least and
    the most.
    """
    halves = {name: np.ascontiguousarray(args[name]).view("<u4").reshape(-1, 2) for name in ("usage", "limit")}
    least = {f"{name}_min": pair[:, 0] for name, pair in halves.items()}
    return Fields(args, **least, **{f"{name}_max": pair[:, 1] for name, pair in halves.items()})
