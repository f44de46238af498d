"""What ``cow-debug-tree`` says of itself beside its options: exit codes, examples, what options can be."""

from __future__ import annotations

from collections.abc import Mapping

from cowcli.help import Example, Help, Values


def _values() -> Mapping[str, Values]:
    from cow_debug_tree.titles import tree_names

    return {"DEVICE...": Values(files="any"), "TREE": Values(tree_names())}


HELP = Help(
    name="cow-debug-tree",
    summary="show superblocks, trees and statistics of an unmounted btrfs",
    exit_codes={
        "0": "all of it is shown",
        "1": "something could not be read: the rest is shown, and lines on standard error name what is not",
        "2": "wrong usage",
        "130": "interrupted",
        "141": "whoever was to read the output has left",
    },
    examples=(
        Example("Every tree", "cow-debug-tree /dev/sdX | less"),
        Example("To send to somebody", "cow-debug-tree -t fs --hide-names disk1.img disk2.img"),
        Example("For a program to read", "cow-debug-tree --json -t csum disk.img | head"),
        Example("Every copy of the superblock", "cow-debug-tree --super --all disk.img"),
    ),
    sections={
        "DAMAGED FILESYSTEMS": (
            "What can be read is shown. Other copies are tried by themselves, raid5 and raid6 are rebuilt from "
            "parity, and devices may be missing where the profile allows.",
            "Where the newest superblock is of no use, *--super-copy* starts from another copy, *--backup* from the "
            "roots of an earlier transaction, and *--tree-root* and *--chunk-root* from any address.",
        ),
        "TREES": (
            "A tree is named by its number (*5*), or by its name in any case, as short as *fs* or as long as "
            "*BTRFS_FS_TREE_OBJECTID*. Subvolumes have numbers from 256 on.",
        ),
    },
    see_also=("mkfs.cow(8)", "fsck.cow(8)", "btrfs-inspect-internal(8)", "btrfs(5)"),
    values=_values,
)
