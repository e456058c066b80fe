"""The parent of an incremental, as a stream beside the walk of the volume.

What the walk finds as the parent has it is taken over without being made into entries: of a tree in which little has
changed, most sections of the parent's manifest are taken over whole.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice, takewhile

from cinderblock.datapath.entries import Entry, EntryKind, Extent, order_key
from cinderblock.datapath.manifest import SectionContent
from cinderblock.device.stamps import granularity_ns
from cinderblock.mover.evidence import Evidence

WORTH_COPYING = 256 << 10
"""Bytes of a section that is taken over whole; smaller ones are made anew, or they would become ever more."""

_TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.FIFO: stat.S_IFIFO,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
}

Stamp = tuple[int, int, int, int, int, int, int]
"""What stat(2) says of an object: mode with type, uid, gid, mtime and ctime in ns, inode, and bytes if it is a file."""
_CTIME = 4

Unchanged = SectionContent | tuple[Entry, ...]
"""What is taken over: a whole section, or some entries of one."""


class ParentEntry:
    """An entry of the parent. Its parts are read as they are asked for, and only in order.

    Attributes:
        first: the first part.
    """

    def __init__(self, parts: Iterator[Entry]) -> None:
        self.first = next(parts)
        self._parts = parts
        self._extents: list[Extent] = list(self.first.extents)
        self._at = 0

    def parts(self) -> Iterator[Entry]:
        """All parts."""
        return chain((self.first,), self._parts)

    def extents_from(self, start: int, end: int) -> tuple[Extent, ...]:
        """Extents that begin in a range of offsets. To be asked for in ascending order: what lies before is let go."""
        while self._skip_before(start) is None or self._extents[-1].offset < end:
            following = next(self._parts, None)
            if following is None:
                break
            self._extents = [*self._extents[self._at :], *following.extents]
            self._at = 0
        return tuple(takewhile(lambda extent: extent.offset < end, islice(self._extents, self._at, None)))

    def _skip_before(self, start: int) -> Extent | None:
        """Let go of extents that begin before ``start``; the first that does not, if there is one so far."""
        while self._at < len(self._extents):
            if self._extents[self._at].offset >= start:
                return self._extents[self._at]
            self._at += 1
        return None


class ParentStream:
    """Finds the parent's entry for each path of the walk; both are in the same order, so neither is held in memory.

    The walk asks `matches` for each path, and what matches is taken over. For any other path the plan asks `find`.

    Attributes:
        ready: what was taken over, in order; for the plan to take out.

    Args:
        sections: of the parent; none for a full backup.
        newest_ctime_ns: of the parent's entries, as far as it is known to be from before they were read.
        evidence: says of a file that does not match whether it has to be read; None: it has.
    """

    def __init__(
        self, sections: Iterable[SectionContent] = (), newest_ctime_ns: int = 0, evidence: Evidence | None = None
    ) -> None:
        self._sections = iter(sections)
        self._evidence = evidence or Evidence()
        self._settled_before_ns = settled_before(newest_ctime_ns)
        self._section: SectionContent | None = None
        self._rows: list[tuple[bytes, Stamp]] = []
        self._at = 0
        self._taken_from = 0
        self._is_whole = True
        self._last_taken: bytes | None = None
        self.ready: deque[Unchanged] = deque()
        self._next_section()

    def matches(self, path: bytes, status: os.stat_result) -> bool:
        """Whether the parent has the object at this path as it is now; if so, it is taken over.

        The same size, mtime, ctime, inode, owner and mode: then content and attributes are the same too, since any
        change moves ctime. What changed in the last moment before the parent's snapshot does not match: a change right
        after it could bear the same time stamp. An object with several names is asked for by `matches_link`.
        """
        rows, at = self._rows, self._at
        if not (rows and rows[at][0] == path):
            if not self._is_at(path):
                return False
            rows, at = self._rows, self._at
        mode = status.st_mode
        stamp = (
            mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_size if stat.S_ISREG(mode) else 0,
        )
        if rows[at][1] != stamp or stamp[_CTIME] >= self._settled_before_ns:
            return False
        if at + 1 < len(rows) and rows[at + 1][0] != path:
            self._at = at + 1
        else:
            self._take(path)
        return True

    def matches_link(self, path: bytes, holder: bytes, inode: int) -> bool:
        """Whether the parent has a further name of the same inode at this path; if so, it is taken over."""
        if self._section is None or not self._is_at(path):
            return False
        before = self._section.entries()[self._at]
        if (before.kind, before.target, before.inode) != (EntryKind.HARDLINK, holder, inode):
            return False
        self._take(path)
        return True

    def find(self, path: bytes) -> ParentEntry | None:
        """The parent's entry of this path. Paths must come in order."""
        is_there = self._is_at(path)
        self._hand_out()
        self._is_whole = False
        return ParentEntry(self._parts_at(path)) if is_there else None

    def finish(self) -> None:
        """The walk has ended: what was taken over of the last section becomes ready too."""
        self._hand_out()

    def is_unchanged(self, entry: Entry, before: Entry) -> bool:
        """Whether a FILE that does not match need not be read all the same."""
        return self._evidence.shows_unchanged(entry, before)

    def _is_at(self, path: bytes) -> bool:
        """Whether the next row is this path. What lies before it is gone from the volume."""
        if self._rows and self._rows[self._at][0] == path:
            return True
        wanted = order_key(path)
        while self._rows and order_key(self._rows[self._at][0]) < wanted:
            self._hand_out()
            self._is_whole = False
            self._at += 1
            self._taken_from = self._at
            if self._at == len(self._rows):
                self._next_section()
        return bool(self._rows) and self._rows[self._at][0] == path

    def _take(self, path: bytes) -> None:
        """Take over all parts of the entry, as far as they are in this section; `_next_section` takes the rest."""
        self._last_taken = path
        while self._at < len(self._rows) and self._rows[self._at][0] == path:
            self._at += 1
        if self._at == len(self._rows):
            self._end_section()

    def _end_section(self) -> None:
        section = self._section
        if section is not None and self._is_whole and self._taken_from == 0 and section.size >= WORTH_COPYING:
            self.ready.append(section)
        else:
            self._hand_out()
        self._next_section()

    def _hand_out(self) -> None:
        """What was taken over of this section so far becomes ready, as entries."""
        if self._section is not None and self._taken_from < self._at:
            self.ready.append(tuple(self._section.entries()[self._taken_from : self._at]))
            self._taken_from = self._at
            self._is_whole = False

    def _next_section(self) -> None:
        self._section = next(self._sections, None)
        self._rows = [] if self._section is None else _rows(self._section)
        self._at = self._taken_from = 0
        self._is_whole = True
        if self._rows and self._rows[0][0] == self._last_taken:
            self._take(self._rows[0][0])

    def _parts_at(self, path: bytes) -> Iterator[Entry]:
        """The entries from the next row on that are parts of this path."""
        while self._section is not None and self._rows[self._at][0] == path:
            part = self._section.entries()[self._at]
            self._at += 1
            self._taken_from = self._at
            self._is_whole = False
            if self._at == len(self._rows):
                self._next_section()
            yield part


def _rows(section: SectionContent) -> list[tuple[bytes, Stamp]]:
    """Path and stamp of each entry. That of a further name is of no type, and so of no object that stat(2) sees."""
    columns = section.stamps()
    modes = [_TYPES.get(kind, 0) | mode for kind, mode in zip(columns.kinds, columns.modes, strict=True)]
    stamps = zip(modes, *columns[3:], strict=True)
    return list(zip(columns.paths, stamps, strict=True))


def settled_before(newest_ctime_ns: int) -> int:
    """Files of the parent with an older ctime cannot have changed again under the same time stamp.

    The snapshot was taken at or after the newest ctime in it, so only a file stamped within one tick of that can hide
    a later change. No clock but that of the file system is asked. A newest ctime of whole seconds means a file system
    that stamps whole seconds.
    """
    return newest_ctime_ns - granularity_ns(newest_ctime_ns)
