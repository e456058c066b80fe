"""The content of a block device that a backup reads."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from typing_extensions import override

from cinderblock.errors import SourceError
from cinderblock.volume.block.target import _holds_blocks, _size_of, _stamp
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.errors import format_path, source_error
from cinderblock.volume.kernel.file_io import (
    data_ranges,
    read_dropping_cache,
)
from cinderblock.volume.ranges import DataRange
from cinderblock.volume.timestamps import fstat_settled


class BlockSource(Closeable):
    """A volume of mode Block (a `content.SourceContent`)."""

    def __init__(self, path: str | bytes) -> None:
        """Open a device or image for reading. Raises SourceError, also for a device without a medium."""
        self._path = os.fsencode(path)
        try:
            status = os.stat(path)
            if not _holds_blocks(status):
                raise SourceError(f"{format_path(self._path)} is no block device: check the volume's mode")
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._opened, self._is_settled = fstat_settled(self._fd)
            self._size = _size_of(self._fd, self._opened)
        except OSError as error:
            raise source_error(error, "open", self._path) from error
        if not self._size and stat.S_ISBLK(status.st_mode):
            self.close()
            raise source_error(OSError(errno.ENOMEDIUM, ""), "read", self._path)

    @property
    def size(self) -> int:
        """Bytes of the device."""
        return self._size

    def data_ranges(self) -> Iterator[DataRange]:
        """Of an image the ranges that are no holes; a device is one range. Raises SourceError."""
        try:
            yield from data_ranges(self._fd, 0, self._size)
        except OSError as error:
            raise source_error(error, "find the holes of", self._path) from error

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``; fewer bytes come back only at the end. Raises SourceError."""
        try:
            return read_dropping_cache(self._fd, offset, buffer)
        except OSError as error:
            raise source_error(error, f"read at byte {offset} of", self._path) from error

    @property
    def is_settled(self) -> bool:
        """Whether every change of an image from the opening on moves its ctime; a device has no ctime to go by."""
        return self._is_settled or not stat.S_ISREG(self._opened.st_mode)

    def has_changed(self) -> bool:
        """Whether an image was written meanwhile; a device does not tell, it must be a snapshot or unattached."""
        if not stat.S_ISREG(self._opened.st_mode):
            return False
        try:
            now = os.fstat(self._fd)
        except OSError as error:
            raise source_error(error, "read", self._path) from error
        return _stamp(now) != _stamp(self._opened)

    @override
    def close(self) -> None:
        """Give up the descriptor. May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
