"""Inline data comes back from wherever it was put."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from cowlib.errors import CowError
from mkfs_cow.data import inline
from mkfs_cow.data.inline import InlineData, Spool

MEMORY = 1000


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    monkeypatch.setattr(inline, "_MEMORY", MEMORY)
    chance = random.Random(1)
    return [chance.randbytes(chance.randrange(1, 400)) for _ in range(100)]


def put(pieces: list[bytes]) -> tuple[Spool, InlineData]:
    spool = Spool()
    start = np.array([spool.append(piece) for piece in pieces], dtype=np.int64)
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    return spool, InlineData([spool], np.zeros(len(pieces), np.uint16), start, lengths)


def read(data: InlineData, rows: list[int]) -> list[bytes]:
    buffer, start, length = data.read(np.array(rows, dtype=np.int64))
    return [buffer[a : a + n].tobytes() for a, n in zip(start.tolist(), length.tolist(), strict=True)]


def test_in_any_order(pieces: list[bytes]) -> None:
    spool, data = put(pieces)
    assert spool._flushed >= sum(map(len, pieces)) - MEMORY  # what is above the limit is in a file
    rows = random.Random(2).sample(range(len(pieces)), len(pieces))
    assert read(data, rows) == [pieces[row] for row in rows]
    assert read(data, []) == []
    assert [data[row] for row in (0, 50, 99)] == [pieces[row] for row in (0, 50, 99)]


def test_no_temporary_file(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then memory has to do."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    spool, data = put(pieces)
    assert (spool._flushed, len(spool._tail)) == (0, sum(map(len, pieces)))
    assert read(data, list(range(len(pieces)))) == pieces


def test_the_disk_becomes_full(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written stays where it is, also the part of a write that still had room; the rest stays in memory."""
    room = 5 * MEMORY + 17
    write = os.pwrite

    def pwrite(fd: int, data: bytearray, position: int) -> int:
        if position >= room:
            raise OSError(28, "No space left on device")
        return write(fd, data[: room - position], position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    spool, data = put(pieces)
    assert spool._flushed == room
    assert read(data, list(range(len(pieces)))) == pieces


def test_what_became_shorter_is_told(pieces: list[bytes]) -> None:
    spool, data = put(pieces)
    assert spool._file is not None
    spool._file.truncate(10)
    with pytest.raises(CowError, match="temporary file: became shorter while it was read"):
        data.read(np.arange(len(pieces)))
