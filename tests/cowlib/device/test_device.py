"""Reading and writing one device: any range, exclusive, with clear errors."""

from __future__ import annotations

import errno
import gc
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowlib.device import SECTOR_SIZE, Device, aligned_buffer, buffers, opening, scratch_buffer
from cowlib.errors import DeviceError, MountedError

SIZE = 10 * SECTOR_SIZE + 1234
CONTENT = np.random.default_rng(1).integers(0, 256, SIZE, np.uint8)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(CONTENT.tobytes())
    return path


@given(st.integers(0, SIZE), st.integers(0, SIZE))
def test_any_range_is_read(image: Path, a: int, b: int) -> None:
    start, end = sorted((a, b))
    with Device.open(image) as device:
        assert device.size == SIZE
        assert (device.read(start, end - start) == CONTENT[start:end]).all()


@given(st.data())
def test_any_range_is_written_and_nothing_else(image: Path, data: st.DataObject) -> None:
    expected = CONTENT.copy()
    image.write_bytes(CONTENT.tobytes())
    whole = SIZE - SIZE % SECTOR_SIZE
    with Device.open(image, write=True) as device:
        for _ in range(data.draw(st.integers(1, 4))):
            start, end = sorted(data.draw(st.tuples(st.integers(0, whole), st.integers(0, whole))))
            value = data.draw(st.integers(0, 255))
            new = np.full(end - start, value, np.uint8)
            expected[start:end] = new
            device.write(start, new.tobytes() if value % 2 else new)
        device.flush()
        assert (device.read(0, SIZE) == expected).all()
    assert image.stat().st_size == SIZE


def test_reading_into_a_buffer(image: Path) -> None:
    aligned = aligned_buffer(2 * SECTOR_SIZE)
    with Device.open(image) as device:
        device.read_into(SECTOR_SIZE, aligned)
        assert (aligned == CONTENT[SECTOR_SIZE : 3 * SECTOR_SIZE]).all()
        device.read_into(100, aligned[1:77])
    assert (aligned[1:77] == CONTENT[100:176]).all()
    assert aligned[0] == CONTENT[SECTOR_SIZE]
    assert aligned[77] == CONTENT[SECTOR_SIZE + 77]


def test_vectors_scatter_and_gather(image: Path) -> None:
    first, second = aligned_buffer(SECTOR_SIZE), aligned_buffer(2 * SECTOR_SIZE)
    with Device.open(image, write=True) as device:
        assert device.read_vector(0, [first.data, second.data]) == 3 * SECTOR_SIZE
        assert (np.concatenate([first, second]) == CONTENT[: 3 * SECTOR_SIZE]).all()
        device.write_vector(SECTOR_SIZE, [second.data, first.data])
        assert (device.read(SECTOR_SIZE, 3 * SECTOR_SIZE) == np.concatenate([second, first])).all()


