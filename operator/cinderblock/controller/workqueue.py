"""The work queue: each key is in it once, is held by one worker at a time, and comes back after a failure.

Namespaces share the workers, so that a namespace with very many keys does not hold up the others.

The queue also keeps delays, so a requeue after ten seconds costs neither a task nor a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections.abc import Container
from enum import IntEnum
from typing import Final, NamedTuple

from cinderblock.controller.namespace_shares import NamespaceShares
from cinderblock.controller.request import ObjectKey

BASE_DELAY_SECONDS: Final = 1.0
"""Seconds before the first retry. Each further failure doubles them, as client-go's rate limiter does."""
MAX_DELAY_SECONDS: Final = 300.0
"""Most seconds before any retry."""

AGEING_SECONDS: Final = 600.0
"""Seconds of waiting that outweigh one step of priority, so that no key starves.

With one minute, of a thousand backups created together (`make scale`) the last six hundred all started before any
of them continued."""


class Priority(IntEnum):
    """Order of keys that are due at the same time."""

    NORMAL = 0
    HIGH = 1
    """Something is in progress, or a user waits for it."""
    STARTED = 2
    """An operation continues. Finishing what has started keeps few snapshots and movers alive at a time."""


class _Entry(NamedTuple):
    """When a key may be taken, and its rank among the keys that may be taken: the lowest first."""

    due: float
    rank: float


