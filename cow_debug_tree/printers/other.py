"""Subvolumes by UUID, and strings."""

from __future__ import annotations

import numpy as np

from cow_debug_tree.printers.listing import Group, Listing, Parts, printer
from cow_debug_tree.text.names import PLAIN_LINE, quote, until_nul
from cowlib.format import KeyType


@printer(KeyType.UUID_KEY_SUBVOL, KeyType.UUID_KEY_RECEIVED_SUBVOL)
def uuid_item(listing: Listing, group: Group) -> None:
    """The subvolumes that have, or were received with, the UUID in the key."""
    odd = group.items.size % 8 != 0
    text = "btrfs: uuid item with illegal size {itemsize}!\n"
    listing.put(group.select(odd), text)
    listing.complain(group, odd, "its size is no multiple of 8")
    group = group.select(~odd)
    listing.heads(group)
    Parts.of(group, np.dtype("<u8")).put(listing, "\t\tsubvol_id {value}\n")


@printer(KeyType.STRING_ITEM)
def string_item(listing: Listing, group: Group) -> None:
    """Bytes that mean something to whoever put them there; shown up to the first NUL."""
    listing.put(group, "\t\titem data ")
    buffer, start = group.items.buffer, group.items.position
    shown = until_nul(buffer, start, group.items.size)
    listing.page.put_pieces(group.unit, quote(buffer, start, shown, PLAIN_LINE))
