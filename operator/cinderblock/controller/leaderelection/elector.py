"""Leader election: of all replicas, one acts; it stops before another one may begin.

The leader renews its Lease; one that cannot stops acting at two thirds of the Lease's length, by a clock that goes on
while the process is paused, and `Leading.check` stands before every write: a process that wakes up late is refused at
its next one. What was on its way at that moment is held by the object's resourceVersion, its UID, or its name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from cinderblock.controller.leaderelection.lease import (
    JsonObject,
    LeaseTimings,
    ObservedLease,
    acquired,
    holder_of,
    released,
)
from cinderblock.errors import AlreadyExists, CinderblockError, Conflict, NotFound, NotLeading
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import LEASE

log = logging.getLogger(__name__)

LeadingTask = Callable[[], Awaitable[None]]
"""What is done while leading; it never ends by itself, and is cancelled when leading ends."""


def boottime() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps (where there is one)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def new_identity() -> str:
    """A name for this process that no other one has: a restarted container is somebody else."""
    return f"{os.uname().nodename}_{uuid.uuid4()}"


class LeaderElector:
    """This process as a candidate, and as the leader.

    Attributes:
        identity: what stands in the Lease when it is ours.
        reachable_since: since when the API server has answered every request for the Lease, by ``time.monotonic``;
            None: it has not answered the last one.
        trouble: why it has not; empty: it has.
        looked_at: when the Lease was asked for last, by ``time.monotonic``, whatever came of it.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        name: str,
        *,
        identity: str | None = None,
        timing: LeaseTimings | None = None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.identity = identity or new_identity()
        self.reachable_since: float | None = None
        self.trouble = "it was not asked for yet"
        self.looked_at = time.monotonic()
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._timing = timing or LeaseTimings()
        self._clock = clock
        self._sighting = ObservedLease(self.identity, self._timing)
        self._held: JsonObject | None = None
        self._until = float("-inf")

    @property
    def is_leading(self) -> bool:
        """Whether this process may act at this moment."""
        return self._clock() < self._until

    @property
    def holder(self) -> str:
        """Identity of the leader, as far as it is known here; empty: nobody."""
        return self._sighting.holder

    def check(self) -> None:
        """Raise NotLeading unless this process may act at this moment."""
        if not self.is_leading:
            raise NotLeading("This process does not lead, or could not renew its Lease in time: it does not act")

    async def run(self, term: LeadingTask) -> None:
        """Be a candidate for ever, and carry out ``term`` while leading. Cancelled, it gives the Lease back.

        Raises what ``term`` raises.
        """
        try:
            while True:
                if not await self._try_acquire_or_renew():
                    await asyncio.sleep(self._timing.look)
                    continue
                log.info("This process leads", extra={"identity": self.identity})
                await self._lead(term)
                log.warning("This process does not lead any more", extra={"leader": self.holder})
        finally:
            await self._release()

    async def _lead(self, term: LeadingTask) -> None:
        """Carry out ``term`` and renew the Lease, until it is lost or could not be renewed in time."""
        task = asyncio.ensure_future(term())
        pause = self._timing.renew_period
        try:
            while True:
                left = self._until - self._clock()
                done, _ = await asyncio.wait({task}, timeout=max(0.0, min(pause, left)))
                if done:
                    task.result()
                    raise RuntimeError("a term ended by itself")
                if not self.is_leading:
                    return
                granted = await self._try_acquire_or_renew()
                if not granted and self.holder not in ("", self.identity):
                    return
                pause = self._timing.renew_period if granted else self._timing.look
        finally:
            self._until = float("-inf")
            task.cancel()
            await asyncio.wait({task})

    async def _try_acquire_or_renew(self) -> bool:
        """Take or renew the Lease if we may. Returns whether that was granted; raises nothing of the API server's."""
        asked, self.looked_at = self._clock(), time.monotonic()
        try:
            async with asyncio.timeout(self._timing.call):
                granted = await self._write(asked)
        except (CinderblockError, TimeoutError) as error:
            self._failed(error.message if isinstance(error, CinderblockError) else "no answer in time")
            return False
        if self.reachable_since is None:
            self.reachable_since = time.monotonic()
        self.trouble = ""
        if granted:
            self._until = asked + self._timing.renew_deadline
        return granted

    async def _write(self, asked: float) -> bool:
        if self._held is None:
            seen = await self._kube.get(LEASE, self._name, self._namespace)
            self._sighting.observe(seen, self._clock())
            if not self._sighting.may_acquire(asked):
                return False
            self._held = seen or {"metadata": {"name": self._name, "namespace": self._namespace}}
        wanted = acquired(self._held, self.identity, self._timing, datetime.now(UTC))
        is_new = "resourceVersion" not in wanted["metadata"]
        before, self._held = self._held, None
        try:
            held = await (self._kube.create(LEASE, wanted) if is_new else self._kube.replace(LEASE, wanted))
        except (AlreadyExists, Conflict, NotFound):
            # Somebody else was there; or we were, and the answer was lost.
            self._sighting.observe(await self._kube.get(LEASE, self._name, self._namespace), self._clock())
            return False
        except BaseException:
            # It may or may not have been written: a renewal is tried again as it was, and a Conflict tells.
            self._held = before if holder_of(before) == self.identity else None
            raise
        self._held = held
        self._sighting.observe(held, self._clock())
        return True

    def _failed(self, trouble: str) -> None:
        """Tell of a failure once, not every second."""
        if trouble != self.trouble:
            log.warning("The Lease cannot be had: %s", trouble)
        self.trouble = trouble
        self.reachable_since = None

    async def _release(self) -> None:
        """Stop acting, then let the next one begin at once."""
        held, self._held, self._until = self._held, None, float("-inf")
        if held is None or holder_of(held) != self.identity:
            return
        try:
            async with asyncio.timeout(self._timing.call):
                await self._kube.replace(LEASE, released(held))
        except (CinderblockError, TimeoutError):
            log.warning("The Lease could not be given back: it runs out by itself")
        else:
            log.info("This process has given its Lease back")
