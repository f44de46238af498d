"""Who the new filesystem is: its ids, its moment, and what all its nodes share."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from cowlib.btree import NodeStyle
from cowlib.format import CsumType

#: The transaction that a new filesystem is made in: everything in it is this new.
GENERATION = 1


@dataclass(frozen=True)
class Identity:
    """Ids of a filesystem and its parts, and ``now`` in seconds since the epoch.

    Every other UUID is derived from ``fsid`` (version 5), so the same fsid gives the same bytes.
    """

    fsid: uuid.UUID
    now: int

    @property
    def chunk_tree(self) -> uuid.UUID:
        """The UUID that ties device extents and nodes to this chunk tree."""
        return uuid.uuid5(self.fsid, "chunk tree")

    def device(self, devid: int) -> uuid.UUID:
        """The UUID of a device."""
        return uuid.uuid5(self.fsid, f"device {devid}")

    def subvolume(self, tree_id: int) -> uuid.UUID:
        """The UUID of a subvolume."""
        return uuid.uuid5(self.fsid, f"subvolume {tree_id}")

    def node_style(self, nodesize: int, csum_type: CsumType) -> NodeStyle:
        """What all nodes share."""
        return NodeStyle(nodesize, csum_type, self.fsid.bytes, self.chunk_tree.bytes, GENERATION)
