"""What kopf hears, handed over from its thread to the one that works, without keeping kopf waiting.

A watch begins with everything there is, and is open only when kopf has dealt with that. If each of ten thousand events
waited for an answer from the busier thread, a new object would be heard of a minute after the start, not in seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any, Final, Protocol

log = logging.getLogger(__name__)

EVENTS_PER_TURN: Final = 50
"""Events that are dealt with before others have their turn in the event loop: about 2 ms."""

Event = Mapping[str, Any]


class Told(Protocol):
    """What is told of events; see `Watch`."""

    async def on_own(self, event: Event) -> None:
        """An object of ours came, changed or went."""

    async def on_child(self, event: Event) -> None:
        """A child came, changed or went."""

    async def on_volume(self, event: Event) -> None:
        """A PersistentVolume that is being handed over came, changed or went."""


class EventBridge:
    """Takes events in whatever thread, and tells ``told`` of them in the one that made this, in their order."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._main = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[Callable[..., Awaitable[None]], Event]] = asyncio.Queue()

    async def on_own(self, **arguments: Any) -> None:
        """See `process.Handlers`."""
        self._take(self._told.on_own, arguments["event"])

    async def on_child(self, **arguments: Any) -> None:
        """See `process.Handlers`."""
        self._take(self._told.on_child, arguments["event"])

    async def on_volume(self, **arguments: Any) -> None:
        """See `process.Handlers`."""
        self._take(self._told.on_volume, arguments["event"])

    def _take(self, handle: Callable[..., Awaitable[None]], event: Event) -> None:
        self._main.call_soon_threadsafe(self._events.put_nowait, (handle, event))

    async def run(self) -> None:
        """Tell of one event after the other, for ever. One that cannot be understood is logged, and stops no other."""
        for number in count(1):
            handle, event = await self._events.get()
            try:
                await handle(event)
            except Exception:
                log.exception("An event was not understood")
            if number % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
