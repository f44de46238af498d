"""One check of a filesystem from start to end: every tree is walked, every leaf looked at once, then all is joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import fsck_cow.checks as checks
from cowlib.btree import Nodes, TreeReader, TreeRoot
from cowlib.btree.nodes import I64, U64
from cowlib.btree.reader import BadCopy
from cowlib.errors import CowError, Damage
from cowlib.filesystem import Filesystem, StartPoint, open_filesystem
from cowlib.format import ObjectId
from fsck_cow.batch import LeafBatch
from fsck_cow.checks import nodes as node_checks
from fsck_cow.context import BATCH_LEAVES, Context, Rows
from fsck_cow.ledger import LEDGERS
from fsck_cow.problems import Problem, Report, Severity
from fsck_cow.registry import FINAL_CHECKS, LEAF_CHECKS, Kind
from fsck_cow.selection import EVERYTHING, Selection
from fsck_cow.sharing import share
from fsck_cow.walk import LOST, BlockTable, Walked

Progress = Callable[[str, int, int], None]

#: What a reader found wrong: blocks without a good copy, and copies that another had to stand in for.
Notes = tuple[list[Damage], list[BadCopy]]

#: Which kind of tree an object id is; what is not here is a subvolume or unknown.
_KINDS = {
    ObjectId.ROOT_TREE: Kind.ROOTS,
    ObjectId.CHUNK_TREE: Kind.CHUNKS,
    ObjectId.DEV_TREE: Kind.DEVICES,
    ObjectId.EXTENT_TREE: Kind.EXTENTS,
    ObjectId.BLOCK_GROUP_TREE: Kind.BLOCK_GROUPS,
    ObjectId.CSUM_TREE: Kind.CHECKSUMS,
    ObjectId.FREE_SPACE_TREE: Kind.FREE_SPACE,
    ObjectId.UUID_TREE: Kind.UUIDS,
    ObjectId.QUOTA_TREE: Kind.QUOTAS,
    ObjectId.RAID_STRIPE_TREE: Kind.STRIPES,
    ObjectId.TREE_LOG: Kind.LOG,
}


def kind_of(tree: int) -> Kind:
    """What a tree is for, by its object id."""
    return _KINDS.get(tree, Kind.FILES)  # type: ignore[call-overload,no-any-return]


@dataclass
class Findings:
    """What looking at one batch gave: picklable, so that another process may do it.

    ``rows`` are the rows of the block table that were read and ``headers`` what their headers say; ``sums`` u8 (leaves,
    ledgers).
    """

    rows: I64
    headers: Rows
    lost: I64
    sums: U64
    problems: list[Problem]
    gathered: dict[str, list[Rows]]
    notes: Notes


@dataclass(frozen=True)
class Task:
    """Leaves to look at in one go: rows of the block table, of one tree."""

    kind: Kind
    tree: int
    rows: I64


@dataclass(frozen=True)
class Leaves:
    """The leaves of a task as they were read: those that are usable, their rows, and what was wrong with others."""

    task: Task
    nodes: Nodes
    rows: I64
    notes: Notes


def check_filesystem(
    paths: list[str],
    *,
    start: StartPoint | None = None,
    scan: bool = True,
    selection: Selection = EVERYTHING,
    data: bool = False,
    limit: int = 0,
    progress: Progress = lambda step, done, total: None,
) -> Report:
    """Checks a filesystem completely, without writing; raises CowError only for what keeps it from being looked at.

    ``selection`` says which problems are looked for, ``data`` whether every copy of everything is read. ``limit`` is
    how many problems of each code are kept. ``progress`` gets a step, how much of it is done, and of how much (0: not
    known).
    """
    report = Report(limit, selection.wants)
    start = start or StartPoint()
    try:
        fs = open_filesystem(
            paths,
            scan=scan,
            super_copy=start.super_copy,
            backup=start.backup,
            tree_root=start.tree_root,
            chunk_root=start.chunk_root,
        )
    except CowError as error:
        if not checks.report_unopenable(paths, error, report):
            raise
        return report
    with fs:
        Check(fs, report, progress, selection).run(data=data)
    return report


def _chunk_tree_uuid(fs: Filesystem) -> bytes | None:
    """What the root of the chunk tree says of itself, and all blocks repeat; None where it cannot be read."""
    damaged, copies = len(fs.reader.damage), len(fs.reader.bad_copies)
    nodes, _ = fs.reader.read(np.array([fs.chunk_tree.bytenr], np.uint64), level=None)
    del fs.reader.damage[damaged:], fs.reader.bad_copies[copies:]
    return bytes(nodes.header["chunk_tree_uuid"][0]) if len(nodes) else None


def _take_notes(reader: TreeReader) -> Notes:
    """What a reader found wrong since the last time; it forgets it."""
    notes = (reader.damage[:], reader.bad_copies[:])
    reader.damage.clear()
    reader.bad_copies.clear()
    return notes


class Check:
    """One run over one filesystem."""

    def __init__(self, fs: Filesystem, report: Report, progress: Progress, selection: Selection = EVERYTHING) -> None:
        self.fs = fs
        self.report = report
        self.context = Context(fs, report, BlockTable(fs.reader), progress=progress)
        self.leaf_checks = [check for check in LEAF_CHECKS if selection.looks(check)]
        self.final_checks = [check for check in FINAL_CHECKS if selection.runs(check)]
        self.ledgers = [ledger for ledger in LEDGERS if selection.runs(ledger)]
        self._sums = np.zeros((0, len(self.ledgers)), np.uint64)
        self._chunk_tree_uuid = _chunk_tree_uuid(fs)

    def run(self, *, data: bool = False) -> None:
        """All of it; every copy of all data and tree blocks too if ``data``."""
        context = self.context
        for kind, trees in self._stages():
            context.progress("reading trees", kind, len(Kind))
            self._read_stage(kind, trees)
        self._compare_ledgers()
        for check in self.final_checks:
            context.progress(check.subject, 0, 0)
            self.report.extend(check.run(context))
        if data:
            from fsck_cow.data import check_copies

            self.report.extend(check_copies(context))
        self._tell_damage()

    def _stages(self) -> Iterator[tuple[Kind, list[TreeRoot]]]:
        """The trees of each kind, in the order in which kinds are read."""
        yield Kind.ROOTS, [self.fs.root_tree]
        yield Kind.CHUNKS, [self.fs.chunk_tree]
        roots = [root for root in self.fs.roots if root.bytenr]
        for kind in Kind:
            if kind in (Kind.ROOTS, Kind.CHUNKS, Kind.LOG):
                continue
            trees = [root for root in roots if kind_of(root.objectid) == kind]
            if trees:
                yield kind, trees
        log = self.fs.log_root
        if log is not None:
            yield Kind.LOG, [log]
            yield Kind.LOG, list(self.fs.roots_in(log))

    def _read_stage(self, kind: Kind, trees: list[TreeRoot]) -> None:
        """Walks the trees of one kind and looks at all leaves that are new."""
        tasks = []
        for root in trees:
            walked = self._walk(root)
            tasks += [
                Task(kind, root.objectid, walked.fresh[at : at + BATCH_LEAVES])
                for at in range(0, len(walked.fresh), BATCH_LEAVES)
            ]
        # While leaves are read, here and ahead, what the reader has to say travels with them; it gets it all back.
        notes = [_take_notes(self.fs.reader)]
        for findings in share(tasks, self._read, self._look, self.fs.volume):
            self._take(findings)
            notes.append(findings.notes)
        for damage, copies in notes:
            self.fs.reader.damage.extend(damage)
            self.fs.reader.bad_copies.extend(copies)

    def _walk(self, root: TreeRoot) -> Walked:
        def inspect(nodes: Nodes, rows: I64) -> None:
            blocks = self.context.blocks.blocks[rows]
            pointers = nodes.pointers()
            self.report.extend(node_checks.check_headers(nodes, blocks, self._chunk_tree_uuid))
            self.report.extend(node_checks.check_keys(pointers, nodes, blocks))
            self.report.extend(node_checks.check_pointers(pointers, nodes, int(blocks["tree"][0]), self.fs.sectorsize))

        place = (root.objectid, root.offset)
        walked = self.context.blocks.walk(root, inspect, self.context.dropping.get(place))
        self.context.walked[place] = walked
        return walked

    def _read(self, task: Task) -> Leaves:
        """Reads the leaves of a task, and takes with it what the reader has to say of them."""
        nodes, rows = self.context.blocks.read(task.rows)
        return Leaves(task, nodes, rows, _take_notes(self.fs.reader))

    def _look(self, leaves: Leaves) -> Findings:
        """Checks one batch; only what it returns leaves it."""
        context, task, rows = self.context, leaves.task, leaves.rows
        gathered: dict[str, list[Rows]] = {}
        context.incoming = gathered
        problems: list[Problem] = []
        sums = np.zeros((len(rows), len(self.ledgers)), np.uint64)
        if len(rows):
            batch = LeafBatch(task.tree, leaves.nodes, rows)
            self._check_leaves(task, batch, problems)
            if task.kind == Kind.FILES:
                for number, ledger in enumerate(self.ledgers):
                    sums[:, number] = ledger.sums(batch)
        context.incoming = None
        lost = task.rows if len(rows) < len(task.rows) else rows[:0]
        if len(lost):
            lost = lost[self.context.blocks.blocks["state"][lost] == LOST]
        headers = context.blocks.blocks[rows].copy()
        return Findings(rows, headers, lost, sums, problems, gathered, leaves.notes)

    def _check_leaves(self, task: Task, batch: LeafBatch, problems: list[Problem]) -> None:
        blocks = self.context.blocks.blocks[batch.rows]
        problems.extend(node_checks.check_headers(batch.nodes, blocks, self._chunk_tree_uuid))
        problems.extend(node_checks.check_keys(batch.items, batch.nodes, blocks))
        problems.extend(node_checks.check_item_places(batch.items, batch.nodes, task.tree))
        for check in self.leaf_checks:
            if task.kind in check.kinds:
                problems.extend(check.run(self.context, batch))

    def _take(self, findings: Findings) -> None:
        """Adds what one batch gave, in the order of batches whoever looked at them."""
        context, blocks = self.context, self.context.blocks
        blocks.blocks[findings.rows] = findings.headers
        blocks.blocks["state"][findings.lost] = LOST
        if len(self._sums) < len(blocks.blocks):
            more = np.zeros((len(blocks.blocks) - len(self._sums), len(self.ledgers)), np.uint64)
            self._sums = np.concatenate([self._sums, more])
        self._sums[findings.rows] = findings.sums
        for name, parts in findings.gathered.items():
            for rows in parts:
                context.gather(name, rows)
        self.report.extend(findings.problems)

    def _compare_ledgers(self) -> None:
        """Sums of every subvolume; where one is not zero, the exact join says why."""
        for (objectid, _), walked in self.context.walked.items():
            if kind_of(objectid) != Kind.FILES or self._incomplete(walked, objectid):
                continue
            wrong = np.flatnonzero(self._sums[walked.leaves].sum(axis=0, dtype=np.uint64))
            if not len(wrong):
                continue
            batch = self.context.whole(walked)
            for number in wrong.tolist():
                ledger = self.ledgers[number]
                problems = list(ledger.explain(batch))
                if not problems:
                    problems = [Problem(ledger.codes[0], f"{ledger.name}: the two sides differ", tree=objectid)]
                self.report.extend(problems)

    def _incomplete(self, walked: Walked, objectid: int) -> bool:
        """Whether parts of a tree are lost, or were meant to be: a relocation's copy, a subvolume half dropped."""
        if objectid == ObjectId.TREE_RELOC or (objectid, walked.root.offset) in self.context.dropping:
            return True
        return objectid in self.context.lost_trees()

    def _tell_damage(self) -> None:
        for damage in self.fs.reader.damage:
            self.report.add(self.context.describe_damage(damage))
        for copy in self.fs.reader.bad_copies:
            self.report.add(
                Problem(
                    "node.copy-bad",
                    f"copy {copy.mirror} {copy.reason}; another copy is good",
                    Severity.REPAIRABLE,
                    logical=copy.logical,
                    tree=copy.tree,
                )
            )
