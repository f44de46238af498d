"""What the command does, once its arguments are understood. What these functions return is what to exit with:
1 if something could not be read or understood.
"""

from __future__ import annotations

import sys

import numpy as np

from cow_debug_tree.output import complain, write_json, write_out
from cow_debug_tree.titles import Wishes, tree_id
from cowlib import __version__
from cowlib.checksum import csum_size
from cowlib.device import Device
from cowlib.errors import NotBtrfsError
from cowlib.filesystem import Filesystem, SuperblockCopy, superblock_copies
from cowlib.format import SUPERBLOCK_MAGIC, IncompatFeature, Superblock, columns

__all__ = ["Wishes", "dump", "json_roots", "statistics", "superblocks", "tree_id"]


def dump(
    fs: Filesystem, wishes: Wishes, *, as_json: bool, hide_names: bool, csum_headers: bool, csum_items: bool
) -> int:
    """Prints trees, as text or as JSON."""
    from cow_debug_tree.dump import Dump, Task
    from cow_debug_tree.ordered_workers import Work, run_ordered
    from cow_debug_tree.printers.listing import Style
    from cow_debug_tree.printers.nodes import TEXT

    style = Style(
        csum_size(fs.csum_type),
        fs.sectorsize,
        bool(fs.superblock.incompat_flags & IncompatFeature.SIMPLE_QUOTA),
        hide_names,
        csum_headers,
        csum_items,
    )
    if as_json:
        from cow_debug_tree.json_lines import JSON

        form = JSON
    else:
        form = TEXT
        write_out(f"cowtools v{__version__}\n".encode())

    def write(part: tuple[bytearray, list[str]]) -> int:
        text, complaints = part
        write_out(text)
        complain(complaints)
        return 1 if complaints else 0

    def worth_sharing(task: Task) -> bool:
        return task.full

    trees = Dump(fs, wishes, style, form)
    work = Work(trees.read, trees.render, write)
    return run_ordered(trees.tasks(), work, worth_sharing=worth_sharing, before_fork=fs.volume.rest)


def superblocks(paths: list[str], copy: int, every: bool, *, as_json: bool) -> int:
    """Prints one superblock copy of each device, or every one that there is room for."""
    status = 0
    for path in paths:
        with Device.open(path) as device:
            for found in superblock_copies(device):
                if found.data is not None and (every or found.index == copy):
                    status = max(status, (_json_superblock if as_json else _superblock)(found, found.data, path))
                elif found.index == copy and not every:
                    raise NotBtrfsError(f"superblock copy {copy} {found.fault}", device=path)
    return status


def _superblock(copy: SuperblockCopy, data: bytes, path: str) -> int:
    from cow_debug_tree.superblock import superblock_text, title

    write_out(title(copy, path))
    complaints = _faults(copy, path)
    if np.frombuffer(data, columns(Superblock))["magic"].tobytes() == SUPERBLOCK_MAGIC:
        text, more = superblock_text(data)
        write_out(text + b"\n")
        complaints += more
    complain(complaints)
    return 1 if complaints else 0


def _json_superblock(copy: SuperblockCopy, data: bytes, path: str) -> int:
    from cow_debug_tree.json_lines import plain

    fields = plain(copy.parse())
    fields["label"] = (
        np.frombuffer(data, columns(Superblock))["label"].tobytes().partition(b"\0")[0].decode(errors="replace")
    )
    write_json({"device": path, "copy": copy.index, "offset": copy.offset, "fault": copy.fault, "superblock": fields})
    complaints = _faults(copy, path)
    complain(complaints)
    return 1 if complaints else 0


def _faults(copy: SuperblockCopy, path: str) -> list[str]:
    return [f"{path}: superblock copy {copy.index}: {copy.fault}"] if copy.fault else []


def json_roots(fs: Filesystem, wishes: Wishes) -> int:
    """Prints where each tree starts, one JSON object a line, and the backup roots if they are wanted."""
    from cow_debug_tree.json_lines import plain

    own = [root for root in (fs.root_tree, fs.chunk_tree, fs.log_root) if root is not None]
    own = [] if wishes.extents or wishes.uuid else [r for r in own if wishes.tree in (None, r.objectid)]
    for root in [*own, *(root for root in fs.roots if wishes.shows(root.objectid))]:
        if root.generation >= wishes.min_transid:
            write_json(
                {
                    "tree": root.objectid,
                    "offset": root.offset,
                    "bytenr": root.bytenr,
                    "level": root.level,
                    "generation": root.generation,
                }
            )
    if wishes.backups:
        for slot, backup in enumerate(fs.superblock.super_roots):
            write_json({"backup": slot, **plain(backup)})
    complaints = list(map(str, fs.damage))
    complain(complaints)
    return 1 if complaints else 0


def statistics(fs: Filesystem, wishes: Wishes, *, as_json: bool) -> int:
    """Prints size, height, fill and scatter of each tree, and of all together."""
    from cow_debug_tree.stats import TreeStats, all_stats, as_object, as_row, show_table

    total, rows = TreeStats(0, 0, "all", 0), []
    for stats in all_stats(fs, wishes):
        total.add(stats)
        if as_json:
            write_json(as_object(stats, fs.nodesize))
        rows.append(as_row(stats, fs.nodesize))
    if not as_json:
        if len(rows) > 1:
            rows.append(as_row(total, fs.nodesize))
        write_out(show_table(rows, terminal=sys.stdout.isatty()).encode())
    complaints = list(map(str, fs.damage))
    if wishes.tree is not None and not rows:
        complaints.append(f"there is no tree with id {wishes.tree}")
    complain(complaints)
    return 1 if complaints else 0
