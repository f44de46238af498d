"""A balance that was interrupted, and is to be resumed."""

from construct import Array

from cowlib.format.declare import Struct, u32, u64

DiskBalanceArgs = Struct(
    "profiles" / u64 * "BlockGroupFlag, or AVAIL_ALLOC_BIT_SINGLE",
    "usage" / u64 * "percent in use at most; with USAGE_RANGE minimum (low 32 bits) and maximum",
    "devid" / u64,
    "pstart" / u64 * "bytes on the device",
    "pend" / u64 * "bytes on the device, exclusive",
    "vstart" / u64 * "logical address in bytes",
    "vend" / u64 * "logical address in bytes, exclusive",
    "target" / u64 * "profile to convert to, as in profiles",
    "flags" / u64 * "BalanceArgsFlag: the filters in force",
    "limit" / u64 * "number of chunks; with LIMIT_RANGE minimum (low 32 bits) and maximum",
    "stripes_min" / u32,
    "stripes_max" / u32,
    "unused" / Array(6, u64),
)
"""Which chunks of one kind are balanced."""

BalanceItem = Struct(
    "flags" / u64 * "BalanceFlag",
    "data" / DiskBalanceArgs,
    "meta" / DiskBalanceArgs,
    "sys" / DiskBalanceArgs,
    "unused" / Array(4, u64),
)
"""Root tree, key (BALANCE, TEMPORARY_ITEM, 0)."""
