"""Objects that a walk has found, column by column, so that many are compared with the parent backup at once."""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from typing import Any, NamedTuple

from cinderblock.errors import SourceError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.errors import format_path
from cinderblock.volume.tree.metadata import Attributes

TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.FIFO: stat.S_IFIFO,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
}
"""The file type of stat(2) for each kind of entry. A hard link has no type of its own."""
TYPE = 0o170000
"""The bits of st_mode with the file type (inode(7), S_IFMT)."""
_KINDS = {kind: entry_kind for entry_kind, kind in TYPES.items()}


class Columns(NamedTuple):
    """Results of stat(2), one number for each object and column.

    Attributes:
        modes: with the file type.
        uids, gids, inodes: unchanged.
        mtimes_ns, ctimes_ns: nanoseconds since 1970.
        sizes: bytes of a file; 0 for other objects.
    """

    modes: tuple[int, ...] = ()
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    mtimes_ns: tuple[int, ...] = ()
    ctimes_ns: tuple[int, ...] = ()
    inodes: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()


NO_COLUMNS = Columns()


class Rows:
    """Consecutive objects of a walk. A further name of an inode has only path and inode; its other columns are 0.

    Args:
        paths: from the root of the volume.
        columns: results of stat(2).
        links: for each further name of an inode, by row in ascending order, the path of its first name.
        numbers: ``st_rdev`` of device nodes, by row.
        attributes: extended attributes of directories, by row, if there are any.
    """

    def __init__(
        self,
        paths: list[bytes],
        columns: Columns = NO_COLUMNS,
        links: dict[int, bytes] | None = None,
        numbers: dict[int, int] | None = None,
        attributes: dict[int, Attributes] | None = None,
    ) -> None:
        self.paths = paths
        self.columns = columns
        self.links = links or {}
        self.numbers = numbers or {}
        self.attributes = attributes or {}
        self._link_rows = [*self.links]

    @classmethod
    def from_plain(cls, parts: tuple[Any, ...]) -> Rows:
        """Create rows from the result of `to_plain`."""
        paths, columns, links, numbers, attributes = parts
        return cls(paths, Columns(*columns), links, numbers, attributes)

    def to_plain(self) -> tuple[Any, ...]:
        """Return the rows as plain values for another process."""
        return self.paths, tuple(self.columns), self.links, self.numbers, self.attributes

    def __len__(self) -> int:
        return len(self.paths)

    def links_between(self, start: int, stop: int) -> list[int]:
        """Return the rows in a range that are further names of an inode."""
        return self._link_rows[bisect_left(self._link_rows, start) : bisect_left(self._link_rows, stop)]

    def is_range_equal(self, at: int, other: Rows, start: int, count: int) -> bool:
        """Return whether ``count`` rows from ``at`` equal those of ``other`` from ``start``."""
        end, stop = at + count, start + count
        return self.paths[at:end] == other.paths[start:stop] and all(
            own[at:end] == others[start:stop] for own, others in zip(self.columns, other.columns, strict=True)
        )

    def status(self, row: int) -> StatFields:
        """Return the stat(2) fields of one object."""
        return StatFields._make([column[row] for column in self.columns])


class StatFields(NamedTuple):
    """Fields of stat(2) of one object, in the order of `Columns` and of `Entry`."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int

    @classmethod
    def from_stat(cls, status: os.stat_result) -> StatFields:
        """Create the fields from a result of stat(2)."""
        return cls(
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_size if stat.S_ISREG(status.st_mode) else 0,
        )


def make_entry(path: bytes, status: StatFields, xattrs: Attributes = (), target: bytes = b"", number: int = 0) -> Entry:
    """Make the entry of an object, without extents. Raises SourceError for an unknown kind of object."""
    mode, uid, gid, mtime_ns, ctime_ns, inode, size = status
    kind = _KINDS.get(mode & TYPE)
    if kind is None:
        raise SourceError(f"cannot read {format_path(path)}: its file type is unknown (mode {mode:o})")
    return Entry(path, kind, mode & ~TYPE, uid, gid, mtime_ns, ctime_ns, inode, size, target, number, xattrs)
