"""Making a filesystem from start to end: read, size, write data, build trees, write nodes, at last the superblocks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cowcli import signals
from cowlib.compression import libraries
from cowlib.device import Device, register_devices
from cowlib.format import BlockGroupFlag, Compression, IncompatFeature
from cowlib.volume import ChunkMap, Volume
from mkfs_cow.advice import advice
from mkfs_cow.chunks import ChunkAllocator, describe_kind
from mkfs_cow.data.plan import DataOptions
from mkfs_cow.data.reflink import Cloner, block_size, obstacle
from mkfs_cow.data.write import Written, measure_data, write_data
from mkfs_cow.fit import reserve, reserve_nodes
from mkfs_cow.identity import Identity
from mkfs_cow.options import Options, ResolvedOptions, csum_name
from mkfs_cow.read_source import read_source
from mkfs_cow.sizing import Room, Sizing
from mkfs_cow.source.listing import listing
from mkfs_cow.source.tables import Tree
from mkfs_cow.space import SpaceAllocator
from mkfs_cow.space_estimate import SpaceEstimate, spare_nodes
from mkfs_cow.summary import Summary
from mkfs_cow.superblock import SuperblockFacts, write_superblocks
from mkfs_cow.targets import Unfinished, truncate
from mkfs_cow.tree_contents import TreeContents
from mkfs_cow.tree_layout import TreeLayout, TreeStyle
from mkfs_cow.trees.system import chunk_payload
from mkfs_cow.usage import usage
from mkfs_cow.words import size_in_words

#: (what is being done, how much of it is done, how much there is in all; 0: not known)
Progress = Callable[[str, int, int], None]

#: Nodes larger than the pages of the first kernels need a feature bit.
_PAGE_SIZE = 4096


class _Maker:
    """One run: the options, what was found out about them, and the steps in order."""

    def __init__(
        self,
        options: ResolvedOptions,
        progress: Progress,
        warn: Callable[[str], None],
        listed: Callable[[str], None] | None,
    ) -> None:
        self.options = options
        self.progress = progress
        self.warnings: list[str] = []
        self.advice: list[str] = []
        self._warn_user = warn
        self._listed = listed
        now = int(time.time()) if options.source_date_epoch is None else options.source_date_epoch
        self.identity = Identity(options.fsid or uuid.uuid4(), now)
        self.nodesize = options.nodesize

    def warn(self, text: str) -> None:
        """Tells the user of something that was not taken in whole, and remembers it."""
        self.warnings.append(text)
        self._warn_user(text)

    def advise(self, text: str) -> None:
        """Tells the user of something that may not be what was meant, although nothing is missing."""
        self.advice.append(text)
        self._warn_user(text)

    def run(self) -> Summary:
        """Makes the filesystem; raises CowError with the devices untouched where that can be known beforehand."""
        options = self.options
        data_options = self._data_options()
        sizing = Sizing(options, self.identity, data_options)
        for text in advice(options, sizing.profiles):
            self.advise(text)
        trees = read_source(options, self.identity.now, self.progress, self.warn, self.advise)
        if self._listed is not None:
            for lines in listing(trees, [b"", *(spec.path for spec in options.subvolumes)]):
                self._listed(lines)
        room = sizing.settle(
            trees, lambda total: measure_data(trees, data_options, progress=self._step("measuring", total))
        )
        return self._write(room, trees, data_options)

    def _data_options(self) -> DataOptions:
        options = self.options
        default, *rules = [
            (Compression.NONE, 0) if choice is None else (choice.algorithm, choice.level)
            for choice in options.compression.all()
        ]
        return DataOptions(
            sectorsize=options.sectorsize,
            csum_type=options.csum_type,
            compression=default[0],
            level=default[1],
            rules=tuple(rules),
            no_holes="no-holes" in options.features,
            max_inline=min(2048, self.nodesize // 2),
        )

    def _step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda done: self.progress(name, done, total)

    def _write(self, room: Room, trees: list[Tree], data_options: DataOptions) -> Summary:
        chunks, estimate = room.chunks, room.estimate
        space = SpaceAllocator(chunks, room.profiles)
        reserve(space, estimate)
        with ExitStack() as stack:
            unfinished = stack.enter_context(Unfinished())
            opened = unfinished.open(room.targets, stack)
            unfinished.erase(room.targets, opened, self.options.discard)
            by_id: dict[int, Device | None] = dict(enumerate(opened, 1))
            volume = Volume(by_id, self._chunk_map(chunks))
            stack.callback(volume.close)
            space.on_change = lambda: setattr(volume, "chunks", self._chunk_map(chunks))
            sink = _Sink(space, volume)
            cloner = self._cloner(sink, opened, room, data_options)
            written = write_data(
                trees,
                sink,
                data_options,
                cloner=cloner,
                progress=self._step("writing data", room.to_read),
                warn=self.warn,
            )
            if cloner is not None and cloner.reason is not None:
                self.advise(f"--reflink: {size_in_words(cloner.refused)} cannot be shared, copied: {cloner.reason}")
            stored = written.extents.disk_bytenr != 0
            space.settle_data(written.extents.disk_bytenr[stored], written.extents.disk_num_bytes[stored])
            space.give_back_data(estimate.slack)
            reserve_nodes(space, estimate)
            self.progress("building trees", 0, 0)
            layout = self._layout(space, written)
            layout.place(self._spare(space, estimate) if chunks.tight else None)
            if chunks.tight:
                for device_space in chunks.devices:
                    device_space.total_bytes = device_space.end
            self.progress("writing trees", 0, 0)
            layout.write(volume)
            volume.flush()
            facts = self._facts(layout, space, written)
            with signals.held():
                unfinished.committing = True
                write_superblocks(volume, facts, chunks.devices)
                volume.flush()
                if chunks.tight:
                    for target, device_space in zip(room.targets, chunks.devices, strict=True):
                        truncate(target.path, device_space.total_bytes)
                unfinished.complete = True
        unregistered = register_devices(self.options.devices)
        shared = None if cloner is None else cloner.shared
        return replace(self._summary(facts, layout, written, shared), unregistered=unregistered)

    def _cloner(self, sink: _Sink, devices: list[Device], room: Room, data_options: DataOptions) -> Cloner | None:
        """What shares blocks with the source, if that is asked for and can be at all; says so if it cannot."""
        if not self.options.reflink:
            return None
        parity = any(profile.parity for kind, profile in room.profiles.items() if kind & BlockGroupFlag.DATA)
        why = obstacle(devices, parity=parity, compresses=data_options.compresses)
        if why is None:
            return Cloner(sink, block_size(devices))
        self.advise(f"--reflink: nothing can be shared, all data is copied: {why}")
        return None

    def _spare(self, space: SpaceAllocator, estimate: SpaceEstimate) -> Callable[[int], int]:
        """How many bytes are to stay free where nodes go, if there are so many nodes."""
        mixed = space.kind_for(BlockGroupFlag.METADATA) & BlockGroupFlag.DATA
        beside = estimate.slack if mixed else 0
        return lambda used: beside + spare_nodes(used, estimate.slack, self.nodesize)

    def _chunk_map(self, chunks: ChunkAllocator) -> ChunkMap:
        by_id = {device.devid: device for device in chunks.devices}
        payloads = [chunk_payload(chunk, by_id, self.options.sectorsize) for chunk in chunks.chunks]
        size = np.array([len(payload) for payload in payloads], np.int64)
        logical = np.array([chunk.logical for chunk in chunks.chunks], np.uint64)
        buffer = np.frombuffer(b"".join(payloads), np.uint8)
        return ChunkMap.from_items(logical, buffer, np.cumsum(size) - size, size)

    def _layout(self, space: SpaceAllocator, written: Written) -> TreeLayout:
        """All trees of the filesystem, shaped but not placed."""
        options = self.options
        style = TreeStyle(
            nodes=self.identity.node_style(self.nodesize, options.csum_type),
            skinny="skinny-metadata" in options.features,
            free_space_tree="free-space-tree" in options.features,
            block_group_tree="block-group-tree" in options.features,
        )
        layout = TreeLayout(space, style)
        contents = TreeContents(layout, self.identity, options, written)
        contents.add_all()
        return layout

    def _facts(self, layout: TreeLayout, space: SpaceAllocator, written: Written) -> SuperblockFacts:
        options = self.options
        return SuperblockFacts(
            identity=self.identity,
            label=options.label,
            nodesize=self.nodesize,
            sectorsize=options.sectorsize,
            csum_type=options.csum_type,
            incompat=self._incompat(space, written),
            compat_ro=options.features.compat_ro,
            trees={owner: tree.location for owner, tree in layout.trees.items()},
            system_chunks=[group.chunk for group in space.groups[BlockGroupFlag.SYSTEM]],
            bytes_used=space.bytes_used,
        )

    def _incompat(self, space: SpaceAllocator, written: Written) -> IncompatFeature:
        """The incompatible features that are in use, asked for or not."""
        bits = self.options.features.incompat | IncompatFeature.MIXED_BACKREF
        if self.nodesize > _PAGE_SIZE:
            bits |= IncompatFeature.BIG_METADATA
        if any(spec.default for spec in self.options.subvolumes):
            bits |= IncompatFeature.DEFAULT_SUBVOL
        used = set(np.unique(written.extents.compression).tolist())
        if self.options.compress_property:
            used |= {choice.algorithm for choice in self.options.compression.all() if choice is not None}
        if Compression.LZO in used:
            bits |= IncompatFeature.COMPRESS_LZO
        if Compression.ZSTD in used:
            bits |= IncompatFeature.COMPRESS_ZSTD
        flags = 0
        for group in space.all_groups():
            flags |= group.chunk.flags
        if flags & (BlockGroupFlag.RAID5 | BlockGroupFlag.RAID6):
            bits |= IncompatFeature.RAID56
        if flags & (BlockGroupFlag.RAID1C3 | BlockGroupFlag.RAID1C4):
            bits |= IncompatFeature.RAID1C34
        return bits

    def _summary(self, facts: SuperblockFacts, layout: TreeLayout, written: Written, shared: int | None) -> Summary:
        space = layout.space
        groups = []
        for kind, members in space.groups.items():
            length = sum(group.chunk.length for group in members)
            used = sum(group.used for group in members)
            if members:
                groups.append((describe_kind(kind), space.profiles[kind].name, length, used))
        return Summary(
            fsid=self.identity.fsid,
            label=self.options.label.decode("utf-8", "replace"),
            nodesize=self.nodesize,
            sectorsize=self.options.sectorsize,
            csum=csum_name(self.options.csum_type),
            features=sorted(self.options.features.names),
            devices=[
                (space_of.devid, space_of.total_bytes, str(path))
                for space_of, path in zip(space.chunks.devices, self.options.devices, strict=True)
            ],
            groups=groups,
            total_bytes=sum(device.total_bytes for device in space.chunks.devices),
            bytes_used=facts.bytes_used,
            inodes=sum(int(np.count_nonzero(tree.nlink)) for tree in written.trees)
            if self.options.filled or self.options.subvolumes
            else 0,
            subvolumes=len(self.options.subvolumes),
            shared=shared,
            libraries=libraries(np.unique(written.extents.compression).tolist()),
            warnings=self.warnings,
            usage=usage(
                written, layout, [b"", *(spec.path for spec in self.options.subvolumes)], self.options.sectorsize
            ),
            advice=self.advice,
        )


class _Sink:
    """Where file data goes: space from the allocator, bytes to the volume."""

    def __init__(self, space: SpaceAllocator, volume: Volume) -> None:
        self._space = space
        self._volume = volume

    def allocate(self, nbytes: int) -> list[tuple[int, int]]:
        """Space for data as (logical, bytes) pieces."""
        return self._space.take_data(nbytes)

    def write(self, logical: int, data: npt.NDArray[np.uint8]) -> None:
        """Writes whole sectors; safe from several threads."""
        self._volume.write(logical, data)

    def clone(self, logical: int, length: int, fd: int, position: int) -> None:
        """Shares whole blocks with an open file; raises OSError."""
        self._volume.clone(logical, length, fd, position)

    def read(self, logical: int, length: int) -> npt.NDArray[np.uint8]:
        """What stands there now."""
        return self._volume.read(logical, length)


def make_filesystem(
    options: Options,
    *,
    progress: Progress,
    warn: Callable[[str], None],
    listed: Callable[[str], None] | None = None,
) -> Summary:
    """Makes a filesystem as ``options`` say.

    ``progress`` is told how far each step is; ``warn`` gets a line for each thing that could not be taken in whole, and
    for each choice that may not be what was meant; ``listed`` gets what goes in, many lines at a time, before anything
    is written.
    Raises CowError: with the devices untouched for everything that can be known before writing.
    """
    return _Maker(options.resolve(), progress, warn, listed).run()
