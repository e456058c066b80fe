"""Metrics that are derived from the objects of the cluster, without side effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from cinderblock.api import labels
from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.reasons import Reason

NEW: Final = "new"
"""Phase of an object that the operator has not processed yet."""

USER_WAIT_REASONS: Final = frozenset({"HasDependentBackups", "Locked"})
"""Reasons of waits for a person or a date. They may take any time, so such an operation is not pending."""


class OperationKind(StrEnum):
    """Operations that users request. Cancelling a restore is a deletion."""

    BACKUP = "backup"
    RESTORE = "restore"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """An existing PersistentVolumeClaim."""

    uid: str
    namespace: str
    name: str


@dataclass
class VolumeMetrics:
    """Times of a volume's backups, in seconds since 1970.

    Attributes:
        namespace, name: of the PersistentVolumeClaim.
        first_request: creation of its oldest existing VolumeBackup.
        last_success: time of the data in the newest complete backup.
        last_incomplete: time of the data in the newest backup that lacks unreadable files.
        last_failure: time of the last failure of its existing VolumeBackups.
    """

    namespace: str
    name: str
    first_request: float | None = None
    last_success: float | None = None
    last_incomplete: float | None = None
    last_failure: float | None = None


@dataclass
class StoreMetrics:
    """A BackupStore: whether its last check succeeded, and how many bytes VolumeBackups have in it."""

    namespace: str
    name: str
    is_ready: bool
    stored_bytes: int = 0


@dataclass
class ClusterState:
    """One reading of the cluster.

    Attributes:
        objects: number of objects by kind and phase, zeros included.
        oldest_pending: request time of the oldest unfinished operation, in seconds since 1970.
        last_failures: time of the last failure among existing objects, in seconds since 1970.
        running_movers: number of mover Jobs that have not ended.
        queued_movers: number of operations that wait for a free mover slot.
        volumes: existing volumes that VolumeBackups name.
        stores: all BackupStores.
    """

    objects: Counter[tuple[str, str]] = field(default_factory=Counter)
    oldest_pending: dict[OperationKind, float] = field(default_factory=dict)
    last_failures: dict[OperationKind, float] = field(default_factory=dict)
    running_movers: int = 0
    queued_movers: int = 0
    volumes: list[VolumeMetrics] = field(default_factory=list)
    stores: list[StoreMetrics] = field(default_factory=list)


class ClusterStateBuilder:
    """Builds a ClusterState from one object at a time, so that callers need not hold all of them."""

    def __init__(self, claims: Iterable[ClaimRef], stores: Iterable[BackupStore]) -> None:
        self._state = ClusterState(objects=_zeros())
        self._by_uid: dict[str, VolumeMetrics] = {}
        self._by_name: dict[tuple[str, str], VolumeMetrics] = {}
        for claim in claims:
            metrics = VolumeMetrics(claim.namespace, claim.name)
            self._by_uid[claim.uid] = self._by_name[claim.namespace, claim.name] = metrics
        self._stores = {(store.namespace, store.name): _store_metrics(store) for store in stores}

    def add_backup(self, backup: VolumeBackup) -> None:
        """Count a VolumeBackup."""
        phase, status = backup.own_phase, backup.status
        self._state.objects["VolumeBackup", phase or NEW] += 1
        if backup.metadata.is_being_deleted:
            self._add_deletion(backup.metadata.deletion_timestamp, status.conditions)
        elif phase in (None, BackupPhase.CREATING):
            self._add_pending(OperationKind.BACKUP, backup.metadata.creation_timestamp)
            self._add_queued(status.conditions)
        elif phase is BackupPhase.ERROR:
            self._add_failure(OperationKind.BACKUP, status.updated_at)
        store = self._stores.get((backup.namespace, status.store_name or "")) if phase else None
        if store is not None:
            store.stored_bytes += status.stored_bytes or 0
        volume = self._volume_of(backup)
        if volume is not None:
            _add_to_volume(volume, backup, phase)

    def add_restore(self, restore: VolumeRestore) -> None:
        """Count a VolumeRestore."""
        phase, status = restore.own_phase, restore.status
        self._state.objects["VolumeRestore", phase or NEW] += 1
        if restore.metadata.is_being_deleted:
            self._add_deletion(restore.metadata.deletion_timestamp, status.conditions)
        elif phase in (None, RestorePhase.RESTORING):
            self._add_pending(OperationKind.RESTORE, restore.metadata.creation_timestamp)
            self._add_queued(status.conditions)
        elif phase is RestorePhase.ERROR_RESTORING:
            self._add_failure(OperationKind.RESTORE, status.updated_at)

    def result(self, running_movers: int) -> ClusterState:
        """Return the state of all objects that were added."""
        backed_up = [volume for volume in self._by_uid.values() if volume.first_request is not None]
        self._state.volumes = sorted(backed_up, key=lambda volume: (volume.namespace, volume.name))
        self._state.stores = [self._stores[key] for key in sorted(self._stores)]
        self._state.running_movers = running_movers
        return self._state

    def _volume_of(self, backup: VolumeBackup) -> VolumeMetrics | None:
        """Return the volume of a backup if it still exists. A recreated claim of the same name is another volume."""
        uid = backup.status.volume_id if backup.own_phase else None
        if uid:
            return self._by_uid.get(uid)
        reference = backup.spec.volume_id or ""
        return self._by_uid.get(reference) or self._by_name.get((backup.namespace, reference))

    def _add_pending(self, operation: OperationKind, since: datetime | None) -> None:
        if since is not None:
            oldest = self._state.oldest_pending
            oldest[operation] = min(since.timestamp(), oldest.get(operation, float("inf")))

    def _add_deletion(self, since: datetime | None, conditions: list[Condition]) -> None:
        if _reason(conditions) not in USER_WAIT_REASONS:
            self._add_pending(OperationKind.DELETE, since)

    def _add_queued(self, conditions: list[Condition]) -> None:
        self._state.queued_movers += _reason(conditions) == Reason.QUEUED

    def _add_failure(self, operation: OperationKind, when: datetime | None) -> None:
        if when is not None:
            newest = self._state.last_failures
            newest[operation] = max(when.timestamp(), newest.get(operation, 0.0))


def claim_refs(bodies: Iterable[Mapping[str, Mapping[str, str]]]) -> list[ClaimRef]:
    """Return the claims in a list of the API server, without the temporary ones of operations."""
    metadata = [body["metadata"] for body in bodies]
    return [ClaimRef(m["uid"], m["namespace"], m["name"]) for m in metadata if labels.OWNER_UID_LABEL not in _labels(m)]


def _labels(metadata: Mapping[str, object]) -> Mapping[str, str]:
    values = metadata.get("labels")
    return values if isinstance(values, Mapping) else {}


def _zeros() -> Counter[tuple[str, str]]:
    """Return zero for every kind and phase. Prometheus cannot distinguish a missing series from a failed scrape."""
    backups = [("VolumeBackup", phase) for phase in (NEW, *BackupPhase)]
    restores = [("VolumeRestore", phase) for phase in (NEW, *RestorePhase)]
    return Counter(dict.fromkeys([*backups, *restores], 0))


def _store_metrics(store: BackupStore) -> StoreMetrics:
    is_ready = any(c.type == ConditionType.READY and c.status == "True" for c in store.status.conditions)
    return StoreMetrics(store.namespace, store.name, is_ready)


def _add_to_volume(volume: VolumeMetrics, backup: VolumeBackup, phase: BackupPhase | None) -> None:
    created, status = backup.metadata.creation_timestamp, backup.status
    if created is not None:
        volume.first_request = min(created.timestamp(), volume.first_request or float("inf"))
    data_time = status.data_timestamp or created
    if backup.is_complete and data_time is not None and not backup.metadata.is_being_deleted:
        if status.unreadable_files:
            volume.last_incomplete = max(data_time.timestamp(), volume.last_incomplete or 0.0)
        else:
            volume.last_success = max(data_time.timestamp(), volume.last_success or 0.0)
    if phase is BackupPhase.ERROR and status.updated_at is not None:
        volume.last_failure = max(status.updated_at.timestamp(), volume.last_failure or 0.0)


def _reason(conditions: list[Condition]) -> str:
    """Return the reason of a wait; empty if there is none."""
    return next((c.reason for c in conditions if c.type == ConditionType.RECONCILING), "")
