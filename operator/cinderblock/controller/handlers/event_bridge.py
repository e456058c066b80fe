"""Events on their way from kopf's thread to the operator's event loop, without keeping kopf waiting.

A watch begins with all existing objects, and counts as open once kopf has handled them. If each of ten thousand events
waited for the busier main thread, a new object would be noticed a minute after the start instead of seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any, Final, Protocol

from cinderblock.controller.handlers.watch_filter import reduce_event_object

log = logging.getLogger(__name__)

EVENTS_PER_TURN: Final = 50
"""Events handled before other tasks of the event loop run: about 2 ms."""

Event = Mapping[str, Any]
"""``type`` is ADDED, MODIFIED, DELETED, or None for the objects that a watch begins with; ``object`` is the body."""


class EventSink(Protocol):
    """Receives events; see `EventHandler`."""

    async def on_custom_resource(self, event: Event) -> None:
        """Handle an event about a BackupStore, VolumeBackup or VolumeRestore."""

    async def on_schedule(self, event: Event) -> None:
        """Handle an event about a BackupSchedule or a ClusterBackupSchedule."""

    async def on_cluster_store(self, event: Event) -> None:
        """Handle an event about a ClusterBackupStore."""

    async def on_grant(self, event: Event) -> None:
        """Handle an event about a BackupGrant."""

    async def on_source(self, event: Event) -> None:
        """Handle an event about a RestoreSource."""

    async def on_claim(self, event: Event) -> None:
        """Handle an event about a PersistentVolumeClaim whose dataSourceRef names one of our kinds."""

    async def on_child(self, event: Event) -> None:
        """Handle an event about an object that belongs to one of them."""

    async def on_persistent_volume(self, event: Event) -> None:
        """Handle an event about a PersistentVolume that a VolumeRestore rebinds."""


class EventBridge:
    """An `EventSink` for any thread. It passes events on, in order, in the event loop that created it."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[Callable[[Event], Awaitable[None]], Event]] = asyncio.Queue()

    async def on_custom_resource(self, event: Event) -> None:
        """Pass the event on. Return at once."""
        self._put(self._sink.on_custom_resource, event)

    async def on_schedule(self, event: Event) -> None:
        """Pass the event on. Return at once."""
        self._put(self._sink.on_schedule, event)

    async def on_cluster_store(self, event: Event) -> None:
        """Pass the event on. Return at once."""
        self._put(self._sink.on_cluster_store, event)

    async def on_grant(self, event: Event) -> None:
        """Pass the event on. Return at once."""
        self._put(self._sink.on_grant, event)

    async def on_source(self, event: Event) -> None:
        """Pass the event on. Return at once."""
        self._put(self._sink.on_source, event)

    async def on_claim(self, event: Event) -> None:
        """Pass the event on. Return at once."""
        self._put(self._sink.on_claim, event)

    async def on_child(self, event: Event) -> None:
        """Pass the event on. Return at once."""
        self._put(self._sink.on_child, event)

    async def on_persistent_volume(self, event: Event) -> None:
        """Pass the event on. Return at once."""
        self._put(self._sink.on_persistent_volume, event)

    def _put(self, handle: Callable[[Event], Awaitable[None]], event: Event) -> None:
        # Waiting events must not be large: anybody can give an object 256 KiB of annotations.
        event = {"type": event["type"], "object": reduce_event_object(dict(event["object"]))}
        self._loop.call_soon_threadsafe(self._events.put_nowait, (handle, event))

    async def run(self) -> None:
        """Pass events on, forever. An event that cannot be handled is logged and stops no other."""
        for number in count(1):
            handle, event = await self._events.get()
            try:
                await handle(event)
            except Exception:
                log.exception("Could not handle an event")
            if number % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
