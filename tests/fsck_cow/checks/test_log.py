"""Logs that wait to be replayed: legal, told of, and each rule broken once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cowlib.btree import TreeRoot
from cowlib.format import (
    BlockGroupFlag,
    DirLogItem,
    FileExtentItem,
    FileExtentType,
    InodeItem,
    KeyType,
    ObjectId,
    RootItem,
)
from fsck_cow.problems import Report, Severity
from tests.fsck_cow import craft
from tests.fsck_cow.checks.named import FILES, TOP, few_files, inode, number

LOG = int(ObjectId.TREE_LOG)
NEW = 4096

Items = list[tuple[craft.Key, bytes]]


def extent(edit: craft.Editor, disk_bytenr: int) -> tuple[craft.Key, bytes]:
    """A new extent of the file "inline"."""
    fields = {
        "generation": 1,
        "compression": 0,
        "encryption": 0,
        "other_encoding": 0,
        "type": FileExtentType.REG,
        "offset": 0,
    }
    fields |= {"disk_bytenr": disk_bytenr, "disk_num_bytes": 4096, "num_bytes": 4096, "ram_bytes": 4096}
    return (number(edit, b"inline"), int(KeyType.EXTENT_DATA), NEW), FileExtentItem.build(fields)


def sums(disk_bytenr: int) -> tuple[craft.Key, bytes]:
    """The checksum of that extent."""
    return (int(ObjectId.EXTENT_CSUM), int(KeyType.EXTENT_CSUM), disk_bytenr), bytes(4)


def free(edit: craft.Editor, kind: BlockGroupFlag, size: int) -> int:
    """An address at the end of a chunk of this kind, which nothing uses."""
    chunks = edit.chunks
    index = next(i for i in range(len(chunks)) if int(chunks.type[i]) & kind)
    return int(chunks.logical[index]) + int(chunks.length[index]) - size


def write(edit: craft.Editor, bytenr: int, items: Items) -> None:
    """Writes a leaf of a log."""
    source = edit.root(FILES).bytenr
    edit.write_node(bytenr, edit.read_node(source))
    edit.set_header(bytenr, bytenr=bytenr, owner=LOG, generation=int(edit.superblock.generation) + 1)
    edit.write_leaf(craft.Place(TreeRoot(LOG, 0, bytenr, 0, 0), ((bytenr, 0),), (0, 0, 0), 0, 0), sorted(items))


def after(
    folder: Path,
    change: Callable[[craft.Editor, int, Items], None] = lambda edit, data, items: None,
    change_root: Callable[[Items], None] = lambda items: None,
) -> Report:
    """Gives a small filesystem a log of one file with one new extent, with changes, and checks it.

    ``change`` gets the address of the extent and the items of the log, ``change_root`` those of the tree of logs.
    """
    images = craft.small(folder, "--rootdir", str(few_files()))
    with craft.Editor(images) as edit:
        bytenr = free(edit, BlockGroupFlag.METADATA, 2 * edit.nodesize)
        data = free(edit, BlockGroupFlag.DATA, 4096)
        place = inode(edit, b"inline")
        items: Items = [(place.key, edit.payload(place)), extent(edit, data), sums(data)]
        change(edit, data, items)
        write(edit, bytenr + edit.nodesize, items)
        root = bytearray(edit.payload(edit.find(ObjectId.ROOT_TREE, (FILES, KeyType.ROOT_ITEM, 0))))
        generation = int(edit.superblock.generation) + 1
        craft.put_fields(root, 0, RootItem, {"bytenr": bytenr + edit.nodesize, "generation": generation, "level": 0})
        roots: Items = [((LOG, int(KeyType.ROOT_ITEM), int(FILES)), bytes(root))]
        change_root(roots)
        write(edit, bytenr, roots)
        edit.set_superblock(log_root=bytenr, log_root_level=0)
    return craft.check(images)


def test_a_log_is_told_of(tmp_path: Path) -> None:
    """And is no error."""
    report = after(tmp_path)
    assert report.clean, report.problems
    note = next(problem for problem in report.problems if problem.code == "log.unreplayed")
    assert note.severity == Severity.NOTE and note.tree == FILES
    assert "1 inodes, 0 names, 1 extents" in note.message


def test_checksums_may_be_committed_already(tmp_path: Path) -> None:
    """Then the log needs none, and they are not too many."""

    def change(edit: craft.Editor, data: int, items: Items) -> None:
        key, payload = items.pop()
        edit.insert(ObjectId.CSUM_TREE, key, payload)

    assert after(tmp_path, change).clean


def added(key: craft.Key, payload: bytes) -> Callable[[craft.Editor, int, Items], None]:
    """Adds an item to the log."""
    return lambda edit, data, items: items.append((key, payload))


def without_sums(edit: craft.Editor, data: int, items: Items) -> None:
    """Takes the checksums away."""
    del items[-1]


def in_the_future(edit: craft.Editor, data: int, items: Items) -> None:
    """Changes the inode."""
    key, payload = items[0]
    changed = bytearray(payload)
    craft.put_fields(changed, 0, InodeItem, {"transid": 1 << 40})
    items[0] = (key, bytes(changed))


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("log.checksum-missing", without_sums),
        ("log.unknown-item", added((TOP, KeyType.CHUNK_ITEM, 0), b"")),
        ("log.range-wrong", added((TOP, KeyType.DIR_LOG_INDEX, 9), DirLogItem.build({"end": 8}))),
        ("log.checksum-wrong", added((ObjectId.EXTENT_CSUM, KeyType.EXTENT_CSUM, 5), bytes(4))),
        ("log.checksum-wrong", added((ObjectId.EXTENT_CSUM, KeyType.EXTENT_CSUM, 4096), bytes(5))),
        ("inode.generation-wrong", in_the_future),
    ],
)
def test_broken(code: str, change: Callable[[craft.Editor, int, Items], None], tmp_path: Path) -> None:
    """Is told by its code."""
    report = after(tmp_path, change)
    assert code in report.counts, report.problems
    assert not report.clean


@pytest.mark.parametrize("key", [(LOG, KeyType.ROOT_ITEM, 9), (TOP, KeyType.ROOT_ITEM, TOP)])
def test_broken_root(key: craft.Key, tmp_path: Path) -> None:
    """Logs are of subvolumes, and stand under the number of the log."""

    def change(items: Items) -> None:
        items[0] = (key, items[0][1])

    assert "log.root-wrong" in after(tmp_path, change_root=change).counts


def test_log_of_a_deleted_subvolume(tmp_path: Path) -> None:
    """Will be passed over."""

    def change(items: Items) -> None:
        items[0] = ((LOG, int(KeyType.ROOT_ITEM), 300), items[0][1])

    report = after(tmp_path, change_root=change)
    assert report.clean and "log.subvolume-missing" in report.counts
