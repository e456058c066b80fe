"""Lists that callers read page by page: what comes after a page is kept for a moment, so the next page costs little.

The API server cannot sort, so that a page of 10,000 backups means reading them all. What is kept here spares that from
the second page on. It gives nobody a right: it is found only by who shows the same token, in the same words, and with
each page the API server is asked whether that token may still list. It is as old as the first page, at most
KEPT_SECONDS; what is changed through this process in the project ends it, and what is not found here is read anew.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

CACHE_SECONDS: Final = 20.0
"""Clients ask for the next page as soon as they have read one; a person who leafs through a table gets it anew."""
CACHE_BYTES: Final = 64 << 20
"""Of all lists together: ten lists of 10,000 backups, of 650 bytes each."""


@dataclass(frozen=True, slots=True)
class CachedTail:
    """What comes after a page.

    Attributes:
        items: id and JSON of each, in order.
        count: of all items of the list.
        read_at: when the first page was read, on the monotonic clock.
    """

    items: Sequence[tuple[str, bytes]]
    count: int
    read_at: float

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(len(text) + 100 for _, text in self.items)


class ListCache:
    """The rests of all lists that are being read."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, limit: int = CACHE_BYTES) -> None:
        self._clock = clock
        self._limit = limit
        self._rests: OrderedDict[tuple[str, str], CachedTail] = OrderedDict()

    def keep(self, project: str, key: str, rest: CachedTail) -> None:
        """Keep what comes after a page; the oldest are dropped for it, or it is not kept at all."""
        self._drop_old()
        if rest.size <= self._limit:
            self._rests[project, key] = rest
        while sum(kept.size for kept in self._rests.values()) > self._limit:
            self._rests.popitem(last=False)

    def take(self, project: str, key: str) -> CachedTail | None:
        """What comes after a page, once; None: it is not here any more."""
        self._drop_old()
        return self._rests.pop((project, key), None)

    def forget(self, project: str) -> None:
        """Something has been changed in a project."""
        for key in [key for key in self._rests if key[0] == project]:
            del self._rests[key]

    def now(self) -> float:
        """The instant of a page that is read now."""
        return self._clock()

    def _drop_old(self) -> None:
        oldest = self._clock() - CACHE_SECONDS
        for key in [key for key, rest in self._rests.items() if rest.read_at < oldest]:
            del self._rests[key]


def key_of(token: str | None, where: Sequence[str], query: Mapping[str, str]) -> str:
    """What a page is found by: who asks, where, and for what. The token itself is not kept."""
    asked = [f"{name}={query[name]}" for name in sorted(query) if name not in ("marker", "offset")]
    return hashlib.sha256("\x00".join([token or "", *where, *asked]).encode()).hexdigest()
