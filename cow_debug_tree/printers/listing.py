"""What printers write on: a page, and the groups of items that go there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cow_debug_tree.printers.keys import Keys, objectid_name, type_name
from cow_debug_tree.text.names import ESCAPED_LINE, quote
from cow_debug_tree.text.page import Page
from cow_debug_tree.text.template import Fields
from cowlib.btree import Items, gather
from cowlib.format import NAME_LEN, columns

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Structs = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Form:
    """What items and pointers look like in one kind of output.

    ``head`` is the format string that every item begins with, ``bare`` what follows it when nothing is known
    of the payload, ``pointer`` a line about a child. ``titles``: trees have titles, and nodes headings.
    ``printers`` are by key type, ``unknown`` is for all other types.
    """

    head: str
    bare: str
    pointer: str
    titles: bool
    printers: dict[int, Printer]
    unknown: Printer


@dataclass(frozen=True)
class Style:
    """What of a filesystem, and of the user's wishes, decides how items are shown.

    ``csum_size`` is in bytes, ``sectorsize`` too; ``simple_quota`` says that quotas are of the simple kind.
    """

    csum_size: int
    sectorsize: int
    simple_quota: bool = False
    hide_names: bool = False
    csum_headers: bool = False
    csum_items: bool = False


@dataclass(eq=False)
class Group:
    """Some items of a batch: ``unit`` (n,) is where each goes on the page, ``itemoff`` (n,) its payload's
    place in bytes after the leaf's header, ``leaf`` (n,) the leaf's logical address, ``tree`` (n,) the tree's
    id or 0.
    """

    items: Items
    unit: I64
    itemoff: I64
    leaf: npt.NDArray[np.uint64]
    tree: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.unit)

    def select(self, which: npt.NDArray[Any]) -> Group:
        """Those that a mask or an index array picks."""
        return Group(
            self.items.select(which),
            self.unit[which],
            self.itemoff[which],
            self.leaf[which],
            self.tree[which],
        )


@dataclass(eq=False)
class Entries:
    """One entry of each item in ``group``: ``heads`` (n,) are their structures, ``start`` (n,) says where in
    the buffer the bytes after those begin, ``room`` (n,) how many there can be until the item ends.
    ``first``: of their items.
    """

    group: Group
    heads: Structs
    start: I64
    room: I64
    first: bool

    def select(self, which: npt.NDArray[Any]) -> Entries:
        """Those that a mask or an index array picks."""
        return Entries(self.group.select(which), self.heads[which], self.start[which], self.room[which], self.first)


@dataclass
class Listing:
    """A page, how to write on it, and the complaints about items that are not what they should be."""

    page: Page
    style: Style
    form: Form
    complaints: list[str] = field(default_factory=list)

    def put(self, group: Group, text: str, fields: Fields | None = None, *, first: bool = True) -> None:
        """``text`` for every item of the group, after what each item begins with if it is its ``first``."""
        if not len(group):
            return
        items = group.items
        fields = fields or Fields(slot=items.slot)
        if first:
            fields = fields.and_also(
                slot=items.slot,
                item_key=Keys(items.objectid, items.type, items.offset),
                itemoff=group.itemoff,
                itemsize=items.size,
                leaf=group.leaf,
                tree=group.tree,
            )
            text = self.form.head + text
        self.page.put(group.unit, text, fields)

    def heads(self, group: Group) -> None:
        """The items without payload."""
        self.put(group, self.form.bare)

    def complain(self, group: Group, where: Mask, reason: str | Callable[[int], str]) -> None:
        """Says about each item in ``where`` what is wrong with it; ``reason`` may depend on its index in the
        group.
        """
        for i in np.flatnonzero(where).tolist():
            owner, kind, offset = group.items.key(i)
            self.complaints.append(
                f"leaf {group.leaf[i]} item {group.items.slot[i]} key ({objectid_name(owner, kind)}"
                f" {type_name(kind)} {offset}): {reason if isinstance(reason, str) else reason(i)}"
            )

    def whole(self, group: Group, need: int) -> Group:
        """The items with payloads of at least ``need`` bytes; the others without payload, and a complaint."""
        short = group.items.size < need
        if not short.any():
            return group
        self.complain(group, short, lambda i: f"has {group.items.size[i]} bytes, an item of its kind at least {need}")
        self.heads(group.select(short))
        return group.select(~short)

    def entries(self, group: Group, struct: Any, tail: Callable[[Structs], I64]) -> Iterator[Entries]:
        """Takes payloads apart into entries: a ``struct``, then as many bytes as ``tail`` says of it.

        Yields the first entries of all items, then all second ones, and so on. An item whose entry runs past
        its end has no further ones. What is no whole entry is complained about; an item without any is shown
        here.
        """
        dtype = columns(struct)
        start, end = group.items.position, group.items.position + group.items.size
        first = True
        while True:
            room = end - start - dtype.itemsize
            self.complain(group, (room < 0) & (end > start), "has bytes at its end that are no whole entry")
            more = room >= 0
            if not more.all():
                if first:
                    self.heads(group.select(~more))
                group, start, end, room = group.select(more), start[more], end[more], room[more]
            if not len(group):
                return
            heads = gather(group.items.buffer, start, dtype)
            start = start + dtype.itemsize
            yield Entries(group, heads, start, room, first)
            start = start + tail(heads)
            first = False

    def within(self, group: Group, lengths: I64, room: I64) -> I64:
        """How much of a name or value there is: no more than there is room for, with a complaint."""
        self.complain(group, lengths > room, lambda i: f"{lengths[i]} bytes of name or value, room for {room[i]}")
        return np.minimum(lengths, room)

    def names(self, group: Group, starts: I64, lengths: I64, room: I64) -> None:
        """Ends the lines with the bytes at ``starts``, escaped, and no more than a name can have."""
        shown = np.minimum(self.within(group, lengths, room), NAME_LEN)
        self.page.put_pieces(group.unit, quote(group.items.buffer, starts, shown, ESCAPED_LINE))


@dataclass(eq=False)
class Parts:
    """Equal structures one after another in payloads: ``count`` (n,) in those of ``unit`` (n,); in one column
    of them all ``rows``, and ``nth``, the number of each in its item.
    """

    unit: I64
    count: I64
    nth: I64
    rows: Structs

    @classmethod
    def of(cls, group: Group, dtype: np.dtype[Any], *, skip: int = 0, count: I64 | None = None) -> Parts:
        """``skip`` bytes after the start of each item ``count`` of them, or as many as there is room for."""
        if count is None:
            count = np.maximum(group.items.size - skip, 0) // dtype.itemsize
        nth = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        position = np.repeat(group.items.position, count) + skip + nth * dtype.itemsize
        return cls(group.unit, count, nth, gather(group.items.buffer, position, dtype))

    def put(self, listing: Listing, text: str, **extra: Any) -> None:
        """``text`` for each; it may name fields of the structure, ``nth``, ``value`` (all of it) and
        ``extra`` columns.
        """
        if len(self.nth):
            fields = Fields(self.rows if self.rows.dtype.names else None, nth=self.nth, value=self.rows, **extra)
            listing.page.put_many(self.unit, self.count, text, fields)


Printer = Callable[[Listing, Group], None]

#: What prints items as text, by key type.
PRINTERS: dict[int, Printer] = {}


def printer(*kinds: int) -> Callable[[Printer], Printer]:
    """Registers what prints items of some types. Their payloads lie inside their leaves, and that is all that
    is sure.
    """

    def register(function: Printer) -> Printer:
        PRINTERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def declare(kind: int, struct: Any, text: str) -> None:
    """Registers a kind of item that is one structure, with the format string that shows it."""

    @printer(kind)
    def show(listing: Listing, group: Group) -> None:
        group = listing.whole(group, columns(struct).itemsize)
        if len(group):
            listing.put(group, text, Fields(group.items.view(struct)))


def remark(kind: int, text: str) -> None:
    """Registers a kind of item of which only its key says something."""

    @printer(kind)
    def show(listing: Listing, group: Group) -> None:
        listing.put(group, text)
