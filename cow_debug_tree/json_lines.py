"""Items as JSON: one object a line, made from the declarations of `cowlib.format`.

Every object has ``tree`` (null where a single block was asked for), ``leaf``, ``slot``, ``key`` (three
numbers), ``kind`` (the key's type by name), ``size`` and ``item``, the payload: fields by their names; null
for a payload that is empty or damaged, ``{"data": hexadecimal}`` for one that is not known. Pointers to
children have ``node``, ``level``, ``blockptr`` and ``generation`` instead. Names are text; where their bytes
are not UTF-8, replacement characters stand in, and a second field (``name_hex``) holds the exact bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from cow_debug_tree.printers.data import file_extents
from cow_debug_tree.printers.device import stripe_count
from cow_debug_tree.printers.extent import InlineRef, inline_refs, skinny_level, tree_blocks
from cow_debug_tree.printers.keys import type_name
from cow_debug_tree.printers.listing import I64, Entries, Form, Group, Listing, Parts, Printer, Structs
from cow_debug_tree.printers.root import roots_of
from cow_debug_tree.text.cells import Column, Segment, each_value, pick, table
from cow_debug_tree.text.names import Pieces, Quoting, quote
from cow_debug_tree.text.template import Fields, writer
from cow_debug_tree.text.writers import uuid_text
from cowlib.btree import ragged_index
from cowlib.format import (
    BalanceItem,
    BlockGroupItem,
    Chunk,
    DevExtent,
    DevItem,
    DevReplaceItem,
    DevStatsItem,
    DirItem,
    DirLogItem,
    ExtentDataRef,
    ExtentItem,
    ExtentOwnerRef,
    FileExtentHead,
    FileExtentItem,
    FreeSpaceHeader,
    FreeSpaceInfo,
    InodeExtref,
    InodeItem,
    InodeRef,
    KeyType,
    ObjectId,
    QgroupInfoItem,
    QgroupLimitItem,
    QgroupStatusItem,
    QgroupStatusItemV0,
    RaidStride,
    RemapItem,
    RootItem,
    RootItemV0,
    RootRef,
    SharedDataRef,
    Stripe,
    TreeBlockInfo,
    columns,
)

_HEAD = (
    '{{"tree":{tree:tree},"leaf":{leaf},"slot":{slot},"key":[{item_key.objectid},{item_key.type},{item_key.offset}],'
    '"kind":"{item_key.type:key_type}","size":{itemsize},"item":'
)
_POINTER = (
    '{{"tree":{tree:tree},"node":{node},"level":{level},"slot":{slot},'
    '"key":[{key.objectid},{key.type},{key.offset}],"kind":"{key.type:key_type}",'
    '"blockptr":{blockptr},"generation":{generation}}}\n'
)

#: What ends every line.
_END = "}}\n"
_NULL = "null" + _END


def _show_in_string(byte: int) -> bytes:
    shown = json.dumps(chr(byte))[1:-1] if byte < 128 else ""
    return shown.encode() or bytes([byte])


_STRING = Quoting.of(_show_in_string, 8, b'"')
_HEX = Quoting.of(lambda byte: b"%02x" % byte, 4, b'"')


@writer("tree")
def _tree(column: Column) -> Segment:
    return each_value(column, lambda tree: b"%d" % tree if tree else b"null")


@writer("key_type")
def _key_type(column: Column) -> Segment:
    return each_value(np.ascontiguousarray(column), lambda kind: type_name(kind).encode())


def object_template(dtype: np.dtype[Any], path: str = "") -> str:
    """A format string that shows a structure, whose fields are found below ``path``, as an object in JSON.

    Bytes are hexadecimal, and UUIDs have their dashes. What the kernel reserves for later is left out.
    """
    fields = [
        f'"{name}":' + _value_template(dtype[name], f"{path}{name}")
        for name in dtype.names or ()
        if not name.startswith(("reserved", "unused", "padding"))
    ]
    return "{{" + ",".join(fields) + "}}"


def _value_template(dtype: np.dtype[Any], path: str) -> str:
    if dtype.names:
        return object_template(dtype, f"{path}.")
    if dtype.subdtype:
        element, (count,) = dtype.subdtype
        return "[" + ",".join(_value_template(element, f"{path}.{i}") for i in range(count)) + "]"
    if dtype.kind == "V":
        return f'"{{{path}:uuid}}"' if dtype.itemsize == 16 else f'"{{{path}:hexbytes}}"'
    return f"{{{path}:d}}" if dtype.kind == "i" else f"{{{path}}}"


def _inside(dtype: np.dtype[Any]) -> str:
    """The same object without its closing bracket, so that more fields can follow."""
    return object_template(dtype).removesuffix("}}")


def _structure(struct: Any) -> Printer:
    """For items that are one structure."""
    dtype = columns(struct)
    text = object_template(dtype) + _END

    def show(listing: Listing, group: Group) -> None:
        group = listing.whole(group, dtype.itemsize)
        if len(group):
            listing.put(group, text, Fields(group.items.view(struct)))

    return show


def _bytes(listing: Listing, group: Group) -> None:
    """For payloads of which nothing is known."""
    empty = group.items.size == 0
    listing.heads(group.select(empty))
    group = group.select(~empty)
    listing.put(group, '{{"data":"')
    listing.page.put_pieces(group.unit, quote(group.items.buffer, group.items.position, group.items.size, _HEX))
    listing.put(group, "}}" + _END, first=False)


def _only_with(objectid: int, known: Printer) -> Printer:
    """For items which are ``known`` if their keys begin with ``objectid``."""

    def show(listing: Listing, group: Group) -> None:
        where = group.items.objectid == objectid
        known(listing, group.select(where))
        _bytes(listing, group.select(~where))

    return show


# -- names ---------------------------------------------------------------------------------------------------


def _entries(struct: Any) -> Printer:
    """For items that are lists of named structures, which may have data as well."""
    has_data = struct is DirItem
    inside = _inside(columns(struct))

    def tail(heads: Structs) -> I64:
        return heads["name_len"].astype(np.int64) + (heads["data_len"] if has_data else 0)

    def show(listing: Listing, group: Group) -> None:
        begun = None
        for entry in listing.entries(group, struct, tail):
            begun = begun or entry.group
            opening = ("[" if entry.first else ",") + inside
            listing.put(entry.group, opening, Fields(entry.heads), first=entry.first)
            length = listing.within(entry.group, entry.heads["name_len"].astype(np.int64), entry.room)
            _text(listing, entry.group, "name", entry.start, length)
            if has_data:
                _data(listing, entry, length)
            listing.put(entry.group, "}}", first=False)
        if begun is not None:
            listing.put(begun, "]" + _END, first=False)

    return show


def _data(listing: Listing, entry: Entries, name_len: I64) -> None:
    length = listing.within(entry.group, entry.heads["data_len"].astype(np.int64), entry.room - name_len)
    some = np.flatnonzero(length)
    if len(some):
        _text(listing, entry.group.select(some), "data", (entry.start + name_len)[some], length[some])


def _text(listing: Listing, group: Group, field: str, start: I64, length: I64) -> None:
    """A field with bytes that should be text."""
    if listing.style.hide_names:
        listing.put(group, f',"{field}":"HIDDEN"', first=False)
        return
    listing.put(group, f',"{field}":"', first=False)
    _string(listing, group, field, start, length)


def _string(listing: Listing, group: Group, field: str, start: I64, length: I64) -> None:
    """The rest of a string that has begun, and its exact bytes in another one if it is not UTF-8."""
    buffer = group.items.buffer
    odd = _not_utf8(buffer, start, length)
    good = ~odd
    listing.page.put_pieces(group.unit[good], quote(buffer, start[good], length[good], _STRING))
    if not odd.any():
        return
    group, start, length = group.select(odd), start[odd], length[odd]
    texts = [
        json.dumps(buffer[at : at + count].tobytes().decode(errors="replace"))[1:].encode()
        for at, count in zip(start.tolist(), length.tolist(), strict=True)
    ]
    listing.page.put_pieces(group.unit, Pieces.of(texts))
    listing.put(group, f',"{field}_hex":"', first=False)
    listing.page.put_pieces(group.unit, quote(buffer, start, length, _HEX))


def _not_utf8(buffer: Column, start: I64, length: I64) -> Column:
    """bool (n,): these bytes are not valid UTF-8."""
    odd = np.zeros(len(start), np.bool_)
    beyond_ascii = buffer[ragged_index(start, length)] >= 0x80
    for i in np.unique(np.repeat(np.arange(len(start)), length)[beyond_ascii]).tolist():
        try:
            buffer[start[i] : start[i] + length[i]].tobytes().decode()
        except UnicodeDecodeError:
            odd[i] = True
    return odd


def _root_ref(listing: Listing, group: Group) -> None:
    group = listing.whole(group, RootRef.sizeof())
    if not len(group):
        return
    refs = group.items.view(RootRef)
    listing.put(group, _inside(columns(RootRef)), Fields(refs))
    room = group.items.size - RootRef.sizeof()
    length = listing.within(group, refs["name_len"].astype(np.int64), room)
    _text(listing, group, "name", group.items.position + RootRef.sizeof(), length)
    listing.put(group, "}}" + _END, first=False)


def _string_item(listing: Listing, group: Group) -> None:
    listing.put(group, '{{"text":"')
    _string(listing, group, "text", group.items.position, group.items.size)
    listing.put(group, "}}" + _END, first=False)


# -- structures with more behind them ------------------------------------------------------------------------


def _list(listing: Listing, parts: Parts, text: str) -> None:
    """The elements of a list, with commas between them."""
    comma = pick(table([b"", b","]), (parts.nth > 0).astype(np.intp))
    parts.put(listing, "{comma:cells}" + text, comma=comma)


def _chunk(listing: Listing, group: Group) -> None:
    group = listing.whole(group, Chunk.sizeof())
    if not len(group):
        return
    chunks = group.items.view(Chunk)
    listing.put(group, _inside(columns(Chunk)) + ',"stripes":[', Fields(chunks))
    count = stripe_count(listing, group, chunks)
    stripes = Parts.of(group, columns(Stripe), skip=Chunk.sizeof(), count=count)
    _list(listing, stripes, object_template(columns(Stripe)))
    listing.put(group, "]}}" + _END, first=False)


def _plain_list(dtype: np.dtype[Any], element: str) -> Printer:
    """For items that are lists of one structure or number."""

    def show(listing: Listing, group: Group) -> None:
        listing.put(group, "[")
        _list(listing, Parts.of(group, dtype), element)
        listing.put(group, "]" + _END, first=False)

    return show


def _csums(listing: Listing, group: Group) -> None:
    style, items = listing.style, group.items
    covered = (items.size // style.csum_size * style.sectorsize).astype(np.uint64)
    fields = Fields(start=items.offset, end=items.offset + covered)
    listing.put(group, '{{"start":{start},"end":{end}', fields)
    if style.csum_items:
        listing.put(group, ',"csums":[', first=False)
        _list(listing, Parts.of(group, np.dtype((np.void, style.csum_size))), '"{value:hexbytes}"')
        listing.put(group, "]", first=False)
    listing.put(group, "}}" + _END, first=False)


def _file_extent(listing: Listing, group: Group) -> None:
    (inline, heads), (other, extents) = file_extents(listing, group)
    size = inline.items.size - FileExtentHead.sizeof()
    text = _inside(columns(FileExtentHead)) + ',"inline_size":{size}}}'
    listing.put(inline, text + _END, Fields(heads, size=size))
    listing.put(other, object_template(columns(FileExtentItem)) + _END, Fields(extents))


def _root_item(listing: Listing, group: Group) -> None:
    group = listing.whole(group, RootItemV0.sizeof())
    if len(group):
        listing.put(group, object_template(columns(RootItem)) + _END, Fields(roots_of(group)))


def _qgroup_status(listing: Listing, group: Group) -> None:
    whole = group.items.size >= QgroupStatusItem.sizeof()
    _structure(QgroupStatusItem)(listing, group.select(whole))
    _structure(QgroupStatusItemV0)(listing, group.select(~whole))


# -- extents -------------------------------------------------------------------------------------------------

_REFS: dict[int, str] = {
    KeyType.TREE_BLOCK_REF: '"root":{offset}',
    KeyType.SHARED_BLOCK_REF: '"parent":{offset}',
    KeyType.EXTENT_DATA_REF: '"root":{root},"objectid":{objectid},"offset":{offset},"count":{count}',
    KeyType.SHARED_DATA_REF: '"parent":{offset},"count":{count}',
    KeyType.EXTENT_OWNER_REF: '"root_id":{offset}',
}


def _extent_item(listing: Listing, group: Group) -> None:
    group = listing.whole(group, ExtentItem.sizeof())
    if not len(group):
        return
    heads = group.items.view(ExtentItem)
    listing.put(group, _inside(columns(ExtentItem)), Fields(heads))
    nodes, blocks, start = tree_blocks(listing, group, heads)
    if len(nodes):
        block = ',"tree_block":' + object_template(columns(TreeBlockInfo))
        listing.put(nodes, block, Fields(blocks), first=False)
    _inline_refs(listing, group, inline_refs(listing, group, start))


def _metadata_item(listing: Listing, group: Group) -> None:
    group = listing.whole(group, ExtentItem.sizeof())
    if not len(group):
        return
    fields = Fields(group.items.view(ExtentItem), level=skinny_level(group))
    listing.put(group, _inside(columns(ExtentItem)) + ',"level":{level:d}', fields)
    _inline_refs(listing, group, inline_refs(listing, group, group.items.position + ExtentItem.sizeof()))


def _inline_refs(listing: Listing, group: Group, refs: Iterable[InlineRef]) -> None:
    listing.put(group, ',"inline_refs":[', first=False)
    for ref in refs:
        text = f'{{{{"type":"{type_name(ref.kind)}",' + _REFS[ref.kind] + "}}"
        listing.put(ref.group, text if ref.first else "," + text, ref.fields, first=False)
    listing.put(group, "]}}" + _END, first=False)


_STRUCTURES: dict[int, Any] = {
    KeyType.INODE_ITEM: InodeItem,
    KeyType.DIR_LOG_ITEM: DirLogItem,
    KeyType.DIR_LOG_INDEX: DirLogItem,
    KeyType.EXTENT_DATA_REF: ExtentDataRef,
    KeyType.SHARED_DATA_REF: SharedDataRef,
    KeyType.EXTENT_OWNER_REF: ExtentOwnerRef,
    KeyType.BLOCK_GROUP_ITEM: BlockGroupItem,
    KeyType.FREE_SPACE_INFO: FreeSpaceInfo,
    KeyType.DEV_ITEM: DevItem,
    KeyType.DEV_EXTENT: DevExtent,
    KeyType.DEV_REPLACE: DevReplaceItem,
    KeyType.QGROUP_INFO: QgroupInfoItem,
    KeyType.QGROUP_LIMIT: QgroupLimitItem,
    KeyType.REMAP: RemapItem,
    KeyType.REMAP_BACKREF: RemapItem,
}

_PRINTERS: dict[int, Printer] = {int(kind): _structure(struct) for kind, struct in _STRUCTURES.items()} | {
    KeyType.UNTYPED: _only_with(ObjectId.FREE_SPACE, _structure(FreeSpaceHeader)),
    KeyType.INODE_REF: _entries(InodeRef),
    KeyType.INODE_EXTREF: _entries(InodeExtref),
    KeyType.XATTR_ITEM: _entries(DirItem),
    KeyType.DIR_ITEM: _entries(DirItem),
    KeyType.DIR_INDEX: _entries(DirItem),
    KeyType.ROOT_ITEM: _root_item,
    KeyType.ROOT_REF: _root_ref,
    KeyType.ROOT_BACKREF: _root_ref,
    KeyType.EXTENT_ITEM: _extent_item,
    KeyType.METADATA_ITEM: _metadata_item,
    KeyType.EXTENT_DATA: _file_extent,
    KeyType.EXTENT_CSUM: _csums,
    KeyType.CHUNK_ITEM: _chunk,
    KeyType.RAID_STRIPE: _plain_list(columns(RaidStride), object_template(columns(RaidStride))),
    KeyType.QGROUP_STATUS: _qgroup_status,
    KeyType.UUID_KEY_SUBVOL: _plain_list(np.dtype("<u8"), "{value}"),
    KeyType.UUID_KEY_RECEIVED_SUBVOL: _plain_list(np.dtype("<u8"), "{value}"),
    KeyType.PERSISTENT_ITEM: _only_with(ObjectId.DEV_STATS, _structure(DevStatsItem)),
    KeyType.TEMPORARY_ITEM: _only_with(ObjectId.BALANCE, _structure(BalanceItem)),
    KeyType.STRING_ITEM: _string_item,
}

JSON = Form(head=_HEAD, bare=_NULL, pointer=_POINTER, titles=False, printers=_PRINTERS, unknown=_bytes)


def plain(value: Any) -> Any:
    """A parsed structure as what `json.dumps` takes: bytes become hexadecimal, 16 of them a UUID."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items() if name != "_io"}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        return uuid_text(value).decode() if len(value) == 16 else value.hex()
    return int(value)
