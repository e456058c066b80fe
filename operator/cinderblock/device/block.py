"""A block device, or a regular file that holds the image of one: what a backup reads and a restore writes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from typing_extensions import override

from cinderblock.device.closing import Closing
from cinderblock.device.content import Data
from cinderblock.device.descriptors import (
    clear_file,
    data_ranges,
    nonzero_ranges,
    read_and_forget,
    read_full,
    write_and_forget,
    write_zeros,
)
from cinderblock.device.direct import DirectFile, Writers
from cinderblock.device.early import EarlyWriting
from cinderblock.device.ranges import DataRange
from cinderblock.device.refusals import printable, source_error, target_error
from cinderblock.device.stamps import settled_status
from cinderblock.device.syscalls import device_block_size, device_size, is_read_only, punch_hole, zero_out
from cinderblock.errors import SourceError, TargetError


class BlockSource(Closing):
    """A volume of mode Block (a `content.SourceContent`)."""

    def __init__(self, path: str | bytes) -> None:
        """Open a device or image for reading. Raises SourceError, also for a device without a medium."""
        self._path = os.fsencode(path)
        try:
            status = os.stat(path)
            if not _holds_blocks(status):
                raise SourceError(f"{printable(self._path)} is no block device: check the volume's mode")
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._opened, self._is_settled = settled_status(self._fd)
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
            return read_and_forget(self._fd, offset, buffer)
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


class BlockTarget(Closing):
    """A volume of mode Block that becomes equal to a backup (a `content.TargetContent`).

    Attributes:
        capacity: bytes of the device; what lies beyond ``size`` is left as it is, unless the caller clears it.
    """

    def __init__(self, path: str | bytes, size: int) -> None:
        """Open a device or image for writing ``size`` bytes; a device that is mounted or read-only is refused.

        Raises TargetError, also if it is smaller than ``size``.
        """
        self._path = os.fsencode(path)
        self._size = size
        self._direct: DirectFile | None = None
        self._early: EarlyWriting | None = None
        self._writers = Writers()
        try:
            status = os.stat(path)
            if not _holds_blocks(status):
                raise TargetError(f"{printable(self._path)} is no block device: check the volume's mode")
            # Without O_CREAT, O_EXCL makes the kernel refuse a block device that is in use (open(2)).
            exclusive = os.O_EXCL if stat.S_ISBLK(status.st_mode) else 0
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusive)
        except OSError as error:
            raise target_error(error, "open", self._path) from error
        self._is_device = stat.S_ISBLK(status.st_mode)
        try:
            if self._is_device:
                _refuse_read_only(self._fd)
            self.capacity = _size_of(self._fd, status)
            self._block = device_block_size(self._fd) if self._is_device else 1
            self._early = EarlyWriting(os.open(path, os.O_RDONLY | os.O_CLOEXEC), os.fdatasync)
            # Not by st_blocks, which file systems of FUSE may leave at zero.
            self._is_blank = not self._is_device and next(data_ranges(self._fd, 0, self.capacity), None) is None
        except OSError as error:
            self.close()
            raise target_error(error, "open", self._path) from error
        if self.capacity < size:
            self.close()
            raise TargetError(
                f"the target has {self.capacity} bytes and the backup {size}: restore to a larger volume "
                f"({printable(self._path)})"
            )
        self._direct = DirectFile.open(self._fd, self._writers, self._write_error)

    @property
    def size(self) -> int:
        """Bytes of the backup."""
        return self._size

    @property
    def is_blank(self) -> bool:
        """Whether it is an image without any data; of a device that is not known."""
        return self._is_blank

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """What is there now. Raises TargetError."""
        try:
            return read_full(self._fd, offset, buffer)
        except OSError as error:
            raise target_error(error, f"read at byte {offset} of", self._path) from error

    def write(self, offset: int, data: Data) -> None:
        """Put ``data`` at ``offset``. Raises TargetError, also of an earlier write."""
        if self._direct is not None:
            self._direct.write(offset, data)
        else:
            try:
                write_and_forget(self._fd, offset, data)
            except OSError as error:
                raise self._write_error(error, offset) from error
        if self._early is not None:
            self._early.wrote(len(data))

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros: of an image a hole; of a device only what is not zero is written, so that a
        thin device stays thin.

        Reads all of the range of a device. Raises TargetError.
        """
        if self._is_blank:
            return
        try:
            if not self._is_device:
                clear_file(self._fd, offset, length)
                return
            for start, count in nonzero_ranges(self._fd, offset, length):
                self._clear_blocks(start, count)
        except OSError as error:
            raise target_error(error, f"clear at byte {offset} of", self._path) from error

    def finish(self) -> None:
        """Wait until all is on the device, and close it. Raises TargetError: an error of a write may show only here."""
        if self._direct is not None:
            self._direct.finish()
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise target_error(error, "store", self._path) from error
        self.close()

    @override
    def close(self) -> None:
        """Give up the descriptors without waiting for the disk. May be repeated."""
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        self._writers.close()
        if self._early is not None:
            self._early.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write_error(self, error: OSError, offset: int) -> TargetError:
        return target_error(error, f"write at byte {offset} of", self._path)

    def _clear_blocks(self, offset: int, length: int) -> None:
        """Zeros by the device itself for whole blocks of it, by writing for the rest and where the device cannot."""
        first = -(-offset // self._block) * self._block
        last = (offset + length) // self._block * self._block
        if first >= last or not (punch_hole(self._fd, first, last - first) or zero_out(self._fd, first, last - first)):
            write_zeros(self._fd, offset, length)
            return
        write_zeros(self._fd, offset, first - offset)
        write_zeros(self._fd, last, offset + length - last)


def _holds_blocks(status: os.stat_result) -> bool:
    return stat.S_ISBLK(status.st_mode) or stat.S_ISREG(status.st_mode)


def _refuse_read_only(fd: int) -> None:
    """Raises OSError for a device that takes no writes: it can be opened for them all the same."""
    if is_read_only(fd):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def _size_of(fd: int, status: os.stat_result) -> int:
    return device_size(fd) if stat.S_ISBLK(status.st_mode) else status.st_size


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
