"""What a file's bytes are, and the checksums of data."""

from construct import GreedyBytes

from cowlib.format.declare import Struct, Tagged, u8, u16, u64
from cowlib.format.enums import FileExtentType

FileExtentHead = Struct(
    "generation" / u64 * "transaction that created the extent",
    "ram_bytes" / u64 * "bytes of the whole extent before compression",
    "compression" / u8 * "Compression",
    "encryption" / u8 * "always 0",
    "other_encoding" / u16 * "always 0",
    "type" / u8 * "FileExtentType",
)
"""The first 21 bytes of a file extent. After them stands the data itself, if the type is INLINE."""

FileExtentItem = Struct(
    *FileExtentHead.subcons,
    "disk_bytenr" / u64 * "logical address in bytes of the whole extent; 0: a hole",
    "disk_num_bytes" / u64 * "bytes of the whole extent on disk",
    "offset" / u64 * "bytes into the whole extent, before compression, where this range begins",
    "num_bytes" / u64 * "bytes of the file that this item stands for",
)
"""A range of a file. Subvolume trees, key (inode, EXTENT_DATA, byte offset in the file)."""

InlineExtentPayload = Struct(*FileExtentHead.subcons, "data" / GreedyBytes * "perhaps compressed")
"""A whole file extent of type INLINE: always at byte 0 of the file, and its only one but for holes."""

FileExtentPayload = Tagged(
    FileExtentHead,
    lambda head: InlineExtentPayload if head["type"] == FileExtentType.INLINE else FileExtentItem,
)
"""A file extent of any type."""
