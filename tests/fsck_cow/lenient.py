"""Fields that fsck.cow cannot hold to one value, and why: the table in `docs/fsck-fields.md`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.fsck_cow.fields import all_fields


@dataclass(frozen=True)
class Lenient:
    """A reason, for the fields whose ids match any of the ``fields``.

    ``bounded``: values out of range are told, others are as good as the right one.
    """

    bounded: bool
    why: str
    fields: tuple[str, ...]


REASONS = (
    Lenient(
        False,
        "Any value is legal, and nothing else repeats it.",
        (
            "INODE_ITEM *: uid",
            "INODE_ITEM *: gid",
            "INODE_ITEM *: sequence",
            "*: ?time.sec",
            "INODE_ITEM *: reserved.0",
            "DEV_STATS: values.0",
            "QGROUP_LIMIT: max_*",
            "QGROUP_LIMIT: rsv_*",
        ),
    ),
    Lenient(
        True,
        "Nanoseconds below a second are all legal.",
        ("*: ?time.nsec",),
    ),
    Lenient(
        True,
        "A transaction that is over; nothing tells which one it has to be.",
        (
            "INODE_ITEM *: generation",
            "INODE_ITEM *: transid",
            "EXTENT_DATA *: generation",
            "EXTENT_ITEM of data: generation",
            "ROOT_ITEM *: last_snapshot",
            "ROOT_ITEM *: otransid",
            "ROOT_ITEM *: rtransid",
            "ROOT_ITEM *: ctransid",
            "QGROUP_INFO*: generation",
            "superblock: super_roots.0.*_gen",
        ),
    ),
    Lenient(
        False,
        "`mkfs.btrfs --rootdir` leaves chance values here, and no kernel reads it.",
        ("DIR_ITEM: transid", "DIR_INDEX: transid", "XATTR_ITEM: transid"),
    ),
    Lenient(
        False,
        "No kernel of the last decade reads or writes it.",
        ("INODE_ITEM *: block_group", "ROOT_ITEM *: byte_limit", "ROOT_ITEM *: bytes_used", "ROOT_ITEM *: reserved.0"),
    ),
    Lenient(
        False,
        "The inode inside a root item is filled in once and means nothing.",
        ("ROOT_ITEM *: inode.*",),
    ),
    Lenient(
        False,
        "Kernels have written several values for directories, and use none.",
        ("INODE_ITEM of a directory: nbytes",),
    ),
    Lenient(
        True,
        "Holes need no items here, so a file may be longer or shorter as long as all its extents lie inside of it.",
        ("INODE_ITEM of a file: size",),
    ),
    Lenient(
        True,
        "Permissions are free; the type of the file is checked against its names.",
        ("INODE_ITEM *: mode",),
    ),
    Lenient(
        True,
        "Each of several values makes sense; unknown ones are told.",
        (
            "INODE_ITEM of a directory: flags",
            "ROOT_ITEM *: flags",
            "QGROUP_STATUS*: flags",
            "QGROUP_LIMIT: flags",
            "superblock: flags",
            "superblock: incompat_flags",
            "EXTENT_DATA inline: compression",
            "EXTENT_DATA regular: compression",
        ),
    ),
    Lenient(
        False,
        "Wrong checksums show when the data are read: with `--data`.",
        ("EXTENT_CSUM: payload",),
    ),
    Lenient(
        False,
        "Orphan items have no payload, and nobody looks for one.",
        ("ORPHAN_ITEM: payload",),
    ),
    Lenient(
        False,
        "Names and references find a subvolume by its number alone.",
        ("ROOT_ITEM of a subvolume: key offset",),
    ),
    Lenient(
        False,
        "The parent may have been deleted long ago, and the sender was another filesystem.",
        ("ROOT_ITEM *: parent_uuid", "ROOT_ITEM *: stransid"),
    ),
    Lenient(
        False,
        "What a balance is to do is for whoever started it to say; it ends at the next mount.",
        (
            "BALANCE: key offset",
            "BALANCE: flags",
            "BALANCE: data.*",
            "BALANCE: meta.*",
            "BALANCE: sys.*",
            "BALANCE: unused.0",
        ),
    ),
    Lenient(
        False,
        "The old cache is used only where all of it fits together; else the kernel makes a new one.",
        (
            "old free-space cache: location.offset",
            "old free-space cache: generation",
            "old free-space cache: num_bitmaps",
        ),
    ),
    Lenient(
        True,
        "One of several states; what a replacement does not go on with is history.",
        ("DEV_REPLACE: cont_reading_from_srcdev_mode", "DEV_REPLACE: replace_state"),
    ),
    Lenient(
        False,
        "The history of a replacement that is not under way.",
        ("DEV_REPLACE: src_devid", "DEV_REPLACE: cursor_*", "DEV_REPLACE: time_*", "DEV_REPLACE: num_*"),
    ),
    Lenient(
        False,
        "Left to fs-verity, which verifies its own tree whenever the file is read.",
        (
            "VERITY_DESC_ITEM: size",
            "VERITY_DESC_ITEM: reserved.0",
            "VERITY_MERKLE_ITEM: key offset",
            "VERITY_MERKLE_ITEM: payload",
        ),
    ),
    Lenient(
        True,
        "The kernel writes them before it sets the flag, and a crash may leave them to a file without it.",
        ("VERITY_DESC_ITEM: key objectid", "VERITY_MERKLE_ITEM: key objectid"),
    ),
    Lenient(
        False,
        "Only subvolumes use it.",
        ("ROOT_ITEM of a tree: root_dirid", "ROOT_ITEM of a tree: uuid"),
    ),
    Lenient(
        True,
        "Any level there can be; it counts only while the tree is being deleted.",
        ("ROOT_ITEM *: drop_level",),
    ),
    Lenient(
        False,
        "The first key that the block had once; it may have changed since.",
        ("tree block info: key.*",),
    ),
    Lenient(
        False,
        "How far a rescan is: any address will do, and nobody reads it when none is running.",
        ("QGROUP_STATUS*: rescan",),
    ),
    Lenient(
        False,
        "Simple quotas do not keep it.",
        ("QGROUP_INFO of simple quotas: *_cmpr",),
    ),
    Lenient(
        False,
        "No kernel writes or reads it (in filesystems without the feature that it belongs to).",
        (
            "superblock: log_root_transid",
            "superblock: metadata_uuid",
            "superblock: nr_global_roots",
            "superblock: remap_root*",
            "superblock: reserved",
            "superblock: padding",
            "superblock: super_roots.0.unused*",
        ),
    ),
    Lenient(
        False,
        "Any value but that of this generation says that the old space cache is not to be used.",
        ("superblock: cache_generation",),
    ),
    Lenient(
        True,
        "The file of another block group's cache does not fit, and the kernel makes a new one.",
        ("old free-space cache: location.objectid",),
    ),
    Lenient(
        True,
        "Any text that ends inside of the field.",
        ("superblock: label",),
    ),
    Lenient(
        True,
        "The first byte alone only names the object, of which there is one.",
        ("superblock: sys_chunk_array",),
    ),
    Lenient(
        False,
        "As the filesystem was in another transaction.",
        (
            "superblock: super_roots.0.total_bytes",
            "superblock: super_roots.0.bytes_used",
            "superblock: super_roots.0.num_devices",
        ),
    ),
    Lenient(
        True,
        "As the tree was in another transaction; any level there can be.",
        ("superblock: super_roots.0.*_level", "superblock: log_root_level"),
    ),
)


def _matching() -> Iterator[tuple[str, Lenient]]:
    """Each field once, with the first reason that fits."""
    for field in all_fields():
        for reason in REASONS:
            if any(fnmatchcase(field.id, pattern) for pattern in reason.fields):
                yield field.id, reason
                break


LENIENT = dict(_matching())
"""The reason of each field that has one, by its id."""


def as_document() -> str:
    """The table for people."""
    lines = [
        "# Fields without a rule",
        "",
        "`fsck.cow` tells of every field on disk that is wrong, but for these. A field that is *bounded* may have",
        "several values, and is told of when it has none of them; of the others no value is told.",
        "",
        "The test suite makes every field of every item, header, key pointer and superblock wrong, one at a time, and",
        "compares what `fsck.cow` says with this list, which `python -m tests.fsck_cow.test_fields` writes.",
        "",
        "| field | bounded | why |",
        "|---|---|---|",
    ]
    for reason in REASONS:
        for name in (field for field, why in LENIENT.items() if why is reason):
            lines.append(f"| {name} | {'yes' if reason.bounded else 'no'} | {reason.why} |")
    return "\n".join(lines) + "\n"
