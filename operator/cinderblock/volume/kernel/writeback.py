"""Writing back early: the disk begins while a restore goes on, not when it has ended.

The kernel keeps what was written in memory for up to 30 s, or until a tenth of it is dirty (vm.dirty_expire_centisecs,
vm.dirty_background_ratio): on a large node that is all of a volume, and the disk would stand still until the very end.
So may what lies below a device: the page cache of a loop device's file, the cache of a volume in a network.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from typing_extensions import override

from cinderblock.volume.closeable import Closeable

THREAD_NAME = "early-sync"
SYNC_INTERVAL_BYTES = 256 << 20
"""Bytes written between two beginnings. A tree of 1.7 GB in 124,000 files was on the disk after 8.8 to 9.8 s instead of
11.2 to 12.5 s; with 64 and 128 MiB it took as long."""


class BackgroundSync(Closeable):
    """Has what was written stored now and then, by a thread of its own; may be told by several threads.

    Errors are not told here: the descriptor is of an opening of its own, so that they are still there for who syncs in
    the end (fsync(2), syncfs(2): each opening is told once).

    Args:
        fd: taken over; an opening of its own of what is written.
        sync: stores all that was written to it. May raise OSError.
    """

    def __init__(self, fd: int, sync: Callable[[int], None]) -> None:
        self._fd = fd
        self._sync = sync
        self._lock = threading.Lock()
        self._written = 0
        self._thread: threading.Thread | None = None

    def add_written(self, count: int) -> None:
        """So many bytes more were written."""
        with self._lock:
            self._written += count
            if self._written < SYNC_INTERVAL_BYTES or (self._thread is not None and self._thread.is_alive()):
                return
            self._written = 0
            self._thread = threading.Thread(target=self._store, name=THREAD_NAME)
            self._thread.start()

    def _store(self) -> None:
        with contextlib.suppress(OSError):
            self._sync(self._fd)

    @override
    def close(self) -> None:
        """Wait for what was begun. May be repeated."""
        with self._lock:
            if self._thread is not None:
                self._thread.join()
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
