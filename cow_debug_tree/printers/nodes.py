"""Nodes: titles above them, their headings, then pointers to children or items by kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Printers register themselves.
from cow_debug_tree.printers import data, device, extent, inode, other, quota, root, space  # noqa: F401
from cow_debug_tree.printers.keys import Keys
from cow_debug_tree.printers.listing import I64, PRINTERS, Form, Group, Listing, Mask, Structs, Style
from cow_debug_tree.text import writers  # noqa: F401
from cow_debug_tree.text.names import Pieces
from cow_debug_tree.text.page import Page
from cow_debug_tree.text.template import Fields
from cowlib.btree import Nodes, Pointers, gather
from cowlib.btree.nodes import item_capacity, pointer_capacity
from cowlib.format import BACKREF_REV_SHIFT, HEADER_SIZE, ITEM_SIZE, Item, columns

_LEAF = "leaf {bytenr} items {nritems} free space {free:d} generation {generation} owner {owner:objectid}\nleaf"
_NODE = (
    "node {bytenr} level {level} items {nritems} free space {free:d}"
    " generation {generation} owner {owner:objectid}\nnode"
)
_HEADER = (
    " {bytenr} flags 0x{own_flags:x}({own_flags:header_flags}) backref revision {revision}%s\n"
    "fs uuid {fsid:uuid}\n"
    "chunk uuid {chunk_tree_uuid:uuid}\n"
)

TEXT = Form(
    head="\titem {slot} {item_key:key} itemoff {itemoff} itemsize {itemsize}\n",
    bare="",
    pointer="\t{key:key} block {blockptr} gen {generation}\n",
    titles=True,
    printers=PRINTERS,
    unknown=Listing.heads,
)


@dataclass(frozen=True)
class Run:
    """Some nodes to be printed one after another, under a title: ``count`` of the batch's leaves or inner
    nodes, beginning with the one at index ``first``. ``tree`` is the id of the tree they were found in, 0 if
    not known.
    """

    title: bytes
    tree: int
    inner: bool
    first: int
    count: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Nodes of a filesystem and the order they are printed in."""

    inner: Nodes
    leaves: Nodes
    runs: list[Run]


def page(batch: Batch, style: Style, form: Form = TEXT) -> tuple[bytearray, list[str]]:
    """The text of a batch, and what is wrong with its items."""
    inner, leaves = batch.inner, batch.leaves
    pointers, items = inner.pointers(), leaves.items()
    children = np.bincount(pointers.node, minlength=len(inner))
    places = _Places(batch, children, np.bincount(items.node, minlength=len(leaves)))
    listing = Listing(Page(places.units), style, form)
    if form.titles:
        titles = [(unit, run.title) for unit, run in zip(places.title, batch.runs, strict=True) if run.title]
        texts = Pieces.of([text for _, text in titles])
        listing.page.put_pieces(np.array([unit for unit, _ in titles], np.int64), texts)
        _headings(listing, inner, places.inner, _NODE, pointer_capacity(inner.nodesize) - children)
        _headings(listing, leaves, places.leaf, _LEAF, free_space(leaves))
    if len(pointers):
        _pointers(listing, inner, pointers, places)
    if len(items):
        itemoff = items.position - items.node * leaves.nodesize - HEADER_SIZE
        unit = places.leaf[items.node] + 1 + items.slot
        group = Group(items, unit, itemoff, leaves.bytenr[items.node], places.leaf_tree[items.node])
        _items(listing, group, leaves.nodesize)
    return listing.page.text(), listing.complaints


class _Places:
    """Which unit of the page everything goes to: one for each title, each heading, each item or pointer.

    ``title`` a run; ``inner``, ``leaf`` (n,) the heading of each node; ``inner_tree``, ``leaf_tree`` (n,)
    their trees' ids.
    """

    def __init__(self, batch: Batch, children: I64, items: I64) -> None:
        self.title: list[int] = []
        self.inner, self.leaf = np.zeros(len(children), np.int64), np.zeros(len(items), np.int64)
        self.inner_tree, self.leaf_tree = np.zeros(len(children), np.uint64), np.zeros(len(items), np.uint64)
        self.units = 0
        for run in batch.runs:
            self.title.append(self.units)
            some = slice(run.first, run.first + run.count)
            size = 1 + (children if run.inner else items)[some]
            (self.inner if run.inner else self.leaf)[some] = self.units + 1 + np.cumsum(size) - size
            (self.inner_tree if run.inner else self.leaf_tree)[some] = run.tree
            self.units += 1 + int(size.sum())


