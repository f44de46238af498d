"""What ``fsck.cow`` says of itself beside its options: exit codes, examples, what options can be."""

from __future__ import annotations

from collections.abc import Mapping

from cowcli.help import Example, Help, Values


def _values() -> Mapping[str, Values]:
    from fsck_cow.catalogue import all_codes

    codes = all_codes()
    return {
        "DEVICE...": Values(files="any"),
        "CODE|SUBJECT": Values((*sorted({code.partition(".")[0] for code in codes}), *sorted(codes))),
    }


HELP = Help(
    name="fsck.cow",
    summary="check an unmounted btrfs filesystem",
    exit_codes={
        "0": "clean",
        "4": "problems were found",
        "8": "it could not be checked",
        "16": "wrong usage",
        "32": "interrupted",
    },
    examples=(
        Example("Everything but the contents of files", "fsck.cow /dev/sdX"),
        Example("Every copy of all data too, for a program to read", "fsck.cow --data --json disk1.img disk2.img"),
        Example("Only what is said of extents", "fsck.cow --check extent disk.img"),
    ),
    sections={
        "PROBLEMS": (
            "Each problem has a code that stays the same between versions, such as *inode.nlink-wrong*: what comes "
            "before the point is its subject. A line says what was found, what was expected, and where. A "
            "repairable problem is a bad copy with a good one beside it.",
            "With *--json* each problem is an object on a line of its own, and the last line sums up.",
            "Where a block cannot be read from any copy, it is named with what hangs below it, and everything else is "
            "checked all the same.",
        ),
        "FSCK(8)": (
            "The options *-a*, *-f*, *-n*, *-p* and *-y* are taken as fsck(8) passes them. Whichever is given, the "
            "filesystem is checked completely, and nothing is written.",
        ),
    },
    see_also=("mkfs.cow(8)", "cow-debug-tree(8)", "btrfs-check(8)", "fsck(8)"),
    values=_values,
)
