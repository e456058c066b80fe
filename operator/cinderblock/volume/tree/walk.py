"""The walk through a tree in the order of the manifest, in bounded memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cinderblock.errors import SourceError
from cinderblock.volume.errors import walk_error
from cinderblock.volume.metadata_support import MAX_EXAMPLES, format_example
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.tree.dirfd import DirectoryStack, has_mounts_below, mount_id, sorted_names
from cinderblock.volume.tree.metadata import MAX_XATTR_BYTES, Attributes, read_xattrs
from cinderblock.volume.tree.rows import TYPE, Columns, Rows
from cinderblock.volume.tree.sorted_names import SortedNames

if TYPE_CHECKING:
    from cinderblock.api.losses import Loss

LOST_FOUND = b"lost+found"
"""Directory of fsck at the root of ext file systems, which is not part of the data."""

MAX_ROWS = 1024
"""Most objects of one batch, which take half a MiB."""
MAX_BATCH_XATTR_BYTES = 1 << 20
"""Bytes of extended attributes of directories after which a batch is full. One directory may have many of 64 KiB."""
_INODES = Columns._fields.index("inodes")
_LOSS_NAMES = {
    "sockets": "sockets left out",
    "mounts": "mounts inside the volume left out",
    "lost_found": "entries of lost+found left out",
    "vanished": "files that were removed while the volume was read",
}
"""Name of each count of `SkippedObjects` in reports."""


SkippedCounts = tuple[dict[str, int], dict[str, list[str]]]
"""Counts and examples of `SkippedObjects`; plain values for another process."""


@dataclass(slots=True)
class SkippedObjects:
    """Objects that a walk skipped.

    Attributes:
        sockets: sockets, which are useless without the listening process.
        mounts: directories on which another file system is mounted; they are kept as empty directories.
        lost_found: names in ``lost+found`` at the root.
        vanished: names that were removed after they were listed.
    """

    sockets: int = 0
    mounts: int = 0
    lost_found: int = 0
    vanished: int = 0
    _examples: dict[str, list[str]] = field(default_factory=dict)

    def add_example(self, kind: str, path: bytes) -> None:
        """Keep a path as an example, up to MAX_EXAMPLES. ``kind`` is the name of its count."""
        examples = self._examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(format_example(path))

    def to_plain(self) -> SkippedCounts:
        """Return the counts for another process."""
        return {kind: getattr(self, kind) for kind in _LOSS_NAMES}, self._examples

    def add(self, other: SkippedCounts) -> None:
        """Add the result of `to_plain` of another process."""
        counts, examples = other
        for kind, count in counts.items():
            setattr(self, kind, getattr(self, kind) + count)
            self._examples[kind] = [*self._examples.get(kind, ()), *examples.get(kind, ())][:MAX_EXAMPLES]

    def summaries(self) -> list[str]:
        """Return short sentences for the report, one for each kind of skipped object."""
        return [f"{loss.what}: {loss.objects}" for loss in self.list_losses()]

    def list_losses(self) -> list[Loss]:
        """Return the skipped objects by kind, with examples."""
        from cinderblock.api.losses import Loss  # noqa: PLC0415 - the worker processes start without pydantic

        return [
            Loss(what=name, objects=getattr(self, kind), examples=self._examples.get(kind, []))
            for kind, name in _LOSS_NAMES.items()
            if getattr(self, kind)
        ]


@dataclass(slots=True)
class _Link:
    """An inode with several names: the path of its first name, and the number of names still to come."""

    path: bytes
    remaining: int


class _Batch:
    """Unfinished rows.

    Attributes:
        paths, statuses: of all objects. Regular files need nothing else.
    """

    def __init__(self) -> None:
        self.paths: list[bytes] = []
        self.statuses: list[os.stat_result] = []
        self._links: dict[int, bytes] = {}
        self._special: list[int] = []
        self._attributes: dict[int, Attributes] = {}
        self._attribute_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether its rows must be yielded."""
        return len(self.paths) >= MAX_ROWS or self._attribute_bytes >= MAX_BATCH_XATTR_BYTES

    def add(self, path: bytes, status: os.stat_result) -> None:
        """Add a regular file."""
        self.paths.append(path)
        self.statuses.append(status)

    def add_special(self, path: bytes, status: os.stat_result, attributes: Attributes = ()) -> None:
        """Add an object that is not a regular file."""
        self._special.append(len(self.paths))
        if attributes:
            self._attributes[len(self.paths)] = attributes
            self._attribute_bytes += sum(len(name) + len(value) for name, value in attributes)
        self.add(path, status)

    def add_link(self, path: bytes, status: os.stat_result, holder: bytes) -> None:
        """Add a further name of an inode."""
        self._links[len(self.paths)] = holder
        self.add(path, status)

    def rows(self) -> Rows:
        """Return the added objects as rows."""
        found = self.statuses
        sizes = [status.st_size for status in found]
        numbers = {}
        for row in self._special:
            sizes[row] = 0
            if found[row].st_mode & TYPE in (stat.S_IFCHR, stat.S_IFBLK):
                numbers[row] = found[row].st_rdev
        columns = [
            [status.st_mode for status in found],
            [status.st_uid for status in found],
            [status.st_gid for status in found],
            [status.st_mtime_ns for status in found],
            [status.st_ctime_ns for status in found],
            [status.st_ino for status in found],
            sizes,
        ]
        for row in self._links:
            for column in columns:
                column[row] = 0
            columns[_INODES][row] = found[row].st_ino
        return Rows(self.paths, Columns(*map(tuple, columns)), self._links, numbers, self._attributes)


