"""What a key is made of: the type of an item and the object ids with a meaning of their own."""

from enum import IntEnum


class KeyType(IntEnum):
    """The `type` of a key: which kind of item it is. Names are the kernel's, less `BTRFS_` and `_KEY`."""

    UNTYPED = 0
    INODE_ITEM = 1
    INODE_REF = 12
    INODE_EXTREF = 13
    XATTR_ITEM = 24
    VERITY_DESC_ITEM = 36
    VERITY_MERKLE_ITEM = 37
    ORPHAN_ITEM = 48
    DIR_LOG_ITEM = 60
    DIR_LOG_INDEX = 72
    DIR_ITEM = 84
    DIR_INDEX = 96
    EXTENT_DATA = 108
    EXTENT_CSUM = 128
    ROOT_ITEM = 132
    ROOT_BACKREF = 144
    ROOT_REF = 156
    EXTENT_ITEM = 168
    METADATA_ITEM = 169
    EXTENT_OWNER_REF = 172
    TREE_BLOCK_REF = 176
    EXTENT_DATA_REF = 178
    EXTENT_REF_V0 = 180
    SHARED_BLOCK_REF = 182
    SHARED_DATA_REF = 184
    BLOCK_GROUP_ITEM = 192
    FREE_SPACE_INFO = 198
    FREE_SPACE_EXTENT = 199
    FREE_SPACE_BITMAP = 200
    DEV_EXTENT = 204
    DEV_ITEM = 216
    CHUNK_ITEM = 228
    RAID_STRIPE = 230
    IDENTITY_REMAP = 234
    REMAP = 235
    REMAP_BACKREF = 236
    QGROUP_STATUS = 240
    QGROUP_INFO = 242
    QGROUP_LIMIT = 244
    QGROUP_RELATION = 246
    TEMPORARY_ITEM = 248
    BALANCE_ITEM = 248
    PERSISTENT_ITEM = 249
    DEV_STATS = 249
    DEV_REPLACE = 250
    UUID_KEY_SUBVOL = 251
    UUID_KEY_RECEIVED_SUBVOL = 252
    STRING_ITEM = 253


class ObjectId(IntEnum):
    """Object ids with a fixed meaning, as unsigned 64-bit numbers.

    Several share a number: the tree tells them apart. The first name of a number is the one `repr` shows; the
    later ones are aliases.
    """

    DEV_STATS = 0
    DEV_REPLACE = 0
    ROOT_TREE = 1
    DEV_ITEMS = 1
    BTREE_INODE = 1
    EXTENT_TREE = 2
    EMPTY_SUBVOL_DIR = 2
    CHUNK_TREE = 3
    DEV_TREE = 4
    FS_TREE = 5
    ROOT_TREE_DIR = 6
    CSUM_TREE = 7
    QUOTA_TREE = 8
    UUID_TREE = 9
    FREE_SPACE_TREE = 10
    BLOCK_GROUP_TREE = 11
    RAID_STRIPE_TREE = 12
    REMAP_TREE = 13
    FIRST_FREE = 256
    FIRST_CHUNK_TREE = 256
    BALANCE = 2**64 - 4
    ORPHAN = 2**64 - 5
    TREE_LOG = 2**64 - 6
    TREE_LOG_FIXUP = 2**64 - 7
    TREE_RELOC = 2**64 - 8
    DATA_RELOC_TREE = 2**64 - 9
    EXTENT_CSUM = 2**64 - 10
    FREE_SPACE = 2**64 - 11
    FREE_INO = 2**64 - 12
    CSUM_CHANGE = 2**64 - 13
    MULTIPLE = 2**64 - 255
    LAST_FREE = 2**64 - 256
