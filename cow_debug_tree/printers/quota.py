"""Quota groups."""

from __future__ import annotations

from cow_debug_tree.printers.listing import Group, Listing, declare, printer
from cow_debug_tree.text.template import Fields
from cowlib.format import KeyType, QgroupInfoItem, QgroupLimitItem, QgroupStatusItem, QgroupStatusItemV0

declare(
    KeyType.QGROUP_INFO,
    QgroupInfoItem,
    "\t\tgeneration {generation}\n"
    "\t\treferenced {rfer} referenced_compressed {rfer_cmpr}\n"
    "\t\texclusive {excl} exclusive_compressed {excl_cmpr}\n",
)
declare(
    KeyType.QGROUP_LIMIT,
    QgroupLimitItem,
    "\t\tflags {flags:x}\n"
    "\t\tmax_referenced {max_rfer:d} max_exclusive {max_excl:d}\n"
    "\t\trsv_referenced {rsv_rfer:d} rsv_exclusive {rsv_excl:d}\n",
)

_STATUS = "\t\tversion {version} generation {generation} flags {flags:qgroup_status_flags} scan {rescan}"


@printer(KeyType.QGROUP_STATUS)
def qgroup_status(listing: Listing, group: Group) -> None:
    """The state of quotas; simple quotas know since when they count."""
    simple = listing.style.simple_quota
    struct = QgroupStatusItem if simple else QgroupStatusItemV0
    group = listing.whole(group, struct.sizeof())
    if len(group):
        text = _STATUS + (" enable_gen {enable_gen}\n" if simple else "\n")
        listing.put(group, text, Fields(group.items.view(struct)))
