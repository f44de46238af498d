"""Quota groups: each rule broken once, and their numbers against a plain walk of every subvolume."""

from __future__ import annotations

from pathlib import Path

import pytest

import cowlib
from cowlib.format import (
    FileExtentItem,
    FileExtentType,
    IncompatFeature,
    KeyType,
    ObjectId,
    QgroupInfoItem,
    QgroupLimitItem,
    QgroupStatusFlag,
    QgroupStatusItem,
    columns,
)
from fsck_cow.problems import Severity
from tests import corpus
from tests.fsck_cow import craft
from tests.fsck_cow.checks.damage import Edit, after

QUOTAS = ObjectId.QUOTA_TREE
PARENT = 1 << 48 | 100
GRANDPARENT = 2 << 48 | 1


def info(**change: int) -> Edit:
    """Changes the numbers of the first group."""
    return lambda edit: edit.set_fields(edit.first(QUOTAS, KeyType.QGROUP_INFO), QgroupInfoItem, **change)


def status(**change: int) -> Edit:
    """Changes the status item."""
    return lambda edit: edit.set_fields(edit.first(QUOTAS, KeyType.QGROUP_STATUS), QgroupStatusItem, **change)


def delete(kind: int) -> Edit:
    """Takes the first item of a type away."""
    return lambda edit: edit.delete(edit.first(QUOTAS, kind))


def shorten(kind: int) -> Edit:
    """Takes the last byte of the first item of a type."""

    def edit_(edit: craft.Editor) -> None:
        place = edit.first(QUOTAS, kind)
        edit.replace(place, edit.payload(place)[:-1])

    return edit_


def relate(group: int, other: int, *, twice: bool = True) -> Edit:
    """Makes one group part of another."""

    def edit_(edit: craft.Editor) -> None:
        edit.insert(QUOTAS, (group, int(KeyType.QGROUP_RELATION), other), b"")
        if twice:
            edit.insert(QUOTAS, (other, int(KeyType.QGROUP_RELATION), group), b"")

    return edit_


def add_group(edit: craft.Editor, group: int, rfer: int = 0, excl: int = 0, cmpr: bool = True) -> None:
    """A group of its own, with these numbers."""
    numbers = {"rfer": rfer, "excl": excl, "rfer_cmpr": rfer * cmpr, "excl_cmpr": excl * cmpr}
    edit.insert(QUOTAS, (0, int(KeyType.QGROUP_INFO), group), QgroupInfoItem.build({"generation": 1, **numbers}))
    limits = dict.fromkeys(("flags", "max_rfer", "max_excl", "rsv_rfer", "rsv_excl"), 0)
    edit.insert(QUOTAS, (0, int(KeyType.QGROUP_LIMIT), group), QgroupLimitItem.build(limits))


def limit_flags(edit: craft.Editor) -> None:
    edit.set_fields(edit.first(QUOTAS, KeyType.QGROUP_LIMIT), QgroupLimitItem, flags=1 << 20)


def without_simple_quotas(edit: craft.Editor) -> None:
    edit.set_superblock(incompat_flags=int(edit.superblock.incompat_flags) & ~IncompatFeature.SIMPLE_QUOTA)


CASES: list[tuple[str, str, Edit]] = [
    ("quota", "quota.usage-wrong", info(rfer=4096)),
    ("quota", "quota.usage-wrong", info(excl_cmpr=4096)),
    ("squota", "quota.usage-wrong", info(excl=4096)),
    ("squota", "quota.usage-wrong", status(enable_gen=15)),
    ("quota", "quota.generation-wrong", info(generation=10**6)),
    ("quota", "quota.generation-wrong", status(generation=10**6)),
    ("quota", "quota.status-wrong", status(version=2)),
    ("squota", "quota.status-wrong", without_simple_quotas),
    ("quota", "quota.flags-unknown", status(flags=1 | 1 << 9)),
    ("quota", "quota.flags-unknown", limit_flags),
    ("quota", "quota.status-missing", delete(KeyType.QGROUP_STATUS)),
    ("quota", "quota.limit-missing", delete(KeyType.QGROUP_LIMIT)),
    ("quota", "quota.limit-unknown", delete(KeyType.QGROUP_INFO)),
    ("quota", "quota.group-missing", delete(KeyType.QGROUP_INFO)),
    ("quota", "quota.group-stale", lambda edit: add_group(edit, 9999)),
    ("quota", "quota.size-wrong", shorten(KeyType.QGROUP_INFO)),
    ("quota", "quota.size-wrong", shorten(KeyType.QGROUP_LIMIT)),
    ("quota", "quota.size-wrong", shorten(KeyType.QGROUP_STATUS)),
    (
        "quota",
        "quota.key-wrong",
        lambda edit: edit.set_item(edit.first(QUOTAS, KeyType.QGROUP_INFO), **{"key.objectid": 1}),
    ),
    ("quota", "quota.relation-one-sided", relate(256, PARENT, twice=False)),
    ("quota", "quota.relation-unknown", relate(256, PARENT)),
    ("quota", "quota.relation-level", relate(256, 257)),
    ("quota", "quota.not-compared", status(generation=1)),
]


