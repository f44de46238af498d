"""Volumes of every profile on small image files, for tests which write to them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from construct import Container
from numpy.typing import NDArray

from cowlib.device import Device
from cowlib.format import STRIPE_LEN, BlockGroupFlag
from cowlib.volume import PROFILES, ChunkMap, Profile, Volume, raid
from tests import oracles

MIB = 1 << 20
BASE = 1 << 30
"""Logical address of the first chunk."""

SHAPES = [
    ("single", 1),
    ("dup", 1),
    ("raid0", 1),
    ("raid0", 3),
    ("raid1", 2),
    ("raid1c3", 3),
    ("raid1c4", 4),
    ("raid10", 2),
    ("raid10", 6),
    ("raid5", 2),
    ("raid5", 4),
    ("raid6", 3),
    ("raid6", 5),
]
"""Profiles with numbers of devices worth trying."""


def profile_named(name: str) -> Profile:
    return next(profile for profile in PROFILES if profile.name == name)


def chunk_of(profile: Profile, stripes: list[tuple[int, int]], rows: int, **changed: int) -> Container:
    """A parsed chunk item: ``stripes`` are (devid, offset), each ``rows`` times 64 KiB long."""
    width = (len(stripes) - profile.parity) // profile.group
    fields = {
        "length": width * rows * STRIPE_LEN,
        "owner": 2,
        "stripe_len": STRIPE_LEN,
        "type": int(BlockGroupFlag.DATA | profile.flag),
        "io_align": STRIPE_LEN,
        "io_width": STRIPE_LEN,
        "sector_size": 4096,
        "num_stripes": len(stripes),
        "sub_stripes": 2 if profile.name == "raid10" else 1,
    }
    places = [Container(devid=devid, offset=offset, dev_uuid=bytes(16)) for devid, offset in stripes]
    return Container(**fields | changed, stripes=places)


class Pool:
    """Image files with two chunks of one profile, one after the other; ``shadow`` is what they should hold."""

    def __init__(self, folder: Path, name: str, count: int, rows: int = 5) -> None:
        self.profile = profile_named(name)
        self.paths = {devid: folder / f"{name}-{devid}.img" for devid in range(1, count + 1)}
        for path in self.paths.values():
            oracles.sparse(path, 4 * MIB)
        devids = list(self.paths) * (2 if name == "dup" else 1)
        copies = range(len(devids) // count)
        first = [(devid, MIB + n * rows * STRIPE_LEN) for n in copies for devid in self.paths]
        second = [(devid, 3 * MIB + n * rows * STRIPE_LEN) for n in copies for devid in reversed(self.paths)]
        chunk = chunk_of(self.profile, first, rows)
        self.chunks = ChunkMap.of([(BASE, chunk), (BASE + chunk.length, chunk_of(self.profile, second, rows))])
        assert not self.chunks.damage
        self.size = int(self.chunks.length.sum())
        self.shadow = np.zeros(self.size, np.uint8)

    def open(self, *, without: Collection[int] = (), write: bool = False) -> Volume:
        """The volume, with some devices missing."""
        devices = {
            devid: None if devid in without else Device.open(path, write=write) for devid, path in self.paths.items()
        }
        return Volume(devices, self.chunks)

    def fill(self, seed: int = 0) -> None:
        """Random bytes everywhere."""
        self.shadow = np.random.default_rng(seed).integers(0, 256, self.size, np.uint8)
        with self.open(write=True) as volume:
            volume.write(BASE, self.shadow)

    def assert_holds_shadow(self, volume: Volume) -> None:
        """Every mirror of everything reads as it should, and all parity is true."""
        for mirror in range(volume.num_copies(BASE) + 1):
            assert (volume.read(BASE, self.size, mirror) == self.shadow).all(), f"mirror {mirror}"
        assert_parity(volume)


def rows_on_disk(volume: Volume, chunk: int) -> NDArray[np.uint8]:
    """What the devices hold of a parity chunk: (row, data columns and parity, 64 KiB)."""
    chunks = volume.chunks
    count = int(chunks.length[chunk]) // (STRIPE_LEN * int(chunks.width[chunk]))
    stripes, places = chunks.row_stripes(chunk, np.arange(count))
    found = np.zeros((*stripes.shape, STRIPE_LEN), np.uint8)
    for index in np.ndindex(stripes.shape):
        device = volume.devices[int(chunks.stripe_devid[stripes[index]])]
        assert device is not None
        found[index] = device.read(int(places[index]), STRIPE_LEN)
    return found


def rows_of_wrong_parity(volume: Volume, chunk: int) -> list[int]:
    """Rows of a parity chunk whose P or Q on the devices is not that of the data on the devices."""
    wrong = []
    for row, stripes in enumerate(rows_on_disk(volume, chunk)):
        expected = stripes.copy()
        raid.fill_parity(expected, int(volume.chunks.parity[chunk]))
        if (stripes != expected).any():
            wrong.append(row)
    return wrong


def assert_parity(volume: Volume) -> None:
    """All parity on the devices is true."""
    for chunk in np.flatnonzero(volume.chunks.parity).tolist():
        assert rows_of_wrong_parity(volume, chunk) == [], f"chunk {chunk}"
