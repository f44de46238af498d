"""Nodes as columns: a batch of tree blocks in one buffer, its items or key pointers as arrays.

Every array here is a view or a gather over the bytes that were read; payloads are never copied until asked for.
Sizes and offsets come from disk: `Items.in_bounds` says which payloads lie inside their leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cowlib.errors import DamagedError
from cowlib.format import HEADER_SIZE, ITEM_SIZE, KEY_PTR_SIZE, Header, Item, KeyPtr, columns

Bytes = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def gather(buffer: Bytes, positions: I64, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Copies one structure of ``dtype`` from every byte position: shape (n,), dtype ``dtype``.

    Positions must leave ``dtype.itemsize`` bytes inside ``buffer``; raises IndexError where they don't.
    """
    room = buffer.size - dtype.itemsize + 1
    if len(positions) == 0 or room <= 0:
        if len(positions):
            raise IndexError("structure larger than the buffer")
        return np.empty(0, dtype)
    # Overlapping windows one byte apart: numpy then gathers whole structures with memcpy. A void dtype keeps it from
    # walking the fields one by one.
    windows = np.ndarray(shape=(room,), dtype=np.dtype((np.void, dtype.itemsize)), buffer=buffer.data, strides=(1,))
    return windows[positions].view(dtype)


def ragged_index(starts: I64, lengths: I64) -> I64:
    """Indices of all elements of many ranges, one range after another: shape (lengths.sum(),), int64."""
    total = int(lengths.sum())
    ends = np.cumsum(lengths)
    index: I64 = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)
    return index


def item_capacity(nodesize: int) -> int:
    """The most items a leaf's header may claim: all of them with empty payloads."""
    return (nodesize - HEADER_SIZE) // ITEM_SIZE


def pointer_capacity(nodesize: int) -> int:
    """The most key pointers an inner node holds."""
    return (nodesize - HEADER_SIZE) // KEY_PTR_SIZE


@dataclass(eq=False)
class Items:
    """Items of a batch of leaves as columns, all of length n, over one shared byte buffer.

    ``objectid`` u8, ``type`` u1, ``offset`` u8: the key.  ``position`` i8: where the payload starts in ``buffer``.
    ``size`` i8: its length in bytes.  ``node`` i8: index of its leaf in the batch; ``slot`` i8: place in that leaf.
    ``in_bounds`` bool: the payload lies between its leaf's item array and the leaf's end.
    """

    buffer: Bytes
    objectid: U64
    type: npt.NDArray[np.uint8]
    offset: U64
    position: I64
    size: I64
    node: I64
    slot: I64
    in_bounds: Mask

    def __len__(self) -> int:
        return len(self.objectid)

    def select(self, which: npt.NDArray[Any] | slice) -> Items:
        """The items that a boolean mask, an index array or a slice picks, over the same buffer."""
        if not isinstance(which, slice) and which.dtype == np.bool_:
            # Nine columns by index cost half of nine columns by mask.
            which = np.flatnonzero(which)
        return Items(
            self.buffer,
            self.objectid[which],
            self.type[which],
            self.offset[which],
            self.position[which],
            self.size[which],
            self.node[which],
            self.slot[which],
            self.in_bounds[which],
        )

    def of_type(self, *types: int) -> Items:
        """The items whose key type is one of ``types``, in the same order."""
        mask = self.type == types[0]
        for other in types[1:]:
            mask |= self.type == other
        return self.select(mask)

    def view(self, struct: Any) -> npt.NDArray[Any]:
        """The head of every payload as a structured array, dtype ``columns(struct)``: shape (n,).

        Raises DamagedError, naming the first key, where a payload is shorter than the structure or out of its leaf.
        """
        dtype = columns(struct)
        short = (self.size < dtype.itemsize) | ~self.in_bounds
        if short.any():
            at = int(np.argmax(short))
            raise DamagedError(
                f"payload of {int(self.size[at])} bytes, the structure needs {dtype.itemsize} inside the leaf",
                key=self.key(at),
            )
        return gather(self.buffer, self.position, dtype)

    def key(self, i: int) -> tuple[int, int, int]:
        """The key of item ``i`` as plain integers (objectid, type, offset)."""
        return int(self.objectid[i]), int(self.type[i]), int(self.offset[i])

    def payload(self, i: int) -> bytes:
        """The payload bytes of item ``i``; raises DamagedError when it does not lie inside its leaf."""
        if not self.in_bounds[i]:
            raise DamagedError("payload lies outside of its leaf", key=self.key(i))
        start = int(self.position[i])
        return self.buffer[start : start + int(self.size[i])].tobytes()


