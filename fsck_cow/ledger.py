"""Rules that join two sides of a tree, checked as sums: what one side posts, the other must take back.

An inode's link count must equal the number of its names; every DIR_INDEX must have its INODE_REF.  Such joins need
every item of a subvolume at once.  Instead, each side is hashed into 64-bit numbers that are added up for each leaf,
one side with a plus, the other with a minus.  The sums of a subvolume's leaves are zero if the sides agree, and, but
for a chance of one in 2^64, only then.  So a healthy subvolume costs a sum over its leaves, leaves that snapshots
share are looked at once, and batches can be taken in any order, by any process.  Where a sum is not zero the rule is
joined exactly to find out what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cowlib.btree.nodes import I64, U64

if TYPE_CHECKING:
    from fsck_cow.batch import LeafBatch
    from fsck_cow.problems import Problem

#: What a batch posts: the leaf of each row (index in the batch, ascending) and its value; subtract by negating.
Posting = tuple[I64, U64]

_SHIFT = np.uint64(29)
_MULTIPLIERS = tuple(
    np.uint64(value)
    for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F)
)


def mix(*columns: npt.NDArray[Any]) -> U64:
    """One well-mixed 64-bit number a row, from integer columns of shape (n,), in which the order of columns counts."""
    state = np.full(len(columns[0]), _MULTIPLIERS[0])
    for i, column in enumerate(columns):
        state ^= column.astype(np.uint64, copy=False)
        state *= _MULTIPLIERS[1 + i % 4]
        state ^= state >> _SHIFT
    state *= _MULTIPLIERS[2]
    state ^= state >> _SHIFT
    return state


def times(numbers: U64, count: npt.NDArray[Any]) -> U64:
    """Each number taken ``count`` times (modulo 2^64)."""
    product: U64 = numbers * count.astype(np.uint64, copy=False)
    return product


def minus(numbers: U64) -> U64:
    """The numbers with the opposite sign (modulo 2^64)."""
    negative: U64 = np.uint64(0) - numbers
    return negative


def by_leaf(posting: Posting, leaves: int) -> U64:
    """The sum of the values of each leaf: u8, shape (leaves,)."""
    node, values = posting
    running = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=running[1:])
    bounds = np.searchsorted(node, np.arange(leaves + 1))
    total: U64 = running[bounds[1:]] - running[bounds[:-1]]
    return total


@dataclass(frozen=True)
class Ledger:
    """One such rule: its ``name``, what each batch of leaves posts, and the exact join that explains a difference.

    ``explain`` gets one batch with all leaves of a subvolume. ``codes`` are the problems it can find; the first one
    stands for a difference that the exact join can't name.
    """

    name: str
    codes: tuple[str, ...]
    post: Callable[[LeafBatch], Iterable[Posting]]
    explain: Callable[[LeafBatch], Iterator[Problem]]

    @property
    def subject(self) -> str:
        """What its problems are about."""
        return self.codes[0].partition(".")[0]

    def sums(self, batch: LeafBatch) -> U64:
        """What the batch posts in all, by leaf: u8, shape (number of leaves,)."""
        total = np.zeros(len(batch.nodes), np.uint64)
        for posting in self.post(batch):
            total += by_leaf(posting, len(batch.nodes))
        return total


LEDGERS: list[Ledger] = []
"""Every rule of this kind, in the order in which their sums are kept."""


def ledger(
    name: str, codes: tuple[str, ...], explain: Callable[[LeafBatch], Iterator[Problem]]
) -> Callable[[Callable[[LeafBatch], Iterable[Posting]]], Callable[[LeafBatch], Iterable[Posting]]]:
    """Registers the decorated function as what a rule posts."""

    def register(post: Callable[[LeafBatch], Iterable[Posting]]) -> Callable[[LeafBatch], Iterable[Posting]]:
        LEDGERS.append(Ledger(name, codes, post, explain))
        return post

    return register
