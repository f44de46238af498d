"""References found against references recorded: each kind of difference, and what lost blocks excuse."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.format import (
    BlockGroupFlag,
    Chunk,
    ExtentDataRef,
    ExtentFlag,
    ExtentItem,
    FileExtentItem,
    KeyType,
    ObjectId,
    RootItem,
    build_item,
)
from fsck_cow.checks.backrefs import _counted
from fsck_cow.checks.extent_refs import REF
from fsck_cow.checks.extents import data_ref_hashes
from fsck_cow.problems import Problem, Severity
from tests import corpus
from tests.fsck_cow import craft
from tests.fsck_cow.checks.damage import FIRST_REF, Edit, after, block_extent, data_extent

EXTENTS = ObjectId.EXTENT_TREE


def delete(place: str) -> Edit:
    """Takes an extent item away."""
    return lambda edit: edit.delete({"data": data_extent, "block": block_extent}[place](edit))


def reference(**change: int) -> Edit:
    """Adds to fields of a data extent's reference."""

    def edit_(edit: craft.Editor) -> None:
        place = data_extent(edit)
        own = edit.parsed(place)["inline_refs"][0]
        fields = {name: own[name] + more for name, more in change.items()}
        edit.set_fields(place, ExtentDataRef, FIRST_REF + 1, **fields)
        if "count" in change:
            edit.set_fields(place, ExtentItem, refs=fields["count"])

    return edit_


def unused(edit: craft.Editor) -> None:
    """An extent item of data that no file has, in the first gap between two extents of a data chunk."""
    before = data_extent(edit)
    for place in edit.places(EXTENTS):
        if place.key[1] == KeyType.EXTENT_ITEM:
            if place.key[0] - (before.key[0] + before.key[2]) >= 4096 and place.key[0] > before.key[0]:
                break
            before = place
    key = (before.key[0] + before.key[2], int(KeyType.EXTENT_ITEM), 4096)
    ref = {"type": KeyType.EXTENT_DATA_REF, "root": 5, "objectid": 257, "offset": 0, "count": 1}
    item = {"refs": 1, "generation": 1, "flags": int(ExtentFlag.DATA), "inline_refs": [ref]}
    edit.insert(EXTENTS, key, build_item(*key, item))


def length(edit: craft.Editor) -> None:
    """A file extent that takes its extent to be shorter."""
    whole = FileExtentItem.sizeof()
    place = edit.first(256, lambda p: p.key[1] == KeyType.EXTENT_DATA and p.size == whole)
    found = np.frombuffer(edit.payload(place), "<u8", 1, 29)[0]
    edit.set_fields(place, FileExtentItem, disk_num_bytes=int(found) + 4096)


def metadata_chunk(edit: craft.Editor) -> None:
    """Calls the system chunk one for metadata."""
    for place in list(edit.places(ObjectId.CHUNK_TREE)):
        if place.key[1] == KeyType.CHUNK_ITEM and edit.parsed(place)["type"] & BlockGroupFlag.SYSTEM:
            kind = edit.parsed(place)["type"] & ~BlockGroupFlag.SYSTEM | BlockGroupFlag.METADATA
            edit.set_fields(place, Chunk, type=int(kind))


CASES: list[tuple[str, str, Edit]] = [
    ("default", "extent.missing", delete("data")),
    ("default", "extent.missing", delete("block")),
    ("default", "extent.unreferenced", unused),
    ("default", "extent.backref-missing", reference(objectid=1)),
    ("default", "extent.backref-missing", reference(offset=4096)),
    ("default", "extent.reference-unknown", reference(root=1000)),
    ("default", "extent.backref-wrong-count", reference(count=1)),
    ("default", "extent.length-mismatch", length),
    ("default", "extent.level-mismatch", lambda edit: edit.set_item(block_extent(edit), **{"key.offset": 1})),
    (
        "default",
        "extent.generation-mismatch",
        lambda edit: edit.set_fields(block_extent(edit), ExtentItem, generation=1),
    ),
    (
        "default",
        "extent.full-backref-wrong",
        lambda edit: edit.set_fields(block_extent(edit), ExtentItem, flags=2 | 1 << 8),
    ),
    ("default", "extent.backref-missing", lambda edit: edit.patch(block_extent(edit), FIRST_REF + 1, b"\4")),
    ("default", "extent.system-chunk-wrong", metadata_chunk),
    ("noskinny", "extent.kind-wrong", lambda edit: edit.set_fields(block_extent(edit), ExtentItem, flags=1)),
]


