"""One queue of keys: each key is in it once, is worked on by one worker at a time, and comes back after a failure.

Delays are kept here too, so that "look again in 10 s" costs no task and no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections.abc import Container
from typing import Final

from cinderblock.controller.request import ObjectKey

BASE_DELAY_SECONDS: Final = 1.0
MAX_DELAY_SECONDS: Final = 300.0
"""Seconds before the first and at most before any later attempt (client-go's rate limiter doubles as well)."""


URGENT: Final = -600.0
"""A delay that puts a key before those that may wait and have done so for less than ten minutes. With one minute, of a
thousand backups that came together (`make scale`) the last six hundred were all begun before any of them went on."""
IN_HAND: Final = 2 * URGENT
"""The same before those that are urgent: what has been begun is brought to its end first, so that of very many backups
few snapshots and movers are there at a time."""


class WorkQueue:
    """Keys that are due now or later. For one event loop; not thread safe."""

    def __init__(self) -> None:
        self._due: dict[ObjectKey, float] = {}
        self._heap: list[tuple[float, ObjectKey]] = []
        self._running: dict[ObjectKey, float] = {}
        self._failures: dict[ObjectKey, int] = {}
        self._changed = asyncio.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._due)

    def counts(self) -> dict[str, int]:
        """How many keys are due, have time (delayed), and are worked on (running)."""
        now = asyncio.get_running_loop().time()
        due = sum(instant <= now for instant in self._due.values())
        return {"due": due, "delayed": len(self._due) - due, "running": len(self._running)}

    def is_waiting(self, key: ObjectKey) -> bool:
        """Whether a key is due, and nobody works on it."""
        due = self._due.get(key)
        return due is not None and due <= asyncio.get_running_loop().time() and key not in self._running

    def longest_running_seconds(self) -> float:
        """For how many seconds the key that was taken first of those worked on has been worked on; 0: none is."""
        return asyncio.get_running_loop().time() - min(self._running.values()) if self._running else 0.0

    async def drain(self, seconds: float) -> bool:
        """Give out no key any more. Returns whether all work on keys has ended within ``seconds``."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                self._closed = True
                self._changed.notify_all()
                await self._changed.wait_for(lambda: not self._running)
        except TimeoutError:
            return False
        return True

    async def add(self, key: ObjectKey, delay: float = 0.0) -> None:
        """Have ``key`` worked on in ``delay`` seconds, or sooner if that had been asked for before. See also URGENT."""
        due = asyncio.get_running_loop().time() + delay
        async with self._changed:
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._heap, (due, key))
                self._changed.notify()

    def forget_due(self, kinds: Container[str]) -> None:
        """Have keys of these kinds that are due not worked on; what is delayed, or added after this, stays."""
        now = asyncio.get_running_loop().time()
        for key in [key for key, due in self._due.items() if due <= now and key.kind in kinds]:
            del self._due[key]

    async def get(self) -> ObjectKey:
        """Wait for a key that is due and that nobody works on; it must be given back by `done`."""
        loop = asyncio.get_running_loop()
        async with self._changed:
            while True:
                key, wait = (None, None) if self._closed else self._next(loop.time())
                if key is not None:
                    return key
                # Not wait_for: in Python 3.11 it loses a cancellation that comes together with a notification.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()

    def _next(self, now: float) -> tuple[ObjectKey | None, float | None]:
        """A key that may be taken now, or else the seconds until the next one is due."""
        busy: list[tuple[float, ObjectKey]] = []
        found: ObjectKey | None = None
        wait: float | None = None
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)
            elif due > now:
                wait = due - now
                break
            elif key in self._running:
                busy.append(heapq.heappop(self._heap))
            else:
                heapq.heappop(self._heap)
                del self._due[key]
                self._running[key] = now
                found = key
                break
        for item in busy:
            heapq.heappush(self._heap, item)
        return found, wait

    async def done(self, key: ObjectKey) -> None:
        """The work on ``key`` has ended; if it was added meanwhile, it may be taken again."""
        async with self._changed:
            self._running.pop(key, None)
            if self._closed:
                self._changed.notify_all()
            else:
                self._changed.notify()

    def forget(self, key: ObjectKey) -> None:
        """Forget earlier failures of ``key``."""
        self._failures.pop(key, None)

    def backoff(self, key: ObjectKey) -> float:
        """Count a failure of ``key``; seconds to wait before the next attempt, with jitter."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest: float = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2**failures)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
