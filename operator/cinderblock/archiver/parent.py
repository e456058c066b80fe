"""The parent of an incremental, as a stream beside the walk of the volume.

What the walk finds as the parent has it is taken over without being made into entries: of a tree in which little has
changed, most sections of the parent's manifest are taken over whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice, takewhile

from cinderblock.archiver.change_detection import ChangeDetector
from cinderblock.format.entries import Entry, EntryKind, Extent, order_key
from cinderblock.format.manifest.reader import SectionContent, SectionRun
from cinderblock.format.manifest.section_decoder import EntryStats
from cinderblock.volume.tree.rows import TYPES, Columns, Rows

_FIRST_STEP = 64
"""Rows that are compared at first; if they are the same, twice as many."""


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
        self._seen = len(self._extents)
        self._given = 0

    def parts(self) -> Iterator[Entry]:
        """All parts."""
        return chain((self.first,), self._parts)

    def extents_from(self, start: int, end: int) -> tuple[Extent, ...]:
        """Extents that begin in a range of offsets. To be asked for in ascending order: what lies before is let go."""
        while self._skip_before(start) is None or self._extents[-1].offset < end:
            following = next(self._parts, None)
            if following is None:
                break
            self._seen += len(following.extents)
            self._extents = [*self._extents[self._at :], *following.extents]
            self._at = 0
        found = tuple(takewhile(lambda extent: extent.offset < end, islice(self._extents, self._at, None)))
        self._given += len(found)
        return found

    def has_more(self) -> bool:
        """Return whether there are extents that `extents_from` has not returned. Call this last."""
        self._seen += sum(len(part.extents) for part in self._parts)
        return self._given < self._seen

    def _skip_before(self, start: int) -> Extent | None:
        """Let go of extents that begin before ``start``; the first that does not, if there is one so far."""
        while self._at < len(self._extents):
            if self._extents[self._at].offset >= start:
                return self._extents[self._at]
            self._at += 1
        return None


class ParentStream:
    """Finds the parent's entry for each path of the walk; both are in the same order, so neither is held in memory.

    The walk asks `take` for its rows, and what is as before is taken over. For any other path the plan asks `find`.

    Attributes:
        ready: what was taken over, in order; for the plan to take out.

    Args:
        sections: of the parent; none for a full backup.
        evidence: says how old stamps must be, and whether a file that does not match must be read; None: all files
            are read.
    """

    def __init__(self, sections: Iterable[SectionContent] = (), evidence: ChangeDetector | None = None) -> None:
        self._sections = iter(sections)
        self._evidence = evidence or ChangeDetector()
        self._section: SectionContent | None = None
        self._stamps: EntryStats | None = None
        self._rows = Rows([])
        self._at = 0
        self._taken_from = 0
        self._last_taken: bytes | None = None
        self.ready: deque[SectionRun] = deque()
        self._next_section()

    def match_rows(self, rows: Rows, start: int) -> int:
        """Take over the rows from ``start`` on that are as the parent has them. Returns how many these are.

        The same size, mtime, ctime, inode, owner and mode: then content and attributes are the same too, since any
        change moves ctime. What was stamped within the dirty window before the parent's snapshot, or later, does not
        match: the snapshot may hold the new stamps and the old data. A further name of an inode matches by path,
        inode, and the name under which the inode was seen first.
        """
        at = start
        while at < len(rows) and self._is_at(rows.paths[at]):
            count = self._as_before(rows, at)
            if not count:
                break
            at += count
            self._take(count)
        return at - start

    def find(self, path: bytes) -> ParentEntry | None:
        """The parent's entry of this path. Paths must come in order."""
        is_there = self._is_at(path)
        self._hand_out()
        return ParentEntry(self._parts_at(path)) if is_there else None

    def finish(self) -> None:
        """The walk has ended: what was taken over of the last section becomes ready too."""
        self._hand_out()

    def is_unchanged(self, entry: Entry, before: Entry) -> bool:
        """Whether a FILE that does not match need not be read all the same."""
        return self._evidence.shows_unchanged(entry, before)

    def hides_changes(self, entry: Entry, before: Entry) -> bool:
        """Return whether content of a FILE that differs from the parent's would be a change that stamps hide."""
        return self._evidence.hides_changes(entry, before)

    def _is_at(self, path: bytes) -> bool:
        """Whether the next row is this path. What lies before it is gone from the volume."""
        if len(self._rows) and self._rows.paths[self._at] == path:
            return True
        wanted = order_key(path)
        while len(self._rows) and order_key(self._rows.paths[self._at]) < wanted:
            self._hand_out()
            self._at += 1
            self._taken_from = self._at
            if self._at == len(self._rows):
                self._next_section()
        return bool(len(self._rows)) and self._rows.paths[self._at] == path

    def _as_before(self, rows: Rows, start: int) -> int:
        """How many rows of the walk and of this section follow each other in the same way from here on."""
        same = common_rows(self._rows, self._at, rows, start)
        if rows.links and self._section is not None:
            for row in rows.links_between(start, start + same):
                if self._section.table.hard_link_target(self._at + row - start) != rows.links[row]:
                    return row - start
        return same

    def _take(self, count: int) -> None:
        """Take over rows, and all parts of the last entry that are in this section; `_next_section` takes the rest."""
        self._at += count
        paths = self._rows.paths
        self._last_taken = paths[self._at - 1]
        while self._at < len(paths) and paths[self._at] == self._last_taken:
            self._at += 1
        if self._at == len(paths):
            self._hand_out()
            self._next_section()

    def _hand_out(self) -> None:
        """What was taken over of this section so far becomes ready."""
        if self._section is not None and self._stamps is not None and self._taken_from < self._at:
            self.ready.append(_run(self._section, self._stamps, self._taken_from, self._at))
            self._taken_from = self._at

    def _next_section(self) -> None:
        self._section = next(self._sections, None)
        self._stamps = None if self._section is None else self._section.stats()
        self._rows = Rows([]) if self._stamps is None else _rows(self._stamps, self._evidence.stamped_before_ns)
        self._at = self._taken_from = 0
        if len(self._rows) and self._rows.paths[0] == self._last_taken:
            self._take(1)

    def _parts_at(self, path: bytes) -> Iterator[Entry]:
        """The entries from the next row on that are parts of this path."""
        while self._section is not None and self._rows.paths[self._at] == path:
            [part] = self._section.table.entries(self._at, self._at + 1)
            self._at += 1
            self._taken_from = self._at
            if self._at == len(self._rows):
                self._next_section()
            yield part


