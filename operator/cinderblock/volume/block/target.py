"""The content of a block device that a restore writes."""

from __future__ import annotations

import errno
import os
import stat

from typing_extensions import override

from cinderblock.errors import TargetError
from cinderblock.format.range_reader import Buffer
from cinderblock.volume.block.geometry import is_device_or_image, size_in_bytes
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.errors import format_path, target_error
from cinderblock.volume.kernel.direct_io import DirectFile, WriterThreads
from cinderblock.volume.kernel.file_io import (
    clear_file,
    data_ranges,
    read_full,
    scan_nonzero,
    write_dropping_cache,
    write_zeros,
)
from cinderblock.volume.kernel.syscalls import device_block_size, is_read_only, punch_hole, zero_out
from cinderblock.volume.kernel.writeback import BackgroundSync


class BlockTarget(Closeable):
    """A volume of mode Block that a restore makes equal to a backup (a `content.TargetContent`).

    Attributes:
        capacity: bytes of the device. Bytes beyond ``size`` are unchanged unless the caller clears them.
    """

    def __init__(self, path: str | bytes, size: int) -> None:
        """Open a device or image to write ``size`` bytes to it. A device that is mounted or read-only is refused.

        Raises TargetError, also if it is smaller than ``size``.
        """
        self._path = os.fsencode(path)
        self._size = size
        self._fd = -1
        self._direct: DirectFile | None = None
        self._background_sync: BackgroundSync | None = None
        self._writers = WriterThreads()
        try:
            self._open(path)
        except OSError as error:
            self.close()
            raise target_error(error, "open", self._path) from error
        except TargetError:
            self.close()
            raise

    def _open(self, path: str | bytes) -> None:
        status = os.stat(path)
        if not is_device_or_image(status):
            raise TargetError(f"{format_path(self._path)} is not a block device: check the volume's mode")
        self._is_device = stat.S_ISBLK(status.st_mode)
        # Without O_CREAT, O_EXCL makes the kernel refuse a block device that is in use (open(2)).
        exclusive = os.O_EXCL if self._is_device else 0
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusive)
        if self._is_device:
            _refuse_read_only(self._fd)
        self.capacity = size_in_bytes(self._fd, status)
        if self.capacity < self._size:
            raise TargetError(
                f"the target has {self.capacity} bytes and the backup {self._size}: restore to a larger volume "
                f"({format_path(self._path)})"
            )
        self._block_bytes = device_block_size(self._fd) if self._is_device else 1
        # Not by st_blocks, which FUSE file systems may leave at zero.
        self._is_blank = not self._is_device and next(data_ranges(self._fd, 0, self.capacity), None) is None
        self._background_sync = BackgroundSync(os.open(path, os.O_RDONLY | os.O_CLOEXEC), os.fdatasync)
        self._direct = DirectFile.open(self._fd, self._writers, self._write_error)

    @property
    def size(self) -> int:
        """Bytes of the backup."""
        return self._size

    @property
    def is_blank(self) -> bool:
        """Whether it is an image without any data. A device never counts as blank."""
        return self._is_blank

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read the current content. Raises TargetError."""
        try:
            return read_full(self._fd, offset, buffer)
        except OSError as error:
            raise target_error(error, f"read at byte {offset} of", self._path) from error

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``. Raises TargetError, also for an earlier write."""
        if self._direct is not None:
            self._direct.write(offset, data)
        else:
            try:
                write_dropping_cache(self._fd, offset, data)
            except OSError as error:
                raise self._write_error(error, offset) from error
        if self._background_sync is not None:
            self._background_sync.add_written(len(data))

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros.

        In an image it becomes a hole. On a device only the parts that are not zero are written, so that a thin device
        stays thin; this reads the whole range. Raises TargetError.
        """
        if self._is_blank:
            return
        try:
            if not self._is_device:
                clear_file(self._fd, offset, length)
                return
            for start, count in scan_nonzero(self._fd, offset, length):
                self._clear_blocks(start, count)
        except OSError as error:
            raise target_error(error, f"clear at byte {offset} of", self._path) from error

    def finish(self) -> None:
        """Wait until all data is on the device, and close it. Raises TargetError, also for an earlier write."""
        if self._direct is not None:
            self._direct.finish()
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise target_error(error, "store", self._path) from error
        self.close()

    @override
    def close(self) -> None:
        """Close the descriptors without waiting for the disk. May be repeated."""
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        self._writers.close()
        if self._background_sync is not None:
            self._background_sync.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write_error(self, error: OSError, offset: int) -> TargetError:
        return target_error(error, f"write at byte {offset} of", self._path)

    def _clear_blocks(self, offset: int, length: int) -> None:
        """Let the device clear its whole blocks. Write zeros to the rest, or to all if the device cannot clear."""
        first = -(-offset // self._block_bytes) * self._block_bytes
        last = (offset + length) // self._block_bytes * self._block_bytes
        if first >= last or not (punch_hole(self._fd, first, last - first) or zero_out(self._fd, first, last - first)):
            write_zeros(self._fd, offset, length)
            return
        write_zeros(self._fd, offset, first - offset)
        write_zeros(self._fd, last, offset + length - last)


def _refuse_read_only(fd: int) -> None:
    """Raise OSError for a read-only device, which the kernel opens for writing without an error."""
    if is_read_only(fd):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
