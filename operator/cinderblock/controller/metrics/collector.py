"""Reads the state of the cluster for /metrics, on demand, and caches it for a short time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Final, TypeVar

from pydantic import ValidationError

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.schedule import BackupSchedule, ClusterBackupSchedule
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.errors import CinderblockError, KubeUnavailable
from cinderblock.kube import kinds
from cinderblock.kube.client import JsonObject, KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.kube.reduction import reduce_with_labels
from cinderblock.lifecycle.alarms.protection import ProtectionIndex
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.observability.cluster_state import ClusterState, ClusterStateBuilder, claim_ref

log = logging.getLogger(__name__)

CACHE_SECONDS: Final = 15.0
"""For how long a state is served again. Two Prometheus servers that scrape every 30 s cause one read each time."""
CACHE_TO_READ_RATIO: Final = 80
"""A state is cached for so many times the duration of its read, so that reads cost little more than 1 % of a core.
Ten thousand objects take about 2 s."""
MAX_CACHE_SECONDS: Final = 120.0
"""For how long a state is cached at most. An alert fires when it is five minutes old."""
READ_TIMEOUT_SECONDS: Final = 5.0
"""For how long a scrape waits for a new state. Prometheus itself gives up after 10 s (scrape_timeout)."""
OBJECTS_PER_TURN: Final = 100
"""Objects parsed before other tasks of the event loop run: about 5 ms."""

T = TypeVar("T", bound=Object)


class ClusterCollector:
    """The last state of the cluster. A read costs up to nine lists, and six without schedules; it needs a scrape.

    Args:
        kube: the client.
        clock: seconds that never go back.
        schedule_kinds: names of the kinds of schedules that the operator works on.
        cluster_stores: whether it works on ClusterBackupStores.
    """

    def __init__(
        self,
        kube: KubeClient,
        clock: Callable[[], float] = time.monotonic,
        schedule_kinds: Collection[str] = (),
        *,
        cluster_stores: bool = False,
    ) -> None:
        self._kube = kube
        self._schedule_kinds = schedule_kinds
        self._cluster_stores = cluster_stores
        self._clock = clock
        self._state: ClusterState | None = None
        self._read_at = 0.0
        self._cache_seconds = CACHE_SECONDS
        self._reading: asyncio.Task[None] | None = None

    async def state(self) -> tuple[ClusterState | None, float]:
        """Return the state and its age in seconds. If the API server does not answer, that is the last one, or None."""
        if self._state is None or self._clock() - self._read_at > self._cache_seconds:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            await asyncio.wait({self._reading}, timeout=READ_TIMEOUT_SECONDS)
        return self._state, self._clock() - self._read_at

    def forget(self) -> None:
        """Drop the state, because this process does not lead."""
        self._state = None

    async def aclose(self) -> None:
        """Cancel a running read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self) -> None:
        began = self._clock()
        try:
            state = await read(self._kube, self._schedule_kinds, cluster_stores=self._cluster_stores)
        except CinderblockError as error:
            log.warning("Could not read the state for metrics: %s", error.message, extra={"reason": error.reason})
            return
        except Exception:
            # A defect must not end metrics and alerts without a trace. The age of the last state grows meanwhile.
            log.exception("Could not read the state for metrics")
            return
        self._state, self._read_at = state, began
        self._cache_seconds = min(MAX_CACHE_SECONDS, max(CACHE_SECONDS, CACHE_TO_READ_RATIO * (self._clock() - began)))


async def read(kube: KubeClient, schedule_kinds: Collection[str] = (), *, cluster_stores: bool = False) -> ClusterState:
    """Read and count all objects, of which one page is kept at a time. Raises what the API server raises.

    Without kinds of schedules, nothing is said about volumes that no schedule selects.

    Movers are counted by the statuses of their operations: anybody can create a Job that looks like one.
    """
    builder, movers = ClusterStateBuilder(), 0
    await _read_stores(kube, builder, cluster_stores=cluster_stores)
    async for backup in _each(VolumeBackup, kube, kinds.VOLUME_BACKUP):
        builder.add_backup(backup)
        movers += mover_state.has_mover(backup)
    async for restore in _each(VolumeRestore, kube, kinds.VOLUME_RESTORE):
        builder.add_restore(restore)
        movers += mover_state.has_mover(restore)
    # After an upgrade, the cluster may lack the definition.
    if await kube.serves(kinds.BACKUP_VERIFICATION):
        async for verification in _each(BackupVerification, kube, kinds.BACKUP_VERIFICATION):
            builder.add_verification(verification)
    labelled = kube.reducing(reduce_with_labels)
    protection = await _read_schedules(labelled, schedule_kinds, builder) if schedule_kinds else None
    async for body in _bodies(labelled, kinds.PVC):
        _add_claim(builder, body, protection)
    return builder.result(movers)


