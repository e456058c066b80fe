"""The parent of an incremental, as a stream beside the walk of the volume.

What the walk finds as the parent has it is taken over without being made into entries: of a tree in which little has
changed, most sections of the parent's manifest are taken over whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice, takewhile

from cinderblock.datapath.entries import Entry, Extent, order_key
from cinderblock.datapath.manifest import SectionContent, SectionRun
from cinderblock.datapath.section_table import Stamps
from cinderblock.device.rows import TYPES, Columns, Rows
from cinderblock.device.stamps import granularity_ns
from cinderblock.mover.evidence import Evidence

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

    The walk asks `take` for its rows, and what is as before is taken over. For any other path the plan asks `find`.

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
        self._stamps: Stamps | None = None
        self._rows = Rows([])
        self._at = 0
        self._taken_from = 0
        self._last_taken: bytes | None = None
        self.ready: deque[SectionRun] = deque()
        self._next_section()

    def take(self, rows: Rows, start: int) -> int:
        """Take over the rows from ``start`` on that are as the parent has them. Returns how many these are.

        The same size, mtime, ctime, inode, owner and mode: then content and attributes are the same too, since any
        change moves ctime. What changed in the last moment before the parent's snapshot does not match: a change right
        after it could bear the same time stamp. A further name of an inode matches by path, inode, and the name under
        which the inode was seen first.
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
                if self._section.table.target(self._at + row - start) != rows.links[row]:
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
        self._stamps = None if self._section is None else self._section.stamps()
        self._rows = Rows([]) if self._stamps is None else _rows(self._stamps, self._settled_before_ns)
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


def _run(section: SectionContent, stamps: Stamps, start: int, stop: int) -> SectionRun:
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
        size=sum(stamps.sizes[start:stop]),
    )


def _rows(stamps: Stamps, settled_before_ns: int) -> Rows:
    """A section as a walk would have seen it. Rows that prove nothing have a mode that no object has."""
    modes = [TYPES.get(kind, 0) | mode for kind, mode in zip(stamps.kinds, stamps.modes, strict=True)]
    if max(stamps.ctimes_ns) >= settled_before_ns:
        modes = [mode if ctime < settled_before_ns else -1 for mode, ctime in zip(modes, stamps.ctimes_ns, strict=True)]
    return Rows(stamps.paths, Columns(tuple(modes), *stamps[3:]))


def settled_before(newest_ctime_ns: int) -> int:
    """Files of the parent with an older ctime cannot have changed again under the same time stamp.

    The snapshot was taken at or after the newest ctime in it, so only a file stamped within one tick of that can hide
    a later change. No clock but that of the file system is asked. A newest ctime of whole seconds means a file system
    that stamps whole seconds.
    """
    return newest_ctime_ns - granularity_ns(newest_ctime_ns)
