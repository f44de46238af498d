"""What the user wants to see, and the lines above, between and below the trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cow_debug_tree.printers.keys import key_text
from cow_debug_tree.text.writers import uuid_text
from cowlib.btree import TreeRoot
from cowlib.errors import UsageError
from cowlib.format import IncompatFeature, KeyType, ObjectId


@dataclass(frozen=True)
class Wishes:
    """Which nodes are shown.

    ``extents``, ``device`` and ``uuid`` restrict to some trees, ``tree`` to one; ``roots`` and ``backups``
    show only where trees start. ``blocks`` are logical addresses of single nodes, with all below them if
    ``follow``. ``min_transid`` leaves out what is older. ``depth_first`` prints children right after their
    parents.
    """

    extents: bool = False
    device: bool = False
    roots: bool = False
    backups: bool = False
    uuid: bool = False
    tree: int | None = None
    blocks: tuple[int, ...] = ()
    follow: bool = False
    depth_first: bool = False
    min_transid: int = 0

    @property
    def restricted(self) -> bool:
        """Only trees of some purpose are shown, and no totals."""
        return self.extents or self.device or self.uuid

    def shows(self, objectid: int) -> bool:
        """Whether a tree that the root tree knows is among those to be shown."""
        if self.tree is not None and objectid != self.tree:
            return False
        match objectid:
            case ObjectId.EXTENT_TREE if self.extents:
                return not self.device and not self.uuid
            case ObjectId.DEV_TREE if self.extents or self.device:
                return not self.uuid
            case ObjectId.UUID_TREE if self.uuid:
                return not self.extents and not self.device
            case ObjectId.ROOT_TREE_DIR:
                return True
        return not self.restricted


_TITLES: dict[int, str] = {
    ObjectId.ROOT_TREE: "root",
    ObjectId.EXTENT_TREE: "extent",
    ObjectId.CHUNK_TREE: "chunk",
    ObjectId.DEV_TREE: "device",
    ObjectId.FS_TREE: "fs",
    ObjectId.ROOT_TREE_DIR: "directory",
    ObjectId.CSUM_TREE: "checksum",
    ObjectId.QUOTA_TREE: "quota",
    ObjectId.UUID_TREE: "uuid",
    ObjectId.FREE_SPACE_TREE: "free space",
    ObjectId.BLOCK_GROUP_TREE: "block group",
    ObjectId.RAID_STRIPE_TREE: "raid stripe",
    ObjectId.ORPHAN: "orphan",
    ObjectId.TREE_LOG: "log",
    ObjectId.TREE_LOG_FIXUP: "log fixup",
    ObjectId.TREE_RELOC: "reloc",
    ObjectId.DATA_RELOC_TREE: "data reloc",
    ObjectId.EXTENT_CSUM: "extent checksum",
    ObjectId.MULTIPLE: "multiple",
}

#: Titles of trees that stand by themselves, when nothing else is shown.
ALONE: dict[int, bytes] = {
    ObjectId.ROOT_TREE: b"root tree\n",
    ObjectId.CHUNK_TREE: b"chunk tree\n",
    ObjectId.TREE_LOG: b"log root tree\n",
    ObjectId.BLOCK_GROUP_TREE: b"block group tree\n",
}

#: Names for ``--tree``, beside those in `ALONE` and of the form ``FS_TREE``.
_ALIASES = {
    "DEVICE": ObjectId.DEV_TREE,
    "CHECKSUM": ObjectId.CSUM_TREE,
    "TREE_LOG": ObjectId.TREE_LOG,
    "TREE_LOG_FIXUP": ObjectId.TREE_LOG_FIXUP,
    "TREE_RELOC": ObjectId.TREE_RELOC,
}
_NAMES = {known.name.removesuffix("_TREE"): known for known in ObjectId if known.name.endswith("_TREE")} | _ALIASES


def tree_id(text: str) -> int:
    """A tree by number, or by name as in C or shorter, in any case: ``5``, ``fs``, ``FS_TREE``,
    ``BTRFS_FS_TREE_OBJECTID``.

    Raises UsageError for what is neither.
    """
    try:
        number = int(text, 10 if text.isdecimal() else 0)
    except ValueError:
        name = text.upper().replace("-", "_").removeprefix("BTRFS_").removesuffix("_OBJECTID").removesuffix("_TREE")
        number = _NAMES.get(name, 0)
    if not 0 < number < 1 << 64:
        raise UsageError(f"no such tree: {text}", hint="trees are named root, extent, fs, csum, ... or by their number")
    return int(number)


def tree_names() -> tuple[str, ...]:
    """The names of trees, as short as `tree_id` takes them."""
    return tuple(sorted(name.lower().replace("_", "-") for name in _NAMES))


def title(root: TreeRoot, wishes: Wishes) -> bytes:
    """The line above a tree, or the one line about it if only roots are shown."""
    name = _TITLES.get(root.objectid, "file")
    text: bytes = f"{name} tree ".encode() + key_text(root.objectid, KeyType.ROOT_ITEM, root.offset)
    if wishes.extents and not wishes.roots:
        return text + b"\n"
    return text + (f" {root.bytenr} level {root.level}\n".encode() if wishes.roots else b" \n")


def start(name: str, root: TreeRoot) -> bytes:
    """The line about a tree that no root item points to, if only roots are shown."""
    return f"{name} tree: {root.bytenr} level {root.level}\n".encode()


def totals(superblock: Any) -> bytes:
    """The last lines."""
    return (
        f"total bytes {superblock.total_bytes}\nbytes used {superblock.bytes_used}\nuuid ".encode()
        + uuid_text(bytes(superblock.fsid))
        + b"\n"
    )


def backups(superblock: Any) -> bytes:
    """The roots of past transactions that the superblock remembers."""
    new_extent_tree = superblock.incompat_flags & IncompatFeature.EXTENT_TREE_V2
    names = (
        ("extent", "block group" if new_extent_tree else "extent"),
        ("chunk", "chunk"),
        ("dev", "device"),
        ("csum", "csum"),
        ("fs", "fs"),
    )
    lines = []
    for slot, backup in enumerate(superblock.super_roots):
        lines += [
            f"btrfs root backup slot {slot}\n",
            f"\ttree root gen {backup.tree_root_gen} block {backup.tree_root}\n",
        ]
        lines += [
            f"\t\t{shown} root gen {backup[f'{field}_root_gen']} block {backup[f'{field}_root']}\n"
            for field, shown in names
        ]
        lines.append(f"\t\t{backup.bytes_used} used {backup.total_bytes} total {backup.num_devices} devices\n")
    return "".join(lines).encode()
