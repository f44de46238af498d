"""What libblkid sees on a device. It knows the signatures of everything that Linux can mount, assemble or boot from.

The library comes with util-linux and is nearly always there; without it `probe` says so, and whoever asks needs a table
of his own.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

_TYPE, _USAGE, _MAGIC, _BAD_CHECKSUM = 1 << 5, 1 << 7, 1 << 9, 1 << 10  # BLKID_SUBLKS_*
_FORCE_GPT, _TABLE_MAGIC = 1 << 1, 1 << 3  # BLKID_PARTS_*
_MOST = 64  # things on one device: an end, whatever the library does


class Found(NamedTuple):
    """A signature: ``kind`` as libblkid calls it, whether it is a partition ``table``, and the bytes that make it one.

    ``length`` is 0 where the library does not say which bytes.
    """

    kind: str
    table: bool
    offset: int
    length: int


def available() -> bool:
    """Whether there is a libblkid to ask."""
    return _library() is not None


def probe(path: str | os.PathLike[str]) -> list[Found] | None:
    """All signatures on a device or image file; None if there is no libblkid. Raises `OSError`."""
    library = _library()
    if library is None:
        return None
    # The library reads any bytes at any place, so not past the page cache.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    handle = library.blkid_new_probe()
    try:
        if not handle or library.blkid_probe_set_device(handle, fd, 0, 0) != 0:
            raise OSError(ctypes.get_errno() or errno.EIO, "libblkid cannot look at it")
        library.blkid_probe_enable_topology(handle, 0)
        library.blkid_probe_enable_superblocks(handle, 1)
        library.blkid_probe_set_superblocks_flags(handle, _TYPE | _USAGE | _MAGIC | _BAD_CHECKSUM)
        library.blkid_probe_enable_partitions(handle, 1)
        library.blkid_probe_set_partitions_flags(handle, _FORCE_GPT | _TABLE_MAGIC)
        return list(_results(library, handle))
    finally:
        if handle:
            library.blkid_free_probe(handle)
        os.close(fd)


def _results(library: ctypes.CDLL, handle: int) -> Iterator[Found]:
    for _ in range(_MOST):
        if library.blkid_do_probe(handle) != 0:
            return
        for kind, at, magic in (("TYPE", "SBMAGIC_OFFSET", "SBMAGIC"), ("PTTYPE", "PTMAGIC_OFFSET", "PTMAGIC")):
            name = _value(library, handle, kind)
            if name:
                offset = (_value(library, handle, at) or b"").rstrip(b"\0")
                length = len(_value(library, handle, magic) or b"")
                known = offset.isdigit() and length > 0
                yield Found(_text(name), kind == "PTTYPE", int(offset) if known else 0, length if known else 0)


def _value(library: ctypes.CDLL, handle: int, name: str) -> bytes | None:
    data, length = ctypes.c_void_p(), ctypes.c_size_t()
    result = library.blkid_probe_lookup_value(handle, name.encode(), ctypes.byref(data), ctypes.byref(length))
    return ctypes.string_at(data.value, length.value) if result == 0 and data.value else None


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


@cache
def _library() -> ctypes.CDLL | None:
    for name in ("libblkid.so.1", "libblkid.so"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if hasattr(library, "blkid_probe_set_partitions_flags") and hasattr(library, "blkid_do_probe"):
            library.blkid_new_probe.restype = ctypes.c_void_p
            for function, arguments in _ARGUMENTS.items():
                getattr(library, function).argtypes = arguments
            return library
    return None


_ARGUMENTS = {
    "blkid_probe_set_device": [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64],
    "blkid_probe_enable_topology": [ctypes.c_void_p, ctypes.c_int],
    "blkid_probe_enable_superblocks": [ctypes.c_void_p, ctypes.c_int],
    "blkid_probe_set_superblocks_flags": [ctypes.c_void_p, ctypes.c_int],
    "blkid_probe_enable_partitions": [ctypes.c_void_p, ctypes.c_int],
    "blkid_probe_set_partitions_flags": [ctypes.c_void_p, ctypes.c_int],
    "blkid_do_probe": [ctypes.c_void_p],
    "blkid_probe_lookup_value": [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_size_t),
    ],
    "blkid_free_probe": [ctypes.c_void_p],
}
