"""Reads the cluster for its figures: when somebody asks for them, and not again within a short time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from cinderblock.api import labels
from cinderblock.api.kubernetes import Job
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import CinderblockError
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.observability.cluster_state import ClusterState, ClusterStateBuilder, claim_refs

log = logging.getLogger(__name__)

CACHE_SECONDS: Final = 15.0
"""For how long a reading is good enough: two Prometheus servers that ask every 30 s make one reading each time."""
MANY_OBJECTS: Final = 80
"""A reading is kept for so many times as long as it took, so that with very many objects it costs little more than 1 %
of a core: ten thousand take some 2 s."""
MAX_CACHE_SECONDS: Final = 120.0
"""For how long one is kept at most; an alert says after five minutes that the figures are old."""
READ_TIMEOUT_SECONDS: Final = 5.0
"""How long somebody who asks waits for a new reading; Prometheus itself gives up after 10 s (scrape_timeout)."""
CONCURRENT_LISTS: Final = 100
"""Objects that are parsed before others have their turn in the event loop: about 5 ms."""

T = TypeVar("T", bound=Object)


class ClusterCollector:
    """The last reading of the cluster. It costs five lists, and nothing while nobody asks."""

    def __init__(self, kube: KubeClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._state: ClusterState | None = None
        self._read_at = 0.0
        self._kept = CACHE_SECONDS
        self._reading: asyncio.Task[None] | None = None

    async def state(self) -> tuple[ClusterState | None, float]:
        """The figures, and their age in seconds. Old ones if the API server does not answer; None if there are none."""
        if self._state is None or self._clock() - self._read_at > self._kept:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            await asyncio.wait({self._reading}, timeout=READ_TIMEOUT_SECONDS)
        return self._state, self._clock() - self._read_at

    def forget(self) -> None:
        """There is no state any more that would be told: this process does not lead."""
        self._state = None

    async def aclose(self) -> None:
        """Break off a reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self) -> None:
        began = self._clock()
        try:
            state = await read(self._kube)
        except CinderblockError as error:
            log.warning("The figures for metrics could not be read: %s", error.message)
            return
        self._state, self._read_at = state, began
        self._kept = min(MAX_CACHE_SECONDS, max(CACHE_SECONDS, MANY_OBJECTS * (self._clock() - began)))


async def read(kube: KubeClient) -> ClusterState:
    """Read and count. Raises what the API server raises."""
    stores = [store async for store in _each(BackupStore, await kube.list(kinds.BACKUP_STORE))]
    census = ClusterStateBuilder(claim_refs(await kube.list(kinds.PVC)), stores)
    async for backup in _each(VolumeBackup, await kube.list(kinds.VOLUME_BACKUP)):
        census.add_backup(backup)
    async for restore in _each(VolumeRestore, await kube.list(kinds.VOLUME_RESTORE)):
        census.add_restore(restore)
    jobs = await kube.list(kinds.JOB, labels=f"{labels.MANAGED_BY_LABEL}={labels.MANAGED_BY}")
    running = [job async for job in _each(Job, jobs) if not job.is_complete and job.failure is None]
    return census.result(len(running))


async def _each(model: type[T], bodies: list[dict[str, Any]]) -> AsyncIterator[T]:
    """Objects as models, with pauses; one that does not parse is told of when it is reconciled, and not counted."""
    for number, body in enumerate(bodies):
        if number % CONCURRENT_LISTS == CONCURRENT_LISTS - 1:
            await asyncio.sleep(0)
        try:
            yield model.model_validate(body)
        except ValidationError:
            continue
