"""Read the parent of an incremental backup as a stream, in step with the walk of the volume.

Unchanged rows are reused without being made into entries. If little has changed in a tree, most sections of the
parent's manifest are reused whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice, takewhile

from cinderblock.archiver.change_detection import ChangeDetector
from cinderblock.archiver.renewal import NO_DAMAGE, DamagedPacks, lie_in
from cinderblock.format.entries import Entry, EntryKind, Extent, order_key
from cinderblock.format.manifest.reader import SectionContent, SectionRun
from cinderblock.format.manifest.section_decoder import EntryStats
from cinderblock.volume.tree.rows import TYPES, Columns, Rows

_FIRST_STEP = 64
"""Rows in the first comparison; while they are equal, each next one is twice as long."""


class ParentEntry:
    """An entry of the parent. Its parts are read on demand, and only in order.

    Attributes:
        first: the first part.
    """

    def __init__(self, parts: Iterator[Entry]) -> None:
        self.first = next(parts)
        self._parts = parts
        self._extents: list[Extent] = list(self.first.extents)
        self._at = 0
        self._read_extents = len(self._extents)
        self._returned_extents = 0

    def parts(self) -> Iterator[Entry]:
        """Return all parts."""
        return chain((self.first,), self._parts)

    def extents_from(self, start: int, end: int) -> tuple[Extent, ...]:
        """Return the extents that begin in a range of offsets. Call this in ascending order: it forgets earlier
        ones."""
        while self._skip_before(start) is None or self._extents[-1].offset < end:
            following = next(self._parts, None)
            if following is None:
                break
            self._read_extents += len(following.extents)
            self._extents = [*self._extents[self._at :], *following.extents]
            self._at = 0
        found = tuple(takewhile(lambda extent: extent.offset < end, islice(self._extents, self._at, None)))
        self._returned_extents += len(found)
        return found

    def has_more(self) -> bool:
        """Return whether there are extents that `extents_from` has not returned. Call this last."""
        self._read_extents += sum(len(part.extents) for part in self._parts)
        return self._returned_extents < self._read_extents

    def _skip_before(self, start: int) -> Extent | None:
        """Skip extents that begin before ``start``. Return the first other one, if it has been read."""
        while self._at < len(self._extents):
            if self._extents[self._at].offset >= start:
                return self._extents[self._at]
            self._at += 1
        return None


class ParentStream:
    """Find the parent's entry for each path of the walk. Both are in the same order, so neither is held in memory.

    The walk calls `match_rows` to reuse unchanged rows. The planner calls `find` for every other path.

    Attributes:
        ready: what is unchanged, in order; the planner removes it. An entry has chunks in packs to avoid, so its
            content must be stored again; runs of rows have none.

    Args:
        sections: of the parent; none for a full backup.
        detector: says how old timestamps must be, and whether a file whose row does not match must be read; None: all
            files are read.
        avoid: numbers of packs whose chunks are not reused.
        damaged: those of them that are damaged. Files that lie in them are read like changed ones.
    """

    def __init__(
        self,
        sections: Iterable[SectionContent] = (),
        detector: ChangeDetector | None = None,
        avoid: frozenset[int] = frozenset(),
        damaged: DamagedPacks = NO_DAMAGE,
    ) -> None:
        self._sections = iter(sections)
        self._damaged = damaged
        self._detector = detector or ChangeDetector()
        self._avoid = avoid
        self._section: SectionContent | None = None
        self._stats: EntryStats | None = None
        self._rows = Rows([])
        self._at = 0
        self._reused_from = 0
        self._last_reused: bytes | None = None
        self.ready: deque[SectionRun | Entry] = deque()
        self._next_section()

    def match_rows(self, rows: Rows, start: int) -> int:
        """Reuse the rows from ``start`` on that equal the parent's. Return how many these are.

        If size, mtime, ctime, inode, owner and mode are equal, so are content and attributes, because any change moves
        ctime. Timestamps within the dirty window before the parent's snapshot, or later, do not match: the snapshot may
        hold new timestamps and old data. A further name of an inode matches by path, inode, and first name of the
        inode.
        """
        at = start
        while at < len(rows) and self._is_at(rows.paths[at]):
            count = self._count_equal(rows, at)
            if not count:
                break
            at += count
            self._reuse(count)
        return at - start

    def find(self, path: bytes) -> ParentEntry | None:
        """Return the parent's entry of a path. Call this in order of path."""
        is_there = self._is_at(path)
        self._flush()
        return ParentEntry(self._parts_at(path)) if is_there else None

    def finish(self) -> None:
        """End the walk: the reused rows of the last section become ready."""
        self._flush()

    def is_unchanged(self, entry: Entry, before: Entry) -> bool:
        """Return whether a FILE whose row does not match need not be read."""
        return not self._lies_in_damage(before) and self._detector.shows_unchanged(entry, before)

    def hides_changes(self, entry: Entry, before: Entry) -> bool:
        """Return whether content of a FILE that differs from the parent's would be a change that timestamps hide."""
        return self._detector.hides_changes(entry, before, lies_in_damage=self._lies_in_damage(before))

    def _lies_in_damage(self, before: Entry) -> bool:
        """Return whether a file of the parent, of which this is the first part, lies in damaged packs."""
        return before.path in self._damaged.divided or lie_in(before.extents, self._damaged.packs)

    def avoids(self, extents: Sequence[Extent]) -> bool:
        """Return whether the content of these extents must be stored again, even if it has not changed."""
        return lie_in(extents, self._avoid)

    def _is_at(self, path: bytes) -> bool:
        """Return whether the next row has this path. Rows before it no longer exist in the volume."""
        if len(self._rows) and self._rows.paths[self._at] == path:
            return True
        wanted = order_key(path)
        while len(self._rows) and order_key(self._rows.paths[self._at]) < wanted:
            self._flush()
            self._at += 1
            self._reused_from = self._at
            if self._at == len(self._rows):
                self._next_section()
        return bool(len(self._rows)) and self._rows.paths[self._at] == path

    def _count_equal(self, rows: Rows, start: int) -> int:
        """Return how many rows of the walk and of this section are equal from here on."""
        equal = common_rows(self._rows, self._at, rows, start)
        if rows.links and self._section is not None:
            for row in rows.links_between(start, start + equal):
                if self._section.table.hard_link_target(self._at + row - start) != rows.links[row]:
                    return row - start
        return equal

    def _reuse(self, count: int) -> None:
        """Reuse rows, and all parts of the last entry in this section; `_next_section` reuses the others."""
        self._at += count
        paths = self._rows.paths
        self._last_reused = paths[self._at - 1]
        while self._at < len(paths) and paths[self._at] == self._last_reused:
            self._at += 1
        if self._at == len(paths):
            self._flush()
            self._next_section()

    def _flush(self) -> None:
        """Make the reused rows of this section ready."""
        section, stats, start, stop = self._section, self._stats, self._reused_from, self._at
        if section is None or stats is None or start == stop:
            return
        for row in section.table.rows_in(self._avoid, start, stop) if section.lies_in(self._avoid) else ():
            if start < row:
                self.ready.append(_run(section, stats, start, row))
            self.ready.extend(section.table.entries(row, row + 1))
            start = row + 1
        if start < stop:
            self.ready.append(_run(section, stats, start, stop))
        self._reused_from = stop

    def _next_section(self) -> None:
        self._section = next(self._sections, None)
        self._stats = None if self._section is None else self._section.stats()
        self._rows = Rows([])
        if self._section is not None and self._stats is not None:
            damaged = _damaged_rows(self._section, self._stats, self._damaged)
            self._rows = _rows(self._stats, self._detector.stamped_before_ns, damaged)
        self._at = self._reused_from = 0
        if len(self._rows) and self._rows.paths[0] == self._last_reused:
            self._reuse(1)

    def _parts_at(self, path: bytes) -> Iterator[Entry]:
        """Return the parts of a path, from the next row on."""
        while self._section is not None and self._rows.paths[self._at] == path:
            [part] = self._section.table.entries(self._at, self._at + 1)
            self._at += 1
            self._reused_from = self._at
            if self._at == len(self._rows):
                self._next_section()
            yield part


