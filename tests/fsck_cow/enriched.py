"""A kernel's image with items added that its work did not happen to leave, each as the kernel would write it."""

from __future__ import annotations

from pathlib import Path

from cowlib.format import (
    CompatRoFeature,
    DevReplaceItem,
    InodeItem,
    KeyType,
    RootItem,
    columns,
)
from tests import corpus
from tests.fsck_cow.craft import Editor, Place, copy

#: The inode flag of files under fs-verity.
_VERITY = 1 << 32

#: The group that a subvolume's group becomes a member of.
_PARENT = 1 << 48 | 1


def make(folder: Path) -> list[Path]:
    """A copy of the image with quotas, enriched."""
    images = copy(corpus.devices("quota"), folder)
    with Editor(images) as edit:
        _receive(edit)
        _relate(edit)
        _replace_device(edit)
        _protect(edit)
        _key_references(edit)
    return images


def _receive(edit: Editor) -> None:
    """A subvolume that was received, and the UUID tree's item of it."""
    place = edit.first(1, lambda place: place.key[1] == KeyType.ROOT_ITEM and 256 <= place.key[0] < 2**63)
    received = bytes(range(16))
    generation = edit.parsed(place).generation
    edit.set_fields(place, RootItem, 0, received_uuid=received, stransid=5, rtransid=generation)
    halves = (int.from_bytes(received[:8], "little"), int.from_bytes(received[8:], "little"))
    key = (halves[0], int(KeyType.UUID_KEY_RECEIVED_SUBVOL), halves[1])
    edit.insert(9, key, place.key[0].to_bytes(8, "little"))


def _relate(edit: Editor) -> None:
    """A group of level 1 with one member."""
    info = edit.first(8, lambda place: place.key[1] == KeyType.QGROUP_INFO and place.key[2] >= 256)
    child = info.key[2]
    edit.insert(8, (0, int(KeyType.QGROUP_INFO), _PARENT), edit.payload(info))
    edit.insert(8, (0, int(KeyType.QGROUP_LIMIT), _PARENT), bytes(40))
    edit.insert(8, (child, int(KeyType.QGROUP_RELATION), _PARENT), b"")
    edit.insert(8, (_PARENT, int(KeyType.QGROUP_RELATION), child), b"")


def _replace_device(edit: Editor) -> None:
    """A replacement that never began: what a kernel writes once one has been asked for."""
    edit.insert(4, (0, int(KeyType.DEV_REPLACE), 0), bytes(columns(DevReplaceItem).itemsize))


def _protect(edit: Editor) -> None:
    """A file under fs-verity: its descriptor's size, the descriptor, one block of hashes."""

    def is_plain_file(place: Place) -> bool:
        if place.key[1] != KeyType.INODE_ITEM:
            return False
        value = edit.parsed(place)
        return bool(value.mode & 0o170000 == 0o100000 and value.nlink and value.size > 5000)

    place = edit.first(5, is_plain_file)
    edit.set_fields(place, InodeItem, 0, flags=edit.parsed(place).flags | _VERITY)
    inode = place.key[0]
    edit.insert(5, (inode, int(KeyType.VERITY_DESC_ITEM), 0), (256).to_bytes(8, "little") + bytes(17))
    edit.insert(5, (inode, int(KeyType.VERITY_DESC_ITEM), 1), bytes(256))
    edit.insert(5, (inode, int(KeyType.VERITY_MERKLE_ITEM), 0), bytes(1024))
    flags = int(edit.superblock.compat_ro_flags) | CompatRoFeature.VERITY
    edit.set_superblock(compat_ro_flags=flags)


def _key_references(edit: Editor) -> None:
    """An extent item whose only inline reference becomes an item of its own."""
    place = edit.first(
        2, lambda place: place.key[1] == KeyType.METADATA_ITEM and edit.parsed(place).refs == 1 and place.size == 33
    )
    payload = edit.payload(place)
    kind, offset = payload[24], int.from_bytes(payload[25:], "little")
    edit.replace(place, payload[:24])
    edit.insert(2, (place.key[0], kind, offset), b"")
