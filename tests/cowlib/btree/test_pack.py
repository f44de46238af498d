"""Packing: what goes in comes out again, in order, in nodes that are as full as can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.btree import ItemTable, copy_ragged, plan
from cowlib.errors import DamagedError
from cowlib.format import HEADER_SIZE, ITEM_SIZE
from tests.cowlib.btree.memory import STYLE, grow, table_of

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1) | st.integers(250, 260),
        st.integers(0, 255),
        st.integers(0, 2**64 - 1) | st.integers(0, 3),
        st.binary(max_size=700),
    ),
    max_size=120,
)


def joined(rows: list[tuple[int, int, int, bytes]]) -> dict[tuple[int, int, int], bytes]:
    """The items that rows stand for: payloads of equal keys one after another."""
    found: dict[tuple[int, int, int], bytes] = {}
    for objectid, kind, offset, payload in rows:
        key = (objectid, kind, offset)
        found[key] = found.get(key, b"") + payload
    return found


@given(ROWS)
def test_every_item_comes_back_in_order(rows):
    expected = joined(rows)
    if any(len(payload) > STYLE.nodesize - HEADER_SIZE - ITEM_SIZE for payload in expected.values()):
        return
    reader, root, _ = grow(table_of(rows))
    found: dict[Any, bytes] = {}
    for nodes in reader.leaves(root):
        items = nodes.items()
        assert items.in_bounds.all()
        found |= {items.key(i): items.payload(i) for i in range(len(items))}
    assert found == expected
    assert list(found) == sorted(found)
    assert not reader.damage


def test_a_leaf_holds_items_until_the_next_does_not_fit():
    room = STYLE.nodesize - HEADER_SIZE
    payload = room // 3 - ITEM_SIZE
    shape = plan(table_of([(i, 1, 0, bytes(payload)) for i in range(7)]), STYLE.nodesize)
    assert np.diff(shape.levels[0].starts).tolist() == [3, 3, 1]
    assert shape.node_count == 4
    assert shape.height == 1


def test_an_empty_tree_is_one_empty_leaf():
    reader, root, _ = grow(ItemTable.empty())
    (nodes,) = reader.leaves(root)
    assert root.level == 0
    assert int(nodes.header["nritems"][0]) == 0


def test_an_item_that_no_leaf_holds_is_named():
    with pytest.raises(DamagedError, match=r"key \(1 2 3\).*a leaf holds 3970"):
        plan(table_of([(1, 2, 3, bytes(3971))]), STYLE.nodesize)


def test_many_levels():
    reader, root, _ = grow(table_of([(i, 1, 0, b"x" * 1000) for i in range(40_000)]))
    assert root.level == 2
    objectids = np.concatenate([nodes.items().objectid for nodes in reader.leaves(root)])
    assert np.array_equal(objectids, np.arange(40_000, dtype=np.uint64))


@given(st.lists(st.binary(max_size=40), max_size=60))
def test_ragged_copy(pieces):
    size = np.array([len(piece) for piece in pieces], np.int64)
    start = np.cumsum(size) - size
    source = np.frombuffer(b"".join(pieces), np.uint8)
    target = np.zeros(int(size.sum()), np.uint8)
    backwards = int(size.sum()) - np.cumsum(size)
    copy_ragged(target, backwards, source, start, size)
    assert target.tobytes() == b"".join(reversed(pieces))
