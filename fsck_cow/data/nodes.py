"""Every copy of every tree block: those that the check itself did not read."""

from __future__ import annotations

import numpy as np

from cowlib.btree import Nodes
from cowlib.btree.nodes import I64, U64, Bytes, Mask
from cowlib.btree.reader import BadCopy
from cowlib.checksum import csum_rows, csum_size
from cowlib.format import CSUM_SIZE
from fsck_cow.context import Context
from fsck_cow.walk import READ

#: Bytes of blocks read at a time.
_BATCH_BYTES = 16 << 20


def check_node_copies(ctx: Context) -> None:
    """Compares every copy of each block that could be read with what is known of it; bad ones go to the reader.

    A copy on a missing device is none. With parity, every way to rebuild a block counts as a copy.
    """
    blocks = ctx.blocks.blocks
    rows = np.flatnonzero(blocks["state"] == READ)
    rows = rows[np.argsort(blocks["bytenr"][rows], kind="stable")]
    known = {(copy.logical, copy.mirror) for copy in ctx.fs.reader.bad_copies}
    batch = max(1, _BATCH_BYTES // ctx.fs.nodesize)
    for start in range(0, len(rows), batch):
        ctx.progress("reading copies of tree blocks", start, len(rows))
        _check_batch(ctx, rows[start : start + batch], known)


def _check_batch(ctx: Context, rows: I64, known: set[tuple[int, int]]) -> None:
    volume, blocks = ctx.fs.volume, ctx.blocks.blocks
    bytenr = np.ascontiguousarray(blocks["bytenr"][rows])
    chunk = volume.chunks.locate(bytenr)
    copies = np.array([volume.num_copies(int(bytenr[i])) for i in _first_of_each(chunk)], np.int64)
    copies = copies[np.unique(chunk, return_inverse=True)[1]]
    first = _first_present(ctx, bytenr, int(copies.max(initial=0)))
    for mirror in range(1, int(copies.max(initial=0)) + 1):
        which = np.flatnonzero((copies >= mirror) & (first != mirror) & _present(ctx, bytenr, mirror))
        data, ok = volume.read_many(bytenr[which], ctx.fs.nodesize, mirror=mirror)
        good = ok & _is_block(ctx, data, bytenr[which], rows[which])
        for i in np.flatnonzero(~good).tolist():
            place = int(bytenr[which[i]])
            if (place, mirror) not in known:
                reason = "is not the block, or not as its checksum says" if ok[i] else "cannot be read"
                tree = int(blocks["tree"][rows[which[i]]])
                ctx.fs.reader.bad_copies.append(BadCopy(place, mirror, reason, tree))


def _first_of_each(chunk: I64) -> list[int]:
    return [int(i) for i in np.unique(chunk, return_index=True)[1]]


def _present(ctx: Context, bytenr: U64, mirror: int) -> Mask:
    """Which blocks' copy stands on a device that is there, or is one to be rebuilt: bool (n,)."""
    chunks = ctx.fs.volume.chunks
    missing = ctx.fs.volume.missing
    if not missing:
        return np.ones(len(bytenr), bool)
    if chunks.parity[chunks.locate(bytenr)].any():
        # Rows with a hole have fewer ways to be rebuilt: what was read once is as much as there is.
        return np.zeros(len(bytenr), bool)
    devid, _ = chunks.map_block(bytenr, mirror)
    return ~np.isin(devid, np.array(missing, np.uint64))


def _first_present(ctx: Context, bytenr: U64, copies: int) -> I64:
    """The copy of each block that a reader takes if it is good: i8 (n,)."""
    first = np.zeros(len(bytenr), np.int64)
    for mirror in range(copies, 0, -1):
        first[_present(ctx, bytenr, mirror)] = mirror
    return first


def _is_block(ctx: Context, data: Bytes, bytenr: U64, rows: I64) -> Mask:
    """Which of the blocks (n, nodesize) are those that stand in these rows of the block table: bool (n,)."""
    blocks = ctx.blocks.blocks
    header = Nodes(data.reshape(-1), ctx.fs.nodesize, bytenr).header
    good: Mask = (header["bytenr"] == bytenr) & (header["generation"] == blocks["generation"][rows])
    good &= header["level"] == blocks["level"][rows]
    size = csum_size(ctx.fs.csum_type)
    good &= (data[:, :size] == csum_rows(ctx.fs.csum_type, data[:, CSUM_SIZE:])).all(axis=1)
    return good
