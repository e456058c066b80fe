"""The content of one file of a tree that a restore writes."""

from __future__ import annotations

import os
from collections.abc import Callable

from typing_extensions import override

from cinderblock.errors import TargetError
from cinderblock.format.entries import Entry
from cinderblock.format.range_reader import Buffer
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.errors import target_error
from cinderblock.volume.kernel.direct_io import DirectFile, WriterThreads
from cinderblock.volume.kernel.file_io import clear_file, read_full, write_dropping_cache
from cinderblock.volume.metadata_support import MetadataLosses
from cinderblock.volume.tree import metadata

LARGE_FILE_BYTES = 1 << 20
"""Bytes of the smallest file that is written past the page cache."""
OPEN_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def make_file(directory: int, name: bytes) -> int:
    """Create a file that must not exist, and return its descriptor. Raises OSError."""
    return os.open(name, OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)


class TargetFile(Closeable):
    """The content of one file of a tree (a `content.TargetContent`).

    It uses only its own descriptor. So any thread may fill and finish it, even after its directory is done.

    Attributes:
        entry: the entry of the file.
    """

    def __init__(
        self,
        fd: int,
        entry: Entry,
        *,
        is_new: bool,
        losses: MetadataLosses,
        on_finish: Callable[[], None],
        writers: WriterThreads | None = None,
    ) -> None:
        """Take ownership of ``fd``, open for reading and writing. Raises OSError if the file cannot be shortened.

        Args:
            fd: the open file.
            entry: the entry of the file.
            is_new: whether it was just created.
            losses: counts metadata that cannot be kept.
            on_finish: called when the file is finished.
            writers: write large files past the page cache; None disables this.
        """
        self.entry = entry
        self._fd = fd
        self._is_new = is_new
        self._losses = losses
        self._on_finish = on_finish
        present = 0 if is_new else os.fstat(fd).st_size
        self._is_blank = present == 0
        if present > entry.size:
            os.ftruncate(fd, entry.size)
        self._direct = None
        if writers is not None and entry.size >= LARGE_FILE_BYTES:
            if self._is_blank:
                # The kernel serializes writes after the end of a file.
                os.ftruncate(fd, entry.size)
            self._direct = DirectFile.open(fd, writers, self._write_error)

    @property
    def size(self) -> int:
        """Final size of the file in bytes."""
        return self.entry.size

    @property
    def is_blank(self) -> bool:
        """Whether the file was new or empty when it was opened, so that there is nothing to compare or to clear."""
        return self._is_blank

    def prefetch(self) -> None:
        """Let the kernel read ahead without waiting for it, so that many small files are read at once."""
        os.posix_fadvise(self._fd, 0, self.size, os.POSIX_FADV_WILLNEED)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read the current content, and return the bytes read: fewer only at the end. Raises TargetError."""
        try:
            return read_full(self._fd, offset, buffer)
        except OSError as error:
            raise target_error(error, "read", self.entry.path) from error

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``. Raises TargetError, also for an earlier write."""
        if self._direct is not None:
            self._direct.write(offset, data)
            return
        try:
            write_dropping_cache(self._fd, offset, data)
        except OSError as error:
            raise self._write_error(error, offset) from error

    def clear(self, offset: int, length: int) -> None:
        """Make a range a hole, unless it is one already. Raises TargetError."""
        if self._is_blank:
            return
        try:
            clear_file(self._fd, offset, length)
        except OSError as error:
            raise target_error(error, "make a hole in", self.entry.path) from error

    def finish(self) -> None:
        """Set size, owner, mode, extended attributes and mtime, and close the file. Raises TargetError."""
        self._end_direct()
        try:
            status = os.fstat(self._fd)
            if status.st_size != self.size:
                os.ftruncate(self._fd, self.size)
                status = os.fstat(self._fd)
            metadata.apply_metadata(self._fd, self.entry, is_new=self._is_new, losses=self._losses, status=status)
            fd, self._fd = self._fd, -1
            os.close(fd)
        except OSError as error:
            raise target_error(error, "finish", self.entry.path) from error
        self._on_finish()

    @override
    def close(self) -> None:
        """Close the descriptor without finishing. Does nothing after ``finish``. May be repeated."""
        if self._direct is not None:
            self._direct.close()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _end_direct(self) -> None:
        """Wait for writes in flight, because they would change attributes. Raises TargetError."""
        if self._direct is not None:
            with self._direct as direct:
                direct.finish()

    def _write_error(self, error: OSError, _: int) -> TargetError:
        return target_error(error, "write", self.entry.path)
