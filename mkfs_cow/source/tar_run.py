"""Many members at once: the plain ones that most archives are full of, with their headers as columns.

Only where the next header stands has to be found one by one. What is not as plain as can be, in form or in kind, ends a
run and is left to `tar_header`, which also tells what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mkfs_cow.source.tar_stream import ArchiveStream

#: Fewer members than this are not worth the columns.
_LEAST = 8

_BLOCK = 512
_GNU_MAGIC = np.frombuffer(b"ustar  \0", np.uint8)
_FILE = ord("0")

#: Kinds that can stand among plain files: links, directories. Nothing follows their headers.
_BETWEEN = b"125"

_FIELDS = {
    "mode": slice(100, 108),
    "uid": slice(108, 116),
    "gid": slice(116, 124),
    "size": slice(124, 136),
    "mtime": slice(136, 148),
}
_SUM, _SUM_OF_SPACES = slice(148, 156), 8 * ord(" ")


@dataclass(frozen=True)
class Run:
    """Neighbouring members as columns, their data taken in.

    ``name`` as the headers have it. ``is_file`` (bool): a regular file, whose ``mode`` (permissions), ``uid``,
    ``gid``, ``size``, ``mtime`` (seconds) and ``position`` in the contents (all int64) are known; of any other member
    the ``header`` (bytes) has still to be looked at.
    """

    name: list[bytes]
    is_file: list[bool]
    mode: NDArray[np.int64]
    uid: NDArray[np.int64]
    gid: NDArray[np.int64]
    size: NDArray[np.int64]
    mtime: NDArray[np.int64]
    position: NDArray[np.int64]
    _headers: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.name)

    def header(self, i: int) -> bytes:
        """The header block of a member."""
        return bytes(self._headers[i])


def next_run(stream: ArchiveStream) -> Run | None:
    """The plain members that come next, as many as were read ahead; None if they are not worth it."""
    window, begin = stream.ahead()
    room = stream.left + begin
    at = begin
    starts: list[int] = []
    names: list[bytes] = []
    ends: list[int] = []
    last = len(window) - _BLOCK
    try:
        while at <= last:
            kind = window[at + 156]
            name = window[at : at + 100].partition(b"\0")[0]
            end = at + _BLOCK
            if kind == _FILE and name[-1:] != b"/":  # such a name is how V7 writes a directory
                end += -(-int(window[at + 124 : at + 135], 8) // _BLOCK) * _BLOCK
                if end > room:
                    break
            elif kind not in _BETWEEN or not name:
                break
            starts.append(at)
            names.append(name)
            ends.append(end)
            at = end
    except ValueError:
        pass
    if len(starts) < _LEAST:
        return None
    first = np.array(starts, dtype=np.int64)
    headers = np.lib.stride_tricks.sliding_window_view(np.frombuffer(window, np.uint8), _BLOCK)[first]
    claimed = (headers[:, 156] == _FILE) & np.array([name[-1:] != b"/" for name in names])
    numbers, plain = _decoded(headers)
    odd = np.flatnonzero(claimed & ~plain)
    count = int(odd[0]) if len(odd) else len(starts)
    if count < _LEAST:
        return None
    _put_prefixes(names, headers)
    size = np.where(claimed, numbers["size"], 0)[:count]
    data = first[:count] + _BLOCK
    position = stream.advance(ends[count - 1] - begin, list(zip(data.tolist(), (data + size).tolist(), strict=True)))
    return Run(
        names[:count],
        claimed[:count].tolist(),
        numbers["mode"][:count] & 0o7777,
        numbers["uid"][:count],
        numbers["gid"][:count],
        size,
        numbers["mtime"][:count],
        position,
        headers[:count],
    )


def _decoded(headers: NDArray[np.uint8]) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_]]:
    """The numbers in headers, and which headers have them in the common form and a right checksum."""
    plain = np.ones(len(headers), dtype=np.bool_)
    numbers = {}
    for name, field in _FIELDS.items():
        numbers[name], good = _octal(headers[:, field])
        plain &= good
    stored, good = _octal(headers[:, _SUM][:, :7])
    own = headers[:, _SUM].sum(axis=1, dtype=np.int64)
    return numbers, plain & good & (stored == headers.sum(axis=1, dtype=np.int64) - own + _SUM_OF_SPACES)


def _octal(field: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers of which all digits are there, ended by NUL or a space, or one digit less, a space and NUL."""
    digits = field - np.uint8(ord("0"))
    is_digit = digits < 8
    weights = 8 ** np.arange(field.shape[1] - 2, -1, -1, dtype=np.int64)
    ended = (field == 0) | (field == ord(" "))
    leading = is_digit[:, :-2].all(axis=1)
    whole = leading & is_digit[:, -2] & ended[:, -1]
    short = leading & (field[:, -2] == ord(" ")) & (field[:, -1] == 0)
    values = np.where(is_digit[:, :-1], digits[:, :-1], 0).astype(np.int64) @ weights
    return np.where(short, values // 8, values), whole | short


def _put_prefixes(names: list[bytes], headers: NDArray[np.uint8]) -> None:
    """The rest of long names, which ustar has in a field of its own."""
    ustar = (headers[:, 257:262] == _GNU_MAGIC[:5]).all(axis=1) & (headers[:, 345] != 0)
    for i in np.flatnonzero(ustar & (headers[:, 257:265] != _GNU_MAGIC).any(axis=1)).tolist():
        names[i] = headers[i, 345:500].tobytes().partition(b"\0")[0] + b"/" + names[i]
