"""How many workers may wait for one store: a store that never answers must not hold up those that do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from cinderblock.errors import StoreUnreachable

AT_ONCE: Final = 4
"""Calls to one store at the same time; a quarter of the workers."""
SLOT_SECONDS: Final = 1.0
"""For how long a call waits until another one to the same store has ended: hundreds of usual ones have by then."""
SILENT_SECONDS: Final = 5.0
"""For how long it is believed that a store does not answer; shorter than any interval at which it is asked again."""

T = TypeVar("T")


class Patience:
    """Calls to one store, made in threads. For one event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._silent: tuple[StoreUnreachable, float] | None = None

    async def ask(self, call: Callable[[], T]) -> T:
        """What ``call`` returns. Raises what it raises; StoreUnreachable at once if the last one got no answer."""
        clock = asyncio.get_running_loop().time
        if self._silent is not None and clock() < self._silent[1]:
            raise StoreUnreachable(self._silent[0].message, reason=self._silent[0].reason)
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise StoreUnreachable("The store has not answered earlier calls yet") from None
        try:
            answer = await asyncio.to_thread(call)
        except StoreUnreachable as error:
            self._silent = error, clock() + SILENT_SECONDS
            raise
        finally:
            self._slots.release()
        self._silent = None
        return answer