def common_rows(before: Rows, at: int, now: Rows, start: int) -> int:
    """Return how many rows from ``at`` and ``start`` on have equal paths and columns.

    Columns are compared in ranges that double and then halve: hundreds of rows at once if little has changed. If all
    rows have changed, as in a clone that was made by copying, one comparison for each row is enough.
    """
    if before.columns.ctimes_ns[at] != now.columns.ctimes_ns[start]:
        return 0
    limit = min(len(before) - at, len(now) - start)
    equal, step = 0, _FIRST_STEP
    while equal < limit and before.is_range_equal(at + equal, now, start + equal, min(step, limit - equal)):
        equal += min(step, limit - equal)
        step *= 2
    while step > 1 and equal < limit:
        step //= 2
        count = min(step, limit - equal)
        if before.is_range_equal(at + equal, now, start + equal, count):
            equal += count
    return equal


def _run(section: SectionContent, stats: EntryStats, start: int, stop: int) -> SectionRun:
    paths = stats.paths[start:stop]
    return SectionRun(
        section,
        start,
        stop,
        is_whole=stop - start == len(stats.paths),
        first_path=paths[0],
        last_path=paths[-1],
        names=len(set(paths)),
        newest_ctime_ns=max(stats.ctimes_ns[start:stop]),
        oldest_ctime_ns=_oldest_ctime_ns(stats, start, stop),
        size=sum(stats.sizes[start:stop]),
    )


