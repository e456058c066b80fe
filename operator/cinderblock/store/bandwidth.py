"""Bandwidth limits.

Not a wrapper like the others: a wrapper sees a whole pack at once, and could only let 64 MiB go at the speed of the
line and then be silent. The store that moves the bytes calls a pace for every slice instead, so that the line is never
busier than asked, and all threads of one store share one limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

Throttle = Callable[[int], None]
"""Called with a number of bytes that are about to move; returns when they may."""

_BURST_SECONDS: Final = 0.05
"""How much unused time is made good: enough to hide the coarseness of sleep, too little to be seen on a graph."""


def no_throttle(count: int) -> None:
    """The pace that never waits."""


class TokenBucket:
    """A limit on bytes per second, shared by threads; who asks first is served first."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may move. Any count is served, however much above one second's worth."""
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now - _BURST_SECONDS)
            self._free_at = start + count / self._rate
            delay = self._free_at - now
        if delay > 0:
            self._sleep(delay)


def throttle_for(bytes_per_second: int | None) -> Throttle:
    """The pace for a limit; None: no limit."""
    return no_throttle if bytes_per_second is None else TokenBucket(bytes_per_second).take
