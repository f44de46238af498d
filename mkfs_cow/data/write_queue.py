"""Writes in flight: buffers that go to threads and complete in the order they were queued."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from cowlib.device import aligned_buffer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


class WriteQueue(Generic[T]):
    """A few buffers that are filled by the caller, worked on by threads, and completed in the order they started.

    A context manager: leaving it completes everything, or after an error calls off what has not begun.
    """

    def __init__(
        self, threads: int, buffers: int, nbytes: int, complete: Callable[[NDArray[np.uint8], T], None]
    ) -> None:
        """``complete`` is called on the caller's thread with the buffer and what its work gave."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="data")
        self._free = buffers
        self._nbytes = nbytes
        self._buffers: list[NDArray[np.uint8]] = []
        self._pending: deque[tuple[NDArray[np.uint8], Future[T]]] = deque()
        self._complete = complete

    def __enter__(self) -> WriteQueue[T]:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            while kind is None and self._pending:
                self._complete_one()
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._pending.clear()
            self._buffers.clear()

    def buffer(self) -> NDArray[np.uint8]:
        """A buffer to fill, of undefined content; waits for the oldest write if all are in use."""
        if not self._buffers:
            if self._free:
                self._free -= 1
                return aligned_buffer(self._nbytes)
            self._complete_one()
        return self._buffers.pop()

    def start(self, buffer: NDArray[np.uint8], work: Callable[..., T], *args: object) -> None:
        """Calls ``work(buffer, *args)`` on another thread."""
        self._pending.append((buffer, self._pool.submit(work, buffer, *args)))

    def _complete_one(self) -> None:
        buffer, future = self._pending.popleft()
        self._complete(buffer, future.result())
        self._buffers.append(buffer)
