"""The parent of an incremental, as a stream beside the walk of the volume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice, takewhile
from operator import attrgetter

from cinderblock.datapath.entries import Entry, EntryKind, Extent, order_key

_SECOND = 1_000_000_000
_TICK_NS = 20_000_000
"""Kernels stamp files with the time of the last timer tick, 4 or 10 ms ago; twice that, to be safe."""


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

    Args:
        entries: of the parent; none for a full backup.
        newest_ctime_ns: of the parent's entries.
    """

    def __init__(self, entries: Iterable[Entry] = (), newest_ctime_ns: int = 0) -> None:
        self._groups = groupby(entries, key=attrgetter("path"))
        self._settled_before_ns = settled_before(newest_ctime_ns)
        self._path: bytes | None = None
        self._parts: Iterator[Entry] = iter(())
        self._advance()

    def find(self, path: bytes) -> ParentEntry | None:
        """The parent's entry of this path. Paths must come in order."""
        wanted = order_key(path)
        while self._path is not None and order_key(self._path) < wanted:
            self._advance()
        if self._path != path:
            return None
        return ParentEntry(self._parts)

    def is_unchanged(self, entry: Entry, before: Entry) -> bool:
        """Whether a FILE need not be read: the same size, mtime, ctime and inode as in the parent.

        Files that changed in the last moment before the parent's snapshot are read anyway: a change right after it
        could bear the same time stamp.
        """
        return (
            entry.kind is EntryKind.FILE is before.kind
            and entry.ctime_ns == before.ctime_ns < self._settled_before_ns
            and entry.mtime_ns == before.mtime_ns
            and entry.size == before.size
            and entry.inode == before.inode
        )

    def _advance(self) -> None:
        self._path, self._parts = next(self._groups, (None, iter(())))


def settled_before(newest_ctime_ns: int) -> int:
    """Files of the parent with an older ctime cannot have changed again under the same time stamp.

    The snapshot was taken at or after the newest ctime in it, so only a file stamped within one tick of that can hide
    a later change. No clock but that of the file system is asked. A newest ctime of whole seconds means a file system
    that stamps whole seconds.
    """
    return newest_ctime_ns - (2 * _SECOND if newest_ctime_ns % _SECOND == 0 else _TICK_NS)