def _add_claim(builder: ClusterStateBuilder, body: JsonObject, protection: ProtectionIndex | None) -> None:
    """Add a claim. One that does not parse has its backups, but nobody knows what selects it."""
    reference, claim = claim_ref(body), _parsed_claim(body) if protection is not None else None
    if reference is not None:
        if protection is None or claim is None:
            builder.add_claim(reference)
        else:
            builder.add_claim(reference, protection.selected_since(claim), protection.drills_since(claim))
    state = protection.protection_of(claim) if protection is not None and claim is not None else None
    if claim is not None and state is not None:
        builder.count_protection(claim, state)


def _parsed_claim(body: JsonObject) -> PersistentVolumeClaim | None:
    try:
        return PersistentVolumeClaim.model_validate(body)
    except ValidationError:
        return None


async def _read_stores(kube: KubeClient, builder: ClusterStateBuilder, *, cluster_stores: bool) -> None:
    async for store in _each(BackupStore, kube, kinds.BACKUP_STORE):
        builder.add_store(store)
    # After an upgrade, the cluster may lack the definition.
    if cluster_stores and await kube.serves(kinds.CLUSTER_BACKUP_STORE):
        async for of_cluster in _each(ClusterBackupStore, kube, kinds.CLUSTER_BACKUP_STORE):
            builder.add_store(of_cluster)


async def _read_schedules(
    kube: KubeClient, schedule_kinds: Collection[str], builder: ClusterStateBuilder
) -> ProtectionIndex:
    """Read the schedules, and the labels of the namespaces if schedules of the cluster may select some."""
    index = ProtectionIndex()
    # After an upgrade, the cluster may lack the definitions.
    if kinds.BACKUP_SCHEDULE.kind in schedule_kinds and await kube.serves(kinds.BACKUP_SCHEDULE):
        async for schedule in _each(BackupSchedule, kube, kinds.BACKUP_SCHEDULE):
            index.add_schedule(schedule)
            builder.add_schedule(schedule)
    if kinds.CLUSTER_BACKUP_SCHEDULE.kind in schedule_kinds and await kube.serves(kinds.CLUSTER_BACKUP_SCHEDULE):
        async for of_cluster in _each(ClusterBackupSchedule, kube, kinds.CLUSTER_BACKUP_SCHEDULE):
            index.add_schedule(of_cluster)
            builder.add_schedule(of_cluster)
        async for namespace in _namespaces(kube):
            index.add_namespace(namespace["metadata"]["name"], namespace["metadata"].get("labels") or {})
    return index


async def _namespaces(kube: KubeClient) -> AsyncIterator[JsonObject]:
    """Yield the namespaces. An operator that works in some of them only may not list them."""
    if not kube.namespaces:
        async for body in _bodies(kube, kinds.NAMESPACE):
            yield body
    for name in kube.namespaces:
        found = await kube.get(kinds.NAMESPACE, name)
        if found is not None:
            yield found


async def _each(model: type[T], kube: KubeClient, kind: Kind) -> AsyncIterator[T]:
    """Yield objects as models. One that does not parse is not counted; its reconciliation reports it."""
    async for body in _bodies(kube, kind):
        try:
            yield model.model_validate(body)
        except ValidationError:
            continue


async def _bodies(kube: KubeClient, kind: Kind) -> AsyncIterator[JsonObject]:
    """Yield objects, with pauses."""
    number = 0
    async for page in kube.pages(kind):
        if page is None:
            raise KubeUnavailable(f"Cannot count {kind.resource}: the list expired while it was read")
        for body in page:
            number += 1
            if number % OBJECTS_PER_TURN == 0:
                await asyncio.sleep(0)
            yield body
