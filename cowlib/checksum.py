"""Checksums of nodes and data, and the hashes that stand in keys.

The filesystem's superblock says which of four checksums protects it. The hashes are always made of crc32c,
run without its usual final inversion and from odd seeds. `crcmod` declares that crc; bulk data goes through
the `crc32c` package, which uses the processor's own instruction.
"""

from __future__ import annotations

from functools import cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from cowlib.errors import UnsupportedError
from cowlib.format.enums import CsumType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Data: TypeAlias = bytes | bytearray | memoryview | NDArray[np.uint8]

CRC32C_POLYNOMIAL = 0x11EDC6F41
_MASK = 0xFFFFFFFF
_NAME_SEED = _MASK ^ 1
_CSUM_SIZES = {CsumType.CRC32: 4, CsumType.XXHASH: 8, CsumType.SHA256: 32, CsumType.BLAKE2: 32}


class Words(NamedTuple):
    """One round over many names: `rows` says which of them have a word more, `words` u8 are these, little-endian.

    `some` i8 is how many bytes of each word count, the low ones; None stands for all eight. The other bytes are zero.
    """

    rows: NDArray[np.int64] | slice
    words: NDArray[np.uint64]
    some: NDArray[np.int64] | None


def _load_crc32c() -> Callable[..., int]:
    """`crc32c(data, value=0)` out of the extension module of the package of that name.

    The package's own `__init__` also brings a command line and reads its metadata: with all that those import
    it would take a tenth of the time in which our commands start.
    """
    package = PathFinder.find_spec("crc32c")
    spec = package and PathFinder.find_spec("_crc32c", package.submodule_search_locations)
    if spec and spec.loader:
        extension: Any = module_from_spec(spec)
        spec.loader.exec_module(extension)
    else:
        import crc32c as extension
    function: Callable[..., int] = extension.crc32c
    return function


_crc32c = _load_crc32c()


def _crc32c_digest(data: Any) -> bytes:
    return _crc32c(data).to_bytes(4, "little")


@cache
def _digest(csum_type: int) -> Callable[[Any], bytes]:
    """The function that digests with one of the four checksums; its module is loaded on demand."""
    if csum_type == CsumType.CRC32:
        return _crc32c_digest
    if csum_type == CsumType.XXHASH:
        from xxhash import xxh64_intdigest

        return lambda data: int(xxh64_intdigest(data)).to_bytes(8, "little")
    import hashlib

    if csum_type == CsumType.SHA256:
        return lambda data: hashlib.sha256(data).digest()
    if csum_type == CsumType.BLAKE2:
        return lambda data: hashlib.blake2b(data, digest_size=32).digest()
    raise UnsupportedError(f"unknown checksum type {csum_type}")


def csum_size(csum_type: int) -> int:
    """Bytes of one checksum of this type. Raises UnsupportedError for an unknown type."""
    try:
        return _CSUM_SIZES[CsumType(csum_type)]
    except ValueError:
        raise UnsupportedError(f"unknown checksum type {csum_type}") from None


def checksum(csum_type: int, data: Data) -> bytes:
    """The checksum of `data`, `csum_size(csum_type)` bytes as they stand on disk.

    Nodes and superblocks are checksummed from byte 32 to their end, data sector by sector. Raises
    UnsupportedError for an unknown type.
    """
    return _digest(csum_type)(data)


def csum_blocks(csum_type: int, buffer: Data, block_size: int) -> NDArray[np.uint8]:
    """The checksum of each block of `block_size` bytes of a contiguous buffer, as (blocks, csum_size) uint8.

    Raises ValueError if the buffer is not a whole number of blocks, UnsupportedError for an unknown type.
    """
    return csum_rows(csum_type, np.frombuffer(buffer, dtype=np.uint8).reshape(-1, block_size))


