"""Bandwidth limits.

A limit is not a wrapper. A wrapper sees a whole pack at once: it could only send 64 MiB at full speed and then wait.
So the store that moves the bytes calls a throttle before every slice. All threads of one store share the limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from cinderblock.store import deadline

Throttle = Callable[[int], None]
"""Call it with a number of bytes that are about to move. It returns when they may move."""

_BURST_SECONDS: Final = 0.05
"""Unused time that may be caught up: enough to hide the coarseness of sleep, too little to show on a graph."""


def no_throttle(count: int) -> None:
    """Do not wait."""


class TokenBucket:
    """Limit the bytes per second of several threads, in order of their calls."""

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
        """Wait until ``count`` bytes may move. The count may exceed the bytes of one second.

        The wait is added to the deadline of the call: the store is not to blame for it.
        """
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now - _BURST_SECONDS)
            self._free_at = start + count / self._rate
            delay = self._free_at - now
        if delay > 0:
            call = deadline.current()
            if call is not None:
                call.extend(delay)
            self._sleep(delay)


def throttle_for(bytes_per_second: int | None) -> Throttle:
    """Return the throttle for a limit; None: no limit."""
    return no_throttle if bytes_per_second is None else TokenBucket(bytes_per_second).take
