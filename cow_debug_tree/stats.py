"""Trees in numbers: how large, how high, how full, how scattered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cow_debug_tree.printers.keys import objectid_name
from cow_debug_tree.printers.nodes import free_space
from cow_debug_tree.titles import Wishes
from cowlib.btree import TreeReader, TreeRoot
from cowlib.btree.nodes import pointer_capacity
from cowlib.filesystem import Filesystem
from cowlib.format import HEADER_SIZE


@dataclass
class TreeStats:
    """One tree. ``level`` is that of its root; ``nodes`` counts leaves as well.

    ``bytes`` is what all nodes take, ``free`` what of the leaves is not in use. ``runs`` is the number of
    leaves that do not stand right behind the leaf before them: 1 for a tree that can be read in one go.
    """

    tree: int
    offset: int
    name: str
    level: int
    nodes: int = 0
    leaves: int = 0
    items: int = 0
    bytes: int = 0
    free: int = 0
    runs: int = 0
    pointers: int = 0
    inner_capacity: int = 0

    def add(self, other: TreeStats) -> None:
        """Makes this the sum of both, and as high as the higher one."""
        self.level = max(self.level, other.level)
        for name in ("nodes", "leaves", "items", "bytes", "free", "runs", "pointers", "inner_capacity"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def fill(self, nodesize: int) -> float | None:
        """Which part of the leaves is in use, 0 to 1; None without leaves."""
        room = self.leaves * (nodesize - HEADER_SIZE)
        return 1 - self.free / room if room else None

    def inner_fill(self) -> float | None:
        """Which part of the places for pointers is in use, 0 to 1; None without inner nodes."""
        return self.pointers / self.inner_capacity if self.inner_capacity else None

    def scatter(self) -> float | None:
        """Which part of the steps from leaf to leaf leads elsewhere than to the next address, 0 to 1."""
        return (self.runs - 1) / (self.leaves - 1) if self.leaves > 1 else None


def tree_stats(reader: TreeReader, root: TreeRoot, min_transid: int = 0) -> TreeStats:
    """Reads a whole tree, or what of it is ``min_transid`` or newer."""
    nodesize = reader.nodesize
    stats = TreeStats(root.objectid, root.offset, objectid_name(root.objectid), root.level)
    expected = -1  # where the next leaf would stand in one run
    for level, nodes in reader.walk(root, min_transid=min_transid):
        stats.nodes += len(nodes)
        stats.bytes += len(nodes) * nodesize
        count = int(nodes.header["nritems"].sum())
        if level:
            stats.pointers += count
            stats.inner_capacity += len(nodes) * pointer_capacity(nodesize)
            continue
        stats.leaves += len(nodes)
        stats.items += count
        stats.free += int(free_space(nodes).sum())
        follows = np.concatenate([[expected], nodes.bytenr.astype(np.int64)[:-1] + nodesize])
        stats.runs += int((nodes.bytenr.astype(np.int64) != follows).sum())
        expected = int(nodes.bytenr[-1]) + nodesize
    return stats


def all_stats(fs: Filesystem, wishes: Wishes) -> Iterator[TreeStats]:
    """Every tree, or the one that is wished for; the log's trees too."""
    roots = [fs.root_tree, fs.chunk_tree, *fs.roots]
    if fs.log_root:
        roots += [fs.log_root, *fs.roots_in(fs.log_root)]
    for root in roots:
        if wishes.tree in (None, root.objectid) and root.generation >= wishes.min_transid:
            yield tree_stats(fs.reader, root, wishes.min_transid)


def as_object(stats: TreeStats, nodesize: int) -> dict[str, Any]:
    """For JSON."""
    rates = {"fill": stats.fill(nodesize), "inner_fill": stats.inner_fill(), "scatter": stats.scatter()}
    return asdict(stats) | {name: None if rate is None else round(rate, 4) for name, rate in rates.items()}


COLUMNS = ("tree", "level", "nodes", "leaves", "items", "size", "fill", "inner", "scatter")


def as_row(stats: TreeStats, nodesize: int) -> tuple[str, ...]:
    """For people: one text for each of `COLUMNS`."""
    return (
        stats.name,
        str(stats.level),
        *(f"{number:,}" for number in (stats.nodes, stats.leaves, stats.items)),
        _size(stats.bytes),
        _percent(stats.fill(nodesize)),
        _percent(stats.inner_fill()),
        _percent(stats.scatter()),
    )


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _size(count: int) -> str:
    size, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while size >= 1024:
        size, unit = size / 1024, next(units, "PiB")
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def show_table(rows: list[tuple[str, ...]], *, terminal: bool) -> str:
    """The rows below their headings: a table for a terminal, else blanks between columns."""
    if not terminal:
        table = [COLUMNS, *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for row in table:
            cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells))
        return "\n".join(lines) + "\n"
    from rich.console import Console
    from rich.table import Table

    console, shown = Console(), Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name == COLUMNS[0] else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()
