"""Roots of trees, and where subvolumes hang."""

from __future__ import annotations

import numpy as np

from cow_debug_tree.printers.listing import Group, Listing, Structs, printer
from cow_debug_tree.text.names import PLAIN_LINE, quote, until_nul
from cow_debug_tree.text.template import Fields
from cowlib.btree import gather, ragged_index
from cowlib.format import KeyType, RootItem, RootItemV0, RootRef, columns

_ROOT = (
    "\t\tgeneration {generation} root_dirid {root_dirid} bytenr {bytenr}"
    " byte_limit {byte_limit} bytes_used {bytes_used}\n"
    "\t\tlast_snapshot {last_snapshot} flags 0x{flags:x}({flags:root_flags}) refs {refs}\n"
    "\t\tdrop_progress {drop_progress:key} drop_level {drop_level}\n"
    "\t\tlevel {level} generation_v2 {generation_v2}\n"
)
_SINCE_V2 = (
    "\t\tuuid {uuid:uuid}\n"
    "\t\tparent_uuid {parent_uuid:uuid}\n"
    "\t\treceived_uuid {received_uuid:uuid}\n"
    "\t\tctransid {ctransid} otransid {otransid} stransid {stransid} rtransid {rtransid}\n"
    "\t\tctime {ctime:time}\n"
    "\t\totime {otime:time}\n"
    "\t\tstime {stime:time}\n"
    "\t\trtime {rtime:time}\n"
)


@printer(KeyType.ROOT_ITEM)
def root_item(listing: Listing, group: Group) -> None:
    """The root of a tree. Old kernels wrote shorter items, or left what they did not know as it was."""
    group = listing.whole(group, RootItemV0.sizeof())
    if not len(group):
        return
    roots = roots_of(group)
    current = roots["generation"] == roots["generation_v2"]
    for where, text in ((current, _ROOT + _SINCE_V2), (~current, _ROOT)):
        listing.put(group.select(where), text, Fields(roots[where]))


def roots_of(group: Group) -> Structs:
    """Root items as the newest structure; what old ones lack is 0."""
    whole = columns(RootItem)
    rows = np.zeros((len(group), whole.itemsize), np.uint8)
    size = np.minimum(group.items.size, whole.itemsize)
    at = ragged_index(np.arange(len(group)) * whole.itemsize, size)
    rows.reshape(-1)[at] = group.items.buffer[ragged_index(group.items.position, size)]
    return gather(rows.reshape(-1), np.arange(len(group)) * whole.itemsize, whole)


@printer(KeyType.ROOT_REF)
def root_ref(listing: Listing, group: Group) -> None:
    """A subvolume in a directory of the tree that the key begins with."""
    _place(listing, group, "ref")


@printer(KeyType.ROOT_BACKREF)
def root_backref(listing: Listing, group: Group) -> None:
    """Where the subvolume hangs that the key begins with."""
    _place(listing, group, "backref")


def _place(listing: Listing, group: Group, word: str) -> None:
    group = listing.whole(group, RootRef.sizeof())
    if not len(group):
        return
    hide = listing.style.hide_names
    refs = group.items.view(RootRef)
    text = f"\t\troot {word} key dirid {{dirid}} sequence {{sequence}} name " + ("HIDDEN\n" if hide else "")
    listing.put(group, text, Fields(refs))
    if not hide:
        length = refs["name_len"].astype(np.int64)
        start = group.items.position + RootRef.sizeof()
        room = group.items.size - RootRef.sizeof()
        shown = until_nul(group.items.buffer, start, listing.within(group, length, room))
        listing.page.put_pieces(group.unit, quote(group.items.buffer, start, shown, PLAIN_LINE))
