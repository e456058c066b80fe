"""A file tree as a backup reads it: the walk, and the content of files."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

from typing_extensions import override

from cinderblock.api.losses import Unreadable
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.errors import has_moved, object_error, source_error, source_moved, source_rearranged, walk_error
from cinderblock.volume.kernel.syscalls import sync_file_system
from cinderblock.volume.metadata_support import MetadataSupport
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.timestamps import change_stamp, fstat_settled
from cinderblock.volume.tree.dirfd import DirectoryStack, open_root, parts_of, proc_path, sorted_names
from cinderblock.volume.tree.metadata import ATTRIBUTES_LIMIT, read_xattrs
from cinderblock.volume.tree.rows import TYPE, Rows, StatFields, make_entry
from cinderblock.volume.tree.source_file import SourceFile
from cinderblock.volume.tree.walk import SkippedObjects, TreeWalk
from cinderblock.volume.tree.whiteouts import Whiteouts
from cinderblock.volume.workers.walk_process import WalkProcess, is_worthwhile

logger = logging.getLogger(__name__)

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK: what has become a FIFO in the meantime must not make the backup wait for a writer."""


class ParentRows(Protocol):
    """How the tree was at an earlier time. Asked in the order of the walk; what matches needs no entry."""

    def match_rows(self, rows: Rows, start: int) -> int:
        """How many rows from ``start`` on are as they were; they are taken over."""


