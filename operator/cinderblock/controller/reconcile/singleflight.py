"""Reads that several workers ask for at the same time, done once for all of them, and never older than the question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class SingleFlight:
    """Reads by question; two with the same question get the same answer. For one event loop.

    Whoever asks while such a read is under way does not get its answer, which may have been true only before: it waits
    with all others who ask until then for the next read, which begins when that one has ended. So an answer is always
    from after the question, as if everybody had read alone, and of each question there is one read at a time.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._next: dict[Hashable, asyncio.Task[Any]] = {}

    async def do(self, question: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """The answer, shared: nobody may change it. Raises what ``read`` raises, to each who asked.

        A cancellation of one who asked does not end the read for the others.
        """
        task = self._next.get(question)
        if task is None:
            task = asyncio.create_task(self._after(self._running.get(question), question, read))
            self._next[question] = task
        return cast("T", await asyncio.shield(task))

    async def _after(self, before: asyncio.Task[Any] | None, question: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        if before is not None:
            await asyncio.wait([before])
        task = self._running[question] = self._next.pop(question)
        try:
            return await read()
        finally:
            if self._running[question] is task:
                del self._running[question]
