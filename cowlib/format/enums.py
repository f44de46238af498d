"""Fields that hold one value out of a few."""

from enum import IntEnum


class CsumType(IntEnum):
    """`Superblock.csum_type`: how nodes and data are checksummed."""

    CRC32 = 0
    XXHASH = 1
    SHA256 = 2
    BLAKE2 = 3


class FileType(IntEnum):
    """`DirItem.type`: what a directory entry points to."""

    UNKNOWN = 0
    REG_FILE = 1
    DIR = 2
    CHRDEV = 3
    BLKDEV = 4
    FIFO = 5
    SOCK = 6
    SYMLINK = 7
    XATTR = 8


class FileExtentType(IntEnum):
    """`FileExtentItem.type`: where a file extent's data is."""

    INLINE = 0
    REG = 1
    PREALLOC = 2


class Compression(IntEnum):
    """`FileExtentItem.compression`: how a file extent's data is compressed."""

    NONE = 0
    ZLIB = 1
    LZO = 2
    ZSTD = 3


class DevReplaceState(IntEnum):
    """`DevReplaceItem.replace_state`: how far the last replacement of a device went."""

    NEVER_STARTED = 0
    STARTED = 1
    FINISHED = 2
    CANCELED = 3
    SUSPENDED = 4


class DevStat(IntEnum):
    """Index of a counter in `DevStatsItem.values`."""

    WRITE_ERRS = 0
    READ_ERRS = 1
    FLUSH_ERRS = 2
    CORRUPTION_ERRS = 3
    GENERATION_ERRS = 4


class FreeSpaceEntryType(IntEnum):
    """`FreeSpaceEntry.type`: what an entry of the old free-space cache stands for."""

    EXTENT = 1
    BITMAP = 2
