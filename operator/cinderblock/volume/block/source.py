"""The content of a block device that a backup reads."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from typing_extensions import override

from cinderblock.errors import SourceError
from cinderblock.format.entries import ByteRange
from cinderblock.volume.block.geometry import is_device_or_image, size_in_bytes
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.errors import format_path, source_error
from cinderblock.volume.kernel.file_io import data_ranges, read_dropping_cache
from cinderblock.volume.timestamps import change_stamp, fstat_settled


class BlockSource(Closeable):
    """A volume of mode Block (a `content.SourceContent`)."""

    def __init__(self, path: str | bytes) -> None:
        """Open a device or image for reading. Raises SourceError, also for a device without a medium."""
        self._path = os.fsencode(path)
        self._fd = -1
        try:
            self._open(path)
        except OSError as error:
            self.close()
            raise source_error(error, "open", self._path) from error
        if not self._size and stat.S_ISBLK(self._opened.st_mode):
            self.close()
            raise source_error(OSError(errno.ENOMEDIUM, ""), "read", self._path)

    def _open(self, path: str | bytes) -> None:
        if not is_device_or_image(os.stat(path)):
            raise SourceError(f"{format_path(self._path)} is not a block device: check the volume's mode")
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._opened, self._is_settled = fstat_settled(self._fd)
        self._size = size_in_bytes(self._fd, self._opened)

    @property
    def size(self) -> int:
        """Bytes of the device."""
        return self._size

    def data_ranges(self) -> Iterator[ByteRange]:
        """Yield the ranges of an image that are not holes; a device is one range. Raises SourceError."""
        try:
            yield from data_ranges(self._fd, 0, self._size)
        except OSError as error:
            raise source_error(error, "find the holes of", self._path) from error

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``, and return the bytes read: fewer only at the end. Raises SourceError."""
        try:
            return read_dropping_cache(self._fd, offset, buffer)
        except OSError as error:
            raise source_error(error, f"read at byte {offset} of", self._path) from error

    @property
    def is_settled(self) -> bool:
        """Whether every change of an image since the opening moves its ctime. A device has no such ctime."""
        return self._is_settled or not stat.S_ISREG(self._opened.st_mode)

    def has_changed(self) -> bool:
        """Return whether an image was written since the opening.

        A device does not show writes, so it must be a snapshot or unattached. Raises SourceError.
        """
        if not stat.S_ISREG(self._opened.st_mode):
            return False
        try:
            now = os.fstat(self._fd)
        except OSError as error:
            raise source_error(error, "read", self._path) from error
        return change_stamp(now) != change_stamp(self._opened)

    @override
    def close(self) -> None:
        """Close the descriptor. May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
