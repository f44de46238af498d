"""An opened filesystem: superblocks, trees by name."""

from cowlib.filesystem.filesystem import Filesystem, StartPoint, open_filesystem
from cowlib.filesystem.superblocks import SuperblockCopy, read_superblock, superblock_copies

__all__ = [
    "Filesystem",
    "StartPoint",
    "SuperblockCopy",
    "open_filesystem",
    "read_superblock",
    "superblock_copies",
]