@pytest.mark.parametrize(("name", "code", "edit"), CASES, ids=[f"{i}-{code}" for i, (_, code, _) in enumerate(CASES)])
def test_each_rule(tmp_path: Path, name: str, code: str, edit: Edit) -> None:
    assert code in after(name, tmp_path, edit).counts


@pytest.mark.parametrize("flag", [QgroupStatusFlag.RESCAN, QgroupStatusFlag.INCONSISTENT])
def test_numbers_that_nobody_vouches_for(tmp_path: Path, flag: QgroupStatusFlag) -> None:
    """Wrong numbers are no problem while the kernel is to count again; without quotas they are nothing at all."""

    def edit(edit: craft.Editor) -> None:
        info(rfer=1)(edit)
        status(flags=int(QgroupStatusFlag.ON | flag))(edit)

    report = after("quota", tmp_path, edit)
    told = [(p.code, p.severity) for p in report.problems if p.subject == "quota"]
    assert told == [("quota.not-compared", Severity.NOTE)]


def reached(name: str) -> dict[int, dict[int, int]]:
    """For each subvolume every extent that it reaches, by address, with its length: one walk after another."""
    found: dict[int, dict[int, int]] = {}
    whole = columns(FileExtentItem).itemsize
    with cowlib.open([str(path) for path in corpus.devices(name)], scan=False) as fs:
        for root in fs.roots:
            if root.objectid != ObjectId.FS_TREE and not 256 <= root.objectid < 2**63:
                continue
            mine = found.setdefault(root.objectid, {})
            for level, nodes in fs.reader.walk(root):
                mine.update(dict.fromkeys(nodes.bytenr.tolist(), fs.nodesize))
                if level:
                    continue
                items = nodes.items().of_type(KeyType.EXTENT_DATA)
                rows = items.select(items.size >= whole).view(FileExtentItem)
                rows = rows[(rows["type"] != FileExtentType.INLINE) & (rows["disk_bytenr"] > 0)]
                mine.update(zip(rows["disk_bytenr"].tolist(), rows["disk_num_bytes"].tolist(), strict=True))
    return found


def test_groups_of_groups(tmp_path: Path) -> None:
    """A group refers to what its members refer to, and has for itself what nobody else reaches."""
    by_root = reached("quota")
    members = {257, 258, 263}
    inside = {k: v for root in members for k, v in by_root[root].items()}
    outside = {k for root in by_root.keys() - members for k in by_root[root]}
    rfer, excl = sum(inside.values()), sum(v for k, v in inside.items() if k not in outside)
    assert 0 < excl < rfer

    def edit(edit: craft.Editor) -> None:
        add_group(edit, PARENT, rfer, excl)
        add_group(edit, GRANDPARENT, rfer, excl)
        for root in members:
            relate(root, PARENT)(edit)
        relate(PARENT, GRANDPARENT)(edit)

    report = after("quota", tmp_path, edit)
    assert not [p for p in report.problems if p.subject == "quota"]


def test_simple_groups_of_groups(tmp_path: Path) -> None:
    """With simple quotas a group uses what its members use together."""
    with craft.Editor(craft.copy(corpus.devices("squota"), tmp_path)) as edit:
        found = {p.key[2]: edit.parsed(p) for p in edit.places(QUOTAS) if p.key[1] == KeyType.QGROUP_INFO}
    used = found[257]["rfer"] + found[264]["rfer"]

    def change(edit: craft.Editor) -> None:
        add_group(edit, PARENT, used, used, cmpr=False)
        for root in (257, 264):
            relate(root, PARENT)(edit)

    report = after("squota", tmp_path, change)
    assert not [p for p in report.problems if p.subject == "quota"]


def test_relations_in_a_circle(tmp_path: Path) -> None:
    """Groups that are part of each other, made so by somebody else than the kernel, do not keep the check busy."""

    def edit(edit: craft.Editor) -> None:
        add_group(edit, PARENT)
        add_group(edit, PARENT + 1)
        relate(PARENT, PARENT + 1)(edit)
        relate(256, PARENT)(edit)

    assert {"quota.relation-level", "quota.usage-wrong"} <= after("quota", tmp_path, edit).counts.keys()
