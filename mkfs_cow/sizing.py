"""How large everything is: image files, chunks, and the room that is left; settled before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cowlib.checksum import csum_size
from cowlib.errors import NoSpaceError, UsageError
from cowlib.format import MAX_COMPRESSED, BlockGroupFlag
from cowlib.volume import Profile
from mkfs_cow.chunks import GIB, ChunkAllocator, DeviceSpace
from mkfs_cow.data.plan import DataOptions
from mkfs_cow.data.write import DataEstimate, estimate_data
from mkfs_cow.fit import check_fits, choose_profiles, needed_bytes, reserve, too_small
from mkfs_cow.identity import Identity
from mkfs_cow.options import ResolvedOptions
from mkfs_cow.source.tables import Tree
from mkfs_cow.space import SpaceAllocator
from mkfs_cow.space_estimate import (
    SpaceEstimate,
    metadata_estimate,
    system_estimate,
    with_comfort,
    with_first_files,
    with_headroom,
    with_slack,
)
from mkfs_cow.targets import Target, inspect_target, inspect_together
from mkfs_cow.words import size_in_words

#: An image file that is made for its contents is this much larger than they need: room for the kernel to write.
_IMAGE_SLACK = 10

_MIN_IMAGE = 128 << 20

#: Room is reserved chunk by chunk.
_MOST_SLACK = 16 << 40

#: A superblock counts the bytes of all devices in 64 bits.
_MOST_BYTES = 2**64 - 1


@dataclass(frozen=True)
class Room:
    """What a new filesystem gets.

    ``targets`` are its devices, ``chunks`` makes chunks on them, of these ``profiles``; ``estimate`` is what is to be
    reserved. ``to_read`` are the bytes of file data that go in, before compression.
    """

    targets: list[Target]
    chunks: ChunkAllocator
    profiles: dict[BlockGroupFlag, Profile]
    estimate: SpaceEstimate
    to_read: int


class Sizing:
    """Finds out how much room there is, and how much everything needs; raises CowError where it is not enough."""

    def __init__(self, options: ResolvedOptions, identity: Identity, data_options: DataOptions) -> None:
        self.options = options
        self.profiles = choose_profiles(options)
        self._identity = identity
        self._data_options = data_options
        self.targets = self._inspect(_MIN_IMAGE if options.filled else None)

    def settle(self, trees: list[Tree], measure: Callable[[int], DataEstimate]) -> Room:
        """Decides on all sizes for what goes in.

        ``measure`` finds out what data really takes, where compressing makes a difference; it gets the bytes to read.
        """
        shrink = self.options.shrink
        expected = estimate_data(trees, self._data_options)
        least = self._least(trees, expected)
        if self.options.filled:
            self.targets = self._inspect(self._image_size(self._required(least)))
        chunks = ChunkAllocator(self._devices(), tight=shrink)
        fits = check_fits(chunks, self.profiles, self._required(least))
        if self.options.compression and (shrink or not fits):
            # Only compressing everything tells how much it really takes; nothing is written yet.
            least = self._least(trees, measure(expected.data))
            fits = check_fits(chunks, self.profiles, self._required(least))
        if not fits:
            raise too_small(chunks, self.profiles, self._required(least))
        return Room(self.targets, chunks, self.profiles, self._reserved(chunks, least), expected.data)

    def _least(self, trees: list[Tree], data: DataEstimate) -> SpaceEstimate:
        """The least room that everything needs, and what there is to be beside it."""
        options = self.options
        metadata = metadata_estimate(trees, data, options, csum_size(options.csum_type))
        loss = MAX_COMPRESSED - options.sectorsize if self._data_options.compresses else 0
        estimate = SpaceEstimate(data.data, with_headroom(metadata), loss)
        if options.shrink:
            devices = len(options.devices)
            chunks = (data.data + metadata) // GIB + 8
            stripes = self.profiles[BlockGroupFlag.SYSTEM].use_devices(devices)
            estimate = replace(estimate, system=system_estimate(chunks, stripes, devices, options.nodesize))
        if options.slack is None:
            return estimate
        slack = options.slack.of(data.data + metadata)
        if slack > _MOST_SLACK:
            raise UsageError(f"--slack: {size_in_words(slack)} are more than {size_in_words(_MOST_SLACK)}")
        return with_slack(estimate, -(-slack // options.sectorsize) * options.sectorsize, options.nodesize)

    def _comfortable(self, estimate: SpaceEstimate) -> SpaceEstimate:
        """The same with as much room for metadata as the kernel likes to see."""
        return replace(estimate, metadata=with_comfort(estimate.metadata, self.options.nodesize))

    def _required(self, least: SpaceEstimate) -> SpaceEstimate:
        """What the devices must have room for. An empty filesystem is there to be written to."""
        if self.options.filled:
            return least
        return replace(least, metadata=with_first_files(least.metadata, self.options.nodesize))

    def _reserved(self, chunks: ChunkAllocator, least: SpaceEstimate) -> SpaceEstimate:
        """What is reserved at once. As little as the kernel gets along with, which makes chunks from what is left."""
        if self.options.shrink:
            return least
        comfortable = least if least.slack else self._comfortable(least)
        if not check_fits(chunks, self.profiles, comfortable):
            comfortable = self._required(least)
        if not self._made_to_measure and self._leaves_room(chunks, least, comfortable):
            return least
        return comfortable

    @property
    def _made_to_measure(self) -> bool:
        """Whether it is us who say how large the devices are."""
        return self.options.byte_count is None and any(target.create for target in self.targets)

    def _leaves_room(self, chunks: ChunkAllocator, least: SpaceEstimate, comfortable: SpaceEstimate) -> bool:
        """Whether the rest of what is comfortable finds room beside the chunks for what is least."""
        space = SpaceAllocator(chunks.fork(), self.profiles)
        extra = comfortable.metadata - least.metadata
        try:
            reserve(space, least)
            kind = space.kind_for(BlockGroupFlag.METADATA)
            space.reserve(kind, (least.data if kind & BlockGroupFlag.DATA else 0) + least.metadata + extra)
        except NoSpaceError:
            return False
        return True

    def _inspect(self, wanted: int | None) -> list[Target]:
        """Looks at all devices; ``wanted`` is how large image files should be that are not there."""
        options = self.options
        archives = options.layers if options.from_tar is None else [options.from_tar]
        inspect_together(options.devices, archives, options.fsid)
        targets = [
            inspect_target(path, options.byte_count, wanted, options.sectorsize, options.force)
            for path in options.devices
        ]
        if sum(target.size for target in targets) > _MOST_BYTES:
            raise UsageError(
                "the devices together are larger than a filesystem can be, 2^64 bytes",
                hint="use fewer devices, or less of each with -b",
            )
        return targets

    def _image_size(self, estimate: SpaceEstimate) -> int:
        """How large each image file has to be at least for what goes in, and a little to spare."""
        count = len(self.options.devices)
        if self.options.shrink:
            return needed_bytes(self.profiles, count, estimate, tight=True) // count
        if estimate.slack:
            return max(_MIN_IMAGE, needed_bytes(self.profiles, count, estimate) // count)
        needed = needed_bytes(self.profiles, count, self._comfortable(estimate)) // count
        return max(_MIN_IMAGE, needed + needed // _IMAGE_SLACK)

    def _devices(self) -> list[DeviceSpace]:
        own = self.options.device_uuid
        return [
            DeviceSpace(devid, own or self._identity.device(devid), target.size)
            for devid, target in enumerate(self.targets, 1)
        ]
