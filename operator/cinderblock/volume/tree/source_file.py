"""The content of one file of a tree that a backup reads."""

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
"""Bytes of the largest file that is read completely without looking for holes. This saves two system calls for most
files, and its zeros are found by comparing anyway."""


class SourceFile(Closeable):
    """The content of one file of a tree (a `content.SourceContent`).

    Attributes:
        entry: the file at the time of opening, even if it has changed since the walk.
    """

    def __init__(self, fd: int, entry: Entry, status: os.stat_result, *, is_settled: bool = True) -> None:
        self.entry = entry
        self._fd = fd
        self._status = status
        self._is_settled = is_settled

    @property
    def size(self) -> int:
        """Bytes at the time of opening."""
        return self.entry.size

    def data_ranges(self) -> Iterator[ByteRange]:
        """Yield the ranges that are not holes. A file of at most SMALL_FILE_BYTES, or without holes, is one range.

        Raises SourceError.
        """
        if self.size <= SMALL_FILE_BYTES or self._status.st_blocks * 512 >= self.size:
            if self.size:
                yield ByteRange(0, self.size)
            return
        try:
            yield from data_ranges(self._fd, 0, self.size)
        except OSError as error:
            raise object_error(error, "find the holes of", self.entry.path) from error

    def prefetch(self) -> None:
        """Let the kernel read ahead without waiting for it, so that many small files are read at once."""
        os.posix_fadvise(self._fd, 0, self.size, os.POSIX_FADV_WILLNEED)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``, and return the bytes read: fewer only at the end. Raises SourceError."""
        try:
            return read_dropping_cache(self._fd, offset, buffer)
        except OSError as error:
            raise object_error(error, "read", self.entry.path) from error

    @property
    def is_settled(self) -> bool:
        """Whether every change since the opening moves ctime; not for a file that is written in each clock tick."""
        return self._is_settled

    def has_changed(self) -> bool:
        """Return whether size, mtime or ctime have changed since the opening, so that the read content may be torn.

        Nobody can set ctime, so only the granularity of the file system's clock can hide a change: see `is_settled`.
        Raises SourceError.
        """
        try:
            now = os.fstat(self._fd)
        except OSError as error:
            raise object_error(error, "read", self.entry.path) from error
        return change_stamp(now) != change_stamp(self._status)

    @override
    def close(self) -> None:
        """Close the descriptor. May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
