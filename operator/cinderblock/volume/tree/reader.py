"""A file tree that a backup reads: the walk, and the content of files."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

from typing_extensions import override

from cinderblock.api.file_policies import Unreadable
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.errors import (
    directories_moved,
    is_concurrent_change,
    object_error,
    source_error,
    source_vanished,
    walk_error,
)
from cinderblock.volume.kernel.syscalls import sync_file_system
from cinderblock.volume.metadata_support import MetadataSupport
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.timestamps import change_stamp, fstat_settled
from cinderblock.volume.tree.dirfd import DirectoryStack, open_root, parts_of, proc_path, sorted_names
from cinderblock.volume.tree.metadata import MAX_XATTR_BYTES, read_xattrs
from cinderblock.volume.tree.rows import TYPE, Rows, StatFields, make_entry
from cinderblock.volume.tree.source_file import SourceFile
from cinderblock.volume.tree.walk import SkippedObjects, TreeWalk
from cinderblock.volume.tree.whiteouts import Whiteouts
from cinderblock.volume.workers.walk_process import WalkProcess, is_worthwhile

logger = logging.getLogger(__name__)

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK: a file that was replaced by a FIFO must not make the backup wait for a writer."""


class ParentRows(Protocol):
    """The rows of the parent backup. Calls follow the order of the walk; matching rows need no entry."""

    def match_rows(self, rows: Rows, start: int) -> int:
        """Reuse the rows from ``start`` that are unchanged, and return their number."""


