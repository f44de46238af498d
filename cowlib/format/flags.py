"""Fields that hold a set of bits. Unknown bits are kept, never dropped."""

from enum import IntFlag


class CompatRoFeature(IntFlag):
    """`Superblock.compat_ro_flags`: who does not know one of these may read, but not write."""

    FREE_SPACE_TREE = 1 << 0
    FREE_SPACE_TREE_VALID = 1 << 1
    VERITY = 1 << 2
    BLOCK_GROUP_TREE = 1 << 3


class IncompatFeature(IntFlag):
    """`Superblock.incompat_flags`: who does not know one of these may not touch the filesystem at all."""

    MIXED_BACKREF = 1 << 0
    DEFAULT_SUBVOL = 1 << 1
    MIXED_GROUPS = 1 << 2
    COMPRESS_LZO = 1 << 3
    COMPRESS_ZSTD = 1 << 4
    BIG_METADATA = 1 << 5
    EXTENDED_IREF = 1 << 6
    RAID56 = 1 << 7
    SKINNY_METADATA = 1 << 8
    NO_HOLES = 1 << 9
    METADATA_UUID = 1 << 10
    RAID1C34 = 1 << 11
    ZONED = 1 << 12
    EXTENT_TREE_V2 = 1 << 13
    RAID_STRIPE_TREE = 1 << 14
    SIMPLE_QUOTA = 1 << 16
    REMAP_TREE = 1 << 17


class SuperFlag(IntFlag):
    """`Superblock.flags`. The two lowest are those of every header."""

    WRITTEN = 1 << 0
    RELOC = 1 << 1
    ERROR = 1 << 2
    SEEDING = 1 << 32
    METADUMP = 1 << 33
    METADUMP_V2 = 1 << 34
    CHANGING_FSID = 1 << 35
    CHANGING_FSID_V2 = 1 << 36
    CHANGING_BG_TREE = 1 << 38
    CHANGING_DATA_CSUM = 1 << 39
    CHANGING_META_CSUM = 1 << 40


class HeaderFlag(IntFlag):
    """`Header.flags`, below the back reference revision in the top byte."""

    WRITTEN = 1 << 0
    RELOC = 1 << 1


class BlockGroupFlag(IntFlag):
    """`Chunk.type` and `BlockGroupItem.flags`: what may be stored, and how it is spread over devices.

    `TYPE_MASK` has the bits of the first kind, `PROFILE_MASK` those of the second. No profile bit at all
    means single.
    """

    DATA = 1 << 0
    SYSTEM = 1 << 1
    METADATA = 1 << 2
    RAID0 = 1 << 3
    RAID1 = 1 << 4
    DUP = 1 << 5
    RAID10 = 1 << 6
    RAID5 = 1 << 7
    RAID6 = 1 << 8
    RAID1C3 = 1 << 9
    RAID1C4 = 1 << 10
    REMAPPED = 1 << 11
    METADATA_REMAP = 1 << 12

    TYPE_MASK = DATA | SYSTEM | METADATA | METADATA_REMAP
    PROFILE_MASK = RAID0 | RAID1 | DUP | RAID10 | RAID5 | RAID6 | RAID1C3 | RAID1C4
    RAID56_MASK = RAID5 | RAID6
    RAID1_MASK = RAID1 | RAID1C3 | RAID1C4


class InodeFlag(IntFlag):
    """`InodeItem.flags`. The upper half is the kernel's separate set of read-only compatible flags."""

    NODATASUM = 1 << 0
    NODATACOW = 1 << 1
    READONLY = 1 << 2
    NOCOMPRESS = 1 << 3
    PREALLOC = 1 << 4
    SYNC = 1 << 5
    IMMUTABLE = 1 << 6
    APPEND = 1 << 7
    NODUMP = 1 << 8
    NOATIME = 1 << 9
    DIRSYNC = 1 << 10
    COMPRESS = 1 << 11
    ROOT_ITEM_INIT = 1 << 31
    RO_VERITY = 1 << 32


class FileTypeFlag(IntFlag):
    """Bits beside the file type in `DirItem.type`."""

    ENCRYPTED = 1 << 7


class RootFlag(IntFlag):
    """`RootItem.flags`."""

    SUBVOL_RDONLY = 1 << 0
    SUBVOL_DEAD = 1 << 48


class ExtentFlag(IntFlag):
    """`ExtentItem.flags`."""

    DATA = 1 << 0
    TREE_BLOCK = 1 << 1
    FULL_BACKREF = 1 << 8


class FreeSpaceFlag(IntFlag):
    """`FreeSpaceInfo.flags`."""

    USING_BITMAPS = 1 << 0


class QgroupStatusFlag(IntFlag):
    """`QgroupStatusItem.flags`."""

    ON = 1 << 0
    RESCAN = 1 << 1
    INCONSISTENT = 1 << 2
    SIMPLE_MODE = 1 << 3


class QgroupLimitFlag(IntFlag):
    """`QgroupLimitItem.flags`: which of its limits are in force."""

    MAX_RFER = 1 << 0
    MAX_EXCL = 1 << 1
    RSV_RFER = 1 << 2
    RSV_EXCL = 1 << 3
    RFER_CMPR = 1 << 4
    EXCL_CMPR = 1 << 5


class BalanceFlag(IntFlag):
    """`BalanceItem.flags`: which kinds of chunks are balanced, and how it was started."""

    DATA = 1 << 0
    SYSTEM = 1 << 1
    METADATA = 1 << 2
    FORCE = 1 << 3
    RESUME = 1 << 4


class BalanceArgsFlag(IntFlag):
    """`DiskBalanceArgs.flags`: which of its filters are in force."""

    PROFILES = 1 << 0
    USAGE = 1 << 1
    DEVID = 1 << 2
    DRANGE = 1 << 3
    VRANGE = 1 << 4
    LIMIT = 1 << 5
    LIMIT_RANGE = 1 << 6
    STRIPES_RANGE = 1 << 7
    CONVERT = 1 << 8
    SOFT = 1 << 9
    USAGE_RANGE = 1 << 10
