"""How many workers may wait for stores: those that never answer must not hold up those that do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from cinderblock.errors import CinderblockError, StoreUnreachable

CONCURRENT_CALLS: Final = 4
"""Calls to one store at the same time; a quarter of the workers."""
UNPROVEN_CONCURRENT_CALLS: Final = 8
"""Calls at the same time to all endpoints together that did not answer last time, or were never asked; half of the
workers. A thousand stores may be at one endpoint, and it is away for all of them."""
SLOT_WAIT_SECONDS: Final = 1.0
"""For how long a call waits until another one to the same store has ended: hundreds of usual ones have by then."""
OPEN_SECONDS: Final = 5.0
"""For how long it is believed that a store does not answer; shorter than any interval at which it is asked again."""

T = TypeVar("T")


@dataclass(slots=True)
class Endpoint:
    """An address that any number of stores may have.

    What is known of it refuses no call of a store, and only makes it one of few: a store may be out of reach by its own
    fault, say with a wrong CA.

    Attributes:
        answers: whether the last call to it was answered.
    """

    is_proven: bool = False


class StoreBreaker:
    """Calls to one store, made in threads. For one event loop.

    ``doubtful``, of DOUBTFUL_AT_ONCE, is shared by all stores.
    """

    def __init__(self, endpoint: Endpoint, doubtful: asyncio.Semaphore) -> None:
        self._endpoint = endpoint
        self._doubtful = doubtful
        self._slots = asyncio.Semaphore(CONCURRENT_CALLS)
        self._open: tuple[StoreUnreachable, float] | None = None

    async def call(self, call: Callable[[], T]) -> T:
        """What ``call`` returns. Raises what it raises; StoreUnreachable at once if the last one got no answer."""
        if self._open is not None and _now() < self._open[1]:
            raise StoreUnreachable(self._open[0].message, reason=self._open[0].reason)
        async with _slot(self._slots, "The store has not answered earlier calls yet"):
            if self._endpoint.is_proven:
                return await self._run(call)
            async with _slot(self._doubtful, "Other stores that do not answer are being waited for"):
                return await self._run(call)

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            answer = await asyncio.to_thread(call)
        except StoreUnreachable as error:
            self._open, self._endpoint.is_proven = (error, _now() + OPEN_SECONDS), False
            raise
        except CinderblockError:
            self._endpoint.is_proven = True
            raise
        self._open, self._endpoint.is_proven = None, True
        return answer


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def _slot(slots: asyncio.Semaphore, trouble: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(SLOT_WAIT_SECONDS):
            await slots.acquire()
    except TimeoutError:
        raise StoreUnreachable(trouble) from None
    try:
        yield
    finally:
        slots.release()
