"""Concurrent reads of the same thing, done once for all callers, and never older than the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class SingleFlight:
    """Shares concurrent reads by key. For one event loop.

    A caller never gets the result of a read that began before its call: that may describe an earlier state. It waits,
    with all others that call meanwhile, for the next read, which begins when the current one ends. So a result is as
    new as a separate read, and for each key there is one read at a time.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._next: dict[Hashable, asyncio.Task[Any]] = {}

    async def do(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``read``. Callers share it: do not change it.

        Raises what ``read`` raises, in each caller. Cancelling one caller does not cancel the read for the others.
        """
        task = self._next.get(key)
        if task is None:
            task = asyncio.create_task(self._after(self._running.get(key), key, read))
            self._next[key] = task
        return cast("T", await asyncio.shield(task))

    async def _after(self, previous: asyncio.Task[Any] | None, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        if previous is not None:
            await asyncio.wait([previous])
        task = self._running[key] = self._next.pop(key)
        try:
            return await read()
        finally:
            if self._running[key] is task:
                del self._running[key]