def _pointers(listing: Listing, inner: Nodes, pointers: Pointers, places: _Places) -> None:
    fields = Fields(
        key=Keys(pointers.objectid, pointers.type, pointers.offset),
        slot=pointers.slot,
        blockptr=pointers.blockptr,
        generation=pointers.generation,
        node=inner.bytenr[pointers.node],
        level=inner.header["level"][pointers.node],
        tree=places.inner_tree[pointers.node],
    )
    listing.page.put(places.inner[pointers.node] + 1 + pointers.slot, listing.form.pointer, fields)


def free_space(leaves: Nodes) -> I64:
    """Free bytes in each leaf, as told by its first and its last item, wherever those say they are."""
    count = leaves.header["nritems"].astype(np.int64)
    filled = np.flatnonzero((count > 0) & (count <= item_capacity(leaves.nodesize)))
    used = np.zeros(len(leaves), np.int64)
    first = filled * leaves.nodesize + HEADER_SIZE
    begin = gather(leaves.buffer, first, columns(Item))
    last = gather(leaves.buffer, first + (count[filled] - 1) * ITEM_SIZE, columns(Item))
    end = begin["offset"].astype(np.int64) + begin["size"]
    used[filled] = end - last["offset"] + count[filled] * ITEM_SIZE
    return leaves.nodesize - HEADER_SIZE - used


def _headings(listing: Listing, nodes: Nodes, units: I64, text: str, free: npt.NDArray[np.int64]) -> None:
    if not len(nodes):
        return
    header, size = nodes.header, listing.style.csum_size
    flags = np.ascontiguousarray(header["flags"])
    fields = Fields(
        header,
        bytenr=nodes.bytenr,
        free=free,
        own_flags=flags & np.uint64((1 << BACKREF_REV_SHIFT) - 1),
        revision=flags >> np.uint64(BACKREF_REV_SHIFT),
        sum=_checksums(header, size),
    )
    csum = " csum 0x{sum:hexbytes}" if listing.style.csum_headers else ""
    listing.page.put(units, text + _HEADER % csum, fields)


def _checksums(header: Structs, size: int) -> Structs:
    whole = np.ascontiguousarray(header["csum"]).view(np.uint8).reshape(len(header), -1)
    return np.ascontiguousarray(whole[:, :size]).view(f"V{size}").reshape(-1)


def _items(listing: Listing, group: Group, nodesize: int) -> None:
    outside, overlapping = ~group.items.in_bounds, _overlapping(group, nodesize)
    listing.complain(group, outside, "its payload lies outside of the leaf")
    listing.complain(group, overlapping, "its payload overlaps others")
    bad = outside | overlapping
    if bad.any():
        listing.heads(group.select(bad))
        group = group.select(~bad)
    for kind in np.flatnonzero(np.bincount(group.items.type)).tolist():
        same = group.select(np.flatnonzero(group.items.type == kind))
        listing.form.printers.get(kind, listing.form.unknown)(listing, same)


def _overlapping(group: Group, nodesize: int) -> Mask:
    """Items that claim bytes of others, in leaves whose items claim more bytes than there are.

    The text of a crafted leaf, whose items all claim the same bytes, would be thousands of times longer than
    the leaf.
    """
    items = group.items
    size = np.where(items.in_bounds, items.size, 0)
    too_much = np.bincount(items.node, size) > nodesize
    if not too_much.any():
        return np.zeros(len(items), np.bool_)
    # Payloads go down in a leaf; and every leaf is far below the one before it here.
    start = group.itemoff - items.node * (2 * nodesize)
    lowest = np.minimum.accumulate(np.where(items.in_bounds, start, nodesize))
    overlapping: Mask = (start[1:] + size[1:] > lowest[:-1]) & (size[1:] > 0) & too_much[items.node[1:]]
    return np.concatenate([[False], overlapping])