class TreeReader(Closeable):
    """A volume of mode Filesystem.

    Attributes:
        skipped: what walks have left out so far.
        gaps: what could not be read, and was left out, so far.
        whiteouts: character devices 0/0 so far, which stand for names that an overlay has removed.
    """

    def __init__(self, root: str | bytes, unreadable: Unreadable = Unreadable.FAIL) -> None:
        """Open the directory ``root``. Raises SourceError."""
        try:
            self._root = open_root(root)
        except OSError as error:
            raise source_error(error, "open", os.fsencode(root)) from error
        self.skipped = SkippedObjects()
        self.gaps = Omissions(unreadable)
        self.whiteouts = Whiteouts()
        self._chain = DirectoryStack(self._root)
        self._parent = b""
        self._lock = threading.Lock()
        self._no_atime = os.O_NOATIME
        self._adds_attributes = False
        self._gone: set[bytes] = set()
        self._walker: WalkProcess | None = None

    def sync(self) -> str | None:
        """Write all changes of the file system to its storage. Return what a person should know if that failed."""
        try:
            sync_file_system(self._root)
        except OSError as error:
            return (
                f"Cannot sync the file system before it is read: {error.strerror}. Changes through memory mappings may "
                "move no timestamp, so the next incremental backup reads all files."
            )
        return None

    def begin_walk(self) -> None:
        """Have another process begin with the next walk, if there is a processor for it. May be repeated."""
        if self._walker is not None or not is_worthwhile():
            return
        try:
            self._walker = WalkProcess(self._root, self.gaps.unreadable)
        except OSError as error:
            logger.warning("One process goes through the volume and reads it: there is no other (%s)", error.strerror)

    def walk(self) -> Iterator[Entry]:
        """Every entry without extents: the root first, then by path components (`entries.order_key`).

        The first name of an inode with several is the FILE (or other kind), further names are HARDLINKs to it; a
        HARDLINK has no attributes of its own. Raises SourceError; SourceChanging if directories move meanwhile.
        """
        return (entry for entry in self.walk_since(None) if entry is not None)

    def walk_since(self, before: ParentRows | None, *, opens_all: bool = False) -> Iterator[Entry | None]:
        """As `walk`, but without what is as it was before, which ``before`` takes over; None comes now and then when it
        has. Raises as `walk`.

        Args:
            before: how the tree was.
            opens_all: whether who walks opens every FILE that is not empty. It comes without extended attributes, and
                `open_file` adds them: by name they cost 3.6 microseconds a file, twice as long as stat; by descriptor
                0.3.
        """
        self._adds_attributes = opens_all
        self._gone.clear()
        return self._entries(self._rows(), before)

    def open_file(self, entry: Entry) -> SourceFile:
        """Open a FILE of the walk for reading; may be called by several threads, fastest in the order of the walk.

        Raises SourceError; SourceChanging with reason `refusals.VANISHED` if there is no such file any more.
        """
        try:
            fd = self._open(entry.path)
        except OSError as error:
            if has_moved(error):
                raise source_moved(entry.path) from error
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
        """End the reading. If something could not be read, check that the volume still exists. Raises SourceError."""
        try:
            if self.gaps:
                sorted_names(self._root)
        except OSError as error:
            raise source_error(error, "list", b"") from error

    @override
    def close(self) -> None:
        """Give up all descriptors; files that are open stay open."""
        if self._walker is not None:
            self._walker.close()
        self._chain.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _rows(self) -> Iterator[Rows]:
        walker, self._walker = self._walker, None
        if walker is not None:
            with walker:
                yield from walker.rows(self.skipped, self.gaps)
            return
        try:
            walk = TreeWalk(self._root, self.skipped, self.gaps)
        except OSError as error:
            raise source_error(error, "begin to walk through", b"") from error
        yield from walk.rows()

    def _entries(self, found: Iterable[Rows], before: ParentRows | None) -> Iterator[Entry | None]:
        for rows in found:
            self._refuse_lost_links(rows)
            self.whiteouts.look_at(rows)
            row = 0
            while row < len(rows):
                if before is not None:
                    row += before.match_rows(rows, row)
                if row < len(rows) and (entry := self._entry(rows, row)) is not None:
                    yield entry
                row += 1
            yield None

    def _entry(self, rows: Rows, row: int) -> Entry | None:
        """Return the entry of an object; None if it has vanished since the walk saw it, or was left out."""
        path, status = rows.paths[row], rows.status(row)
        kind = status.mode & TYPE
        if kind == stat.S_IFREG and self._adds_attributes and status.size:
            return make_entry(path, status)
        if kind == stat.S_IFDIR:
            return make_entry(path, status, rows.attributes.get(row, ()))
        if row in rows.links:
            if rows.links[row] in self.gaps:
                self.gaps.leave_out_link(path)
                return None
            return Entry(path, EntryKind.HARDLINK, target=rows.links[row], inode=status.inode)
        parent, _, name = path.rpartition(b"/")
        try:
            with self._lock:
                directory = self._directory(parent)
                target = os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else b""
                attributes = read_xattrs(proc_path(directory, name), ATTRIBUTES_LIMIT)
        except FileNotFoundError:
            self.skipped.vanished += 1
            self._gone.add(path)
            self._refuse_lost_links(rows)
            return None
        except OSError as error:
            self.gaps.leave_out(walk_error(error, "read", path), path)
            return None
        return make_entry(path, status, attributes, target, rows.numbers.get(row, 0))

    def _refuse_lost_links(self, rows: Rows) -> None:
        """A name that has vanished since the walk saw it must not be what others are further names of."""
        for holder in rows.links.values() if self._gone else ():
            if holder in self._gone:
                raise source_rearranged(holder)

    def _directory(self, path: bytes) -> int:
        """Descriptor of a directory, by way of the one that was used last."""
        if path == self._parent:
            return self._chain.fd
        try:
            fd = self._chain.go_to(parts_of(path))
        except OSError:
            self._chain.close()
            self._chain = DirectoryStack(self._root)
            self._parent = b""
            raise
        self._parent = path
        return fd

    def _open(self, path: bytes) -> int:
        """A descriptor of a file."""
        parent, _, name = path.rpartition(b"/")
        with self._lock:
            return self._open_in(self._directory(parent), name)

    def _open_in(self, directory: int, name: bytes) -> int:
        """Without touching the file's atime where that is permitted: to its owner, or with CAP_FOWNER (open(2))."""
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
            raise source_moved(entry.path)
        if (status.st_ino, *change_stamp(status)) != (entry.inode, entry.size, entry.mtime_ns, entry.ctime_ns):
            entry = make_entry(entry.path, StatFields.of(status), read_xattrs(fd, ATTRIBUTES_LIMIT))
        elif self._adds_attributes and (found := read_xattrs(fd, ATTRIBUTES_LIMIT)):
            entry = entry._replace(xattrs=found)
        return SourceFile(fd, entry, status, is_settled=is_settled)


PREFETCHED_BYTES = 1 << 20
"""Files of this size are read ahead as soon as they are open; larger ones the kernel reads ahead by itself."""


def log_unsupported(fidelity: MetadataSupport) -> list[str]:
    """What cannot be kept, for the report; told in the log before the work begins, since that may take hours."""
    warnings = fidelity.warnings()
    for sentence in warnings:
        logger.warning("Not all can be kept: %s", sentence)
    return warnings