@pytest.mark.parametrize(("name", "code", "edit"), CASES, ids=[f"{i}-{code}" for i, (_, code, _) in enumerate(CASES)])
def test_each_difference(tmp_path: Path, name: str, code: str, edit: Edit) -> None:
    assert code in after(name, tmp_path, edit).counts


def test_full_backrefs_are_followed(tmp_path: Path) -> None:
    """Without its FULL_BACKREF a shared leaf's references are looked for in the wrong place."""

    def edit(edit: craft.Editor) -> None:
        def full(place: craft.Place) -> bool:
            kinds = (KeyType.METADATA_ITEM, KeyType.EXTENT_ITEM)
            return place.key[1] in kinds and bool(edit.parsed(place)["flags"] & ExtentFlag.FULL_BACKREF)

        edit.set_fields(edit.first(EXTENTS, full), ExtentItem, flags=int(ExtentFlag.TREE_BLOCK))

    counts = after("mixed", tmp_path, edit).counts
    assert {"extent.backref-missing", "extent.reference-unknown"} <= counts.keys()


def _spoil(tree: int) -> Edit:
    """Makes the first leaf of a tree unreadable, in all its copies."""

    def edit_(edit: craft.Editor) -> None:
        leaf = next(iter(edit.places(tree))).leaf
        node = edit.read_node(leaf)
        node[200] ^= 1
        edit.write_node(leaf, node, mend=False)

    return edit_


def _of_extents(problems: list[Problem]) -> list[tuple[str, Severity]]:
    return sorted({(p.code, p.severity) for p in problems if p.subject == "extent"})


@pytest.mark.parametrize("tree", [EXTENTS, 256])
def test_lost_blocks_are_no_differences(tmp_path: Path, tree: int) -> None:
    """What could stand in an unreadable block is not said to be missing, nor what could be used by it unused."""
    report = after("default", tmp_path, _spoil(tree))
    assert report.counts["node.unreadable"] == 1
    assert _of_extents(report.problems) == [("extent.not-compared", Severity.NOTE)]


def test_half_dropped_subvolume(tmp_path: Path) -> None:
    """Blocks before ``drop_progress`` are gone: without it, they are missing."""
    images = craft.copy(corpus.devices("half-dropped"), tmp_path)
    assert not any(code.startswith("extent.") for code in craft.codes(images))
    with craft.Editor(images) as edit:

        def dropping(place: craft.Place) -> bool:
            return place.key[1] == KeyType.ROOT_ITEM and bool(edit.parsed(place).drop_progress.objectid)

        place = edit.first(ObjectId.ROOT_TREE, dropping)
        nowhere = {f"drop_progress.{name}": 0 for name in ("objectid", "type", "offset")}
        edit.set_fields(place, RootItem, **nowhere)
    assert "extent.missing" in craft.codes(images)


ROWS = st.lists(
    st.tuples(*(st.integers(0, 2) for _ in range(4)), st.integers(0, 2**32 - 1), st.integers(176, 178)), max_size=12
)


def _rows(rows: list[tuple[int, ...]]) -> np.ndarray:
    return np.array([tuple(row) for row in rows], REF)


@given(ROWS, ROWS)
def test_counting_agrees_with_a_counter(found: list[tuple[int, ...]], recorded: list[tuple[int, ...]]) -> None:
    refs, times_found, times_recorded = _counted(_rows(found), _rows(recorded))
    sides = []
    for rows in (found, recorded):
        counter: Counter[tuple[int, ...]] = Counter()
        for *place, count, kind in rows:
            counter[(*place, kind)] += count
        sides.append(counter)
    keys = [(*(int(row[n]) for n in ("bytenr", "root", "objectid", "offset")), int(row["type"])) for row in refs]
    assert sorted(keys) == sorted({*sides[0], *sides[1]})
    assert times_found.tolist() == [sides[0][key] for key in keys]
    assert times_recorded.tolist() == [sides[1][key] for key in keys]


@given(ROWS)
def test_sums_do_not_depend_on_how_counts_are_split(rows: list[tuple[int, ...]]) -> None:
    """Five references in one record are as good as one by one."""
    together = _rows([(*row[:4], row[4] % 5, row[5]) for row in rows])
    apart = np.repeat(together, together["count"])
    apart["count"] = 1
    lengths = np.full(len(together), 4096, np.uint64)
    assert data_ref_hashes(together, lengths).sum(dtype=np.uint64) == data_ref_hashes(
        apart, np.full(len(apart), 4096, np.uint64)
    ).sum(dtype=np.uint64)
