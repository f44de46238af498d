"""File data compressed the way the kernel does it, and back.

An extent's compressed bytes begin at its first byte; what follows them up to the next sector has no meaning.
zlib and zstd extents are one stream each. LZO extents have a framing of their own, all numbers 32-bit
little-endian::

    total length, this number included
    length of segment, segment      (as often as needed; each expands to at most one sector)

A length never crosses a sector boundary: if fewer than four bytes are left in a sector, zeros fill it and the
length begins the next one. Inline extents are framed the same way.

LZO streams come from `lzallright`: it has wheels, a free license, and writes plain LZO1X without a header.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cowlib.errors import DamagedError, UnsupportedError
from cowlib.format.constants import MAX_COMPRESSED
from cowlib.format.enums import Compression

if TYPE_CHECKING:
    import lzallright
    import zstandard

_LENGTH = struct.Struct("<I")
_ZSTD_WINDOW_LOG = 17
_DEFAULT_LEVEL = 3
_MAX_LEVEL = {Compression.ZLIB: 9, Compression.ZSTD: 15}
_own = threading.local()  # the compressors are not for two threads at once, and dear to make


def compress(algo: int, level: int, data: bytes, sectorsize: int, *, inline: bool = False) -> bytes | None:
    """`data` compressed as one extent, not padded to sectors; None if it is not worth it.

    It is worth it if it saves at least one sector, or with `inline` at least one byte. `level` is 1 to 9 for
    zlib, 1 to 15 for zstd (and down to -15), 0 for the default; LZO has no levels. Raises ValueError for more
    than 128 KiB of data, for more than a sector of inline data and for a level out of range, UnsupportedError
    for an unknown algorithm.
    """
    if len(data) > (sectorsize if inline else MAX_COMPRESSED):
        raise ValueError(f"{len(data)} bytes are too much for one compressed extent")
    if algo == Compression.ZLIB:
        packed = zlib.compress(data, _checked_level(Compression.ZLIB, level, 1))
    elif algo == Compression.LZO:
        packed = _lzo_compress(data, sectorsize)
    elif algo == Compression.ZSTD:
        packed = _zstd_compressor(_checked_level(Compression.ZSTD, level, -15)).compress(data)
    else:
        raise UnsupportedError(f"unknown compression {algo}")
    if inline:
        return packed if len(packed) < len(data) else None
    return packed if _sectors(len(packed), sectorsize) < _sectors(len(data), sectorsize) else None


def libraries(algorithms: Iterable[int]) -> dict[str, str]:
    """What compresses with these algorithms here, and its versions: the same data gives the same bytes only with the
    same ones.

    For zstd the Python package and the C library in it, for zlib the C library, for LZO the package.
    """
    found = {}
    wanted = set(algorithms)
    if Compression.ZSTD in wanted:
        import zstandard

        found["zstandard"] = zstandard.__version__
        found["zstd"] = ".".join(map(str, zstandard.ZSTD_VERSION))
    if Compression.ZLIB in wanted:
        found["zlib"] = zlib.ZLIB_RUNTIME_VERSION
    if Compression.LZO in wanted:
        from importlib.metadata import version

        found["lzallright"] = version("lzallright")
    return found


def decompress(algo: int, data: bytes | memoryview, ram_bytes: int, sectorsize: int) -> bytes:
    """The `ram_bytes` bytes that were compressed into `data`, the extent's (or inline) bytes on disk.

    A stream may end early: zeros make up the rest. It may also hold more, which is ignored. Raises
    DamagedError if the stream is broken or cut off, or if `ram_bytes` is more than an extent can hold;
    UnsupportedError for an unknown algorithm.
    """
    if ram_bytes > MAX_COMPRESSED:
        raise DamagedError(f"a compressed extent of {ram_bytes} bytes: at most {MAX_COMPRESSED} are possible")
    if ram_bytes <= 0:
        return b""
    if algo == Compression.NONE:
        plain = bytes(data[:ram_bytes])
    elif algo == Compression.ZLIB:
        plain = _zlib_decompress(data, ram_bytes)
    elif algo == Compression.LZO:
        plain = _lzo_decompress(data, ram_bytes, sectorsize)
    elif algo == Compression.ZSTD:
        plain = _zstd_decompress(data, ram_bytes)
    else:
        raise UnsupportedError(f"unknown compression {algo}")
    return plain.ljust(ram_bytes, b"\0")


def _sectors(length: int, sectorsize: int) -> int:
    return -(-length // sectorsize)


def _checked_level(algo: Compression, level: int, lowest: int) -> int:
    if not lowest <= level <= _MAX_LEVEL[algo] and level != 0:
        raise ValueError(f"{algo.name.lower()} has levels {lowest} to {_MAX_LEVEL[algo]}, not {level}")
    return level or _DEFAULT_LEVEL


def _zlib_decompress(data: bytes | memoryview, ram_bytes: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, ram_bytes)
    except zlib.error as error:
        raise DamagedError(f"broken zlib stream: {error}") from None
    if len(plain) < ram_bytes and not stream.eof:
        raise DamagedError("zlib stream cut off")
    return plain


def _zstd_compressor(level: int) -> zstandard.ZstdCompressor:
    """This thread's compressor for one level. Kernels refuse windows above 128 KiB."""
    import zstandard

    compressors: dict[int, zstandard.ZstdCompressor] = _own.__dict__.setdefault("zstd_compressors", {})
    if level not in compressors:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=MAX_COMPRESSED, window_log=_ZSTD_WINDOW_LOG
        )
        compressors[level] = zstandard.ZstdCompressor(compression_params=parameters)
    return compressors[level]


