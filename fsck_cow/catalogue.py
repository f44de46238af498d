"""Every code there is, and the rule behind it: what ``--check`` knows, and what the tables in README.md are made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import fsck_cow.checks
from fsck_cow import data
from fsck_cow.checks import nodes
from fsck_cow.ledger import LEDGERS
from fsck_cow.registry import FINAL_CHECKS, LEAF_CHECKS


@dataclass(frozen=True)
class Rule:
    """Something that is checked: the codes of the problems it finds, and the rule in words."""

    codes: tuple[str, ...]
    text: str


#: What is found while reading, before any check.
_READING = (
    Rule(fsck_cow.checks.CODES, "A superblock can be used, and what it points to can be found."),
    Rule(
        ("node.unreadable",), "Every tree block has a copy with the right checksum, address, fsid, level, generation."
    ),
    Rule(("node.copy-bad",), "Where one copy of a tree block is read, it is good, or another one stands in for it."),
    Rule(nodes.CODES, "Nodes have the owner, flags, keys in order, bounds and pointers that their parents promise."),
    Rule(data.CODES, "With --data: every copy of data has the checksum recorded, and parity fits the data."),
)


def rules() -> Iterator[Rule]:
    """Every rule, in the order in which they are checked."""
    yield from _READING
    found: list[tuple[tuple[str, ...], Callable[..., object]]] = [(check.codes, check.run) for check in LEAF_CHECKS]
    found += [(ledger.codes, ledger.post) for ledger in LEDGERS]
    found += [(check.codes, check.run) for check in FINAL_CHECKS]
    for codes, run in found:
        if codes:
            yield Rule(codes, _first_paragraph(inspect.getdoc(run) or ""))


def all_codes() -> set[str]:
    """The codes of all problems that can be found."""
    return {code for rule in rules() for code in rule.codes}


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())