class TreeReader(Closeable):
    """A volume of mode Filesystem that a backup reads.

    Attributes:
        skipped: objects that were skipped so far.
        omissions: unreadable objects that were left out so far.
        whiteouts: character devices 0/0 found so far, by which an overlay marks removed names.
    """

    def __init__(self, root: str | bytes, unreadable: Unreadable = Unreadable.FAIL) -> None:
        """Open the directory ``root``. Raises SourceError."""
        try:
            self._root = open_root(root)
        except OSError as error:
            raise source_error(error, "open", os.fsencode(root)) from error
        self.skipped = SkippedObjects()
        self.omissions = Omissions(unreadable)
        self.whiteouts = Whiteouts()
        self._stack = DirectoryStack(self._root)
        self._parent = b""
        self._lock = threading.Lock()
        self._no_atime = os.O_NOATIME
        self._adds_attributes = False
        self._gone: set[bytes] = set()
        self._walk_process: WalkProcess | None = None

    def sync(self) -> str | None:
        """Write all changes of the file system to its storage. Return a warning if that failed."""
        try:
            sync_file_system(self._root)
        except OSError as error:
            return (
                f"Cannot sync the file system before it is read: {error.strerror}. Changes through memory mappings may "
                "not have moved a timestamp, so the next incremental backup reads all files."
            )
        return None

    def begin_walk(self) -> None:
        """Start the next walk in another process, if there is a processor for it. May be repeated."""
        if self._walk_process is not None or not is_worthwhile():
            return
        try:
            self._walk_process = WalkProcess(self._root, self.omissions.unreadable)
        except OSError as error:
            logger.warning("Walked and read the volume in one process: cannot start another (%s)", error.strerror)

    def walk(self) -> Iterator[Entry]:
        """Yield every entry without extents: the root first, then in the order of `entries.order_key`.

        The first name of an inode with several names is a FILE (or another kind); further names are HARDLINKs to it
        without attributes of their own. Raises SourceError; SourceChanging if directories are moved during the walk.
        """
        return (entry for entry in self.walk_since(None) if entry is not None)

    def walk_since(self, parent: ParentRows | None, *, opens_all: bool = False) -> Iterator[Entry | None]:
        """Yield the entries of `walk` except those that ``parent`` reuses. Yield None now and then, after reuse.

        Raises the errors of `walk`.

        Args:
            parent: rows of the parent backup; None: there is no parent.
            opens_all: whether the caller opens every FILE that is not empty. Its entry then comes without extended
                attributes, and `open_file` adds them. Reading them by name takes 3.6 microseconds a file, twice as long
                as stat; by descriptor 0.3.
        """
        self._adds_attributes = opens_all
        self._gone.clear()
        return self._entries(self._rows(), parent)

    def open_file(self, entry: Entry) -> SourceFile:
        """Open a FILE of the walk for reading. Several threads may call it; the order of the walk is fastest.

        Raises SourceError; SourceChanging with reason `volume.errors.VANISHED` if the file no longer exists.
        """
        try:
            fd = self._open(entry.path)
        except OSError as error:
            if is_concurrent_change(error):
                raise source_vanished(entry.path) from error
            raise object_error(error, "open", entry.path) from error
        try:
            return self._opened(fd, entry)
        except OSError as error:
            os.close(fd)
            raise object_error(error, "read", entry.path) from error
        except BaseException:
            os.close(fd)
            raise

    def finish(self) -> None:
        """Check that the volume still exists if some objects could not be read. Raises SourceError."""
        try:
            if self.omissions:
                sorted_names(self._root)
        except OSError as error:
            raise source_error(error, "list", b"") from error

    @override
    def close(self) -> None:
        """Close all descriptors except those of open files."""
        if self._walk_process is not None:
            self._walk_process.close()
        self._stack.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _rows(self) -> Iterator[Rows]:
        walk_process, self._walk_process = self._walk_process, None
        if walk_process is not None:
            with walk_process:
                yield from walk_process.rows(self.skipped, self.omissions)
            return
        try:
            walk = TreeWalk(self._root, self.skipped, self.omissions)
        except OSError as error:
            raise source_error(error, "begin to walk through", b"") from error
        yield from walk.rows()

    def _entries(self, found: Iterable[Rows], parent: ParentRows | None) -> Iterator[Entry | None]:
        for rows in found:
            self._check_link_holders(rows)
            self.whiteouts.count_in(rows)
            row = 0
            while row < len(rows):
                if parent is not None:
                    row += parent.match_rows(rows, row)
                if row < len(rows) and (entry := self._entry(rows, row)) is not None:
                    yield entry
                row += 1
            yield None

    def _entry(self, rows: Rows, row: int) -> Entry | None:
        """Return the entry of an object; None if it vanished after the walk found it, or was left out."""
        path, status = rows.paths[row], rows.status(row)
        kind = status.mode & TYPE
        if kind == stat.S_IFREG and self._adds_attributes and status.size:
            return make_entry(path, status)
        if kind == stat.S_IFDIR:
            return make_entry(path, status, rows.attributes.get(row, ()))
        if row in rows.links:
            if rows.links[row] in self.omissions:
                self.omissions.omit_link(path)
                return None
            return Entry(path, EntryKind.HARDLINK, target=rows.links[row], inode=status.inode)
        parent, _, name = path.rpartition(b"/")
        try:
            with self._lock:
                directory = self._directory(parent)
                target = os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else b""
                attributes = read_xattrs(proc_path(directory, name), MAX_XATTR_BYTES)
        except FileNotFoundError:
            self.skipped.vanished += 1
            self._gone.add(path)
            self._check_link_holders(rows)
            return None
        except OSError as error:
            self.omissions.omit(walk_error(error, "read", path), path)
            return None
        return make_entry(path, status, attributes, target, rows.numbers.get(row, 0))

    def _check_link_holders(self, rows: Rows) -> None:
        """Raise SourceChanging if the first name of further names has vanished."""
        for holder in rows.links.values() if self._gone else ():
            if holder in self._gone:
                raise directories_moved(holder)

    def _directory(self, path: bytes) -> int:
        """Return the descriptor of a directory, starting from the one that was used last."""
        if path == self._parent:
            return self._stack.fd
        try:
            fd = self._stack.go_to(parts_of(path))
        except OSError:
            self._stack.close()
            self._stack = DirectoryStack(self._root)
            self._parent = b""
            raise
        self._parent = path
        return fd

    def _open(self, path: bytes) -> int:
        """Open a file, and return its descriptor."""
        parent, _, name = path.rpartition(b"/")
        with self._lock:
            return self._open_in(self._directory(parent), name)

    def _open_in(self, directory: int, name: bytes) -> int:
        """Open a file without changing its atime if the owner or CAP_FOWNER permits that (open(2))."""
        try:
            return os.open(name, _OPEN_FLAGS | self._no_atime, dir_fd=directory)
        except PermissionError:
            if not self._no_atime:
                raise
            fd = os.open(name, _OPEN_FLAGS, dir_fd=directory)
            self._no_atime = 0
            return fd

    def _opened(self, fd: int, entry: Entry) -> SourceFile:
        status, is_settled = fstat_settled(fd)
        if not stat.S_ISREG(status.st_mode):
            raise source_vanished(entry.path)
        if (status.st_ino, *change_stamp(status)) != (entry.inode, entry.size, entry.mtime_ns, entry.ctime_ns):
            entry = make_entry(entry.path, StatFields.from_stat(status), read_xattrs(fd, MAX_XATTR_BYTES))
        elif self._adds_attributes and (found := read_xattrs(fd, MAX_XATTR_BYTES)):
            entry = entry._replace(xattrs=found)
        return SourceFile(fd, entry, status, is_settled=is_settled)


PREFETCHED_BYTES = 1 << 20
"""Bytes of the largest file that is read ahead when it is opened. The kernel reads larger files ahead by itself."""


def log_unsupported(support: MetadataSupport) -> list[str]:
    """Log the metadata that cannot be kept, and return the warnings for the report.

    The log has them before the work begins, which may take hours.
    """
    warnings = support.warnings()
    for sentence in warnings:
        logger.warning("Cannot keep all metadata: %s", sentence)
    return warnings
