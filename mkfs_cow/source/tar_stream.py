"""An archive as a stream of blocks, whatever it is compressed with, and a place for the data in it.

A plain archive in a regular file is its own place: data stays where it is and is read from there when its turn
comes. Of any other archive the data goes to a temporary file first: it can be read only once, and a new filesystem
is not begun before it is known that everything fits.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, TypeAlias, cast

import numpy as np

from cowlib.errors import CowError
from mkfs_cow.source.contents import FileContents
from mkfs_cow.source.spool import spool_file
from mkfs_cow.source.tar_member import BrokenArchive

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

_BLOCK = 512
_PIECE = 1 << 20

#: What is read ahead after a jump over more than was read ahead.
_SHORT = 1 << 14

#: The largest window of a zstd stream that is unpacked, as the zstd program has it: 128 MiB.
_ZSTD_WINDOW = 1 << 27


#: What unpacks, and what it raises if that goes wrong, beside OSError and EOFError.
_Unpacker: TypeAlias = tuple[IO[bytes], tuple[type[Exception], ...]]


def _plain(raw: IO[bytes]) -> _Unpacker:
    return raw, ()


def _gzip(raw: IO[bytes]) -> _Unpacker:
    import gzip
    import zlib

    return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)), (zlib.error,)


def _xz(raw: IO[bytes]) -> _Unpacker:
    import lzma

    return lzma.LZMAFile(raw), (lzma.LZMAError,)


def _bzip2(raw: IO[bytes]) -> _Unpacker:
    import bz2

    return bz2.BZ2File(raw), ()


def _zstd(raw: IO[bytes]) -> _Unpacker:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    reader = unpacker.stream_reader(raw, read_across_frames=True)
    return io.BufferedReader(cast("io.RawIOBase", reader), _PIECE), (zstandard.ZstdError,)


_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], _Unpacker]] = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ\0": _xz,
    b"BZh": _bzip2,
    b"\x28\xb5\x2f\xfd": _zstd,
}


class ArchiveStream:
    """Reads an archive from its beginning to its end; ``name`` is what to call it in messages.

    A context manager. `contents` is usable until nobody holds it any more.
    """

    def __init__(self, path: str) -> None:
        """Opens the archive at ``path``, ``-`` for standard input. Raises CowError."""
        self.name = "standard input" if path == "-" else path
        try:
            raw = os.fdopen(os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb")
            head = raw.peek(8)[:8]
            status = os.fstat(raw.fileno())
        except OSError as error:
            raise CowError(f"{self.name}: {error.strerror}") from error
        if not head:
            raise CowError(f"{self.name}: no archive, nothing at all")
        unpack = next((unpack for magic, unpack in _COMPRESSIONS.items() if head.startswith(magic)), _plain)
        self._stream, errors = unpack(raw)
        self._errors: tuple[type[Exception], ...] = (OSError, EOFError, *errors)
        self._in_place = self._stream is raw and stat.S_ISREG(status.st_mode)
        self._size = status.st_size
        self._position = raw.tell() if self._in_place else 0
        if self._in_place:
            self._place: IO[bytes] = raw
        else:
            self._place = spool_file(buffering=_PIECE)
        self._kept = 0
        self._window, self._at, self._ahead = b"", 0, _SHORT

    def __enter__(self) -> ArchiveStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._in_place:
            self._stream.close()

    def contents(self) -> FileContents:
        """What reads the data that was kept. Raises CowError."""
        try:
            self._place.flush()
        except OSError as error:
            raise _no_room(error) from error
        return FileContents(self._place)

    def ahead(self) -> tuple[bytes, int]:
        """What was read ahead, and where in it the next block begins; nothing at the end. `advance` passes over it."""
        if self._at == len(self._window):
            self._refill()
        return self._window, self._at

    @property
    def left(self) -> int:
        """How many bytes can be passed over: all there are if the archive is its own place, else what `ahead` gave."""
        return self._size - self._position if self._in_place else len(self._window) - self._at

    def advance(self, length: int, data: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """Passes over ``length`` bytes, at most what is `left`. What ``data`` names of it is kept: the places of the
        beginning and the end of each range in what `ahead` gave. Gives their positions in the contents.
        """
        first = np.array([begin for begin, _ in data], dtype=np.int64)
        if self._in_place:
            position = first + (self._position - self._at)
            self._move(length)
            return position
        position = self._kept + np.cumsum([0, *(end - begin for begin, end in data)])[:-1]
        self._keep(b"".join([self._window[begin:end] for begin, end in data]))
        self._at += length
        self._position += length
        return position

    def block(self) -> bytes | None:
        """The next block, None at the end. Raises BrokenArchive."""
        block = self._read(_BLOCK)
        if len(block) < _BLOCK:
            if block:
                raise BrokenArchive("the archive ends within a block")
            return None
        return block

    def data(self, length: int) -> bytes:
        """The next ``length`` bytes, which the caller bounds; the rest of the last block is skipped.

        Raises BrokenArchive.
        """
        data = self._read(length)
        if len(data) < length:
            raise BrokenArchive("the archive ends too early")
        self._read(-length % _BLOCK)
        return data

    def keep(self, length: int) -> int:
        """Takes in the next ``length`` bytes; gives their position in the contents. Raises BrokenArchive."""
        if self._in_place:
            position = self._position
            self.skip(length)
            return position
        for piece in self._pieces(length):
            self._keep(piece)
        return self._kept - length

    def _keep(self, data: bytes) -> None:
        try:
            self._place.write(data)
        except OSError as error:
            raise _no_room(error) from error
        self._kept += len(data)

    def skip(self, length: int) -> None:
        """Passes over the next ``length`` bytes. Raises BrokenArchive."""
        if not self._in_place:
            for _ in self._pieces(length):
                pass
            return
        if self._position + length > self._size:
            raise BrokenArchive("the archive ends too early")
        self._move(length + -length % _BLOCK)

    def _move(self, length: int) -> None:
        """Passes over bytes of an archive that is its own place."""
        self._position += length
        self._at += length
        beyond = self._at - len(self._window)
        if beyond > 0:
            self._stream.seek(self._position)
            self._window, self._at = b"", 0
            if beyond > self._ahead:
                self._ahead = _SHORT

    def drain(self) -> None:
        """Reads what follows the archive: whoever writes to a pipe may not expect that it breaks."""
        while not self._in_place and self._read(_PIECE):
            pass

    def _pieces(self, length: int) -> Iterator[bytes]:
        left = length
        while left:
            piece = self._read(min(left, _PIECE))
            if not piece:
                raise BrokenArchive("the archive ends too early")
            left -= len(piece)
            yield piece
        self._read(-length % _BLOCK)

    def _read(self, length: int) -> bytes:
        """Up to ``length`` bytes, fewer only at the end."""
        end = self._at + length
        data = self._window[self._at : end]
        while len(data) < length:
            self._refill()
            if not self._window:
                break
            end = length - len(data)
            data += self._window[:end]
        self._at = min(end, len(self._window))
        self._position += len(data)
        return data

    def _refill(self) -> None:
        """Reads on, further ahead every time: after a jump maybe only one header is wanted."""
        try:
            self._window, self._at = self._stream.read(self._ahead), 0
        except self._errors as error:
            raise CowError(f"{self.name}: cannot be read: {error}") from error
        self._ahead = min(2 * self._ahead, _PIECE)


def _no_room(error: OSError) -> CowError:
    return CowError(
        f"no room to keep the data of the archive: {error.strerror}",
        hint="TMPDIR says where it is kept; an archive that is not compressed, in a file, needs no room",
    )
