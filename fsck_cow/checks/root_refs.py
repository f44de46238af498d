"""Where subvolumes hang: ROOT_REFs and ROOT_BACKREFs against each other and against the directories they name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from cowlib.btree.nodes import I64
from cowlib.checksum import name_hash
from cowlib.format import NAME_LEN, FileType, KeyType, ObjectId, RootRef, columns
from fsck_cow.batch import Entries, LeafBatch, Rows
from fsck_cow.checks.reporting import report_items
from fsck_cow.checks.roots import ROOT, ROOTS, is_subvolume
from fsck_cow.context import Context
from fsck_cow.problems import Problem, Severity
from fsck_cow.registry import Kind, final_check, leaf_check

#: The names under which rows are gathered. `LINK`: root references. `ENTRY`: directory entries that lead to subvolumes,
#: and those of the root tree's own directory.
LINKS, ENTRIES, ROOT_DIRECTORY = "root-refs", "subvolume-entries", "root-directory"

#: A ROOT_REF or ROOT_BACKREF (``type``): subvolume ``child`` hangs in directory ``dirid`` of ``parent``.
LINK = np.dtype(
    [
        ("parent", "<u8"),
        ("child", "<u8"),
        ("dirid", "<u8"),
        ("sequence", "<u8"),
        ("type", "u1"),
        ("name", f"S{NAME_LEN}"),
    ]
)

#: A directory entry that leads to a subvolume: ``leaf`` is a row of the block table, ``type`` and ``offset`` the key's.
ENTRY = np.dtype(
    [
        ("leaf", "<i8"),
        ("dirid", "<u8"),
        ("type", "u1"),
        ("offset", "<u8"),
        ("child", "<u8"),
        ("kind", "u1"),
        ("name", f"S{NAME_LEN}"),
    ]
)


@leaf_check("root", Kind.ROOTS, codes=("root.ref-malformed",))
def gather_links(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Takes the root references of the root tree apart, and its own directory."""
    items = batch.items.of_type(KeyType.ROOT_REF, KeyType.ROOT_BACKREF)
    head = columns(RootRef).itemsize
    heads = batch.heads(RootRef, KeyType.ROOT_REF, KeyType.ROOT_BACKREF)
    length = heads.rows["name_len"].astype(np.int64)
    whole = (heads.items.size == head + length) & (length > 0) & (length <= NAME_LEN)
    yield from report_items(
        "root.ref-malformed",
        "is too short",
        items,
        items.in_bounds & (items.size < head),
        tree=ObjectId.ROOT_TREE,
    )
    yield from report_items(
        "root.ref-malformed",
        "name has no proper length",
        heads.items,
        ~whole,
        tree=ObjectId.ROOT_TREE,
        found=length,
        expected=f"1 to {NAME_LEN}, up to the end of the item",
    )
    index = np.flatnonzero(whole)
    links = np.zeros(len(index), LINK)
    objectid, offset = heads.items.objectid[index], heads.items.offset[index]
    forward = heads.items.type[index] == KeyType.ROOT_REF
    links["parent"], links["child"] = np.where(forward, objectid, offset), np.where(forward, offset, objectid)
    links["type"] = heads.items.type[index]
    for name in ("dirid", "sequence"):
        links[name] = heads.rows[name][index]
    links["name"] = [heads.items.payload(i)[head:] for i in index.tolist()]
    context.gather(LINKS, links)
    context.gather(ROOT_DIRECTORY, _entry_rows(batch, batch.dir_items, np.arange(len(batch.dir_items))))


@leaf_check("root", Kind.FILES, codes=("root.entry-wrong",))
def gather_entries(context: Context, batch: LeafBatch) -> Iterator[Problem]:
    """Directory entries that lead to subvolumes."""
    for entries in (batch.dir_items, batch.dir_indexes):
        which = np.flatnonzero(entries.rows["location"]["type"] == KeyType.ROOT_ITEM)
        if not len(which):
            continue
        rows = _entry_rows(batch, entries, which)
        context.gather(ENTRIES, rows)
        # The offset of its location is all ones or that of the root item's key, and nobody reads it.
        wrong = ~is_subvolume(rows["child"]) | (rows["kind"] != FileType.DIR)
        items = entries.items.select(entries.item[which])
        yield from report_items(
            "root.entry-wrong",
            "directory entry does not name a subvolume as it should",
            items,
            wrong,
            tree=batch.tree,
            found=rows["child"],
        )


