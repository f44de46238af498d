"""The nodes every tree is made of: a header, then items (leaf, level 0) or child pointers (inner node)."""

from construct import Bytes

from cowlib.format.common import DiskKey
from cowlib.format.constants import CSUM_SIZE, FSID_SIZE, UUID_SIZE
from cowlib.format.declare import Struct, u8, u32, u64

Header = Struct(
    "csum" / Bytes(CSUM_SIZE) * "checksum of everything after this field, padded with zeros",
    "fsid" / Bytes(FSID_SIZE) * "the superblock's metadata_uuid, or fsid if it has none",
    "bytenr" / u64 * "logical address in bytes of this very node",
    "flags" / u64 * "HeaderFlag, and the back reference revision in the top byte",
    "chunk_tree_uuid" / Bytes(UUID_SIZE) * "the chunk tree's UUID, the same in every node",
    "generation" / u64 * "transaction that wrote this node",
    "owner" / u64 * "object id of the tree it was first written for",
    "nritems" / u32 * "number of items or child pointers",
    "level" / u8 * "0: leaf",
)
"""The first 101 bytes of every node."""

Item = Struct(
    "key" / DiskKey,
    "offset" / u32 * "bytes from the end of the header to the payload",
    "size" / u32 * "bytes of payload",
)
"""One item of a leaf.

These follow the header in key order; the payloads fill the leaf from its end downwards.
"""

KeyPtr = Struct(
    "key" / DiskKey * "the first key of the child",
    "blockptr" / u64 * "logical address in bytes of the child",
    "generation" / u64 * "the child's generation",
)
"""One child of an inner node. These follow the header in key order."""
