"""Figures that are derived from the objects of the cluster. Pure: the same objects give the same figures."""

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
"""Phase of an object that we have not looked at yet."""

ATTENTION_REASONS: Final = frozenset({Reason.HAS_DEPENDENT_BACKUPS})
"""Reasons of a wait that may go on for as long as people like; it makes nothing overdue."""


class OperationKind(StrEnum):
    """What we do for people. Cancelling a restore is deleting it."""

    BACKUP = "backup"
    RESTORE = "restore"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class ClaimSize:
    """A PersistentVolumeClaim that exists."""

    uid: str
    namespace: str
    name: str


@dataclass
class VolumeMetrics:
    """How a volume is protected, in seconds since 1970; None: there is no such instant.

    Attributes:
        namespace, name: of the PersistentVolumeClaim.
        first_request: creation of the oldest VolumeBackup of it that is still there.
        last_success: the instant whose data the newest complete backup holds.
        last_incomplete: the instant whose data the newest incomplete backup holds: it lacks unreadable files.
        last_failure: when the newest failed VolumeBackup of it had failed.
    """

    namespace: str
    name: str
    first_request: float | None = None
    last_success: float | None = None
    last_incomplete: float | None = None
    last_failure: float | None = None


@dataclass
class StoreMetrics:
    """A BackupStore: whether it answered when it was last asked, and the bytes that VolumeBackups have in it."""

    namespace: str
    name: str
    is_ready: bool
    stored_bytes: int = 0


@dataclass
class ClusterState:
    """The figures of one reading of the cluster.

    Attributes:
        objects: how many there are, by kind and phase; those that there are none of are zero.
        oldest_pending: when the oldest operation that has not ended was asked for, in seconds since 1970.
        last_failures: when an operation failed last whose object is still there, in seconds since 1970.
        running_movers: mover Jobs that have not ended.
        queued_movers: operations that wait until fewer movers run.
        volumes: volumes that exist and that VolumeBackups name.
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
    """Counts objects one after the other, so that whoever reads them need not hold all."""

    def __init__(self, claims: Iterable[ClaimSize], stores: Iterable[BackupStore]) -> None:
        self._state = ClusterState(objects=_nothing())
        self._by_uid: dict[str, VolumeMetrics] = {}
        self._by_name: dict[tuple[str, str], VolumeMetrics] = {}
        for claim in claims:
            figures = VolumeMetrics(claim.namespace, claim.name)
            self._by_uid[claim.uid] = self._by_name[claim.namespace, claim.name] = figures
        self._stores = {(store.namespace, store.name): _store(store) for store in stores}

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
        """The figures of all that was counted."""
        asked = [volume for volume in self._by_uid.values() if volume.first_request is not None]
        self._state.volumes = sorted(asked, key=lambda volume: (volume.namespace, volume.name))
        self._state.stores = [self._stores[key] for key in sorted(self._stores)]
        self._state.running_movers = running_movers
        return self._state

    def _volume_of(self, backup: VolumeBackup) -> VolumeMetrics | None:
        """The volume, if it still exists: one that was made anew under its name is another one."""
        known = backup.status.volume_id if backup.own_phase else None
        if known:
            return self._by_uid.get(known)
        asked = backup.spec.volume_id or ""
        return self._by_uid.get(asked) or self._by_name.get((backup.namespace, asked))

    def _add_pending(self, operation: OperationKind, since: datetime | None) -> None:
        if since is not None:
            oldest = self._state.oldest_pending
            oldest[operation] = min(since.timestamp(), oldest.get(operation, float("inf")))

    def _add_deletion(self, since: datetime | None, conditions: list[Condition]) -> None:
        if _reason(conditions) not in ATTENTION_REASONS:
            self._add_pending(OperationKind.DELETE, since)

    def _add_queued(self, conditions: list[Condition]) -> None:
        self._state.queued_movers += _reason(conditions) == Reason.QUEUED

    def _add_failure(self, operation: OperationKind, when: datetime | None) -> None:
        if when is not None:
            newest = self._state.last_failures
            newest[operation] = max(when.timestamp(), newest.get(operation, 0.0))


def claim_size(bodies: Iterable[Mapping[str, Mapping[str, str]]]) -> list[ClaimSize]:
    """Claims as the API server lists them; the temporary ones that are ours are no volumes of anybody's."""
    metadata = [body["metadata"] for body in bodies]
    return [
        ClaimSize(m["uid"], m["namespace"], m["name"]) for m in metadata if labels.OWNER_UID_LABEL not in _labels(m)
    ]


def _labels(metadata: Mapping[str, object]) -> Mapping[str, str]:
    found = metadata.get("labels")
    return found if isinstance(found, Mapping) else {}


def _nothing() -> Counter[tuple[str, str]]:
    """Zero of every kind and phase: a series that is absent cannot be told from one that nobody collects."""
    backups = [("VolumeBackup", phase) for phase in (NEW, *BackupPhase)]
    restores = [("VolumeRestore", phase) for phase in (NEW, *RestorePhase)]
    return Counter(dict.fromkeys([*backups, *restores], 0))


def _store(store: BackupStore) -> StoreMetrics:
    ready = any(c.type == ConditionType.READY and c.status == "True" for c in store.status.conditions)
    return StoreMetrics(store.namespace, store.name, ready)


def _add_to_volume(volume: VolumeMetrics, backup: VolumeBackup, phase: BackupPhase | None) -> None:
    created, status = backup.metadata.creation_timestamp, backup.status
    if created is not None:
        volume.first_request = min(created.timestamp(), volume.first_request or float("inf"))
    held = status.data_timestamp or created
    if backup.is_complete and held is not None and not backup.metadata.is_being_deleted:
        if status.unreadable_files:
            volume.last_incomplete = max(held.timestamp(), volume.last_incomplete or 0.0)
        else:
            volume.last_success = max(held.timestamp(), volume.last_success or 0.0)
    if phase is BackupPhase.ERROR and status.updated_at is not None:
        volume.last_failure = max(status.updated_at.timestamp(), volume.last_failure or 0.0)


def _reason(conditions: list[Condition]) -> str:
    """What is awaited; empty: nothing."""
    return next((c.reason for c in conditions if c.type == ConditionType.RECONCILING), "")