def _entry_rows(batch: LeafBatch, entries: Entries, which: I64) -> Rows:
    rows = np.zeros(len(which), ENTRY)
    rows["leaf"] = batch.rows[entries.node[which]]
    rows["dirid"], rows["offset"] = entries.objectid[which], entries.offset[which]
    rows["type"] = entries.items.type[entries.item[which]]
    rows["child"], rows["kind"] = entries.rows["location"]["objectid"][which], entries.rows["type"][which]
    rows["name"] = [entries.name(i)[:NAME_LEN] for i in which.tolist()]
    return rows


@final_check(
    "root",
    (
        "root.ref-missing",
        "root.backref-missing",
        "root.ref-mismatch",
        "root.ref-dangling",
        "root.referenced-twice",
        "root.unreferenced",
        "root.unreachable",
    ),
    order=11,
)
def links_together(context: Context) -> Iterator[Problem]:
    """References come in pairs, between subvolumes that exist; each subvolume has one, and they lead to the top."""
    if ObjectId.ROOT_TREE in context.lost_trees():
        return
    links = context.columns(LINKS, LINK)
    forward = {_pair(row): _place(row) for row in links if row["type"] == KeyType.ROOT_REF}
    backward = {_pair(row): _place(row) for row in links if row["type"] == KeyType.ROOT_BACKREF}
    for pair in sorted(forward.keys() | backward.keys()):
        yield from _paired(pair, forward.get(pair), backward.get(pair))
    roots = context.columns(ROOTS, ROOT)
    live = set(roots["objectid"][is_subvolume(roots["objectid"]) & (roots["item"]["refs"] > 0)].tolist())
    parents: dict[int, list[int]] = defaultdict(list)
    for parent, child in backward:
        parents[child].append(parent)
        for objectid, what in ((parent, "holds"), (child, "is")):
            if objectid not in live:
                yield Problem(
                    "root.ref-dangling",
                    f"reference names a subvolume that is not there: {objectid} {what} the one referred to",
                    tree=int(ObjectId.ROOT_TREE),
                    key=(child, int(KeyType.ROOT_BACKREF), parent),
                )
    for objectid in sorted(live - {int(ObjectId.FS_TREE)}):
        yield from _hangs(objectid, parents)


def _pair(row: Any) -> tuple[int, int]:
    return int(row["parent"]), int(row["child"])


def _place(row: Any) -> tuple[int, int, bytes]:
    return int(row["dirid"]), int(row["sequence"]), bytes(row["name"])


def _paired(pair: tuple[int, int], forward: Any, backward: Any) -> Iterator[Problem]:
    """Both references of one parent and child, either None, against each other."""
    parent, child = pair
    root_tree = int(ObjectId.ROOT_TREE)
    if forward is None:
        key = (child, int(KeyType.ROOT_BACKREF), parent)
        yield Problem("root.ref-missing", "ROOT_BACKREF without a ROOT_REF", tree=root_tree, key=key, found=backward)
    elif backward is None:
        key = (parent, int(KeyType.ROOT_REF), child)
        yield Problem("root.backref-missing", "ROOT_REF without a ROOT_BACKREF", tree=root_tree, key=key, found=forward)
    elif forward != backward:
        yield Problem(
            "root.ref-mismatch",
            "ROOT_REF and ROOT_BACKREF name different directories, indexes or names",
            tree=root_tree,
            key=(parent, int(KeyType.ROOT_REF), child),
            found=forward,
            expected=backward,
        )


def _hangs(objectid: int, parents: dict[int, list[int]]) -> Iterator[Problem]:
    """Whether a subvolume hangs in exactly one directory, and its parents lead to the top one."""
    mine = parents.get(objectid, [])
    if not mine:
        yield Problem("root.unreferenced", "no directory holds this subvolume", tree=objectid)
        return
    if len(mine) > 1:
        yield Problem(
            "root.referenced-twice", "more than one directory holds this subvolume", tree=objectid, found=mine
        )
    seen: set[int] = set()
    at = objectid
    while at != ObjectId.FS_TREE and at not in seen and parents.get(at):
        seen.add(at)
        at = parents[at][0]
    if at in seen:
        yield Problem("root.unreachable", "subvolumes hold each other in a circle", tree=objectid)