@dataclass(eq=False)
class Pointers:
    """Key pointers of a batch of inner nodes as columns, all of length n.

    ``objectid`` u8, ``type`` u1, ``offset`` u8: first key below.  ``blockptr`` u8: the child's logical address.
    ``generation`` u8: the child's generation.  ``node`` i8: index of the parent in its batch; ``slot`` i8.
    """

    objectid: U64
    type: npt.NDArray[np.uint8]
    offset: U64
    blockptr: U64
    generation: U64
    node: I64
    slot: I64

    def __len__(self) -> int:
        return len(self.blockptr)

    def select(self, which: npt.NDArray[Any] | slice) -> Pointers:
        """The pointers that a boolean mask, an index array or a slice picks."""
        return Pointers(
            self.objectid[which],
            self.type[which],
            self.offset[which],
            self.blockptr[which],
            self.generation[which],
            self.node[which],
            self.slot[which],
        )

    @classmethod
    def to_root(cls, bytenr: int, generation: int) -> Pointers:
        """A single pointer, as an imaginary parent of a root node would have it."""
        nothing, index = np.zeros(1, np.uint64), np.zeros(1, np.int64)
        return cls(
            nothing,
            np.zeros(1, np.uint8),
            nothing,
            np.array([bytenr], np.uint64),
            np.array([generation], np.uint64),
            index,
            index,
        )


@dataclass(eq=False)
class Nodes:
    """A batch of n tree blocks: ``buffer`` holds them one after another, ``bytenr`` u8 says where each was read."""

    buffer: Bytes
    nodesize: int
    bytenr: U64

    def __len__(self) -> int:
        return len(self.bytenr)

    @cached_property
    def header(self) -> npt.NDArray[Any]:
        """The headers: structured array, dtype ``columns(Header)``, shape (n,), a view without a copy."""
        return np.ndarray(shape=(len(self),), dtype=columns(Header), buffer=self.buffer.data, strides=(self.nodesize,))

    def node(self, i: int) -> Bytes:
        """The bytes of node ``i``, a view."""
        return self.buffer[i * self.nodesize : (i + 1) * self.nodesize]

    def select(self, which: npt.NDArray[Any] | slice) -> Nodes:
        """The nodes that a mask, an index array or a slice picks, copied into a buffer of their own."""
        rows = self.buffer.reshape(len(self), self.nodesize)[which]
        return Nodes(np.ascontiguousarray(rows).reshape(-1), self.nodesize, self.bytenr[which])

    def _slots(self, capacity: int) -> tuple[I64, I64]:
        count = np.minimum(self.header["nritems"].astype(np.int64), capacity)
        node = np.repeat(np.arange(len(self), dtype=np.int64), count)
        slot = np.arange(len(node), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
        return node, slot

    def items(self) -> Items:
        """The items of all leaves of the batch (every node is taken for a leaf), in batch order."""
        node, slot = self._slots(item_capacity(self.nodesize))
        start = node * self.nodesize + HEADER_SIZE
        head = gather(self.buffer, start + slot * ITEM_SIZE, columns(Item))
        offset, size = head["offset"].astype(np.int64), head["size"].astype(np.int64)
        used = (np.bincount(node, minlength=len(self)) * ITEM_SIZE)[node]
        return Items(
            self.buffer,
            np.ascontiguousarray(head["key"]["objectid"]),
            np.ascontiguousarray(head["key"]["type"]),
            np.ascontiguousarray(head["key"]["offset"]),
            start + offset,
            size,
            node,
            slot,
            (offset >= used) & (offset + size <= self.nodesize - HEADER_SIZE),
        )

    def pointers(self) -> Pointers:
        """The key pointers of all inner nodes of the batch (every node is taken for one), in batch order."""
        node, slot = self._slots(pointer_capacity(self.nodesize))
        start = node * self.nodesize + HEADER_SIZE
        head = gather(self.buffer, start + slot * KEY_PTR_SIZE, columns(KeyPtr))
        return Pointers(
            np.ascontiguousarray(head["key"]["objectid"]),
            np.ascontiguousarray(head["key"]["type"]),
            np.ascontiguousarray(head["key"]["offset"]),
            np.ascontiguousarray(head["blockptr"]),
            np.ascontiguousarray(head["generation"]),
            node,
            slot,
        )
