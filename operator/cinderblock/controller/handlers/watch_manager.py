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
from cinderblock.controller.request import OWN_KINDS, SCHEDULE_KINDS
from cinderblock.errors import AccessDenied, CinderblockError
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import BACKUP_GRANT, CLUSTER_BACKUP_STORE, PV, RESTORE_SOURCE, Kind
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)

# kopf warns that it does not handle signals in a thread. That is intended.
logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)

CHECK_SECONDS = 5.0
"""Seconds between two checks of the watches."""
OPENING_SECONDS = 60.0
"""For how long a watch may stay closed after a start before kopf is restarted; doubled after each restart."""
MAX_OPENING_SECONDS = 600.0
"""Most seconds before such a restart."""

EXCUSED_SECONDS = 120.0
"""For how long a closed watch is not missed after the server has refused it. kopf repeats its request within 30 s, and
the server is asked again every MAY_LIST_SECONDS."""
OPENS_SECONDS = 5.0
"""Seconds in which a watch usually opens. Until then, nobody asks whether it is refused."""
QUIET_SECONDS = 90.0
"""Seconds after which a silent watch is suspected to be refused. The server sends a bookmark every minute."""
MAY_LIST_SECONDS = 30.0
"""Seconds between two questions whether a closed or silent watch is permitted."""

WATCHED_KINDS = (*OWN_KINDS.values(), *CHILD_KINDS, PV)
"""All kinds that are watched, those of schedules included."""


class WatchManager:
    """Keeps watches of all kinds open, and passes their events to a sink in the event loop that created it.

    Args:
        kube: tells which kinds the cluster serves, and what kopf logs in with.
        sink: receives the events.
        reachable_since: returns since when the API server has answered, by ``time.monotonic``; None: it does not.
        schedule_kinds: kinds of schedules that are watched.
        cluster_stores: whether ClusterBackupStores and BackupGrants are watched.
        populates: whether RestoreSources, and claims of users, are watched.

    Attributes:
        starts: how often kopf was started.
        synced: whether all kinds that the cluster serves are watched, so that every object was reported once. With a
            list of namespaces, those that the operator may not read are left out, unless that is all of them.
    """

    def __init__(
        self,
        kube: KubeClient,
        sink: EventSink,
        reachable_since: Callable[[], float | None],
        *,
        schedule_kinds: frozenset[str] = frozenset(SCHEDULE_KINDS),
        cluster_stores: bool = True,
        populates: bool = True,
    ) -> None:
        self.starts = 0
        self.synced = False
        self._kube = kube
        self._bridge = EventBridge(sink)
        self._reachable_since = reachable_since
        self._schedule_kinds = schedule_kinds
        self._cluster_stores = cluster_stores
        self._populates = populates
        shared = {BACKUP_GRANT.kind, CLUSTER_BACKUP_STORE.kind}
        left_out = {*SCHEDULE_KINDS} - schedule_kinds | (set() if cluster_stores else shared)
        left_out |= set() if populates else {RESTORE_SOURCE.kind}
        self._kinds = tuple(kind for kind in WATCHED_KINDS if kind.kind not in left_out)
        self._liveness = WatchLiveness()
        self._served: tuple[str, ...] = ()
        self._opening_seconds = OPENING_SECONDS
        self._asked_at: dict[str, float] = {}
        """When the server was last asked whether a watch is permitted, by its name."""
        self._refused_at: dict[str, float] = {}
        """When the server last refused that."""

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
        thread = KopfThread(
            self._bridge,
            self._kube,
            self._liveness,
            schedule_kinds=self._schedule_kinds,
            cluster_stores=self._cluster_stores,
            populates=self._populates,
        )
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
        """Find out which watches must be open. The API server is only asked while one is missing or silent."""
        is_open = {kind: all(map(self._liveness.is_open, self._watches(kind))) for kind in self._kinds}
        try:
            watched = [kind for kind in self._kinds if is_open[kind] or await self._kube.serves(kind)]
            required = [name for kind in watched for name in await self._required_watches(kind)]
        except CinderblockError:
            return
        self._served = tuple(required)
        self.synced = all(map(self._liveness.is_open, required))
        if self.synced:
            self._opening_seconds = OPENING_SECONDS

    async def _required_watches(self, kind: Kind) -> list[str]:
        """Return the watches of a kind without those that the server refuses, or has refused until a moment ago.

        A tenant may delete a namespace, or the RoleBinding there. That must not hold up all others. But if every watch
        of a kind is refused, the operator lacks its rights, and all are required.
        """
        now, watches = time.monotonic(), self._watches(kind)
        for name, namespace in watches.items():
            # A watch opens within seconds of the start.
            asked_at = self._asked_at.setdefault(name, now + OPENS_SECONDS - MAY_LIST_SECONDS)
            if namespace is not None and now - asked_at >= MAY_LIST_SECONDS and self._is_silent(name):
                self._asked_at[name] = now
                if await self._is_refused(kind, namespace):
                    self._refused_at[name] = now
        refused = {name for name in watches if now - self._refused_at.get(name, float("-inf")) < EXCUSED_SECONDS}
        return [name for name in watches if name not in refused or len(refused) == len(watches)]

    def _is_silent(self, watch: str) -> bool:
        """Return whether a watch is not open, or the server may have refused to open it again."""
        if not self._liveness.is_open(watch):
            return True
        since = self._reachable_since()
        return since is not None and self._liveness.longest_idle((watch,), since) > QUIET_SECONDS

    async def _is_refused(self, kind: Kind, namespace: str) -> bool:
        try:
            await self._kube.check_may_list(kind, namespace)
        except AccessDenied as error:
            return error.reason != Reason.UNAUTHORIZED
        return False

    def _watches(self, kind: Kind) -> dict[str, str | None]:
        """Return the names of the watches of a kind, each with its namespace; None: all namespaces."""
        namespaces = self._kube.namespaces if kind.namespaced else ()
        return {watch_name(kind.plural, namespace): namespace for namespace in namespaces or (None,)}

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
