"""What a walk finds, column by column: many objects are compared with an earlier backup at once."""

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
"""The type that stat(2) has for each kind of entry; a hard link is of no type, and so of none that stat(2) sees."""
TYPE = 0o170000
"""The bits of st_mode that say what an object is (inode(7), S_IFMT)."""
_KINDS = {kind: entry_kind for entry_kind, kind in TYPES.items()}


class Columns(NamedTuple):
    """What stat(2) says of objects, one number for each object and column.

    Attributes:
        modes: with the type.
        uids, gids, inodes: as they are.
        mtimes_ns, ctimes_ns: nanoseconds since 1970.
        sizes: bytes of a file; 0 of anything else.
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
    """Objects that follow each other in a walk. Of a further name of an inode only path and inode count: the rest is 0.

    Args:
        paths: from the root of the volume.
        columns: what stat(2) says.
        links: of each further name of an inode, by row in ascending order: the path under which it was seen first.
        numbers: ``st_rdev`` of device nodes, by row.
        attributes: extended attributes of directories, by row; of those that have some.
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
    def of(cls, parts: tuple[Any, ...]) -> Rows:
        """From what `plain` gave."""
        paths, columns, links, numbers, attributes = parts
        return cls(paths, Columns(*columns), links, numbers, attributes)

    def plain(self) -> tuple[Any, ...]:
        """Its parts as plain values, for another process."""
        return self.paths, tuple(self.columns), self.links, self.numbers, self.attributes

    def __len__(self) -> int:
        return len(self.paths)

    def links_between(self, start: int, stop: int) -> list[int]:
        """The rows in a range that are further names."""
        return self._link_rows[bisect_left(self._link_rows, start) : bisect_left(self._link_rows, stop)]

    def is_range_equal(self, at: int, other: Rows, start: int, count: int) -> bool:
        """Whether ``count`` rows from ``at`` on say the same as those of ``other`` from ``start`` on."""
        end, stop = at + count, start + count
        return self.paths[at:end] == other.paths[start:stop] and all(
            mine[at:end] == theirs[start:stop] for mine, theirs in zip(self.columns, other.columns, strict=True)
        )

    def status(self, row: int) -> StatFields:
        """What stat(2) says of one object."""
        return StatFields._make([column[row] for column in self.columns])


class StatFields(NamedTuple):
    """What stat(2) says of one object, in the order of `Columns` and of `Entry`."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> StatFields:
        """From the kernel's answer."""
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
    """The entry of an object, without extents. Raises SourceError for a kind of object that no format knows."""
    mode, uid, gid, mtime_ns, ctime_ns, inode, size = status
    kind = _KINDS.get(mode & TYPE)
    if kind is None:
        raise SourceError(f"cannot read {format_path(path)}: it is of an unknown kind (mode {mode:o})")
    return Entry(path, kind, mode & ~TYPE, uid, gid, mtime_ns, ctime_ns, inode, size, target, number, xattrs)
