"""Blocks that an image shares with the files it is made of, where one filesystem has both and can do that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cowlib.format import STRIPE_LEN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cowlib.device import Device
    from mkfs_cow.data.sink import CloningSink


class Cloner:
    """Shares what can be shared; the caller copies the rest.

    ``shared`` is how many bytes are, ``refused`` how many whole blocks' bytes are not, and ``reason`` why the first of
    those are not (None if there are none).
    """

    def __init__(self, sink: CloningSink, block: int) -> None:
        """``block`` is the block size of the filesystem the image is on, in bytes."""
        self.shared = 0
        self.refused = 0
        self.reason: str | None = None
        self._sink = sink
        self._block = block

    def share(self, address: int, start: int, fd: int, position: int, length: int) -> int:
        """Shares as much as can be of an open file, from ``position`` on, with the sink from ``address + start`` on;
        gives the number of bytes. The end of a file that fills no block is never among them.
        """
        whole = length - length % self._block
        if not whole:
            return 0
        try:
            self._sink.clone(address + start, whole, fd, position)
        except OSError as error:
            self.refused += whole
            self.reason = self.reason or error.strerror or str(error)
            return 0
        self.shared += whole
        return whole

    def read(self, address: int, length: int) -> NDArray[np.uint8]:
        """What stands there now."""
        return self._sink.read(address, length)


def block_size(devices: Sequence[Device]) -> int:
    """The block size of the filesystems that image files are on, in bytes. Raises OSError."""
    return max(os.statvfs(device.path).f_bsize for device in devices)


def obstacle(devices: Sequence[Device], *, parity: bool, compresses: bool) -> str | None:
    """Why nothing at all can be shared, None if something may be. Raises OSError."""
    if compresses:
        return "compressed data is never that of the files"
    for device in devices:
        if device.is_block:
            return f"{device.path} is no image file"
    if parity:
        return "parity is reckoned from data that is written"
    block = block_size(devices)
    return f"the blocks of the filesystem that it lies on have {block} bytes" if block > STRIPE_LEN else None
