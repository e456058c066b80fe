"""A file tree that a restore writes: a target directory is made exactly equal to a stream of entries, in place."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from cinderblock.errors import IntegrityError, TargetError
from cinderblock.format.entries import Entry, EntryKind, order_key
from cinderblock.volume.capabilities import assess_target
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.errors import format_path, target_error
from cinderblock.volume.kernel.direct_io import WriterThreads
from cinderblock.volume.kernel.syscalls import sync_file_system
from cinderblock.volume.kernel.writeback import BackgroundSync
from cinderblock.volume.metadata_support import Feature, MetadataLosses, MetadataSupport
from cinderblock.volume.tree import metadata
from cinderblock.volume.tree.deferred_file import DeferredFile
from cinderblock.volume.tree.dirfd import DirectoryStack, mount_id, open_root, parts_of, proc_path, sorted_names
from cinderblock.volume.tree.duplicates import duplicate
from cinderblock.volume.tree.removal import enter_forced, make_accessible, make_writable, remove
from cinderblock.volume.tree.sorted_names import SortedNames
from cinderblock.volume.tree.special_files import is_same_node, make_node
from cinderblock.volume.tree.target_file import OPEN_FLAGS, TargetFile, make_file
from cinderblock.volume.tree.walk import LOST_FOUND
from cinderblock.volume.workers.create_pool import CreatePool, SharedMemory

_UNWRITABLE = frozenset({errno.EPERM, errno.EACCES, errno.ETXTBSY})
_IMPOSSIBLE_PARTS = frozenset({b"", b".", b".."})
MAX_DEFERRED_FILE_BYTES = 128 << 10
"""Bytes of the largest new file whose creation is deferred. For larger files the cost of system calls is negligible."""


@dataclass(slots=True)
class _Level:
    """One directory between the root and the current one.

    Attributes:
        entry: its entry.
        names: previous contents that the stream has not reached yet.
        last: the name that was put last.
        is_new: whether this restore created it.
        is_foreign: whether another file system is mounted there, so that it stays unchanged.
    """

    entry: Entry
    names: SortedNames
    last: bytes = b""
    is_new: bool = False
    is_foreign: bool = False


class TreeWriter(Closeable):
    """A volume of mode Filesystem that a restore makes equal to a backup.

    Entries come in the order of `TreeReader.walk`. The target is listed in the same order, so names that are not in the
    backup are removed on the way. Only the names of the directories between the root and the current one are in memory.
    ``lost+found`` at the root is never changed.

    Attributes:
        losses: metadata that could not be kept.
        deferred: actions that must wait until all files put before them are finished, in order: further names of files,
            and attributes of directories, whose mtime changes with every name. ``finish`` runs the remaining ones.
    """

    def __init__(
        self,
        root: str | bytes,
        support: MetadataSupport | None = None,
        *,
        is_strict: bool = True,
        defers: bool = False,
    ) -> None:
        """Open the directory ``root``. Raises TargetError.

        Args:
            root: an existing directory.
            support: metadata that cannot be kept; None: use `capabilities.assess_target`.
            is_strict: whether any other loss ends the restore.
            defers: whether the caller creates new small files (`DeferredFile`), and actions that depend on them wait
                in ``deferred``.
        """
        self.losses = MetadataLosses(support or assess_target(root), is_strict=is_strict)
        self.deferred: deque[Callable[[], None]] = deque()
        self._defers = defers
        try:
            self._root = open_root(root)
            self._mount = mount_id(self._root)
            self._background_sync = BackgroundSync(open_root(root), sync_file_system)
        except OSError as error:
            raise target_error(error, "open", os.fsencode(root)) from error
        self._stack = DirectoryStack(self._root)
        self._link_stack = DirectoryStack(self._root)
        self._deferred_stack = DirectoryStack(self._root)
        self._levels: list[_Level] = []
        self._claimed: set[tuple[int, int]] = set()
        self._missing_nodes: set[bytes] = set()
        self._unfinished = 0
        self._lock = threading.Lock()
        self._writers = WriterThreads()

    def create_pool(self, processes: int, memory: SharedMemory) -> CreatePool:
        """Start processes that create new files with bytes from ``memory``. The caller closes them. Raises OSError."""
        return CreatePool(processes, self._root, memory, self.losses)

    def put(self, entry: Entry) -> TargetFile | DeferredFile | None:
        """Create or update an entry in the target.

        Returns the content of a FILE, which the caller fills and finishes. Other kinds return None; they are done, or
        wait in ``deferred``. Raises TargetError; IntegrityError for a path that is out of order or out of the volume.
        """
        if not self._levels:
            self._begin(entry)
            return None
        name = self._go_to_parent_of(entry)
        try:
            return self._put_name(entry, name)
        except OSError as error:
            raise target_error(error, "create", entry.path) from error

    def add_written(self, count: int) -> None:
        """Report bytes of finished files, which the disk may start to write."""
        self._background_sync.add_written(count)

    def finish(self) -> None:
        """End the stream: remove extra objects, set directories' attributes, and wait until all is stored.

        Raises TargetError.
        """
        if self._unfinished:
            raise TargetError(f"{self._unfinished} files were not finished: run the restore again")
        while self._levels:
            self._leave()
        while self.deferred:
            self.deferred.popleft()()
        try:
            sync_file_system(self._root)
        except OSError as error:
            raise target_error(error, "store", b"") from error

    @override
    def close(self) -> None:
        """Close all descriptors except those of open files, which must no longer be used."""
        self._writers.close()
        self._background_sync.close()
        for stack in (self._stack, self._link_stack, self._deferred_stack):
            stack.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _begin(self, entry: Entry) -> None:
        if entry.path or entry.kind is not EntryKind.DIRECTORY:
            raise IntegrityError(f"the backup's tree begins with {format_path(entry.path)}, not with its root")
        try:
            self._open_level(entry, is_new=False)
        except OSError as error:
            raise target_error(error, "open", entry.path) from error

    def _go_to_parent_of(self, entry: Entry) -> bytes:
        """Leave directories until the entry's parent is the current one, and return the entry's name in it."""
        parent, slash, name = entry.path.rpartition(b"/")
        if name in _IMPOSSIBLE_PARTS or b"\0" in name or (slash and not parent):
            raise IntegrityError(f"the backup's tree contains an impossible path: {format_path(entry.path)}")
        while self._levels[-1].entry.path != parent:
            if len(self._levels) == 1:
                raise IntegrityError(f"the backup's tree contains {format_path(entry.path)} without its directory")
            self._leave()
        level = self._levels[-1]
        if name <= level.last:
            raise IntegrityError(f"the backup's tree is out of order at {format_path(entry.path)}")
        level.last = name
        return name

    def _put_name(self, entry: Entry, name: bytes) -> TargetFile | DeferredFile | None:
        level = self._levels[-1]
        if level.is_foreign:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        present = self._advance(level, name)
        status = os.stat(name, dir_fd=self._stack.fd, follow_symlinks=False) if present else None
        if entry.kind is EntryKind.HARDLINK:
            self._put_link(entry, name, status)
            return None
        if status is not None and not self._may_stay(entry, name, status):
            remove(self._stack.fd, name, entry.path)
            status = None
        if entry.kind is EntryKind.FILE:
            return self._put_file(entry, name, status)
        if entry.kind is EntryKind.DIRECTORY:
            self._put_directory(entry, name, is_new=status is None)
        else:
            self._put_node(entry, name, is_new=status is None)
        return None

    def _advance(self, level: _Level, name: bytes) -> bool:
        """Remove names before ``name``, which the backup does not have. Return whether the target has ``name``."""
        while level.names and level.names.first < name:
            self._remove_extra(level, level.names.pop())
        if level.names and level.names.first == name:
            level.names.pop()
            return True
        return False

    def _remove_extra(self, level: _Level, name: bytes) -> None:
        path = level.entry.path + b"/" + name if level.entry.path else name
        if path != LOST_FOUND:
            remove(self._stack.fd, name, path)

    def _may_stay(self, entry: Entry, name: bytes, status: os.stat_result) -> bool:
        """Return whether an existing object can become the entry without being removed first.

        An inode with several names may hold the content of one entry only, which is the first entry to claim it. Other
        entries get an inode of their own, or are links to it because the backup says so. An inode that looks different
        from its entry is never written: its other names may lie outside the target, where nothing may change.
        """
        if not is_same_node(self._stack.fd, name, entry, status):
            return False
        if entry.kind is not EntryKind.DIRECTORY and status.st_nlink > 1:
            identity = (status.st_dev, status.st_ino)
            if identity in self._claimed or not _looks_like(entry, status):
                return False
            self._claimed.add(identity)
        return True

    def _put_file(self, entry: Entry, name: bytes, status: os.stat_result | None) -> TargetFile | DeferredFile:
        fd = None if status is None else self._open_present(entry, name)
        file: TargetFile | DeferredFile
        if fd is not None:
            file = self._target_file(fd, entry, is_new=False)
        elif self._defers and entry.size <= MAX_DEFERRED_FILE_BYTES:
            file = DeferredFile(entry, self._make_deferred, self._count_finished)
        else:
            file = self._target_file(make_file(self._stack.fd, name), entry, is_new=True)
        with self._lock:
            self._unfinished += 1
        return file

    def _make_deferred(self, entry: Entry) -> TargetFile:
        parent, _, name = entry.path.rpartition(b"/")
        try:
            fd = make_file(self._deferred_stack.go_to(parts_of(parent)), name)
            return self._target_file(fd, entry, is_new=True)
        except OSError as error:
            raise target_error(error, "create", entry.path) from error

    def _target_file(self, fd: int, entry: Entry, *, is_new: bool) -> TargetFile:
        try:
            return TargetFile(
                fd,
                entry,
                is_new=is_new,
                losses=self.losses,
                on_finish=self._count_finished,
                writers=self._writers,
            )
        except OSError:
            os.close(fd)
            raise

    def _open_present(self, entry: Entry, name: bytes) -> int | None:
        """Open an existing file; return None if it could not be opened for writing and was removed.

        Files of other users, files under fs-verity and running programs can be removed but not written.
        """
        try:
            return os.open(name, OPEN_FLAGS, dir_fd=self._stack.fd)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
        try:
            make_accessible(self._stack.fd, name, stat.S_IRUSR | stat.S_IWUSR)
            return os.open(name, OPEN_FLAGS, dir_fd=self._stack.fd)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
        remove(self._stack.fd, name, entry.path)
        return None

    def _count_finished(self) -> None:
        with self._lock:
            self._unfinished -= 1

    def _put_directory(self, entry: Entry, name: bytes, *, is_new: bool) -> None:
        if is_new:
            os.mkdir(name, 0o700, dir_fd=self._stack.fd)
        enter_forced(self._stack, name)
        self._open_level(entry, is_new=is_new)

    def _open_level(self, entry: Entry, *, is_new: bool) -> None:
        """Make the directory that was just entered the current one."""
        fd = self._stack.fd
        level = _Level(entry, SortedNames([]), is_new=is_new)
        if not is_new:
            level.is_foreign = mount_id(fd) != self._mount
            if not level.is_foreign:
                make_writable(fd)
                metadata.drop_default_acl(fd)
                level.names = sorted_names(fd)
        self._levels.append(level)

    def _put_node(self, entry: Entry, name: bytes, *, is_new: bool) -> None:
        """Create or update a symbolic link, FIFO or device node."""
        if is_new and not make_node(self._stack.fd, name, entry, self.losses):
            self._missing_nodes.add(entry.path)
            return
        metadata.apply_metadata(proc_path(self._stack.fd, name), entry, is_new=is_new, losses=self.losses)

    def _put_link(self, entry: Entry, name: bytes, status: os.stat_result | None) -> None:
        """Add a further name to the inode of an earlier entry."""
        if entry.target in self._missing_nodes:
            self._remove_present(entry, name, status)
            return
        parts = parts_of(entry.target)
        if not parts or _IMPOSSIBLE_PARTS.intersection(parts) or order_key(entry.target) >= order_key(entry.path):
            raise IntegrityError(f"the backup's tree contains an impossible hard link: {format_path(entry.path)}")
        self._run_or_defer(partial(self._link, entry, parts, status), "create", entry)

    def _link(self, entry: Entry, target_parts: list[bytes], status: os.stat_result | None) -> None:
        holder_name = target_parts[-1]
        holder_directory = self._link_stack.go_to(target_parts[:-1])
        holder = os.stat(holder_name, dir_fd=holder_directory, follow_symlinks=False)
        if status is not None and (status.st_dev, status.st_ino) == (holder.st_dev, holder.st_ino):
            return
        parent, _, name = entry.path.rpartition(b"/")
        directory = self._deferred_stack.go_to(parts_of(parent))
        if status is not None:
            remove(directory, name, entry.path)
        try:
            os.link(holder_name, name, src_dir_fd=holder_directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            self.losses.count_if_expected(Feature.HARD_LINKS, error, entry.path)
            duplicate((holder_directory, holder_name), directory, name, entry.path, self.losses)

    def _remove_present(self, entry: Entry, name: bytes, status: os.stat_result | None) -> None:
        if status is not None:
            remove(self._stack.fd, name, entry.path)

    def _run_or_defer(self, action: Callable[[], None], verb: str, entry: Entry) -> None:
        """Run an action now, or defer it until all files that were put so far are finished."""

        def act() -> None:
            try:
                action()
            except OSError as error:
                raise target_error(error, verb, entry.path) from error

        if self._defers:
            self.deferred.append(act)
        else:
            act()

    def _leave(self) -> None:
        """Leave the current directory: remove extra names, and set its attributes.

        Attributes come last, because every name that is created or removed changes the mtime, and the mode may forbid
        writing.
        """
        level = self._levels.pop()
        while level.names:
            self._remove_extra(level, level.names.pop())
        try:
            if self._levels:
                self._stack.leave()
        except OSError as error:
            raise target_error(error, "leave", level.entry.path) from error
        if not level.is_foreign:
            self._run_or_defer(partial(self._finish_directory, level.entry, is_new=level.is_new), "finish", level.entry)

    def _finish_directory(self, entry: Entry, *, is_new: bool) -> None:
        directory = self._deferred_stack.go_to(parts_of(entry.path))
        metadata.apply_metadata(directory, entry, is_new=is_new, losses=self.losses)


def _looks_like(entry: Entry, status: os.stat_result) -> bool:
    """Return whether owner, mode, mtime and a file's size equal those of the entry."""
    is_sized = entry.kind is not EntryKind.FILE or status.st_size == entry.size
    is_owned = (status.st_uid, status.st_gid) == (entry.uid, entry.gid)
    has_mode = entry.kind is EntryKind.SYMLINK or stat.S_IMODE(status.st_mode) == entry.mode
    return is_sized and is_owned and has_mode and status.st_mtime_ns == entry.mtime_ns
