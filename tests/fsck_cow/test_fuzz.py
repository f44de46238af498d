"""Whatever stands on disk, a check ends with an answer: never an exception, never more read than there is.

`make fuzz` tries tens of thousands of images that nobody has seen before, and asserts time and memory too; the test
suite tries the same few every time.
"""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.errors import CowError
from cowlib.format import HEADER_SIZE, ITEM_SIZE, Header, Item
from tests.fsck_cow import craft

#: Bounds of one check of a small image, generous ones. What a busy machine takes says nothing in a test suite.
BOUNDED = os.environ.get("COW_HYPOTHESIS") == "fuzz"
SECONDS = 20
GROWTH = 400 << 20

#: Numbers that break what was not careful.
EXTREMES = (0, 1, 2, 255, 4095, 4096, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 1)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small filesystem of several trees and levels."""
    return craft.small(tmp_path_factory.mktemp("fuzz"), "--nodesize", "4096")


@pytest.fixture(scope="module")
def nodes(image: list[Path]) -> list[int]:
    """Addresses of all its tree blocks."""
    found = []
    with craft.Editor(image) as edit:
        for root in edit.roots:
            for place in edit.places(root):
                found += [bytenr for bytenr, _ in place.path]
    return sorted(set(found))


@contextmanager
def damaged(image: list[Path]) -> Iterator[craft.Editor]:
    """An editor to damage the image with; then it is checked, and put back as it was, whatever happens."""
    edit = craft.Editor(image)
    try:
        with edit:
            yield edit
        survives(image)
    finally:
        edit.restore()


def survives(image: list[Path]) -> None:
    """Checks an image: any answer will do, after reading no more than once over all of it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with reading_at_most(sum(path.stat().st_size for path in image)):
        try:
            report = craft.check(image, limit=20)
            assert all(problem.code and problem.message for problem in report.problems)
        except CowError:
            pass  # a refusal in one clear line is an answer too
    if BOUNDED:
        assert time.monotonic() - start < SECONDS
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < GROWTH


@contextmanager
def reading_at_most(nbytes: int) -> Iterator[list[int]]:
    """Fails as soon as more bytes are read of devices: a walk in circles ends here. Yields what each read gave."""
    taken: list[int] = []
    read = os.preadv

    def counted(*arguments: Any) -> int:
        taken.append(read(*arguments))
        assert sum(taken) <= nbytes, f"{len(taken)} reads took more than {nbytes} bytes"
        return taken[-1]

    with mock.patch("os.preadv", counted):
        yield taken


def test_reads_are_counted(image: list[Path]) -> None:
    with reading_at_most(1 << 30) as taken:
        craft.check(image)
    assert len(taken) > 3
    with pytest.raises(AssertionError, match="reads took more"), reading_at_most(sum(taken) - 1):
        craft.check(image)


@given(data=st.data())
def test_flipped_bytes(image: list[Path], nodes: list[int], data: st.DataObject) -> None:
    """Some bytes of some nodes are others, and the checksums fit."""
    with damaged(image) as edit:
        for bytenr in data.draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=4)):
            node = edit.read_node(bytenr)
            used = HEADER_SIZE + ITEM_SIZE * 40
            # Half of them among the header and the first items, where it hurts.
            place = st.one_of(st.integers(32, used), st.integers(32, len(node) - 1))
            for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=12)):
                node[at] = value
            edit.write_node(bytenr, node)


@given(data=st.data())
def test_extreme_fields(image: list[Path], nodes: list[int], data: st.DataObject) -> None:
    """Numbers of eight, four or two bytes anywhere in a node become extreme ones."""
    with damaged(image) as edit:
        for bytenr in data.draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3)):
            node = edit.read_node(bytenr)
            for _ in range(data.draw(st.integers(1, 6))):
                width = data.draw(st.sampled_from((8, 4, 2, 1)))
                at = data.draw(st.integers(48, len(node) - width))
                value = data.draw(st.sampled_from(EXTREMES)) & ((1 << 8 * width) - 1)
                node[at : at + width] = value.to_bytes(width, "little")
            edit.write_node(bytenr, node)


@given(data=st.data())
def test_extreme_payloads(image: list[Path], data: st.DataObject) -> None:
    """As above, but inside of one item's payload: every kind of item gets its turn."""
    with damaged(image) as edit:
        root = data.draw(st.sampled_from(edit.roots))
        places = [place for place in edit.places(root) if place.size]
        if not places:
            return
        kinds = sorted({place.key[1] for place in places})
        kind = data.draw(st.sampled_from(kinds))
        place = data.draw(st.sampled_from([place for place in places if place.key[1] == kind]))
        width = data.draw(st.sampled_from([width for width in (8, 4, 2, 1) if width <= place.size]))
        at = data.draw(st.integers(0, place.size - width))
        value = data.draw(st.one_of(st.sampled_from(EXTREMES), st.integers(0, 2**64 - 1))) & ((1 << 8 * width) - 1)
        edit.patch(place, at, value.to_bytes(width, "little"))


@given(data=st.data())
def test_extreme_items(image: list[Path], nodes: list[int], data: st.DataObject) -> None:
    """Keys, offsets, sizes and counts of a node are extreme."""
    with damaged(image) as edit:
        bytenr = data.draw(st.sampled_from(nodes))
        node = edit.read_node(bytenr)
        slot = data.draw(st.integers(0, 30))
        name = data.draw(st.sampled_from(("key.objectid", "key.offset", "offset", "size", "nritems")))
        value = data.draw(st.sampled_from(EXTREMES))
        value &= 2**64 - 1 if name.startswith("key") else 2**32 - 1
        if name == "nritems":
            craft.put_fields(node, 0, Header, {name: value})
        else:
            craft.put_fields(node, HEADER_SIZE + slot * ITEM_SIZE, Item, {name: value})
        edit.write_node(bytenr, node)


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(("body", "swap", "half")))
def test_shuffled_nodes(image: list[Path], nodes: list[int], seed: int, kind: str) -> None:
    """The contents of nodes stand in another order, or in another node."""
    source = random.Random(seed)
    with damaged(image) as edit:
        first, second = source.sample(nodes, 2)
        one, other = edit.read_node(first), edit.read_node(second)
        if kind == "body":
            body = list(one[HEADER_SIZE:])
            source.shuffle(body)
            one[HEADER_SIZE:] = bytes(body)
        elif kind == "swap":
            # Everything but where it stands and who made it.
            one[HEADER_SIZE:], other[HEADER_SIZE:] = other[HEADER_SIZE:], one[HEADER_SIZE:]
            one[96:101], other[96:101] = other[96:101], one[96:101]
            edit.write_node(second, other)
        else:
            half = len(one) // 2
            one[half:] = other[half:]
        edit.write_node(first, one)


@given(data=st.data())
def test_superblocks(image: list[Path], data: st.DataObject) -> None:
    """Fields of the superblock are extreme, in all copies, and the checksums fit."""
    from cowlib.format import Superblock, columns
    from tests.fsck_cow.fields import flat

    names = [name for name in flat(columns(Superblock)) if name not in ("csum", "magic")]
    with damaged(image) as edit:
        for _ in range(data.draw(st.integers(1, 3))):
            name = data.draw(st.sampled_from(names))
            dtype = craft.field_place(columns(Superblock), name)[1]
            if dtype.kind == "V":
                value = data.draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize))
                fields: dict[str, Any] = {name: value}
            else:
                number = data.draw(st.one_of(st.sampled_from(EXTREMES), st.integers(0, 2**64 - 1)))
                fields = {name: number & ((1 << 8 * dtype.itemsize) - 1)}
            edit.set_superblock(**fields)