@final_check("root", ("root.entry-missing", "root.entry-without-ref"), order=12)
def links_and_directories(context: Context) -> Iterator[Problem]:
    """Every reference has its DIR_ITEM and DIR_INDEX in the parent subvolume.

    The reverse need not be: a snapshot has the entries of the subvolumes below its source, and no references to them.
    """
    links = context.columns(LINKS, LINK)
    links = links[links["type"] == KeyType.ROOT_REF]
    entries = context.columns(ENTRIES, ENTRY)
    walked = {objectid: tree for (objectid, _), tree in context.walked.items() if is_subvolume(objectid)}
    by_place: dict[tuple[int, int, int, bytes], list[int]] = defaultdict(list)
    for i, entry in enumerate(entries):
        by_place[int(entry["type"]), int(entry["child"]), int(entry["dirid"]), bytes(entry["name"])].append(i)
    used = np.zeros(len(entries), bool)
    lost = context.lost_trees()
    for parent in sorted(set(links["parent"].tolist())):
        tree = walked.get(parent)
        if tree is None:
            continue
        here = np.isin(entries["leaf"], tree.leaves)
        for link in links[links["parent"] == np.uint64(parent)]:
            for kind in (KeyType.DIR_ITEM, KeyType.DIR_INDEX):
                offset = int(link["sequence"]) if kind == KeyType.DIR_INDEX else name_hash(bytes(link["name"]))
                place = (int(kind), int(link["child"]), int(link["dirid"]), bytes(link["name"]))
                found = [i for i in by_place[place] if here[i] and int(entries["offset"][i]) == offset]
                used[found] = True
                if not found and parent not in lost:
                    yield Problem(
                        "root.entry-missing",
                        f"{kind.name} of subvolume {int(link['child'])} is not in its parent",
                        tree=parent,
                        key=(int(link["dirid"]), int(kind), offset),
                        expected=bytes(link["name"]),
                    )
    if ObjectId.ROOT_TREE not in lost:
        yield from _without_refs(context, entries[~used], walked)


def _without_refs(context: Context, entries: Rows, walked: dict[int, Any]) -> Iterator[Problem]:
    """Entries that no reference belongs to, in subvolumes that are no snapshots."""
    roots = context.columns(ROOTS, ROOT)
    item = roots["item"]
    # A snapshot's key has the transaction that took it; what it was taken of need not have a UUID.
    snapshot = (roots["offset"] > 0) | (item["parent_uuid"] != np.void(bytes(16)))
    originals = roots["objectid"][~snapshot & (item["refs"] > 0)].tolist() if len(entries) else []
    for objectid in originals:
        tree = walked.get(objectid)
        if tree is None:
            continue
        for entry in entries[np.isin(entries["leaf"], tree.leaves)]:
            yield Problem(
                "root.entry-without-ref",
                f"directory entry of subvolume {int(entry['child'])} has no ROOT_REF",
                tree=objectid,
                key=(int(entry["dirid"]), int(entry["type"]), int(entry["offset"])),
                found=bytes(entry["name"]),
            )


@final_check("root", ("root.default-missing", "root.default-wrong"), order=13)
def default_subvolume(context: Context) -> Iterator[Problem]:
    """The root tree's own directory names the subvolume that is mounted by default."""
    if ObjectId.ROOT_TREE in context.lost_trees():
        return
    entries = context.columns(ROOT_DIRECTORY, ENTRY)
    key = (int(ObjectId.ROOT_TREE_DIR), int(KeyType.DIR_ITEM), name_hash(b"default"))
    root_tree = int(ObjectId.ROOT_TREE)
    entries = entries[(entries["dirid"] == key[0]) & (entries["name"] == b"default")]
    if not len(entries):
        yield Problem(
            "root.default-missing",
            "no default subvolume is named: the top one is mounted",
            Severity.NOTE,
            tree=root_tree,
            key=key,
        )
    roots = context.columns(ROOTS, ROOT)
    live = set(roots["objectid"][is_subvolume(roots["objectid"]) & (roots["item"]["refs"] > 0)].tolist())
    for entry in entries:
        child = int(entry["child"])
        if child not in live or int(entry["offset"]) != key[2] or int(entry["kind"]) != FileType.DIR:
            yield Problem(
                "root.default-wrong",
                "the default subvolume is none, or its entry is not as it should be",
                tree=root_tree,
                key=(key[0], key[1], int(entry["offset"])),
                found=child,
            )