class TreeWalk:
    """One walk through a tree.

    It keeps in memory the names of the directories between the root and the current one, one path per inode with names
    still to come, and MAX_ROWS rows.

    Args:
        root_fd: an open directory, which must stay open.
        skipped: counts skipped objects.
        omissions: collects unreadable objects that may be left out; None: none may be left out.

    Raises OSError.
    """

    def __init__(self, root_fd: int, skipped: SkippedObjects, omissions: Omissions | None = None) -> None:
        self._skipped = skipped
        self._omissions = Omissions() if omissions is None else omissions
        self._root = root_fd
        self._mount = mount_id(root_fd) if has_mounts_below(root_fd) else None
        self._stack: DirectoryStack
        self._batch = _Batch()
        self._pending: list[SortedNames] = []
        self._prefixes: list[bytes] = []
        self._links: dict[tuple[int, int], _Link] = {}

    def rows(self) -> Iterator[Rows]:
        """Yield the root, then everything below it, in order of path parts. Raises SourceError or SourceChanging."""
        self._stack = DirectoryStack(self._root)
        try:
            self._add_directory(b"", self._stack.fd)
            while self._pending:
                self._continue()
                if self._batch.is_full or not self._pending:
                    yield self._batch.rows()
                    self._batch = _Batch()
        finally:
            self._stack.close()

    def _continue(self) -> None:
        """Add objects of the current directory until it ends, a subdirectory is entered, or the batch is full."""
        names, prefix, fd, batch = self._pending[-1], self._prefixes[-1], self._stack.fd, self._batch
        paths, statuses = batch.paths, batch.statuses
        while names:
            name = names.pop()
            path = prefix + name
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                self._skipped.vanished += 1
                continue
            except OSError as error:
                self._omissions.omit(walk_error(error, "read", path), path)
                continue
            if status.st_nlink == 1 and status.st_mode & TYPE == stat.S_IFREG:
                # Nearly all objects are such files, so this branch calls nothing else.
                paths.append(path)
                statuses.append(status)
            elif stat.S_ISDIR(status.st_mode):
                if self._descend(name, path):
                    return
            else:
                self._add_other(path, status)
            if len(paths) >= MAX_ROWS:
                return
        self._leave()

    def _add_other(self, path: bytes, status: os.stat_result) -> None:
        """Add an object that is not a directory."""
        if stat.S_ISSOCK(status.st_mode):
            self._skipped.sockets += 1
            self._skipped.add_example("sockets", path)
        elif status.st_nlink > 1 and (holder := self._holder(path, status)) is not None:
            self._batch.add_link(path, status, holder)
        elif stat.S_ISREG(status.st_mode):
            self._batch.add(path, status)
        else:
            self._batch.add_special(path, status)

    def _count_lost_found(self) -> None:
        """Count the names in lost+found if the process may list it; normally only root may."""
        try:
            fd = self._stack.enter(LOST_FOUND)
        except OSError:
            return
        with suppress(OSError):
            self._skipped.lost_found = len(sorted_names(fd))
        self._stack.leave()

    def _holder(self, path: bytes, status: os.stat_result) -> bytes | None:
        """Return the path of the first name of an inode; None if this is the first name."""
        identity = (status.st_dev, status.st_ino)
        link = self._links.get(identity)
        if link is None:
            self._links[identity] = _Link(path, status.st_nlink - 1)
            return None
        link.remaining -= 1
        if link.remaining <= 0:
            del self._links[identity]
        return link.path

    def _descend(self, name: bytes, path: bytes) -> bool:
        """Add a directory, and enter it unless another file system is mounted there. Return whether it was entered."""
        if path == LOST_FOUND:
            self._count_lost_found()
            return False
        try:
            fd = self._stack.enter(name)
        except FileNotFoundError:
            self._skipped.vanished += 1
            return False
        except OSError as error:
            self._omissions.omit(walk_error(error, "open", path), path, is_directory=True)
            return False
        try:
            is_entered = self._add_directory(path, fd)
        except SourceError as error:
            self._omissions.omit(error, path, is_directory=True)
            is_entered = False
        if not is_entered:
            self._stack.leave()
        return is_entered

    def _add_directory(self, path: bytes, fd: int) -> bool:
        """Add the current directory, and start to list it unless another file system is mounted there."""
        try:
            status, attributes = os.fstat(fd), read_xattrs(fd, MAX_XATTR_BYTES)
            is_mount = self._mount is not None and mount_id(fd) != self._mount
        except OSError as error:
            raise walk_error(error, "read", path) from error
        names = None if is_mount else self._list(path)
        self._batch.add_special(path, status, attributes)
        if names is None:
            self._skipped.mounts += 1
            self._skipped.add_example("mounts", path)
            return False
        self._begin(path, names)
        return True

    def _list(self, path: bytes) -> SortedNames:
        try:
            return sorted_names(self._stack.fd)
        except OSError as error:
            raise walk_error(error, "list", path) from error

    def _begin(self, path: bytes, names: SortedNames) -> None:
        """Make a directory that was added the current one."""
        self._pending.append(names)
        self._prefixes.append(path + b"/" if path else b"")

    def _leave(self) -> None:
        path = self._prefixes.pop()
        self._pending.pop()
        if self._pending:
            try:
                self._stack.leave()
            except OSError as error:
                raise walk_error(error, "leave", path) from error
