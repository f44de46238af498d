"""The data of a member and where it belongs: sparse files in the four ways that GNU tar has written them.

Old GNU: a map in the header and in blocks after it. Pax 0.0: a record for each number. Pax 0.1: one record with all
of them. Pax 1.0: a map in front of the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mkfs_cow.source.tar_member import BrokenArchive, Member, parse_decimal, parse_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mkfs_cow.source.tar_pax import Records
    from mkfs_cow.source.tar_stream import ArchiveStream

    Map = list[tuple[int, int]]

# Limits for maps that are made to hurt: no archive tool makes as many pieces of one file.
_MAX_PIECES = 1 << 20
_MAX_MAP = 8 << 20

_BLOCK = 512
_ENTRY = 24
_HEADER_ENTRIES, _HEADER_MORE, _REAL_SIZE = slice(386, 482), 482, slice(483, 495)
_BLOCK_ENTRIES, _BLOCK_MORE = slice(0, 504), 504


def take_data(stream: ArchiveStream, block: bytes, member: Member, records: Records) -> None:
    """Takes in the data that follows a header: sets ``segments`` and, where it is not what the archive stores, the
    ``size``. Raises BrokenArchive.
    """
    stored = member.size
    if member.kind == "S":
        pieces = _old_gnu(stream, block)
        member.size = parse_number(block[_REAL_SIZE])
    else:
        numbers = {key: value for key, value in records if key.startswith(b"GNU.sparse.")}
        version = (numbers.get(b"GNU.sparse.major"), numbers.get(b"GNU.sparse.minor"))
        real = numbers.get(b"GNU.sparse.realsize", numbers.get(b"GNU.sparse.size"))
        if not numbers or real is None:
            pieces = [(0, stored)]
        else:
            member.size = parse_decimal(real)
            if version == (b"1", b"0"):
                pieces, used = _map_in_data(stream, stored)
                stored -= used
            elif b"GNU.sparse.map" in numbers:
                pieces = _pairs(numbers[b"GNU.sparse.map"].split(b","))
            else:
                wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
                pieces = _pairs([value for key, value in records if key in wanted])
    if not 0 <= member.size < 1 << 63:
        raise BrokenArchive(f"a file of {member.size} bytes")
    member.segments = _placed(pieces, stored, member.size, stream.keep(stored))


def _placed(pieces: Map, stored: int, size: int, position: int) -> list[tuple[int, int, int]]:
    """The pieces with their position, those of no length left out."""
    end = 0
    segments = []
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > size:
            raise BrokenArchive("broken map of a sparse file")
        end = offset + length
        if length:
            segments.append((offset, length, position))
        position += length
        stored -= length
    if stored:
        raise BrokenArchive("the map of a sparse file does not match its data")
    return segments


def _pairs(numbers: Sequence[bytes]) -> Map:
    values = [parse_decimal(number) for number in numbers]
    if len(values) % 2:
        raise BrokenArchive("half an entry in the map of a sparse file")
    return list(zip(values[::2], values[1::2], strict=True))


def _old_gnu(stream: ArchiveStream, block: bytes) -> Map:
    pieces = _gnu_entries(block[_HEADER_ENTRIES])
    more = block[_HEADER_MORE]
    while more:
        extension = stream.block()
        if extension is None:
            raise BrokenArchive("the archive ends within the map of a sparse file")
        pieces += _gnu_entries(extension[_BLOCK_ENTRIES])
        if len(pieces) > _MAX_PIECES:
            raise BrokenArchive("a sparse file of too many pieces")
        more = extension[_BLOCK_MORE]
    return pieces


def _gnu_entries(data: bytes) -> Map:
    pieces = []
    for start in range(0, len(data), _ENTRY):
        entry = data[start : start + _ENTRY]
        if not entry[12]:  # the map ends here
            break
        pieces.append((parse_number(entry[:12]), parse_number(entry[12:])))
    return pieces


def _map_in_data(stream: ArchiveStream, stored: int) -> tuple[Map, int]:
    """The map at the beginning of the data, and the bytes it takes there: lines of numbers, in whole blocks."""
    text = bytearray()
    used, lines = 0, 0
    wanted = 1
    while lines < wanted:
        block = stream.block() if used < stored else None
        if block is None:
            raise BrokenArchive("the data ends within the map of a sparse file")
        used += _BLOCK
        if used > _MAX_MAP:
            raise BrokenArchive("a sparse file of too many pieces")
        lines += block.count(b"\n")
        text += block
        if wanted == 1 and lines:
            wanted += 2 * parse_decimal(bytes(text[: text.index(b"\n")]))
    numbers = bytes(text).split(b"\n")[1:wanted]
    return _pairs(numbers), used
