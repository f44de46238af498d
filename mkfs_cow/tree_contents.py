"""What stands in each tree of the new filesystem: from the source's tables to items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cowlib.btree import ItemTable
from cowlib.format import FileExtentType, ObjectId
from mkfs_cow.chunks import DeviceSpace, NewChunk
from mkfs_cow.data.write import Written
from mkfs_cow.identity import GENERATION, Identity
from mkfs_cow.options import ResolvedOptions
from mkfs_cow.tree_layout import TreeLayout
from mkfs_cow.trees.entries import FIRST_INODE, entry_indices
from mkfs_cow.trees.extents import (
    block_group_items,
    checksum_items,
    data_extent_items,
)
from mkfs_cow.trees.subvolume import SubvolumeItems
from mkfs_cow.trees.system import (
    Subvolume,
    TreeLocation,
    chunk_tree,
    data_reloc_tree,
    device_tree,
    quota_tree,
    root_item,
    root_tree_directory,
    subvolume_references,
    uuid_tree,
)

_NOWHERE = TreeLocation(0, 0, 0)


class TreeContents:
    """Puts every tree of one filesystem into a `TreeLayout`."""

    def __init__(self, layout: TreeLayout, identity: Identity, options: ResolvedOptions, written: Written) -> None:
        self.layout = layout
        self.identity = identity
        self.options = options
        self.written = written
        self.nodesize = options.nodesize
        self.subvolumes = self._subvolumes()

    def _subvolumes(self) -> list[Subvolume]:
        """The top subvolume, then the others by number, each with where it hangs."""
        top = int(ObjectId.FS_TREE)
        found = {0: Subvolume(top, self.identity.subvolume(top), readonly=self.options.readonly_top)}
        ids = self._tree_ids()
        for parent, tree in enumerate(self.written.trees):
            names = tree.names
            index = entry_indices(names.parent)
            for row in np.flatnonzero(names.inode < 0).tolist():
                number = ~int(names.inode[row])
                found[number] = Subvolume(
                    tree_id=ids[number],
                    uuid=self.identity.subvolume(ids[number]),
                    readonly=self.options.subvolumes[number - 1].readonly,
                    parent_id=ids[parent],
                    dirid=int(names.parent[row]) + FIRST_INODE,
                    index=int(index[row]),
                    name=names.name[row],
                )
        return [found[number] for number in sorted(found)]

    def _tree_ids(self) -> list[int]:
        """Tree ids by tree number: the top one's, then from 256."""
        count = len(self.written.trees)
        return [int(ObjectId.FS_TREE), *range(FIRST_INODE, FIRST_INODE + count - 1)]

    def add_all(self) -> None:
        """Every tree: those of files first, so that their nodes stand together at the front."""
        ids = self._tree_ids()
        for number, tree_id in enumerate(ids):
            self.layout.add(tree_id, self._subvolume_items(number, ids))
        self._add_data_extents(np.array(ids, np.uint64))
        sums = self.written.sums
        self.layout.add(
            ObjectId.CSUM_TREE,
            checksum_items(sums.logical, sums.csum, self.options.sectorsize, self.nodesize),
        )
        self.layout.add(ObjectId.UUID_TREE, uuid_tree(self.subvolumes))
        self.layout.add(ObjectId.DATA_RELOC_TREE, data_reloc_tree(GENERATION, self.identity.now, self.nodesize))
        if self._quotas:
            self.layout.add_late(ObjectId.QUOTA_TREE, self._quota_table)
        space = self.layout.space
        if self.layout.style.block_group_tree:
            self.layout.add_late(ObjectId.BLOCK_GROUP_TREE, lambda: block_group_items(space.all_groups()))
        self.layout.add_late(ObjectId.DEV_TREE, lambda: device_tree(*self._devices, self.identity.chunk_tree.bytes))
        self.layout.add_late(
            ObjectId.CHUNK_TREE,
            lambda: chunk_tree(*self._devices, self.identity.fsid.bytes, self.options.sectorsize),
        )
        self.layout.add_late(ObjectId.ROOT_TREE, self._root_table)

    @property
    def _devices(self) -> tuple[list[DeviceSpace], list[NewChunk]]:
        chunks = self.layout.space.chunks
        return chunks.devices, chunks.chunks

    @property
    def _quotas(self) -> bool:
        return "quota" in self.options.features or "squota" in self.options.features

    def _subvolume_items(self, number: int, ids: list[int]) -> SubvolumeItems:
        written = self.written
        return SubvolumeItems(
            written.trees[number], ids, written.nbytes[number], written.extents, number, GENERATION, self.nodesize
        )

    def _add_data_extents(self, ids: npt.NDArray[np.uint64]) -> None:
        extents = self.written.extents
        rows = np.flatnonzero((extents.type != FileExtentType.INLINE) & (extents.disk_bytenr != 0))
        self.layout.data_extents = data_extent_items(
            ids[extents.tree[rows]], extents, rows, GENERATION, owner_refs="squota" in self.options.features
        )

    def _quota_table(self) -> ItemTable:
        """What each subvolume uses: its nodes, and its data as it is on disk."""
        extents = self.written.extents
        stored = np.where(extents.disk_bytenr != 0, extents.disk_num_bytes, np.uint64(0))
        data = [int(stored[extents.tree == number].sum()) for number in range(len(self.written.trees))]
        usage = {
            tree_id: used + self._location(tree_id).node_count * self.nodesize
            for tree_id, used in zip(self._tree_ids(), data, strict=True)
        }
        return quota_tree(usage, GENERATION, simple="squota" in self.options.features)

    def _location(self, owner: int) -> TreeLocation:
        """Where a tree is; while nothing is placed yet any place will do, as sizes don't depend on it."""
        tree = self.layout.trees.get(owner)
        return _NOWHERE if tree is None else tree.location

    def _root_table(self) -> ItemTable:
        layout, now = self.layout, self.identity.now
        subvolumes = {subvolume.tree_id: subvolume for subvolume in self.subvolumes}
        default = int(ObjectId.FS_TREE)
        for number, spec in enumerate(self.options.subvolumes, 1):
            if spec.default:
                default = self._tree_ids()[number]
        tables = [root_tree_directory(default, GENERATION, now, self.nodesize)]
        tables += [
            root_item(owner, self._location(owner), subvolumes.get(owner), GENERATION, now, self.nodesize)
            for owner in layout.owners
            if owner not in (ObjectId.ROOT_TREE, ObjectId.CHUNK_TREE)
        ]
        tables += [subvolume_references(subvolume) for subvolume in self.subvolumes if subvolume.parent_id]
        return ItemTable.concat(tables).sorted()
