"""The content of one file of a tree that is backed up."""

from __future__ import annotations

import os
from collections.abc import Iterator

from typing_extensions import override

from cinderblock.format.entries import ByteRange, Entry
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.errors import object_error
from cinderblock.volume.kernel.file_io import data_ranges, read_dropping_cache
from cinderblock.volume.timestamps import change_stamp

SMALL_FILE_BYTES = 64 << 10
"""Bytes up to which a file is read whole without asking for its holes: two system calls less for most files, and its
zeros are found by comparing anyway."""


class SourceFile(Closeable):
    """The content of one file of a tree (a `content.SourceContent`).

    Attributes:
        entry: the file as it was when it was opened; of a file that changed since the walk, its new state.
    """

    def __init__(self, fd: int, entry: Entry, status: os.stat_result, *, is_settled: bool = True) -> None:
        self.entry = entry
        self._fd = fd
        self._status = status
        self._is_settled = is_settled

    @property
    def size(self) -> int:
        """Bytes when it was opened."""
        return self.entry.size

    def data_ranges(self) -> Iterator[ByteRange]:
        """Ranges that are no holes. A file of SMALL_FILE bytes at most, or without holes, is one range."""
        if self.size <= SMALL_FILE_BYTES or self._status.st_blocks * 512 >= self.size:
            if self.size:
                yield ByteRange(0, self.size)
            return
        try:
            yield from data_ranges(self._fd, 0, self.size)
        except OSError as error:
            raise object_error(error, "find the holes of", self.entry.path) from error

    def prefetch(self) -> None:
        """Have the kernel read the content ahead, without waiting for it: many small files are then read at once."""
        os.posix_fadvise(self._fd, 0, self.size, os.POSIX_FADV_WILLNEED)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``; fewer bytes come back only where the file ends. Raises SourceError."""
        try:
            return read_dropping_cache(self._fd, offset, buffer)
        except OSError as error:
            raise object_error(error, "read", self.entry.path) from error

    @property
    def is_settled(self) -> bool:
        """Whether every change from the opening on moves ctime; not of a file that is written in each tick of it."""
        return self._is_settled

    def has_changed(self) -> bool:
        """Whether size, mtime or ctime are others than when the file was opened: what was read may be torn.

        ctime cannot be set by anybody, so a change hides only in the granularity of the file system's clock: see
        `is_settled`. Raises SourceError.
        """
        try:
            now = os.fstat(self._fd)
        except OSError as error:
            raise object_error(error, "read", self.entry.path) from error
        return change_stamp(now) != change_stamp(self._status)

    @override
    def close(self) -> None:
        """Give up the descriptor. May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
