"""``--data``: bytes flipped in one copy or in all, in data, parity and tree blocks; the file is named."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from cowlib.checksum import csum_size
from cowlib.format import FileExtentItem, KeyType, columns
from fsck_cow.problems import Problem, Severity
from tests import corpus
from tests.fsck_cow import craft


def data_at(edit: craft.Editor, *, inside: bool = False) -> int:
    """The logical address of a file's plain data of at least two sectors that have checksums.

    ``inside``: of a file in a subvolume below the top.
    """
    sums = [place for place in edit.places(7) if place.key[1] == KeyType.EXTENT_CSUM]
    width = csum_size(edit.csum_type)
    subvolumes = [root for root in edit.roots if 256 <= root.objectid < 2**63]
    for place in itertools.chain.from_iterable(
        edit.places(root) for root in (subvolumes if inside else [edit.root(5), *subvolumes])
    ):
        if place.key[1] != KeyType.EXTENT_DATA or place.size != columns(FileExtentItem).itemsize:
            continue
        extent = np.frombuffer(edit.payload(place), columns(FileExtentItem))[0]
        at = int(extent["disk_bytenr"])
        covered = any(s.key[2] <= at and at + 8192 <= s.key[2] + s.size // width * 4096 for s in sums)
        whole = (extent["type"], extent["compression"], extent["offset"]) == (1, 0, 0)
        if at and extent["num_bytes"] >= 8192 and whole and covered:
            return at
    raise LookupError("no such file extent")


def flip(edit: craft.Editor, logical: int, mirror: int) -> None:
    """Inverts the first byte of a sector in one copy."""
    sector = bytearray(edit.volume.read(logical, 4096, mirror))
    sector[0] ^= 255
    edit.write_copy(logical, bytes(sector), mirror)


def found(images: list[Path]) -> list[Problem]:
    """The problems of a check with ``--data``, in order."""
    return craft.check(images, data=True).problems


def test_wrong_in_all_copies(tmp_path: Path) -> None:
    images = craft.copy(corpus.devices("default"), tmp_path)
    with craft.Editor(images) as edit:
        logical = data_at(edit)
        flip(edit, logical, 1)
        flip(edit, logical + 4096, 1)
    (problem,) = found(images)
    assert problem.code == "data.checksum-wrong"
    assert problem.severity == Severity.ERROR
    assert problem.logical == logical
    assert problem.path is not None and problem.path.startswith("/")
    assert "2 sectors of copy 1" in problem.message
    assert not craft.check(images).problems, "without --data nobody looks"


@pytest.mark.parametrize(("name", "copies"), [("raid1", 2), ("raid10", 2), ("raid1c3", 3)])
def test_wrong_in_one_copy(name: str, copies: int, tmp_path: Path) -> None:
    images = craft.copy(corpus.devices(name), tmp_path)
    with craft.Editor(images) as edit:
        logical = data_at(edit)
        flip(edit, logical, copies)
    (problem,) = found(images)
    assert (problem.code, problem.severity) == ("data.checksum-wrong", Severity.REPAIRABLE)
    assert f"copy {copies}" in problem.message
    assert problem.device in [str(image) for image in images]


@pytest.mark.parametrize("name", ["raid5", "raid6"])
def test_parity_gives_back_data(name: str, tmp_path: Path) -> None:
    images = craft.copy(corpus.devices(name), tmp_path)
    with craft.Editor(images) as edit:
        logical = data_at(edit)
        flip(edit, logical, 1)
    (problem,) = found(images)
    assert (problem.code, problem.severity) == ("data.checksum-wrong", Severity.REPAIRABLE)
    assert problem.path is not None


@pytest.mark.parametrize(("name", "nth"), [("raid5", 0), ("raid6", 0), ("raid6", 1)])
def test_wrong_parity(name: str, nth: int, tmp_path: Path) -> None:
    images = craft.copy(corpus.devices(name), tmp_path)
    with craft.Editor(images) as edit:
        logical = data_at(edit)
        chunk = int(edit.chunks.locate(np.array([logical], np.uint64))[0])
        offset = logical - int(edit.chunks.logical[chunk])
        width = int(edit.chunks.width[chunk])
        stripe, physical = edit.chunks.row_stripes(chunk, np.array([offset // (65536 * width)]))
        device = edit.volume.devices[int(edit.chunks.stripe_devid[stripe[0, width + nth]])]
        assert device is not None
        place = int(physical[0, width + nth]) + offset % 65536
        device.write(place, bytes(device.read(place, 4096) ^ np.uint8(1)))
    (problem,) = found(images)
    assert (problem.code, problem.severity) == ("data.parity-wrong", Severity.REPAIRABLE)
    assert f"parity {'PQ'[nth]} of a sector at byte {place}" in problem.message


@pytest.mark.parametrize("name", ["default", "raid1c3", "raid5", "raid6"])
def test_tree_block_copies(name: str, tmp_path: Path) -> None:
    """A copy that nobody needs to read is looked at all the same."""
    images = craft.copy(corpus.devices(name), tmp_path)
    with craft.Editor(images) as edit:
        root = edit.root(5)
        chunk = int(edit.chunks.locate(np.array([root.bytenr], np.uint64))[0])
        if edit.chunks.parity[chunk]:
            width = int(edit.chunks.width[chunk])
            offset = root.bytenr - int(edit.chunks.logical[chunk])
            stripe, physical = edit.chunks.row_stripes(chunk, np.array([offset // (65536 * width)]))
            device = edit.volume.devices[int(edit.chunks.stripe_devid[stripe[0, width]])]
            assert device is not None
            place = int(physical[0, width]) + offset % 65536
            device.write(place, bytes(device.read(place, 4096) ^ np.uint8(1)))
        else:
            flip(edit, root.bytenr, 2)
    assert not craft.check(images).problems
    problems = found(images)
    assert {(problem.code, problem.severity) for problem in problems} == {("node.copy-bad", Severity.REPAIRABLE)}
    assert problems[0].logical == root.bytenr or name in ("raid5", "raid6")


def test_names_files_in_subvolumes(tmp_path: Path) -> None:
    images = craft.copy(corpus.devices("default"), tmp_path)
    with craft.Editor(images) as edit:
        logical = data_at(edit, inside=True)
        flip(edit, logical, 1)
    (problem,) = found(images)
    assert problem.path is not None and problem.path.count("/") >= 2, "it is inside of a subvolume"
