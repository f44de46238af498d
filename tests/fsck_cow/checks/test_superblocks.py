"""Superblocks: every field with a rule, copies against each other, devices against each other and against the trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cowlib.device import Device
from cowlib.format import SUPERBLOCK_OFFSETS, KeyType, ObjectId, Superblock, SuperFlag, columns
from fsck_cow.checks.superblocks import check_device
from fsck_cow.problems import Problem, Severity
from tests import corpus
from tests.fsck_cow import craft

MIRROR = SUPERBLOCK_OFFSETS[1]


def of_device(image: Path) -> dict[str, Problem]:
    """The problems of a device by itself, by code."""
    with Device.open(image) as device:
        return {problem.code: problem for problem in check_device(device)}


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"leafsize": 4096}, "superblock.field-wrong"),
    ({"stripesize": 593920}, "superblock.field-wrong"),
    ({"sectorsize": 6144}, "superblock.field-wrong"),
    ({"nodesize": 0}, "superblock.field-wrong"),
    ({"total_bytes": 0}, "superblock.field-wrong"),
    ({"bytes_used": 16384}, "superblock.field-wrong"),
    ({"bytes_used": 2**63}, "superblock.field-wrong"),
    ({"num_devices": 0}, "superblock.field-wrong"),
    ({"root_level": 8}, "superblock.field-wrong"),
    ({"root_dir_objectid": 5}, "superblock.field-wrong"),
    ({"root": 4097}, "superblock.address-wrong"),
    ({"root": 0}, "superblock.address-wrong"),
    ({"log_root": 512}, "superblock.address-wrong"),
    ({"chunk_root_generation": 2**40}, "superblock.generation-wrong"),
    ({"uuid_tree_generation": 2**40}, "superblock.generation-wrong"),
    ({"cache_generation": 2**40}, "superblock.generation-wrong"),
    ({"flags": 1 | 1 << 7}, "superblock.flags-unknown"),
    ({"incompat_flags": 1 << 63}, "superblock.feature-unknown"),
    ({"compat_ro_flags": 1 << 62}, "superblock.feature-unknown"),
    ({"compat_ro_flags": 2}, "superblock.features-contradict"),
    ({"compat_ro_flags": 8}, "superblock.features-contradict"),
    ({"dev_item.fsid": bytes(16)}, "superblock.fsid-wrong"),
    ({"label": b"x" * 256}, "superblock.label-open"),
    ({"sys_chunk_array_size": 0}, "superblock.system-array-broken"),
    ({"sys_chunk_array_size": 3000}, "superblock.system-array-broken"),
    ({"sys_chunk_array_size": 40}, "superblock.system-array-broken"),
    ({"sys_chunk_array": bytes(2048)}, "superblock.system-array-broken"),
    ({"super_roots.0.tree_root_gen": 2**50}, "superblock.backup-wrong"),
    ({"super_roots.0.csum_root_level": 9}, "superblock.backup-wrong"),
    ({"super_roots.0.dev_root": 77}, "superblock.backup-wrong"),
]


@pytest.mark.parametrize(("fields", "code"), FIELDS, ids=lambda value: next(iter(value)) if value else "")
def test_a_field_that_cannot_be(fields: dict[str, Any], code: str, tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    assert of_device(image) == {}
    with craft.Editor([image]) as edit:
        edit.set_superblock(**fields)
    assert of_device(image)[code].severity == Severity.ERROR


def test_a_flag_that_tells_of_something_unfinished_is_a_note(tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    with craft.Editor([image]) as edit:
        edit.set_superblock(flags=int(SuperFlag.WRITTEN | SuperFlag.CHANGING_FSID_V2))
    [problem] = of_device(image).values()
    assert (problem.code, problem.severity) == ("superblock.flags-odd", Severity.NOTE)
    assert "CHANGING_FSID_V2" in problem.message


def overwrite(image: Path, at: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_bad_copy_beside_a_good_one(tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    overwrite(image, MIRROR + 200, b"damage")
    problem = of_device(image)["superblock.copy-bad"]
    assert problem.severity == Severity.REPAIRABLE
    assert "copy 1" in problem.message
    assert "checksum" in problem.message


def test_the_first_copy_can_be_the_bad_one(tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    overwrite(image, SUPERBLOCK_OFFSETS[0], bytes(4096))
    [problem] = of_device(image).values()
    assert (problem.code, problem.severity) == ("superblock.copy-missing", Severity.REPAIRABLE)


def test_no_good_copy_at_all(tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    for offset in SUPERBLOCK_OFFSETS[:2]:
        overwrite(image, offset + 200, b"damage")
    assert of_device(image)["superblock.copy-bad"].severity == Severity.ERROR
    for offset in SUPERBLOCK_OFFSETS[:2]:
        overwrite(image, offset, bytes(4096))
    assert list(of_device(image)) == ["superblock.missing"]


def test_a_copy_missing_from_a_written_back_metadata_dump_is_a_note(tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    with craft.Editor([image]) as edit:
        edit.set_superblock(flags=int(SuperFlag.WRITTEN | SuperFlag.METADUMP_V2))
    overwrite(image, MIRROR, bytes(4096))
    assert of_device(image)["superblock.copy-missing"].severity == Severity.NOTE


def test_copies_of_one_transaction_are_the_same(tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    with craft.Editor([image]) as edit:
        edit.set_superblock(copies=[1], label=b"other".ljust(256, b"\0"))
    problem = of_device(image)["superblock.copy-differs"]
    assert problem.severity == Severity.REPAIRABLE
    assert "label" in problem.message


def test_a_copy_from_before_is_a_note_and_one_without_the_log_is_nothing(tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    with craft.Editor([image]) as edit:
        generation = int(edit.superblock.generation)
        edit.set_superblock(copies=[1], log_root=65536)
        assert of_device(image) == {}
        edit.set_superblock(copies=[0], generation=generation + 1)
    [problem] = of_device(image).values()
    assert (problem.code, problem.severity) == ("superblock.copy-stale", Severity.NOTE)


def test_what_stands_behind_the_filesystems_end_is_no_copy(tmp_path: Path) -> None:
    [image] = craft.small(tmp_path)
    overwrite(image, MIRROR, bytes(4096))
    with craft.Editor([image]) as edit:
        fields: dict[str, Any] = {"dev_item.total_bytes": MIRROR + 4096}
        edit.set_superblock(**fields)
    assert of_device(image) == {}


SUMS: list[tuple[dict[str, Any], str]] = [
    ({"num_devices": 8}, "superblock.num-devices-wrong"),
    ({"total_bytes": 2**40}, "superblock.total-bytes-wrong"),
    ({"total_bytes": 2**20}, "superblock.total-bytes-wrong"),
    ({"bytes_used": 131072}, "superblock.bytes-used-wrong"),
    ({"super_roots.0.fs_root": 65536}, "superblock.backup-differs"),
    ({"log_root": 2**50}, "superblock.address-unmapped"),
]


@pytest.mark.parametrize(("fields", "code"), SUMS, ids=lambda value: next(iter(value)) if value else "")
def test_what_the_trees_say_otherwise(fields: dict[str, Any], code: str, tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        edit.set_superblock(**fields)
    # A log that cannot be read is told of besides, and so is what its extents would have been compared with.
    also = {"node.unreadable", "extent.not-compared"} if "log_root" in fields else set()
    assert craft.codes(image) == {code} | also


def test_system_chunks_are_those_of_the_chunk_tree(tmp_path: Path) -> None:
    image = craft.small(tmp_path)
    with craft.Editor(image) as edit:
        array = bytearray(edit.superblock.sys_chunk_array)
        array[17 + 32] ^= 0xFF  # io_align of the first chunk
        edit.set_superblock(sys_chunk_array=bytes(array))
    problems = {problem.code: problem for problem in craft.check(image).problems}
    assert "is another" in problems["superblock.system-array-differs"].message
    assert problems.keys() == {"superblock.system-array-differs"}


def test_a_device_that_was_left_behind(tmp_path: Path) -> None:
    images = craft.copy(corpus.devices("raid1"), tmp_path)
    offset = columns(Superblock).fields["generation"][1]  # type: ignore[index]
    for place in SUPERBLOCK_OFFSETS[:2]:
        data = bytearray(images[1].read_bytes()[place : place + 4096])
        data[offset : offset + 8] = (5).to_bytes(8, "little")
        overwrite(images[1], place, craft.mended_superblock(data))
    found = {problem.code: problem for problem in craft.check(images).problems}
    assert found["superblock.device-stale"].device == str(images[1])


def test_devices_of_one_transaction_agree(tmp_path: Path) -> None:
    images = craft.copy(corpus.devices("raid1"), tmp_path)
    with craft.Editor(images) as edit:
        tree = edit.first(ObjectId.CHUNK_TREE, KeyType.DEV_ITEM)
        assert edit.parsed(tree).devid == 1
    for place in SUPERBLOCK_OFFSETS[:2]:
        data = bytearray(images[1].read_bytes()[place : place + 4096])
        row = np.frombuffer(data, columns(Superblock), 1)
        assert int(row["dev_item"]["devid"][0]) == 2
        craft.put_fields(data, 0, Superblock, {"label": b"two".ljust(256, b"\0")})
        overwrite(images[1], place, craft.mended_superblock(data))
    found = {problem.code: problem for problem in craft.check(images).problems}
    assert "label" in found["superblock.devices-differ"].message
