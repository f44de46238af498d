"""Every check there is: what it looks at, in which order, and which problems it can report.

A *leaf check* gets each batch of leaves of the trees it is for, once, whoever shares them.  It may run in another
process: what it finds goes out through the problems it yields and the columns it gathers, never through anything
else.  A *final check* runs when all trees have been read, over what was gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from fsck_cow.batch import LeafBatch
from fsck_cow.context import Context
from fsck_cow.problems import Problem


class Kind(IntEnum):
    """What a tree is for, whatever its object id; in the order in which they are read."""

    ROOTS = 0
    CHUNKS = 1
    DEVICES = 2
    EXTENTS = 3
    BLOCK_GROUPS = 4
    CHECKSUMS = 5
    FREE_SPACE = 6
    UUIDS = 7
    QUOTAS = 8
    STRIPES = 9
    FILES = 10
    LOG = 11


LeafCheckFunction = Callable[[Context, LeafBatch], Iterator[Problem]]
FinalCheckFunction = Callable[[Context], Iterator[Problem]]


@dataclass(frozen=True)
class LeafCheck:
    """A check over batches of leaves of trees of some kinds."""

    subject: str
    kinds: frozenset[Kind]
    codes: tuple[str, ...]
    run: LeafCheckFunction


@dataclass(frozen=True)
class FinalCheck:
    """A check over everything gathered, after all trees; those of lower ``order`` run first."""

    subject: str
    codes: tuple[str, ...]
    order: int
    run: FinalCheckFunction


LEAF_CHECKS: list[LeafCheck] = []
FINAL_CHECKS: list[FinalCheck] = []


def leaf_check(
    subject: str, *kinds: Kind, codes: tuple[str, ...] = ()
) -> Callable[[LeafCheckFunction], LeafCheckFunction]:
    """Registers a check over the leaves of trees of these kinds (none given: of all)."""

    def register(run: LeafCheckFunction) -> LeafCheckFunction:
        LEAF_CHECKS.append(LeafCheck(subject, frozenset(kinds or Kind), codes, run))
        return run

    return register


def final_check(
    subject: str, codes: tuple[str, ...] = (), *, order: int = 50
) -> Callable[[FinalCheckFunction], FinalCheckFunction]:
    """Registers a check over everything gathered."""

    def register(run: FinalCheckFunction) -> FinalCheckFunction:
        FINAL_CHECKS.append(FinalCheck(subject, codes, order, run))
        FINAL_CHECKS.sort(key=lambda check: check.order)
        return run

    return register
