"""Limit the requests of one namespace that the broker handles at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cinderblock.errors import TransientError
from cinderblock.reasons import Reason


class NamespaceTurns:
    """The requests of each namespace: some run, others wait for their turn, and too many are refused.

    The limits of `serving` count addresses, and a namespace may have many pods. So this counts namespaces, once the
    token of a request has shown which one it is.

    Args:
        running: maximum number of requests of one namespace that run at the same time.
        unanswered: the same, with those that wait.
    """

    def __init__(self, running: int, unanswered: int) -> None:
        self._unanswered = unanswered
        self._counts: Counter[str] = Counter()
        self._running: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(running))

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """Count a request, and wait for its turn. Raises TransientError if too many are unanswered."""
        if self._counts[namespace] >= self._unanswered:
            raise TransientError(
                f"Namespace {namespace} has too many unanswered requests. Try again in a second.",
                reason=Reason.BROKER_UNAVAILABLE,
            )
        self._counts[namespace] += 1
        try:
            async with self._running[namespace]:
                yield
        finally:
            self._counts[namespace] -= 1
            if not self._counts[namespace]:
                del self._counts[namespace], self._running[namespace]
