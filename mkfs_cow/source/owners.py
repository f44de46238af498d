"""Who owns what: owners and groups changed by number, in inodes and in the attributes that name them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cowlib.errors import UsageError
from mkfs_cow.source.contents import shown
from mkfs_cow.source.definitions import Line, read_definitions
from mkfs_cow.source.identities import HIGHEST_ID
from mkfs_cow.source.tables import Blobs, Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = {b"uid": ("uid",), b"gid": ("gid",), b"both": ("uid", "gid")}

# posix_acl_xattr: a version, then entries of a tag, permissions and an id. Only these tags have one.
_ACL_HEAD, _ACL_ENTRY = 4, 8
_ACL_VERSION = 2
_ACL_NAMES = (b"system.posix_acl_access", b"system.posix_acl_default")
_ACL_USER, _ACL_GROUP = 2, 8

# vfs_ns_cap_data: the third revision has at its end the user id of the root that the capabilities are good for.
_CAPABILITY_NAME = b"security.capability"
_CAPABILITY_SIZE, _CAPABILITY_REVISION, _ROOT_ID = 24, 3, 20


@dataclass(frozen=True)
class IdMap:
    """Ranges of ids that become others: sorted, disjoint; ``old``, ``new`` and ``count`` are int64."""

    old: NDArray[np.int64]
    new: NDArray[np.int64]
    count: NDArray[np.int64]

    def apply(self, ids: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The ids as they become; what is in no range stays as it is."""
        if not len(self.old):
            return ids
        wide = ids.astype(np.int64)
        row = np.maximum(np.searchsorted(self.old, wide, side="right") - 1, 0)
        into = wide - self.old[row]
        mapped = (into >= 0) & (into < self.count[row])
        return np.where(mapped, self.new[row] + into, wide).astype(np.uint32)


@dataclass(frozen=True)
class OwnerMap:
    """What becomes of user ids and of group ids."""

    users: IdMap
    groups: IdMap


def read_owner_map(path: Path) -> OwnerMap:
    """An owner map from a file with lines ``uid|gid|both OLD NEW [COUNT]``: COUNT ids from OLD on become those from
    NEW on. Raises UsageError for what is wrong with the file, and for ids that are mapped twice.
    """
    ranges: dict[str, list[tuple[int, int, int, Line]]] = {"uid": [], "gid": []}
    for line in read_definitions(path):
        kind = line.word("uid, gid or both")
        if kind not in _KINDS:
            raise line.error(f"'{shown(kind[:40])}' is not uid, gid or both", "lines are: uid|gid|both OLD NEW [COUNT]")
        old = line.number_of("the old id", HIGHEST_ID)
        new = line.number_of("the new id", HIGHEST_ID)
        count = line.number_of("the count", HIGHEST_ID + 1) if line.text else 1
        line.end()
        if not count:
            raise line.error("a range of no ids")
        if max(old, new) + count - 1 > HIGHEST_ID:
            raise line.error(f"the range ends above the highest id, {HIGHEST_ID}")
        for which in _KINDS[kind]:
            ranges[which].append((old, new, count, line))
    return OwnerMap(_id_map("uid", ranges["uid"]), _id_map("gid", ranges["gid"]))


def _id_map(which: str, ranges: list[tuple[int, int, int, Line]]) -> IdMap:
    ranges.sort(key=lambda row: (row[0], row[3].number))
    for (old, _, count, one), (start, _, _, other) in pairwise(ranges):
        if start < old + count:
            first, second = sorted((one, other), key=lambda line: line.number)
            raise second.error(f"{which} {start} is mapped already in line {first.number}")
    table = np.array([row[:3] for row in ranges], dtype=np.int64).reshape(-1, 3)
    return IdMap(*(table[:, i].copy() for i in range(3)))


def all_root(tree: Tree) -> Tree:
    """The tree with everything in it root's."""
    nobody = np.zeros(len(tree), dtype=np.uint32)
    return replace(tree, uid=nobody, gid=nobody.copy())


