"""How structures are declared: construct fields, and the numpy dtype that follows from a declaration.

A declaration serves both ways to look at bytes: `InodeItem.parse(data)` for one of them, and
`array.view(columns(InodeItem))` for a million. A field's text after `*` says its unit and meaning; construct
keeps it as the field's `docs`.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import construct
from construct import Array, Bytes, Construct, Container, FormatField, Renamed, Subconstruct

from cowlib.errors import DamagedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

u8 = construct.Int8ul
u16 = construct.Int16ul
u32 = construct.Int32ul
u64 = construct.Int64ul
s64 = construct.Int64sl


class Struct(construct.Struct):  # type: ignore[misc]
    """construct's `Struct`, whose parsed containers hold the declared fields and nothing else."""

    def _parse(self, stream: Any, context: Any, path: Any) -> Container:
        parsed = super()._parse(stream, context, path)
        parsed.pop("_io", None)
        return parsed


class UntilEnd(Subconstruct):  # type: ignore[misc]
    """As many of one structure as the payload holds, without a count: a list. The last one must be whole."""

    def _parse(self, stream: Any, context: Any, path: Any) -> list[Any]:
        entries = []
        while not construct.stream_iseof(stream):
            entries.append(self.subcon._parsereport(stream, context, path))
        return entries

    def _build(self, obj: Any, stream: Any, context: Any, path: Any) -> Any:
        for entry in obj:
            self.subcon._build(entry, stream, context, path)
        return obj


class Tagged(Construct):  # type: ignore[misc]
    """One of several structures that begin with the same head; a field of that head tells which.

    `choose` gets the parsed head (or the container to build) and returns the structure, head included, or
    None if no structure has that tag.
    """

    def __init__(self, head: Construct, choose: Callable[[Container], Construct | None]) -> None:
        super().__init__()
        self.head = head
        self.choose = choose

    def _chosen(self, head: Container, path: Any) -> Construct:
        chosen = self.choose(head)
        if chosen is None:
            raise construct.SwitchError("unknown kind of entry", path=path)
        return chosen

    def _parse(self, stream: Any, context: Any, path: Any) -> Any:
        start = stream.tell()
        head = self.head._parsereport(stream, context, path)
        stream.seek(start)
        return self._chosen(head, path)._parsereport(stream, context, path)

    def _build(self, obj: Any, stream: Any, context: Any, path: Any) -> Any:
        return self._chosen(obj, path)._build(obj, stream, context, path)


class BySize(Construct):  # type: ignore[misc]
    """One of several fixed-size structures: of an item that has grown over the years.

    Parsing takes the one that is just as long as the payload; building takes the longest whose fields are all
    given.
    """

    def __init__(self, *structs: Struct) -> None:
        super().__init__()
        self.structs = sorted(structs, key=lambda struct: -struct.sizeof())

    def _parse(self, stream: Any, context: Any, path: Any) -> Any:
        left = construct.stream_size(stream) - construct.stream_tell(stream, path)
        for struct in self.structs:
            if struct.sizeof() == left:
                return struct._parsereport(stream, context, path)
        raise construct.StreamError(f"no known form has {left} bytes", path=path)

    def _build(self, obj: Any, stream: Any, context: Any, path: Any) -> Any:
        for struct in self.structs:
            if all(field.name in obj for field in struct.subcons):
                return struct._build(obj, stream, context, path)
        raise construct.StreamError("fields are missing", path=path)


def counted(head: Struct, **fields: str) -> Iterator[Construct]:
    """The fields of `head`, where each field named in `fields` is built as the length of the one it counts.

    `counted(InodeRef, name_len="name")`: who builds gives the name and need not give its length.
    """
    for field in head.subcons:
        if field.name in fields:
            length = construct.len_(construct.this[fields[field.name]])
            yield field.name / construct.Rebuild(field.subcon, length) * field.docs
        else:
            yield field


def parse_whole(declared: Construct, data: bytes, what: str) -> Any:
    """All of `data` as `declared`.

    Raises DamagedError if it is too short, too long or has a part of no known kind. Here, and in
    `build_whole`, construct's errors end: its callers know only this project's own.
    """
    stream = BytesIO(data)
    try:
        parsed = declared.parse_stream(stream)
    except construct.ConstructError as error:
        raise DamagedError(f"{what} of {len(data)} bytes is broken: {_reason(error)}") from None
    if stream.tell() != len(data):
        raise DamagedError(f"{what} has {len(data)} bytes, {stream.tell()} expected")
    return parsed


def build_whole(declared: Construct, value: Any, what: str) -> bytes:
    """The bytes of `value` as `declared`. Raises UsageError if fields are missing or out of range."""
    try:
        return bytes(declared.build(value))
    except (construct.ConstructError, KeyError, TypeError) as error:
        raise UsageError(f"{what} cannot be built: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What construct says, without the first line, which is the path to the field."""
    return str(error).splitlines()[-1] if str(error) else type(error).__name__


# construct's own format strings are not for numpy: it says "<L" of 32 bits, which numpy takes for 64.
_NUMPY_TYPES = {"B": "u1", "H": "<u2", "L": "<u4", "Q": "<u8", "q": "<i8"}


def _element(declared: Construct) -> Any:
    """What numpy calls one declared field: a type string, a dtype, or (type, shape)."""
    match declared:
        case Renamed():
            return _element(declared.subcon)
        case FormatField():
            return _NUMPY_TYPES[declared.fmtstr[-1]]
        case Bytes():
            return f"V{declared.length}"
        case Array():
            return _element(declared.subcon), (declared.count,)
        case construct.Struct():
            return columns(declared)
    raise TypeError(f"no column type for {declared!r}: not of a fixed size")


@cache
def columns(struct: construct.Struct) -> np.dtype[np.void]:
    """The packed numpy dtype of a fixed-size declaration: same fields, same order, same bytes.

    Integers become `<u8` and the like, byte strings `V<n>`, nested structures nested dtypes, arrays
    subarrays. Raises TypeError for a declaration whose size varies.
    """
    import numpy as np

    dtype = np.dtype([(field.name, *_shaped(_element(field))) for field in struct.subcons])
    if dtype.itemsize != struct.sizeof():
        raise TypeError(f"{struct!r} is {struct.sizeof()} bytes on disk, its columns {dtype.itemsize}")
    return dtype


def _shaped(element: Any) -> tuple[Any, ...]:
    return element if isinstance(element, tuple) else (element,)
