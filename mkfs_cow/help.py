"""What ``mkfs.cow`` says of itself beside its options: exit codes, environment, examples, what options can be."""

from __future__ import annotations

from collections.abc import Mapping

from cowcli.help import Example, Help, Values

SUBVOLUME_TYPES = ("rw", "ro", "default", "default-ro")
INODE_FLAGS = ("nodatacow", "nodatasum")


def _values() -> Mapping[str, Values]:
    from cowlib.volume.profiles import PROFILES
    from mkfs_cow.features import FEATURES
    from mkfs_cow.options import CSUM_TYPES

    features = [feature.name for feature in FEATURES]
    path = Values(files="any")
    return {
        "DEVICE...": path,
        "PROFILE": Values(tuple(profile.name for profile in PROFILES)),
        "--csum": Values(tuple(CSUM_TYPES)),
        "--features": Values(("list-all", *features, *(f"^{name}" for name in features)), listed=True),
        "DIR": Values(files="directories"),
        "FILE": path,
        "--subvol": Values(SUBVOLUME_TYPES, then=Values(files="directories")),
        "--compress": Values(("zstd", "zlib", "lzo", "no")),
        "--inode-flags": Values(INODE_FLAGS, listed=True, then=path),
    }


HELP = Help(
    name="mkfs.cow",
    summary="make a btrfs filesystem, empty or filled from a directory or a tar",
    exit_codes={
        "0": "the filesystem is made",
        "1": "it is not, and a line says why; or it is, and warnings say what did not go in",
        "2": "wrong usage",
        "128+N": "ended by signal N (130: interrupted): a new image file is removed, and what was on a device is gone",
    },
    environment={
        "SOURCE_DATE_EPOCH": "seconds since 1970 that stand for now, so that the clock does not show in the image; no "
        "file is younger",
        "TMPDIR": "where data of compressed archives waits until it is known that all of it fits [/var/tmp]",
    },
    examples=(
        Example("An empty filesystem on a device", "mkfs.cow -L data /dev/sdX"),
        Example("Two devices, everything on both of them", "mkfs.cow -d raid1 -m raid1 /dev/sdX /dev/sdY"),
        Example(
            "The smallest image of a directory",
            "mkfs.cow -L system --rootdir tree/ --compress zstd:9 --shrink system.img",
        ),
        Example(
            "The same bytes every time",
            "SOURCE_DATE_EPOCH=1700000000 mkfs.cow"
            " -U 5b8e9d3c-2f8a-4d5e-9c63-0a1b2c3d4e5f --from-tar rootfs.tar root.img",
        ),
        Example(
            "The layers of an OCI image, the lowest first",
            "mkfs.cow --layers base.tar.gz --layers app.tar.zst --subvol default:/ root.img",
        ),
        Example(
            "An empty filesystem with subvolumes, one of them to be mounted",
            "mkfs.cow --subvol default:@ --subvol @home --root-owner 1000:1000 /dev/sdX",
        ),
    ),
    sections={
        "SIZES": (
            "A size is a number of bytes, or a number with *K*, *M*, *G*, *T*, *P* or *E* for powers of 1024, such "
            "as *16K* or *1.5G*.",
        ),
        "PROFILES": (
            "A profile says how chunks spread over devices: *single* (once), *dup* (twice on one device), *raid0* "
            "(striped), *raid1*, *raid1c3* and *raid1c4* (copies on two, three or four devices), *raid10* (striped "
            "copies), *raid5* and *raid6* (striped, with one or two stripes of parity).",
        ),
        "IMAGE FILES": (
            "DEVICE may be a file. One that does not exist is made, as large as its content needs; one that does "
            "keeps its size, and *--shrink* cuts it to the least. Neither root nor a loop device is needed.",
            "What holds a filesystem already is refused without *-f*, what is mounted or otherwise in use is refused "
            "always. Refused devices and files are left as they were.",
        ),
        "REPRODUCIBLE IMAGES": (
            "With *-U* and SOURCE_DATE_EPOCH the same input gives the same bytes, whatever the machine, the clock or "
            "the order of directories, as long as the version of cowtools is the same. With *--compress* the bytes "
            "are also those of the library that compresses: zstandard, zlib or lzallright. *--json* names its "
            "version.",
            "SOURCE_DATE_EPOCH stands for the time of making: that of the superblock, of subvolumes, and of "
            "directories made for *--subvol*. Files of *--rootdir*, *--from-tar* and *--layers* keep an mtime that "
            "is earlier, and get this one in place of a later one, as tar --clamp-mtime has it; otime is then the "
            "mtime, and so are atime and ctime, which would tell of the machine that read or copied them. Without it "
            "files keep their atime and ctime. A directory that an archive has only in the names of others has the "
            "time of the first of these.",
        ),
        "SUBVOLUMES": (
            "*--subvol TYPE:DIR* makes a directory of what is taken in a subvolume: *rw* (the default), *ro* "
            "(read-only), *default* (the one that is mounted) or *default-ro*. / is the top directory, which is one "
            "already; it can be made read-only. Without anything to take in, DIR and the directories on the way to "
            "it are made. Write ./ before a name with a colon in it.",
        ),
        "LAYERS": (
            "*--layers* is given once for each layer of an OCI or Docker image, the lowest first: tars, plain or "
            "compressed by gzip, zstd, xz or bzip2. A whiteout, .wh.NAME, takes away what lower layers have as NAME, "
            "and .wh..wh..opq all that they have in its directory; neither takes away anything of its own layer.",
        ),
        "WHAT IS LEFT OUT": (
            "A pattern of *--exclude* without a slash is a name anywhere, with one it is a path from the top of what "
            "is taken in; a slash or ./ in front says just that, and so does the path of *--rootdir* itself. A slash "
            "at the end means directories alone. An asterisk stands for any part of a name, two of them for slashes "
            "too, ? for one character and [...] for one of a set. What is left out takes along what is in it. A "
            "pattern that matches nothing is named in a warning; the exit code stays 0.",
            "What is mounted below *--rootdir* is taken in too, unless *--one-file-system* is given. Filesystems "
            "such as proc, sysfs and devtmpfs, which show the machine and hold no files, are never entered: their "
            "mount points are empty directories, and a warning names them.",
        ),
        "SHARED BLOCKS": (
            "With *--reflink* an image file shares the blocks of data with the files of *--rootdir*, if one "
            "filesystem that can do so (btrfs, xfs) has both. Data is copied, and a line says why, where that cannot "
            "be: on block devices, with compression, with raid5 and raid6, and from other filesystems. Small files "
            "and the last, partly filled block of a file are always copied.",
        ),
    },
    see_also=("fsck.cow(8)", "cow-debug-tree(8)", "mkfs.btrfs(8)", "btrfs(5)"),
    values=_values,
)