class WorkQueue:
    """Keys that are due now or later. For one event loop; not thread safe.

    Among due keys, the first one is taken whose namespace may take one: see `NamespaceShares`.

    Args:
        workers: number of workers that namespaces share; None: every namespace may use all.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._shares = NamespaceShares(workers)
        self._entries: dict[ObjectKey, _Entry] = {}
        # Heaps keep outdated items until they surface. `_entries` is the truth.
        self._delayed: list[tuple[float, ObjectKey]] = []
        self._ready: dict[str, list[tuple[float, ObjectKey]]] = {}
        # Namespaces by the rank of their first ready key.
        self._turns: list[tuple[float, str]] = []
        self._running: dict[ObjectKey, float] = {}
        self._failures: dict[ObjectKey, int] = {}
        self._changed = asyncio.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def counts(self) -> dict[str, int]:
        """Count the keys that are due, delayed, and held by workers (running)."""
        now = _now()
        due = sum(entry.due <= now for entry in self._entries.values())
        return {"due": due, "delayed": len(self._entries) - due, "running": len(self._running)}

    def is_waiting(self, key: ObjectKey) -> bool:
        """Return whether a key is due and no worker holds it."""
        entry = self._entries.get(key)
        return entry is not None and entry.due <= _now() and key not in self._running

    def longest_running_seconds(self) -> float:
        """Return for how long a worker has held the oldest running key; 0 if no key is running."""
        return _now() - min(self._running.values()) if self._running else 0.0

    async def drain(self, seconds: float) -> bool:
        """Hand out no more keys. Return whether all workers finished within ``seconds``."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                self._closed = True
                self._changed.notify_all()
                await self._changed.wait_for(lambda: not self._running)
        except TimeoutError:
            return False
        return True

    async def add(self, key: ObjectKey, after: float = 0.0, priority: Priority = Priority.NORMAL) -> None:
        """Add a key, due in ``after`` seconds. A key that is already queued keeps the earlier time and rank.

        Among due keys, the one with the higher priority comes first. A key that has waited AGEING_SECONDS
        longer counts one priority more.
        """
        due = _now() + after
        rank = due - priority * AGEING_SECONDS
        async with self._changed:
            queued = self._entries.get(key)
            entry = _Entry(due, rank) if queued is None else _Entry(min(due, queued.due), min(rank, queued.rank))
            if entry != queued:
                self._entries[key] = entry
                heapq.heappush(self._delayed, (entry.due, key))
                self._changed.notify()

    def forget_due(self, kinds: Container[str]) -> None:
        """Remove the due keys of these kinds. Delayed keys stay."""
        now = _now()
        for key in [key for key, entry in self._entries.items() if entry.due <= now and key.kind in kinds]:
            del self._entries[key]

    async def get(self) -> ObjectKey:
        """Wait for a key that is due and not held, and hold it until `done`."""
        async with self._changed:
            while True:
                key, wait = (None, None) if self._closed else self._take(_now())
                if key is not None:
                    # Whatever let this key pass may let another one pass.
                    self._changed.notify()
                    return key
                # Not wait_for: in Python 3.11 it loses a cancellation that comes together with a notification.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()

    def _take(self, now: float) -> tuple[ObjectKey | None, float | None]:
        """Take the first key. If there is none, return the seconds until one may be taken, if time alone decides."""
        wait = self._promote(now)
        skipped: list[tuple[float, str]] = []
        found: ObjectKey | None = None
        while self._turns and found is None:
            rank, namespace = heapq.heappop(self._turns)
            if self._first_rank(namespace, now) != rank:
                continue
            delay = self._shares.delay(namespace, now, others_due=len(self._ready) > 1)
            if delay == 0.0:
                found = self._take_from(namespace)
            elif delay != float("inf"):
                wait = delay if wait is None else min(wait, delay)
            if found is None:
                skipped.append((rank, namespace))
        for turn in skipped:
            heapq.heappush(self._turns, turn)
        if found is not None:
            del self._entries[found]
            self._running[found] = now
            self._shares.take(found.namespace, now)
        return found, wait

    def _first_rank(self, namespace: str, now: float) -> float | None:
        """Return the rank of the first ready key of a namespace, after removing outdated ones; None: there is none."""
        ready = self._ready.get(namespace, [])
        is_changed = False
        while ready:
            rank, key = ready[0]
            entry = self._entries.get(key)
            if entry is not None and entry.rank == rank and entry.due <= now:
                if is_changed:
                    heapq.heappush(self._turns, (rank, namespace))
                return rank
            heapq.heappop(ready)
            is_changed = True
        self._ready.pop(namespace, None)
        return None

    def _take_from(self, namespace: str) -> ObjectKey | None:
        """Take the first ready key of a namespace that no worker holds."""
        ready = self._ready[namespace]
        busy: list[tuple[float, ObjectKey]] = []
        found: ObjectKey | None = None
        while ready and found is None:
            item = heapq.heappop(ready)
            if item[1] in self._running:
                busy.append(item)
            elif self._is_current(item):
                found = item[1]
        for item in busy:
            heapq.heappush(ready, item)
        if ready and found is not None:
            heapq.heappush(self._turns, (ready[0][0], namespace))
        elif not ready:
            del self._ready[namespace]
        return found

    def _is_current(self, item: tuple[float, ObjectKey]) -> bool:
        entry = self._entries.get(item[1])
        return entry is not None and entry.rank == item[0]

    def _promote(self, now: float) -> float | None:
        """Move keys that became due to the ready ones. Return the seconds until the next one becomes due."""
        while self._delayed:
            due, key = self._delayed[0]
            entry = self._entries.get(key)
            is_current = entry is not None and entry.due == due
            if is_current and due > now:
                return due - now
            heapq.heappop(self._delayed)
            if entry is not None and is_current:
                self._add_ready(entry.rank, key)
        return None

    def _add_ready(self, rank: float, key: ObjectKey) -> None:
        ready = self._ready.setdefault(key.namespace, [])
        heapq.heappush(ready, (rank, key))
        if ready[0] == (rank, key):
            heapq.heappush(self._turns, (rank, key.namespace))

    async def done(self, key: ObjectKey) -> None:
        """Release a key after work on it. If it was added meanwhile, it may be taken again."""
        async with self._changed:
            began = self._running.pop(key, None)
            if began is not None:
                self._shares.release(key.namespace, _now() - began)
            if self._closed:
                self._changed.notify_all()
            else:
                self._changed.notify()

    def forget(self, key: ObjectKey) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    def backoff(self, key: ObjectKey) -> float:
        """Count a failure of a key, and return the seconds before its next attempt, with jitter."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest: float = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2**failures)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _now() -> float:
    return asyncio.get_running_loop().time()
