"""Leader election: one of the replicas acts, and stops before another one may start.

The leader renews its Lease. If it cannot, it stops acting at two thirds of the Lease's duration, by a clock that runs
while the process is paused. `LeaderElector.check` guards every write, so a process that wakes up late cannot make
another one. A write that was already sent is held off by resourceVersion, UID or name.
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
"""Work of the leader. It never ends by itself, and is cancelled when the leadership ends."""


def boottime() -> float:
    """Return the seconds of a clock that nobody sets and that, where the system has one, runs during suspend."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def new_identity() -> str:
    """Return a name for this process that is unique even after a restart of the container."""
    return f"{os.uname().nodename}_{uuid.uuid4()}"


class LeaderElector:
    """This process as a candidate and as the leader.

    Attributes:
        identity: the holder identity in the Lease while this process leads.
        reachable_since: since when the API server has answered all requests for the Lease, by ``time.monotonic``;
            None: the last request failed.
        error: why the last request failed; empty if it did not.
        last_attempt: when the Lease was last requested, by ``time.monotonic``, whatever the result.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        name: str,
        *,
        identity: str | None = None,
        timings: LeaseTimings | None = None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.identity = identity or new_identity()
        self.reachable_since: float | None = None
        self.error = "it was not requested yet"
        self.last_attempt = time.monotonic()
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._timings = timings or LeaseTimings()
        self._clock = clock
        self._observed = ObservedLease(self.identity, self._timings)
        self._held: JsonObject | None = None
        self._leads_until = float("-inf")

    @property
    def is_leading(self) -> bool:
        """Whether this process may act now."""
        return self._clock() < self._leads_until

    @property
    def holder(self) -> str:
        """Identity of the last known leader; empty if there is none."""
        return self._observed.holder

    def check(self) -> None:
        """Raise NotLeading unless this process may act now."""
        if not self.is_leading:
            raise NotLeading("Not the leader, or the Lease expired before it could be renewed: refusing to write")

    async def run(self, task: LeadingTask) -> None:
        """Be a candidate forever, and run ``task`` while leading. Release the Lease when cancelled.

        Raises what ``task`` raises.
        """
        try:
            while True:
                if not await self._try_acquire_or_renew():
                    await asyncio.sleep(self._timings.retry_period)
                    continue
                log.info("Lease acquired", extra={"identity": self.identity})
                await self._lead(task)
                log.warning("Lease lost", extra={"identity": self.identity, "holder": self.holder})
        finally:
            await self._release()

    async def _lead(self, leading_task: LeadingTask) -> None:
        """Run the task and renew the Lease, until the Lease is lost or could not be renewed in time."""
        task = asyncio.ensure_future(leading_task())
        pause = self._timings.renew_period
        try:
            while True:
                left = self._leads_until - self._clock()
                done, _ = await asyncio.wait({task}, timeout=max(0.0, min(pause, left)))
                if done:
                    task.result()
                    raise RuntimeError("the leading task ended by itself")
                if not self.is_leading:
                    return
                is_granted = await self._try_acquire_or_renew()
                if not is_granted and self.holder not in ("", self.identity):
                    return
                pause = self._timings.renew_period if is_granted else self._timings.retry_period
        finally:
            self._leads_until = float("-inf")
            task.cancel()
            await asyncio.wait({task})

    async def _try_acquire_or_renew(self) -> bool:
        """Acquire or renew the Lease if that is allowed. Return whether it was granted; raise no API error."""
        began, self.last_attempt = self._clock(), time.monotonic()
        try:
            async with asyncio.timeout(self._timings.request_timeout):
                is_granted = await self._write(began)
        except (CinderblockError, TimeoutError) as error:
            self._record_failure(error.message if isinstance(error, CinderblockError) else "no answer in time")
            return False
        if self.reachable_since is None:
            self.reachable_since = time.monotonic()
        self.error = ""
        if is_granted:
            self._leads_until = began + self._timings.renew_deadline
        return is_granted

    async def _write(self, began: float) -> bool:
        if self._held is None:
            lease = await self._kube.get(LEASE, self._name, self._namespace)
            self._observed.observe(lease, self._clock())
            if not self._observed.may_acquire(began):
                return False
            self._held = lease or {"metadata": {"name": self._name, "namespace": self._namespace}}
        body = acquired(self._held, self.identity, self._timings, datetime.now(UTC))
        is_new = "resourceVersion" not in body["metadata"]
        previous, self._held = self._held, None
        try:
            held = await (self._kube.create(LEASE, body) if is_new else self._kube.replace(LEASE, body))
        except (AlreadyExists, Conflict, NotFound):
            # Another candidate was faster; or this one was, and the answer was lost.
            self._observed.observe(await self._kube.get(LEASE, self._name, self._namespace), self._clock())
            return False
        except BaseException:
            # It is unknown whether the write happened. Retry a renewal unchanged: if it happened, that is a Conflict.
            self._held = previous if holder_of(previous) == self.identity else None
            raise
        self._held = held
        self._observed.observe(held, self._clock())
        return True

    def _record_failure(self, error: str) -> None:
        """Remember a failure, and log it once instead of every second."""
        if error != self.error:
            log.warning("Could not acquire or renew the Lease: %s", error)
        self.error = error
        self.reachable_since = None

    async def _release(self) -> None:
        """Stop acting, then release the Lease, so that the next leader can start at once."""
        held, self._held, self._leads_until = self._held, None, float("-inf")
        if held is None or holder_of(held) != self.identity:
            return
        try:
            async with asyncio.timeout(self._timings.request_timeout):
                await self._write_released(held)
        except (CinderblockError, TimeoutError):
            log.warning("Could not release the Lease: it expires by itself", extra={"identity": self.identity})
        else:
            log.info("Lease released", extra={"identity": self.identity})

    async def _write_released(self, held: JsonObject) -> None:
        try:
            await self._kube.replace(LEASE, released(held))
        except Conflict:
            # A renewal that was cancelled with the process may have been written.
            lease = await self._kube.get(LEASE, self._name, self._namespace)
            if lease is None or holder_of(lease) != self.identity:
                raise
            await self._kube.replace(LEASE, released(lease))
