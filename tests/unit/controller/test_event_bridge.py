"""Events come from kopf's thread to the one that works: all of them, in their order, and kopf waits for nothing."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from cinderblock.controller.handlers.event_bridge import EventBridge


class Noting:
    """Notes what it is told, in whatever thread; may be slow, and fails at what is poisonous."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any, threading.Thread]] = []
        self.last: Any = None
        self.has_ended = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def _note(self, what: str, event: Any) -> None:
        await self.goes_on.wait()
        if event == "poison":
            raise ZeroDivisionError
        self.told.append((what, event, threading.current_thread()))
        if event == self.last:
            self.has_ended.set()

    async def on_own(self, event: Any) -> None:
        await self._note("own", event)

    async def on_child(self, event: Any) -> None:
        await self._note("child", event)

    async def on_volume(self, event: Any) -> None:
        await self._note("volume", event)


async def _hear(hearing: EventBridge, events: list[Any]) -> None:
    for number, event in enumerate(events):
        await (hearing.on_own, hearing.on_child, hearing.on_volume)[number % 3](event=event, anything="else")


async def _told(noting: Noting, events: list[Any], *, is_slow: bool = False) -> None:
    """Hear of events in another thread, and wait until all that can be told was told."""
    noting.last, hearing = events[-1], EventBridge(noting)
    running = asyncio.create_task(hearing.run())
    if is_slow:
        noting.goes_on.clear()
    async with asyncio.timeout(10):
        await asyncio.to_thread(asyncio.run, _hear(hearing, events))
        noting.goes_on.set()
        await noting.has_ended.wait()
    running.cancel()


async def test_all_events_are_told_in_their_order_in_the_thread_that_works() -> None:
    noting = Noting()
    await _told(noting, list(range(500)))
    assert [event for _, event, _ in noting.told] == list(range(500))
    assert [what for what, _, _ in noting.told[:4]] == ["own", "child", "volume", "own"]
    assert {thread for _, _, thread in noting.told} == {threading.current_thread()}


async def test_kopf_does_not_wait_for_what_is_made_of_an_event() -> None:
    noting = Noting()
    await _told(noting, [1, 2, 3], is_slow=True)
    assert [event for _, event, _ in noting.told] == [1, 2, 3]


async def test_an_event_that_cannot_be_understood_stops_no_other() -> None:
    noting = Noting()
    await _told(noting, [1, "poison", 3])
    assert [event for _, event, _ in noting.told] == [1, 3]
