"""kopf in a thread of its own, kept running: what ends it, or makes it deaf, is answered by starting it anew.

A thread, because kopf takes every task of its event loop for its own when it stops, and handles signals in the main
thread; and because a leader's Lease must be renewed while kopf goes through thousands of objects.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from cinderblock.controller.handlers.event_bridge import EventBridge, Told
from cinderblock.controller.handlers.event_handler import CHILD_KINDS
from cinderblock.controller.handlers.kopf_thread import FIRST_RESTART, LONGEST_RESTART, KopfThread
from cinderblock.controller.handlers.watch_liveness import SILENT_SECONDS, WatchLiveness
from cinderblock.controller.request import OWN_KINDS
from cinderblock.errors import CinderblockError
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import PV

log = logging.getLogger(__name__)

# kopf warns that it does not handle signals in a thread; it should not.
logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)

LOOK_SECONDS = 5.0
"""Between two looks at the watches."""
OPENING_SECONDS = 60.0
"""For how long a watch may not be open after a start before kopf is started anew; twice as long after each start."""
LONGEST_OPENING_SECONDS = 600.0


WATCHED_KINDS = (*OWN_KINDS.values(), *CHILD_KINDS, PV)


class WatchManager:
    """Keeps watches of all our types open, and tells ``watch`` of events, in the event loop that made this.

    Attributes:
        starts: how often kopf was started.
        synced: whether every type that the cluster serves is watched, and so everything has been heard of once.
    """

    def __init__(self, kube: KubeClient, watch: Told, reachable_since: Callable[[], float | None]) -> None:
        self.starts = 0
        self.synced = False
        self._kube = kube
        self._hearing = EventBridge(watch)
        self._reachable_since = reachable_since
        self._pulse = WatchLiveness()
        self._served: tuple[str, ...] = ()
        self._patience = OPENING_SECONDS

    async def run(self) -> None:
        """Watch for ever."""
        telling = asyncio.create_task(self._hearing.run())
        try:
            await self._keep_kopf_running()
        finally:
            telling.cancel()

    async def _keep_kopf_running(self) -> None:
        delay = FIRST_RESTART
        while True:
            began = time.monotonic()
            trouble = await self._run_once()
            if time.monotonic() - began > 10 * LONGEST_RESTART:
                delay = FIRST_RESTART
            pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            log.warning("Watching begins anew", extra={"because": trouble, "delay": round(pause, 1)})
            await asyncio.sleep(pause)
            delay = min(LONGEST_RESTART, delay * 2)

    def longest_idle(self) -> float:
        """Seconds since the most silent watch was heard, as far as the API server could be reached meanwhile."""
        since = self._reachable_since()
        return self._pulse.longest_idle(self._served, since) if since is not None else 0.0

    async def _run_once(self) -> str:
        """One run of kopf, from its start to its end; returns why it ended."""
        self.starts += 1
        self._pulse = WatchLiveness(before=self._pulse)
        self.synced = False
        run = KopfThread(self._hearing, self._kube, self._pulse)
        run.start()
        try:
            return await self._attend(run)
        finally:
            await run.stop()

    async def _attend(self, run: KopfThread) -> str:
        began = time.monotonic()
        while not await run.ended(LOOK_SECONDS if self.synced else 0.5):
            await self._learn()
            deaf = self._restart_reason(time.monotonic() - began)
            if deaf:
                return deaf
        return run.trouble

    async def _learn(self) -> None:
        """Which types the cluster serves; asked only as long as one of them is not watched."""
        closed = [kind for kind in WATCHED_KINDS if not self._pulse.opened(kind.plural)]
        try:
            served = [kind for kind in closed if await self._kube.serves(kind)]
        except CinderblockError:
            return
        self._served = tuple(kind.plural for kind in WATCHED_KINDS if kind in served or kind not in closed)
        self.synced = not served
        if self.synced:
            self._patience = OPENING_SECONDS

    def _restart_reason(self, running: float) -> str:
        """Why kopf is to be started anew, if it is."""
        if self._reachable_since() is None:
            return ""
        if not self.synced and running > self._patience:
            self._patience = min(LONGEST_OPENING_SECONDS, 2 * self._patience)
            return "a type is served that is not watched"
        if self.synced and self.longest_idle() > SILENT_SECONDS:
            return "a watch is silent"
        return ""