def _zstd_decompress(data: bytes | memoryview, ram_bytes: int) -> bytes:
    import zstandard

    if not hasattr(_own, "zstd_decompressor"):
        _own.zstd_decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW_LOG)
    decompressor: zstandard.ZstdDecompressor = _own.zstd_decompressor
    try:
        with decompressor.stream_reader(data) as reader:
            plain = reader.read(ram_bytes)
        if len(plain) < ram_bytes:
            # The reader does not say why it stopped. The frame is now known to be short: this cannot blow up.
            frame = decompressor.decompressobj()
            frame.decompress(data)
            if not frame.eof:
                raise DamagedError("zstd stream cut off")
    except zstandard.ZstdError as error:
        raise DamagedError(f"broken zstd stream: {error}") from None
    return plain


def _lzo() -> lzallright.LZOCompressor:
    """This thread's LZO compressor, which decompresses as well."""
    if not hasattr(_own, "lzo"):
        import lzallright

        _own.lzo = lzallright.LZOCompressor()
    compressor: lzallright.LZOCompressor = _own.lzo
    return compressor


def _to_next_length(position: int, sectorsize: int) -> int:
    """Bytes of padding at `position`, so that a length does not cross a sector boundary."""
    left = sectorsize - position % sectorsize
    return left if left < _LENGTH.size else 0


def _lzo_compress(data: bytes, sectorsize: int) -> bytes:
    lzo = _lzo()
    packed = bytearray(_LENGTH.size)
    for start in range(0, len(data), sectorsize):
        segment = lzo.compress(data[start : start + sectorsize])
        packed += bytes(_to_next_length(len(packed), sectorsize))
        packed += _LENGTH.pack(len(segment)) + segment
    _LENGTH.pack_into(packed, 0, len(packed))
    return bytes(packed)


def _lzo_decompress(data: bytes | memoryview, ram_bytes: int, sectorsize: int) -> bytes:
    lzo = _lzo()
    longest = sectorsize + sectorsize // 16 + 64 + 3 + 2  # what LZO makes of a sector at worst
    end = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else 0
    if not _LENGTH.size <= end <= len(data):
        raise DamagedError(f"LZO extent of {len(data)} bytes says it has {end}")
    plain = bytearray()
    position = _LENGTH.size
    while len(plain) < ram_bytes:
        position += _to_next_length(position, sectorsize)
        if position >= end:
            break
        if position + _LENGTH.size > end:
            raise DamagedError("LZO extent cut off")
        length = _LENGTH.unpack_from(data, position)[0]
        position += _LENGTH.size
        if length > min(end - position, longest):
            raise DamagedError(f"LZO segment of {length} bytes does not fit")
        plain += _lzo_segment(lzo, bytes(data[position : position + length]), sectorsize)
        position += length
    return bytes(plain[:ram_bytes])


def _lzo_segment(lzo: lzallright.LZOCompressor, segment: bytes, sectorsize: int) -> bytes:
    import lzallright

    try:
        plain: bytes = lzo.decompress(segment, sectorsize)
    except lzallright.LZOError as error:
        raise DamagedError(f"broken LZO segment: {error}") from None
    if len(plain) > sectorsize:
        raise DamagedError(f"an LZO segment of {len(plain)} bytes: at most one sector is possible")
    return plain
