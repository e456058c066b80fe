"""Keeps kopf running in a thread of its own: restarts it when it ends or when a watch stalls.

It needs a thread, because kopf cancels every task of its event loop when it stops, and handles signals in the main
thread. And a leader must renew its Lease while kopf handles thousands of objects.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from cinderblock.controller.handlers.event_bridge import EventBridge, EventSink
from cinderblock.controller.handlers.event_handler import CHILD_KINDS
from cinderblock.controller.handlers.kopf_thread import FIRST_RESTART_SECONDS, MAX_RESTART_SECONDS, KopfThread
from cinderblock.controller.handlers.watch_liveness import STALL_SECONDS, WatchLiveness, watch_name
from cinderblock.controller.request import OWN_KINDS
from cinderblock.errors import CinderblockError
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import PV, Kind

log = logging.getLogger(__name__)

# kopf warns that it does not handle signals in a thread. That is intended.
logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)

CHECK_SECONDS = 5.0
"""Seconds between two checks of the watches."""
OPENING_SECONDS = 60.0
"""For how long a watch may stay closed after a start before kopf is restarted; doubled after each restart."""
MAX_OPENING_SECONDS = 600.0
"""Most seconds before such a restart."""

WATCHED_KINDS = (*OWN_KINDS.values(), *CHILD_KINDS, PV)


class WatchManager:
    """Keeps watches of all kinds open, and passes their events to a sink in the event loop that created it.

    Args:
        kube: tells which kinds the cluster serves, and what kopf logs in with.
        sink: receives the events.
        reachable_since: returns since when the API server has answered, by ``time.monotonic``; None: it does not.

    Attributes:
        starts: how often kopf was started.
        synced: whether all kinds that the cluster serves are watched, so that every object was reported once.
    """

    def __init__(self, kube: KubeClient, sink: EventSink, reachable_since: Callable[[], float | None]) -> None:
        self.starts = 0
        self.synced = False
        self._kube = kube
        self._bridge = EventBridge(sink)
        self._reachable_since = reachable_since
        self._liveness = WatchLiveness()
        self._served: tuple[str, ...] = ()
        self._opening_seconds = OPENING_SECONDS

    async def run(self) -> None:
        """Watch forever."""
        bridge = asyncio.create_task(self._bridge.run())
        try:
            await self._keep_kopf_running()
        finally:
            bridge.cancel()

    async def _keep_kopf_running(self) -> None:
        delay = FIRST_RESTART_SECONDS
        while True:
            began = time.monotonic()
            cause = await self._run_kopf()
            if time.monotonic() - began > 10 * MAX_RESTART_SECONDS:
                delay = FIRST_RESTART_SECONDS
            pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            log.warning("Restarting kopf", extra={"cause": cause, "retry_in": round(pause, 1)})
            await asyncio.sleep(pause)
            delay = min(MAX_RESTART_SECONDS, delay * 2)

    def longest_idle(self) -> float:
        """Return the seconds since the most idle watch received data, not counting outages of the API server."""
        since = self._reachable_since()
        return self._liveness.longest_idle(self._served, since) if since is not None else 0.0

    async def _run_kopf(self) -> str:
        """Run kopf once, from start to end. Return why it ended."""
        self.starts += 1
        self._liveness = WatchLiveness(previous=self._liveness)
        self.synced = False
        thread = KopfThread(self._bridge, self._kube, self._liveness)
        thread.start()
        try:
            return await self._supervise(thread)
        finally:
            await thread.stop()

    async def _supervise(self, thread: KopfThread) -> str:
        began = time.monotonic()
        while not await thread.ended(CHECK_SECONDS if self.synced else 0.5):
            await self._update_served()
            reason = self._restart_reason(time.monotonic() - began)
            if reason:
                return reason
        return thread.end_reason

    async def _update_served(self) -> None:
        """Find out which kinds the cluster serves. The API server is only asked while a watch is missing."""
        closed = [kind for kind in WATCHED_KINDS if not all(map(self._liveness.is_open, self._watches(kind)))]
        try:
            served = [kind for kind in closed if await self._kube.serves(kind)]
        except CinderblockError:
            return
        watched = (kind for kind in WATCHED_KINDS if kind in served or kind not in closed)
        self._served = tuple(name for kind in watched for name in self._watches(kind))
        self.synced = not served
        if self.synced:
            self._opening_seconds = OPENING_SECONDS

    def _watches(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of the watches of a kind."""
        namespaces = self._kube.namespaces if kind.namespaced else ()
        return tuple(watch_name(kind.plural, namespace) for namespace in namespaces or (None,))

    def _restart_reason(self, running_seconds: float) -> str:
        """Return why kopf must be restarted; empty if it need not."""
        if self._reachable_since() is None:
            return ""
        if not self.synced and running_seconds > self._opening_seconds:
            self._opening_seconds = min(MAX_OPENING_SECONDS, 2 * self._opening_seconds)
            return "a served kind is not watched"
        if self.synced and self.longest_idle() > STALL_SECONDS:
            return "a watch has stalled"
        return ""