def csum_rows(csum_type: int, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The checksum of each row of a uint8 array (n, width), as (n, csum_size) uint8.

    Each row must be contiguous. Nodes read side by side: `csum_rows(csum_type, nodes[:, CSUM_SIZE:])`. Raises
    UnsupportedError for an unknown type.
    """
    if csum_type == CsumType.CRC32:
        crcs = np.fromiter(map(_crc32c, rows), dtype="<u4", count=len(rows))
        return crcs.view(np.uint8).reshape(-1, 4)
    digests = b"".join(map(_digest(csum_type), rows))
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, csum_size(csum_type))


def crc32c_raw(seed: int, data: Data) -> int:
    """The crc32c register after `data`, begun with `seed`: neither end inverted. Send streams use seed 0."""
    return _crc32c(data, ~seed & _MASK) ^ _MASK


def name_hash(name: bytes) -> int:
    """The offset of the DIR_ITEM or XATTR_ITEM key of a name."""
    return crc32c_raw(_NAME_SEED, name)


def name_hashes(names: Sequence[bytes]) -> NDArray[np.uint64]:
    """`name_hash` of each name."""
    inverted = np.fromiter((_crc32c(name, 1) for name in names), dtype=np.uint64, count=len(names))
    return inverted ^ np.uint64(_MASK)


def name_hashes_at(buffer: NDArray[np.uint8], position: ArrayLike, length: ArrayLike) -> NDArray[np.uint64]:
    """`name_hash` of each name `buffer[position:position + length]`, without making byte strings of them.

    The ranges must lie within the buffer; ValueError otherwise.
    """
    position = np.asarray(position, dtype=np.int64)
    registers = np.full(len(position), _NAME_SEED, dtype=np.uint32)
    return _registers_at(registers, buffer, position, np.asarray(length, dtype=np.int64)).astype(np.uint64)


def name_hashes_of(count: int, rounds: Iterable[Words]) -> NDArray[np.uint64]:
    """`name_hash` of each of `count` names, given by what `words_at` says of them."""
    registers = np.full(count, _NAME_SEED, dtype=np.uint32)
    return registers_after(registers, rounds).astype(np.uint64)


def extref_hash(parent: int, name: bytes) -> int:
    """The offset of the INODE_EXTREF key of a name in the directory with inode number `parent`."""
    return crc32c_raw(parent & _MASK, name)


def extref_hashes_at(
    parent: ArrayLike, buffer: NDArray[np.uint8], position: ArrayLike, length: ArrayLike
) -> NDArray[np.uint64]:
    """`extref_hash` of each parent and name `buffer[position:position + length]`.

    The ranges must lie within the buffer; ValueError otherwise.
    """
    registers = (np.asarray(parent, dtype=np.uint64) & np.uint64(_MASK)).astype(np.uint32)
    position = np.asarray(position, dtype=np.int64)
    return _registers_at(registers, buffer, position, np.asarray(length, dtype=np.int64)).astype(np.uint64)


def extent_data_ref_hash(root: ArrayLike, objectid: ArrayLike, offset: ArrayLike) -> NDArray[np.uint64]:
    """The offset of the EXTENT_DATA_REF key of each reference.

    Inside an extent item such references stand in the order of this hash, the largest first. Takes numbers or
    arrays that broadcast together; the result has their common shape.
    """
    start = np.uint32(_MASK)
    high = _after_words(start, np.asarray(root, dtype=np.uint64))
    low = _after_words(start, np.asarray(objectid, dtype=np.uint64))
    low = _after_words(low, np.asarray(offset, dtype=np.uint64))
    return (high.astype(np.uint64) << np.uint64(31)) ^ low.astype(np.uint64)


@cache
def _tables() -> NDArray[np.uint32]:
    """`tables[k][b]`: what byte b does to the register once k more zero bytes have followed it; (8, 256)."""
    import crcmod

    tables = np.empty((8, 256), dtype=np.uint32)
    tables[0] = crcmod.Crc(CRC32C_POLYNOMIAL, initCrc=0, rev=True).table
    for k in range(1, 8):
        tables[k] = (tables[k - 1] >> 8) ^ tables[0][tables[k - 1] & 0xFF]
    return tables


@cache
def _pair_tables() -> NDArray[np.uint32]:
    """`tables[k][p]`: the same for a pair of bytes p, the k-th of four that make a word; (4, 65536)."""
    low, high = _tables()[7::-2, np.newaxis, :], _tables()[6::-2, :, np.newaxis]
    return (low ^ high).reshape(4, -1)


def _after_words(register: NDArray[np.uint32] | np.uint32, words: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The registers after eight more bytes each, given as little-endian numbers."""
    mixed = np.asarray(words ^ register, dtype="<u8")
    tables = _pair_tables()
    pairs = mixed.reshape(-1).view("<u2").reshape(-1, 4)
    after: NDArray[np.uint32] = tables[0].take(pairs[:, 0])
    for k in range(1, 4):
        after ^= tables[k].take(pairs[:, k])
    return after.reshape(mixed.shape)


def _registers_at(
    registers: NDArray[np.uint32],
    buffer: NDArray[np.uint8],
    position: NDArray[np.int64],
    length: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """Each register after the bytes `buffer[position:position + length]`."""
    if len(position) and (min(position.min(), length.min()) < 0 or (position + length).max() > len(buffer)):
        raise ValueError("a name lies outside of its buffer")
    if len(position) and position.min() < 8:
        buffer, position = np.concatenate([np.zeros(8, np.uint8), buffer]), position + 8
    return registers_after(registers, words_at(buffer, position, length))


def words_at(buffer: NDArray[np.uint8], position: NDArray[np.int64], length: NDArray[np.int64]) -> Iterator[Words]:
    """The names `buffer[position:position + length]` a word at a time, each round as `Words`.

    What a length leaves over by eight comes first. Names must lie within the buffer, and at least eight bytes from its
    start, as those in nodes do.
    """
    # A little-endian number at every byte of the buffer: numpy gathers unaligned ones just as well.
    words = np.ndarray(max(len(buffer) - 7, 0), "<u8", buffer.data, strides=(1,))
    part = length & 7
    place = position + part
    if len(length):
        yield Words(slice(None), words[place - 8] >> ((8 - part) << 3).astype(np.uint64), part)
    whole = length >> 3
    rows = np.flatnonzero(whole)
    done = 0
    while len(rows):
        yield Words(rows, words[place[rows] + 8 * done], None)
        done += 1
        rows = rows[whole[rows] > done]


def registers_after(registers: NDArray[np.uint32], rounds: Iterable[Words]) -> NDArray[np.uint32]:
    """Each crc32c register after the words of its name; `registers` are changed."""
    for rows, words, some in rounds:
        now = registers[rows].astype(np.uint64)
        if some is None:
            registers[rows] = _after_words(np.uint32(0), words ^ now)
            continue
        # A register of zero stays zero while zeros go in, so the few bytes are moved to the end of a word of zeros.
        bits = (some << 3).astype(np.uint64)
        moved = (words ^ now) << (np.uint64(64) - bits)
        registers[rows] = _after_words(np.uint32(0), moved) ^ (now >> bits).astype(np.uint32)
    return registers
