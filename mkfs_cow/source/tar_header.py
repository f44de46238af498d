"""The members of a tar archive, one after another: headers in all their dialects.

V7, ustar, GNU (long names, large numbers, sparse files) and pax. What an archive says is not trusted: numbers
have ranges, names and maps have limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cowlib.errors import CowError
from mkfs_cow.source.contents import shown
from mkfs_cow.source.tar_member import BrokenArchive, Member, parse_number, parse_octal
from mkfs_cow.source.tar_pax import Records, apply, parse_records
from mkfs_cow.source.tar_run import Run, next_run
from mkfs_cow.source.tar_sparse import take_data

if TYPE_CHECKING:
    from mkfs_cow.source.tar_stream import ArchiveStream

#: The longest pax header or long name that is taken: a sparse map in it may be long, but not endless.
_MAX_EXTRA = 8 << 20

_NO_BLOCK = bytes(512)
_GNU_MAGIC = b"ustar  \0"

#: mode, uid, gid, size and mtime, and for devices major and minor.
_NUMBERS = ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148), (329, 337), (337, 345))

#: Types whose header no data follows, whatever size it says. Those that nobody knows are regular files to POSIX.
_WITHOUT_DATA = "123456"


def members(stream: ArchiveStream, warn: Callable[[str], None]) -> Iterator[Member]:
    """The members in their order; the data of regular files is taken in.

    Without the block of zeros that ends an archive something may be missing, as after a pipe that broke: ``warn``
    gets a line for that. Raises CowError for a broken archive.
    """
    for found in members_and_runs(stream, warn):
        if isinstance(found, Run):
            for i in range(len(found)):
                yield member_of(found, i)
        else:
            yield found


def members_and_runs(stream: ArchiveStream, warn: Callable[[str], None]) -> Iterator[Member | Run]:
    """The same, but where many plain members follow each other all of them as one."""
    place = "at its beginning"
    try:
        for found in _members(stream, warn):
            place = f"after {shown(found.name[-1] if isinstance(found, Run) else found.name)}"
            yield found
    except BrokenArchive as error:
        raise CowError(f"{stream.name}: {place}: {error}") from None


def member_of(run: Run, i: int) -> Member:
    """One member of a run by itself. Raises BrokenArchive."""
    member = _parse(run.header(i))
    _check_ranges(member)
    if run.is_file[i] and member.size:
        member.segments = [(0, member.size, int(run.position[i]))]
    return member


def _members(stream: ArchiveStream, warn: Callable[[str], None]) -> Iterator[Member | Run]:
    shared: Records = []
    own: Records = []
    name = link = None
    block = stream.block()
    if block is None:
        raise BrokenArchive("the archive ends too early")
    while block is not None and block != _NO_BLOCK:
        header = _parse(block)
        if header.kind in "xX":
            own = parse_records(_extra(stream, header))
        elif header.kind == "g":
            shared = shared + parse_records(_extra(stream, header))
        elif header.kind == "L":
            name = _extra(stream, header).rstrip(b"\0")
        elif header.kind == "K":
            link = _extra(stream, header).rstrip(b"\0")
        elif header.kind in "VN":  # a volume label; names in a way only very old GNU tars had
            stream.skip(header.size)
        elif header.kind == "M":
            raise BrokenArchive("one volume of several cannot be read")
        else:
            header.name = header.name if name is None else name
            header.link = header.link if link is None else link
            _finish(stream, block, header, shared, own)
            yield header
            own, name, link = [], None, None
            while not shared and (run := next_run(stream)) is not None:
                yield run
        block = stream.block()
    if block is None:
        warn(f"{stream.name}: the archive has no end: something may be missing")
    stream.drain()


def _finish(stream: ArchiveStream, block: bytes, member: Member, shared: Records, own: Records) -> None:
    """Puts pax records over what the header said, and takes in the data."""
    apply(member, shared + own if shared else own)
    if member.kind == "0" and member.name.endswith(b"/"):  # how V7 writes a directory; a name cut short is none
        member.kind = "5"
    _check_ranges(member)
    if member.kind == "D":
        stream.skip(member.size)
    elif member.kind not in _WITHOUT_DATA:
        take_data(stream, block, member, own)


def _parse(block: bytes) -> Member:
    """The fields of a header block."""
    stored = parse_octal(block[148:156])
    if stored is None or (stored != _checksum(block) and stored != _signed_checksum(block)):
        raise BrokenArchive("no tar header where one should be")
    name = block[:100].partition(b"\0")[0]
    if block[257:262] == b"ustar" and block[257:265] != _GNU_MAGIC and block[345]:
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    kind = chr(block[156])
    if kind == "\0":
        kind = "0"
    fields = _NUMBERS if kind in "34" else _NUMBERS[:5]
    mode, uid, gid, size, mtime, *device = (parse_number(block[first:last]) for first, last in fields)
    return Member(
        name=name,
        kind=kind,
        mode=mode & 0o7777,
        uid=uid,
        gid=gid,
        size=size,
        major=device[0] if device else 0,
        minor=device[1] if device else 0,
        link=block[157:257].partition(b"\0")[0],
        mtime=mtime * 1_000_000_000,
    )


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _signed_checksum(block: bytes) -> int:
    """As some old tars had it."""
    return _checksum(block) - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def _extra(stream: ArchiveStream, header: Member) -> bytes:
    """What a header holds that belongs to the next one."""
    if not 0 <= header.size <= _MAX_EXTRA:
        raise BrokenArchive(f"a header of {header.size} bytes")
    return stream.data(header.size)


def _check_ranges(member: Member) -> None:
    """Refuses what no file can be."""
    limits = ((member.uid, 32), (member.gid, 32), (member.size, 63), (member.major, 12), (member.minor, 20))
    if not all(0 <= value < 1 << bits for value, bits in limits):
        raise BrokenArchive("owner, size or device number out of range")
    if b"\0" in member.name or b"\0" in member.link:
        raise BrokenArchive("a name with a NUL in it")