def test_a_short_vector_write_is_finished(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = [np.full(3 * SECTOR_SIZE, value, np.uint8).tobytes() for value in (1, 2, 3)]
    written = os.pwritev

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        return written(fd, [memoryview(b"".join(buffers))[: 4 * SECTOR_SIZE + 512]], offset)

    monkeypatch.setattr(opening, "open_direct", lambda path, flags: (os.open(path, flags), False))
    monkeypatch.setattr(os, "pwritev", short)
    with Device.open(image, write=True) as device:
        device.write_vector(SECTOR_SIZE, [memoryview(view) for view in views])
        assert device.read(SECTOR_SIZE, 9 * SECTOR_SIZE).tobytes() == b"".join(views)


def test_what_cannot_be_opened_says_why(tmp_path: Path, image: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        Device.open(tmp_path / "nothing")
    with pytest.raises(DeviceError, match="is a directory") as directory:
        Device.open(tmp_path)
    assert directory.value.hint
    with pytest.raises(DeviceError, match="is a character device"):
        Device.open("/dev/null")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DeviceError, match="is a special file"):
        Device.open(tmp_path / "fifo")


def test_permission_denied_says_so(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refused)  # as root nothing is refused
    with pytest.raises(DeviceError, match="Permission denied") as denied:
        Device.open(image)
    assert "root" in str(denied.value.hint)


def test_ranges_outside_are_refused(image: Path) -> None:
    with Device.open(image, write=True) as device:
        for offset, length in ((SIZE, 1), (-1, 2), (0, SIZE + 1), (2**70, 1), (0, -1)):
            with pytest.raises(DeviceError, match="cannot read"):
                device.read(offset, length)
        with pytest.raises(DeviceError, match="last whole sector"):
            device.write(SIZE - 1, b"x")
        with pytest.raises(DeviceError, match="cannot write"):
            device.write(SIZE, b"x")
    with Device.open(image) as device, pytest.raises(DeviceError, match="reading only"):
        device.write(0, b"x")


def test_a_file_truncated_after_opening_is_an_error(image: Path) -> None:
    with Device.open(image) as device:
        os.truncate(image, 3 * SECTOR_SIZE + 5)
        assert (device.read(0, 3 * SECTOR_SIZE + 5) == CONTENT[: 3 * SECTOR_SIZE + 5]).all()
        for end in (3 * SECTOR_SIZE + 6, SIZE):
            with pytest.raises(DeviceError, match=f"ends at {3 * SECTOR_SIZE + 5}"):
                device.read(0, end)


def test_a_writer_is_alone(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        Device.open(image),
        Device.open(image),
        pytest.raises(MountedError, match="in use by another process"),
    ):
        Device.open(image, write=True)
    with Device.open(image, write=True):
        with pytest.raises(MountedError):
            Device.open(image, write=True)
        with caplog.at_level(logging.WARNING, "cowlib"), Device.open(image) as reader:
            assert reader.read(0, 1)[0] == CONTENT[0]
    assert "another process is writing" in caplog.text


def test_buffered_where_direct_is_refused(
    image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = os.open

    def no_direct(path: str, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return plain(path, flags)

    monkeypatch.setattr(os, "open", no_direct)
    monkeypatch.setattr(opening, "_said_buffered", set())
    with caplog.at_level(logging.WARNING, "cowlib"):
        for _ in range(2):
            with Device.open(image, write=True) as device:
                assert not device.direct
                device.write(5, b"hello")
                assert device.read(4, 7).tobytes() == CONTENT[4:5].tobytes() + b"hello" + CONTENT[10:11].tobytes()
    assert caplog.text.count("O_DIRECT") == 1


def test_a_file_in_memory() -> None:
    path = Path("/dev/shm") / f"cowtools-test-{os.getpid()}"
    if not os.access(path.parent, os.W_OK):
        pytest.skip("no /dev/shm")
    try:
        path.write_bytes(CONTENT.tobytes())
        with Device.open(path, write=True) as device:
            device.write(SECTOR_SIZE, bytes(SECTOR_SIZE))
            assert not device.read(SECTOR_SIZE, SECTOR_SIZE).any()
            assert (device.read(SIZE - 100, 100) == CONTENT[-100:]).all()
    finally:
        path.unlink()


def test_writers_of_one_sector_keep_each_others_bytes(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.preadv

    def slow_read(fd: int, buffers: list[memoryview], offset: int) -> int:
        time.sleep(0.0002)  # long enough for another writer to come between
        return read(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", slow_read)
    new = np.random.default_rng(2).integers(0, 256, 2 * SECTOR_SIZE, np.uint8)
    pieces = np.random.default_rng(3).permutation(len(new) // 64) * 64
    with Device.open(image, write=True) as device, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda at: device.write(at, new[at : at + 64]), pieces.tolist()))
        assert (device.read(0, len(new)) == new).all()
        assert (device.read(len(new), SIZE - len(new)) == CONTENT[len(new) :]).all()


def test_discard_makes_a_hole(image: Path) -> None:
    with Device.open(image, write=True) as device:
        if not device.discard(100, 5 * SECTOR_SIZE):
            pytest.skip("this filesystem makes no holes")
        expected = CONTENT.copy()
        expected[SECTOR_SIZE : 5 * SECTOR_SIZE] = 0
        assert (device.read(0, SIZE) == expected).all()
    assert image.stat().st_size == SIZE


@pytest.mark.oracle
def test_a_block_device(make_devices: Callable[[int, int], list[str]]) -> None:
    (path,) = make_devices(1, 1 << 20)
    with Device.open(path, write=True) as device:
        assert device.is_block
        assert device.size == 1 << 20
        device.write(12345, b"some bytes")
        device.flush()
        with pytest.raises(MountedError):
            Device.open(path, write=True)
        with Device.open(path) as reader:
            assert reader.read(12340, 20).tobytes() == b"\0" * 5 + b"some bytes" + b"\0" * 5
        if device.discard(0, 64 << 10):
            assert not device.read(0, 64 << 10).any()
    with pytest.raises(DeviceError):
        Device.open(path + "p77")


def test_aligned_buffers_are_zero_and_scratch_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_kept", [])
    first = scratch_buffer(300_000)
    assert first.ctypes.data % SECTOR_SIZE == 0
    address = first.ctypes.data
    first[:] = 7
    view = first[1000:2000].view(np.uint64)
    del first
    gc.collect()
    second = scratch_buffer(300_000)
    assert second.ctypes.data != address, "a view still uses that memory"
    del view
    gc.collect()
    third = scratch_buffer(300_000)
    assert third.ctypes.data == address
    assert not aligned_buffer(300_000).any()