def _oldest_ctime_ns(stats: EntryStats, start: int, stop: int) -> int | None:
    """Return the oldest ctime of some rows; None if all of them are hard links, whose ctime is 0 in a section."""
    oldest = min(stats.ctimes_ns[start:stop])
    if oldest:
        return oldest
    rows = zip(stats.kinds[start:stop], stats.ctimes_ns[start:stop], strict=True)
    return min((ctime for kind, ctime in rows if kind is not EntryKind.HARDLINK), default=None)


def _damaged_rows(section: SectionContent, stats: EntryStats, damaged: DamagedPacks) -> Collection[int]:
    """Return the rows of files that must be read because they lie in damaged packs."""
    rows = set(section.table.rows_in(damaged.packs, 0, len(stats.paths))) if section.lies_in(damaged.packs) else set()
    if damaged.divided:
        rows.update(row for row, path in enumerate(stats.paths) if path in damaged.divided)
    return rows


def _rows(stats: EntryStats, before_ns: int, damaged: Collection[int] = ()) -> Rows:
    """Return the rows of a section as a walk finds them. Rows that prove nothing get a mode that no object has.

    These are the ``damaged`` ones, and those whose timestamps are not older than ``before_ns``. Hard links have no
    timestamps: they only prove that a name leads to an inode. The row of the first name shows whether the content has
    changed.
    """
    modes = [TYPES.get(kind, 0) | mode for kind, mode in zip(stats.kinds, stats.modes, strict=True)]
    if max(stats.ctimes_ns) >= before_ns or max(stats.mtimes_ns) >= before_ns:
        rows = zip(modes, stats.ctimes_ns, stats.mtimes_ns, strict=True)
        modes = [mode if ctime < before_ns and mtime < before_ns else -1 for mode, ctime, mtime in rows]
    for row in damaged:
        modes[row] = -1
    return Rows(stats.paths, Columns(tuple(modes), *stats[3:]))