def mapped(tree: Tree, owners: OwnerMap) -> Tree:
    """The tree with owners and groups as ``owners`` says, also those that access lists and capabilities name.

    Raises UsageError where two users or groups of one access list become the same: which of them would count?
    """
    data = np.frombuffer(tree.xattrs.value.data, dtype=np.uint8).copy()
    _map_access_lists(tree, data, owners)
    _map_capabilities(tree, data, owners)
    return replace(
        tree,
        uid=owners.users.apply(tree.uid),
        gid=owners.groups.apply(tree.gid),
        xattrs=replace(tree.xattrs, value=Blobs(data.tobytes(), tree.xattrs.value.start)),
    )


def _map_access_lists(tree: Tree, data: NDArray[np.uint8], owners: OwnerMap) -> None:
    """Maps the entries of all access lists within ``data``, the joined values, and puts them into order again."""
    values = tree.xattrs.value
    rows = _named(tree, _ACL_NAMES)
    length = values.lengths[rows]
    rows = rows[(length >= _ACL_HEAD) & ((length - _ACL_HEAD) % _ACL_ENTRY == 0)]
    rows = rows[_numbers(data, values.start[rows], 4) == _ACL_VERSION]
    count = (values.lengths[rows] - _ACL_HEAD) // _ACL_ENTRY
    row = np.repeat(rows, count)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    place = values.start[row] + _ACL_HEAD + nth * _ACL_ENTRY
    tag = _numbers(data, place, 2)
    identity = _numbers(data, place + 4, 4)
    for kind, ids in ((_ACL_USER, owners.users), (_ACL_GROUP, owners.groups)):
        mine = tag == kind
        identity[mine] = ids.apply(identity[mine])
    _put(data, place + 4, identity)
    order = np.lexsort((identity, tag, row))  # a stable sort: entries that were in order stay where they are
    named = (tag == _ACL_USER) | (tag == _ACL_GROUP)
    same = np.flatnonzero(
        named[order][1:]
        & (row[order][1:] == row[order][:-1])
        & (tag[order][1:] == tag[order][:-1])
        & (identity[order][1:] == identity[order][:-1])
    )
    if len(same):
        entry = order[same[0]]
        path = tree.path(int(tree.xattrs.inode[row[entry]]), tree.names.first_rows(len(tree)))
        who = "users" if tag[entry] == _ACL_USER else "groups"
        raise UsageError(f"{shown(path)}: the owner map makes two {who} of its access list one, {identity[entry]}")
    entries = data[place[order][:, None] + np.arange(_ACL_ENTRY)]
    data[place[:, None] + np.arange(_ACL_ENTRY)] = entries


def _map_capabilities(tree: Tree, data: NDArray[np.uint8], owners: OwnerMap) -> None:
    values = tree.xattrs.value
    rows = _named(tree, (_CAPABILITY_NAME,))
    rows = rows[values.lengths[rows] == _CAPABILITY_SIZE]
    start = values.start[rows]
    start = start[_numbers(data, start, 4) >> np.uint32(24) == _CAPABILITY_REVISION]
    _put(data, start + _ROOT_ID, owners.users.apply(_numbers(data, start + _ROOT_ID, 4)))


def _named(tree: Tree, wanted: tuple[bytes, ...]) -> NDArray[np.int64]:
    """The rows of attributes with one of these names, which are all the same length or nearly so."""
    names = tree.xattrs.name
    likely = np.flatnonzero(np.isin(names.lengths, [len(name) for name in wanted]))
    found = [row for row in likely.tolist() if names[row] in wanted]
    return np.array(found, dtype=np.int64)


def _numbers(data: NDArray[np.uint8], place: NDArray[np.int64], size: int) -> NDArray[np.uint32]:
    """Little-endian numbers of ``size`` bytes at these places."""
    found = np.zeros(len(place), dtype=np.uint32)
    for i in range(size):
        found |= data[place + i].astype(np.uint32) << np.uint32(8 * i)
    return found


def _put(data: NDArray[np.uint8], place: NDArray[np.int64], numbers: NDArray[np.uint32]) -> None:
    """Writes numbers of four bytes, little-endian, to these places."""
    data[place[:, None] + np.arange(4)] = numbers.astype("<u4").view(np.uint8).reshape(-1, 4)
