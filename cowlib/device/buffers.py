"""Memory that `O_DIRECT` accepts: whole pages from anonymous `mmap`."""

from __future__ import annotations

import mmap
import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECTOR_SIZE = 4096
"""Bytes: every direct transfer starts, ends and sits in memory at a multiple of this."""

_KEEP_BYTES = 64 << 20
_kept: list[mmap.mmap] = []
_kept_lock = threading.RLock()  # re-entrant: a buffer may be collected while its own thread is in here


def aligned_buffer(nbytes: int) -> NDArray[np.uint8]:
    """A zeroed uint8 array of ``nbytes`` bytes that starts on a page."""
    return _array(_mapping(nbytes), nbytes)


def scratch_buffer(nbytes: int) -> NDArray[np.uint8]:
    """Like `aligned_buffer`, but what it holds is undefined: for bytes that are about to be read in.

    The pages come back for the next call once the array and all its views are gone. Faulting fresh pages in
    costs about as much as reading them from a fast disk, so a reader that goes in batches should use this.
    """
    mapping = _take(nbytes) or _mapping(nbytes)
    array = _array(mapping, nbytes)
    # Every view keeps `array` alive (numpy collapses chains of views onto it): its end is the end of them
    # all.
    weakref.finalize(array, _give, mapping).atexit = False
    return array


def is_aligned(buffer: NDArray[np.uint8]) -> bool:
    """Whether a contiguous array can be transferred directly as it stands."""
    return buffer.ctypes.data % SECTOR_SIZE == 0 and buffer.nbytes % SECTOR_SIZE == 0


def as_bytes(data: Any) -> NDArray[np.uint8]:
    """Any buffer (bytes, memoryview, array) as a flat uint8 array, without a copy if contiguous."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _mapping(nbytes: int) -> mmap.mmap:
    size = max(SECTOR_SIZE, -(-nbytes // SECTOR_SIZE) * SECTOR_SIZE)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _array(mapping: mmap.mmap, nbytes: int) -> NDArray[np.uint8]:
    return np.frombuffer(mapping, np.uint8, nbytes)


def _take(nbytes: int) -> mmap.mmap | None:
    """A kept mapping that fits without wasting more than it uses, or None."""
    with _kept_lock:
        for index, mapping in enumerate(_kept):
            if nbytes <= len(mapping) <= 2 * nbytes:
                return _kept.pop(index)
    return None


def _give(mapping: mmap.mmap) -> None:
    with _kept_lock:
        if len(mapping) > _KEEP_BYTES:
            return
        _kept.append(mapping)
        while sum(map(len, _kept)) > _KEEP_BYTES:
            _kept.pop(0)