def common_rows(before: Rows, at: int, now: Rows, start: int) -> int:
    """How many rows from ``at`` and ``start`` on have the same path and the same columns.

    Columns are compared in ranges, twice as long each time and then half as long: hundreds of rows at once, where
    little has changed. Where everything has, as in a clone that was made by copying, one look at a row is enough.
    """
    if before.columns.ctimes_ns[at] != now.columns.ctimes_ns[start]:
        return 0
    limit = min(len(before) - at, len(now) - start)
    same, step = 0, _FIRST_STEP
    while same < limit and before.is_range_equal(at + same, now, start + same, min(step, limit - same)):
        same += min(step, limit - same)
        step *= 2
    while step > 1 and same < limit:
        step //= 2
        count = min(step, limit - same)
        if before.is_range_equal(at + same, now, start + same, count):
            same += count
    return same


def _run(section: SectionContent, stamps: EntryStats, start: int, stop: int) -> SectionRun:
    paths = stamps.paths[start:stop]
    return SectionRun(
        section,
        start,
        stop,
        is_whole=stop - start == len(stamps.paths),
        first_path=paths[0],
        last_path=paths[-1],
        names=len(set(paths)),
        newest_ctime_ns=max(stamps.ctimes_ns[start:stop]),
        oldest_ctime_ns=_oldest_ctime(stamps, start, stop),
        size=sum(stamps.sizes[start:stop]),
    )


def _oldest_ctime(stamps: EntryStats, start: int, stop: int) -> int | None:
    """Return the oldest ctime of some rows; None if all of them are hard links, whose ctime is 0 in a section."""
    oldest = min(stamps.ctimes_ns[start:stop])
    if oldest:
        return oldest
    rows = zip(stamps.kinds[start:stop], stamps.ctimes_ns[start:stop], strict=True)
    return min((ctime for kind, ctime in rows if kind is not EntryKind.HARDLINK), default=None)


def _rows(stamps: EntryStats, before_ns: int) -> Rows:
    """Return a section as a walk would have seen it. Rows that prove nothing get a mode that no object has.

    These are the rows that were not stamped before ``before_ns``. Hard links have no stamps: they only prove that a
    name leads to an inode. The row of its first name tells about the content.
    """
    modes = [TYPES.get(kind, 0) | mode for kind, mode in zip(stamps.kinds, stamps.modes, strict=True)]
    if max(stamps.ctimes_ns) >= before_ns or max(stamps.mtimes_ns) >= before_ns:
        rows = zip(modes, stamps.ctimes_ns, stamps.mtimes_ns, strict=True)
        modes = [mode if ctime < before_ns and mtime < before_ns else -1 for mode, ctime, mtime in rows]
    return Rows(stamps.paths, Columns(tuple(modes), *stamps[3:]))
