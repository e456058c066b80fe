"""Limits on the workers that wait for stores, so that stores that never answer do not hold up the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from cinderblock.errors import CinderblockError, StoreUnreachable

CONCURRENT_CALLS: Final = 4
"""Concurrent calls to one store: a quarter of the workers."""
UNPROVEN_CONCURRENT_CALLS: Final = 8
"""Concurrent calls to all unproven endpoints together: half of the workers. A thousand stores may share an endpoint
that is down."""
SLOT_WAIT_SECONDS: Final = 1.0
"""For how long a call waits for an earlier one to the same store. Hundreds of usual calls end in that time."""
OPEN_SECONDS: Final = 5.0
"""For how long a breaker stays open; shorter than any interval at which a store is called again."""

T = TypeVar("T")


@dataclass(slots=True, weakref_slot=True)
class Endpoint:
    """An address that any number of stores may share.

    An unproven endpoint only limits concurrency. It fails no call: a store may be unreachable because of its own
    settings, such as a wrong CA.

    Attributes:
        is_proven: whether the last call was answered. False before the first call.
    """

    is_proven: bool = False


class StoreBreaker:
    """Runs calls to one store in threads, and fails them at once while the store is unreachable.

    For one event loop.

    Args:
        endpoint: shared by all stores at the same address.
        unproven: UNPROVEN_CONCURRENT_CALLS slots that all stores share.
    """

    def __init__(self, endpoint: Endpoint, unproven: asyncio.Semaphore) -> None:
        self._endpoint = endpoint
        self._unproven = unproven
        self._slots = asyncio.Semaphore(CONCURRENT_CALLS)
        self._open: tuple[StoreUnreachable, float] | None = None

    async def call(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns. Raises what it raises; StoreUnreachable at once while the breaker is open."""
        if self._open is not None and _now() < self._open[1]:
            raise StoreUnreachable(self._open[0].message, reason=self._open[0].reason)
        async with _slot(self._slots, "The store has not answered earlier calls yet"):
            if self._endpoint.is_proven:
                return await self._run(call)
            async with _slot(self._unproven, "Too many calls already wait for other stores that do not answer"):
                return await self._run(call)

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            result = await asyncio.to_thread(call)
        except StoreUnreachable as error:
            self._open, self._endpoint.is_proven = (error, _now() + OPEN_SECONDS), False
            raise
        except CinderblockError:
            self._endpoint.is_proven = True
            raise
        self._open, self._endpoint.is_proven = None, True
        return result


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def _slot(slots: asyncio.Semaphore, message: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(SLOT_WAIT_SECONDS):
            await slots.acquire()
    except TimeoutError:
        raise StoreUnreachable(message) from None
    try:
        yield
    finally:
        slots.release()
