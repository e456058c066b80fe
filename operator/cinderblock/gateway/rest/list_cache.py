"""A cache for lists that clients read page by page. It holds the tail of a list, which comes after the last page read.

The API server cannot sort, so one page of 10,000 backups requires reading all of them. The cache avoids that from the
second page on. It grants no rights: only a caller with the same token and the same query finds a tail, and for each
page the API server must confirm that the token may still list. A tail is as old as the first page, and expires after
CACHE_SECONDS. A change in the project through this process drops it. Without a tail, the list is read again.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

CACHE_SECONDS: Final = 20.0
"""Programs request the next page at once. For a person who pages through a table, the list is read again."""
CACHE_BYTES: Final = 32 << 20
"""Memory for all lists together: five lists of 10,000 backups, with 650 bytes per backup."""
_ITEM_OVERHEAD_BYTES: Final = 100
"""Bytes of the tuple, the id and the object headers of one item."""


@dataclass(frozen=True, slots=True)
class CachedTail:
    """The items after a page.

    Attributes:
        items: id and JSON of each item, in order.
        count: number of items in the whole list.
        read_at: when the list was read, on the cache's clock.
    """

    items: Sequence[tuple[str, bytes]]
    count: int
    read_at: float

    def estimate_bytes(self) -> int:
        """Return about how much memory the items take."""
        return sum(len(text) + _ITEM_OVERHEAD_BYTES for _, text in self.items)


class _Entry(NamedTuple):
    tail: CachedTail
    size: int


class ListCache:
    """The tails of all lists that clients are reading, within a limit of memory."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, limit: int = CACHE_BYTES) -> None:
        self._clock = clock
        self._limit = limit
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0

    def put(self, project: str, key: str, tail: CachedTail) -> None:
        """Keep a tail. The oldest ones make room for it; one that is too large on its own is not kept."""
        self._drop_expired()
        self._remove((project, key))
        size = tail.estimate_bytes()
        if size > self._limit:
            return
        self._entries[project, key] = _Entry(tail, size)
        self._bytes += size
        while self._bytes > self._limit:
            self._remove(next(iter(self._entries)))

    def pop(self, project: str, key: str) -> CachedTail | None:
        """Remove and return a tail; None if it is not kept any more."""
        self._drop_expired()
        entry = self._remove((project, key))
        return entry.tail if entry is not None else None

    def forget(self, project: str) -> None:
        """Drop the lists of a project, because something in it has changed."""
        for key in [key for key in self._entries if key[0] == project]:
            self._remove(key)

    def now(self) -> float:
        """Return the current time on the cache's clock."""
        return self._clock()

    def _drop_expired(self) -> None:
        oldest = self._clock() - CACHE_SECONDS
        for key in [key for key, entry in self._entries.items() if entry.tail.read_at < oldest]:
            self._remove(key)

    def _remove(self, key: tuple[str, str]) -> _Entry | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
        return entry


def key_of(token: str | None, where: Sequence[str], query: Mapping[str, str]) -> str:
    """Return the key of a tail for a caller, a place and a query. The token cannot be read from it."""
    filters = [f"{name}={query[name]}" for name in sorted(query) if name not in ("marker", "offset")]
    return hashlib.sha256("\x00".join([token or "", *where, *filters]).encode()).hexdigest()
