"""Parallel writes that bypass the page cache, because nobody reads the restored data soon.

Measured with 1.3 GiB in pieces of 1 MiB on ext4: 0.1 s of kernel time instead of 1.1 s, and the disk starts at once.
The data also does not count as memory of the mover's pod, which the kernel would slow down for its dirty pages.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Self

from typing_extensions import override

from cinderblock.errors import TargetError
from cinderblock.format.range_reader import Buffer
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.kernel.file_io import write_dropping_cache

ALIGNMENT = max(4096, mmap.PAGESIZE)
"""Required alignment of offset, length and address: the largest block size of disks (open(2)), and at least a page, so
that no page is written directly and through the cache at once."""
MIN_DIRECT_BYTES = 64 << 10
"""Bytes of the smallest direct write. The kernel merges smaller writes."""
PARALLEL_WRITES = 8
"""Concurrent writes. A network volume answers after some milliseconds: 8 MiB in 10 ms are 800 MiB/s."""
PIECE_BYTES = 1 << 20
"""Most bytes of one write. PARALLEL_WRITES of them take 8 MiB of memory."""

MakeError = Callable[[OSError, int], TargetError]
"""Makes a TargetError from the kernel's error of a write and the offset of the write."""


class WriterThreads(Closeable):
    """Threads that write, with memory for one write each. All files of a target share them."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(PARALLEL_WRITES, "write")
        self._free: SimpleQueue[mmap.mmap] = SimpleQueue()
        for _ in range(PARALLEL_WRITES):
            self._free.put(mmap.mmap(-1, PIECE_BYTES))

    def submit(self, piece: memoryview, write: Callable[[memoryview], None]) -> None:
        """Copy ``piece``, and let a thread write it as soon as one is free."""
        memory = self._free.get()
        memory[: len(piece)] = piece
        self._pool.submit(self._run, memory, len(piece), write)

    def _run(self, memory: mmap.mmap, length: int, write: Callable[[memoryview], None]) -> None:
        try:
            with memoryview(memory) as view, view[:length] as piece:
                write(piece)
        finally:
            self._free.put(memory)

    @override
    def close(self) -> None:
        """Wait for submitted writes. May be repeated."""
        self._pool.shutdown(wait=True)


class DirectFile(Closeable):
    """A file or device that is written past the page cache. Several threads may use it.

    A write continues after its call has returned. Its error is raised by the next call, or by `finish`.
    """

    def __init__(self, direct: int, buffered: int, writers: WriterThreads, on_rejected: MakeError) -> None:
        self._fd = direct
        self._buffered = buffered
        self._writers = writers
        self._on_rejected = on_rejected
        self._changed = threading.Condition()
        self._in_flight = 0
        self._failure: TargetError | None = None

    @classmethod
    def open(cls, fd: int, writers: WriterThreads, on_rejected: MakeError) -> Self | None:
        """Open the file of ``fd`` again for direct writes; None if the file system does not support them.

        ``fd`` still belongs to the caller.
        """
        try:
            # No O_EXCL: ``fd`` holds the exclusive claim to a device.
            direct = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            return None
        return cls(direct, fd, writers, on_rejected)

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``. The caller may reuse its memory after the call.

        This waits while PARALLEL_WRITES are in flight. Unaligned or short data is written through the cache. Raises the
        error of an earlier write, or of this one.
        """
        view = memoryview(data)
        length = 0 if offset % ALIGNMENT or len(view) < MIN_DIRECT_BYTES else len(view) - len(view) % ALIGNMENT
        for start in range(0, length, PIECE_BYTES):
            with self._changed:
                self._raise_failure()
                self._in_flight += 1
            piece = view[start : min(start + PIECE_BYTES, length)]
            self._writers.submit(piece, partial(self._store, offset + start))
        if length < len(view):
            try:
                write_dropping_cache(self._buffered, offset + length, view[length:])
            except OSError as error:
                raise self._on_rejected(error, offset + length) from error

    def finish(self) -> None:
        """Wait until all writes have ended, and raise their first error. They may still be in the disk's own cache."""
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight)
            self._raise_failure()

    @override
    def close(self) -> None:
        """Wait for writes in flight, and close the descriptor. May be repeated."""
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _store(self, offset: int, piece: memoryview) -> None:
        failure = None
        try:
            self._write_all(offset, piece)
        except OSError as error:
            failure = self._on_rejected(error, offset)
        finally:
            with self._changed:
                self._failure = self._failure or failure
                self._in_flight -= 1
                self._changed.notify_all()

    def _write_all(self, offset: int, piece: memoryview) -> None:
        """Write a piece. If the file system rejects a direct write, write the rest of it through the cache."""
        fd, done = self._fd, 0
        while done < len(piece):
            try:
                done += os.pwrite(fd, piece[done:], offset + done)
            except OSError as error:
                if fd == self._buffered or error.errno != errno.EINVAL:
                    raise
                fd = self._buffered

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
