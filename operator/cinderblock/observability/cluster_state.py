"""Metrics that are derived from the objects of the cluster, without side effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final

from cinderblock.api import labels
from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.api.v1alpha1.store import BackupStore, CopyStatus
from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationPhase
from cinderblock.lifecycle.alarms.protection import MAX_SCHEDULES, Protection
from cinderblock.observability import schedule_metrics, volume_metrics
from cinderblock.observability.schedule_metrics import ScheduleMetrics
from cinderblock.observability.volume_metrics import ClaimRef, VolumeMetrics, failure_time
from cinderblock.reasons import Reason

NEW: Final = "new"
"""Phase of an object that the operator has not processed yet."""

USER_WAIT_REASONS: Final = frozenset({"HasDependentBackups", "Locked"})
"""Reasons of waits for a person or a date. They may take any time, so such an operation is not pending."""


class OperationKind(StrEnum):
    """Operations that users request. Cancelling a restore is a deletion."""

    BACKUP = "backup"
    RESTORE = "restore"
    VERIFICATION = "verification"
    DELETE = "delete"


MAX_VOLUMES: Final = 20_000
"""Volumes of one namespace whose times are kept, at about 1 KiB each: as many as VolumeBackups that the operator works
on. Anybody may create VolumeBackups there that name any volume."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of an operation.

    Attributes:
        time: when it failed, in seconds since 1970.
        namespace, name: its object.
        cause: the cause.
    """

    time: float
    namespace: str
    name: str
    cause: str = ""


@dataclass(slots=True)
class StoreMetrics:
    """A BackupStore or a ClusterBackupStore: whether its last check succeeded, and how many bytes VolumeBackups have.

    Attributes:
        namespace, name: its identity. A ClusterBackupStore has no namespace.
        is_ready: whether its last check succeeded.
        stored_bytes: bytes of VolumeBackups in it.
        ready_since: when is_ready last changed; None: it has not been checked yet.
        cluster_store: name of the ClusterBackupStore whose BackupStore it is; empty: it is none of such a store.
        is_shared: whether that ClusterBackupStore reports for it: all is well, or the cause concerns all namespaces.
        is_imported: whether all selected backups have a VolumeBackup; None: it imports none.
        imported_since: when is_imported last changed.
        last_import: when the last complete import began.
        disputed_since: since when another cluster owns it although this one writes to it; None: no other one does.
        server: its S3 server: the URL, or for AWS a fixed text.
        copies: number of backups by name of the store that gets copies and by state: copied, pending or failed.
        copies_late_since: when the condition Copied became False, if copies are late or impossible.
        copies_are_late: whether copies are late or impossible; None: spec.copies is empty.
    """

    namespace: str
    name: str
    is_ready: bool
    stored_bytes: int = 0
    ready_since: float | None = None
    cluster_store: str = ""
    is_shared: bool = False
    is_imported: bool | None = None
    imported_since: float | None = None
    last_import: float | None = None
    disputed_since: float | None = None
    server: str = ""
    copies: dict[tuple[str, str], int] = field(default_factory=dict)
    copies_late_since: float | None = None
    copies_are_late: bool | None = None


@dataclass(slots=True)
class Period:
    """The oldest and the newest of some times, in seconds since 1970."""

    oldest: float
    newest: float

    def add(self, time: float) -> None:
        """Add a time."""
        self.oldest, self.newest = min(self.oldest, time), max(self.newest, time)


@dataclass
class ClusterState:
    """One reading of the cluster.

    Attributes:
        objects: number of objects by kind and phase, zeros included.
        oldest_pending: request time of the oldest unfinished operation, in seconds since 1970.
        last_failures: the last failure among existing objects.
        running_movers: number of mover Jobs of backups and restores that have not ended.
        queued_movers: number of backups and restores that wait for a free mover slot.
        suspicious: number of suspicious VolumeBackups by namespace, also deleted ones of which another backup keeps the
            alarm, zeros included.
        damaged: number of VolumeBackups by namespace that a verification found damaged, zeros included.
        suspicious_since: when these alarms were raised, by namespace.
        damaged_since: when this damage was found, by namespace.
        protection: number of bound volumes by namespace and whether a schedule selects them; empty: not read.
        unprotected_since: when the claims that no schedule selects were created, by namespace.
        volumes: existing volumes that VolumeBackups name.
        stores: all BackupStores and ClusterBackupStores.
        schedules: schedules that are not suspended, at most MAX_SCHEDULES of each namespace.
        suspended_schedules: number of the others.
    """

    objects: Counter[tuple[str, str]] = field(default_factory=Counter)
    oldest_pending: dict[OperationKind, float] = field(default_factory=dict)
    last_failures: dict[OperationKind, Failure] = field(default_factory=dict)
    running_movers: int = 0
    queued_movers: int = 0
    suspicious: Counter[str] = field(default_factory=Counter)
    damaged: Counter[str] = field(default_factory=Counter)
    suspicious_since: dict[str, Period] = field(default_factory=dict)
    damaged_since: dict[str, Period] = field(default_factory=dict)
    protection: dict[str, Counter[Protection]] = field(default_factory=dict)
    unprotected_since: dict[str, Period] = field(default_factory=dict)
    volumes: list[VolumeMetrics] = field(default_factory=list)
    stores: list[StoreMetrics] = field(default_factory=list)
    schedules: list[ScheduleMetrics] = field(default_factory=list)
    suspended_schedules: int = 0


class ClusterStateBuilder:
    """Builds a ClusterState from one object at a time, so that callers need not hold all of them.

    Add stores first, then backups, restores and verifications, then claims. A cluster may have any number of claims, of
    which only those that VolumeBackups name are kept, and of each namespace at most MAX_VOLUMES.
    """

    def __init__(self) -> None:
        self._state = ClusterState(objects=_zeros())
        self._references: dict[tuple[str, str], VolumeMetrics] = {}
        """By namespace, and UID or name of the claim."""
        self._stores: dict[tuple[str, str], StoreMetrics] = {}
        self._volumes: Counter[str] = Counter()
        """Number of references by namespace."""
        self._schedules: Counter[str] = Counter()

    def add_store(self, store: BackupStore | ClusterBackupStore) -> None:
        """Add a BackupStore or a ClusterBackupStore."""
        self._stores[store.namespace, store.name] = _store_metrics(store)

    def add_backup(self, backup: VolumeBackup) -> None:
        """Count a VolumeBackup."""
        phase, status = backup.own_phase, backup.status
        self._state.objects["VolumeBackup", phase or NEW] += 1
        self._add_alarms(backup)
        self._add_damage(backup)
        if backup.metadata.is_being_deleted:
            self._add_deletion(backup.metadata.deletion_timestamp, status.conditions)
        elif phase in (None, BackupPhase.CREATING):
            self._add_pending(OperationKind.BACKUP, backup.metadata.creation_timestamp)
            self._add_queued(status.conditions)
        elif phase is BackupPhase.ERROR:
            self._add_failure(OperationKind.BACKUP, backup)
        store = self._stores.get((backup.namespace, status.store_name or "")) if phase else None
        if store is not None:
            store.stored_bytes += status.stored_bytes or 0
        reference = (status.volume_id if phase else None) or backup.spec.volume_id
        volume = self._volume(backup.namespace, reference) if reference else None
        if volume is not None:
            volume_metrics.add_backup(volume, backup, phase)
            volume_metrics.add_places(volume, backup, partial(self._server_of, backup.namespace))

    def _server_of(self, namespace: str, store: str) -> str:
        """Return the S3 server of a BackupStore; for one that is gone, its name."""
        found = self._stores.get((namespace, store))
        return found.server if found is not None else store

    def _volume(self, namespace: str, reference: str) -> VolumeMetrics | None:
        """Return the times of a volume; None if the namespace has too many."""
        found = self._references.get((namespace, reference))
        if found is None and self._volumes[namespace] < MAX_VOLUMES:
            self._volumes[namespace] += 1
            found = self._references[namespace, reference] = VolumeMetrics(namespace, reference)
        return found

    def _add_alarms(self, backup: VolumeBackup) -> None:
        """Count the alarm of a backup, and those of deleted ones that it keeps."""
        times = [alarm.raised_at.timestamp() for alarm in backup.open_deleted_alarms]
        if backup.is_suspicious:
            times.append(_alarm_time(backup.status.conditions))
        self._state.suspicious[backup.namespace] += len(times)
        for time in times:
            _add_time(self._state.suspicious_since, backup.namespace, time)

    def _add_damage(self, backup: VolumeBackup) -> None:
        found = backup.own_verification if backup.is_damaged and not backup.metadata.is_being_deleted else None
        self._state.damaged[backup.namespace] += found is not None
        if found is not None:
            time = found.damaged_at.timestamp() if found.damaged_at is not None else 0.0
            _add_time(self._state.damaged_since, backup.namespace, time)

    def add_restore(self, restore: VolumeRestore) -> None:
        """Count a VolumeRestore."""
        phase, status = restore.own_phase, restore.status
        self._state.objects["VolumeRestore", phase or NEW] += 1
        if is_of_drill(restore):
            # Its verification counts.
            return
        if restore.metadata.is_being_deleted:
            self._add_deletion(restore.metadata.deletion_timestamp, status.conditions)
        elif phase in (None, RestorePhase.RESTORING):
            self._add_pending(OperationKind.RESTORE, restore.metadata.creation_timestamp)
            self._add_queued(status.conditions)
        elif phase is RestorePhase.ERROR_RESTORING:
            self._add_failure(OperationKind.RESTORE, restore)

    def add_verification(self, verification: BackupVerification) -> None:
        """Count a BackupVerification. Those that only wait for their turn are not pending: that may take any time."""
        phase, status = verification.own_phase, verification.status
        self._state.objects["BackupVerification", phase or NEW] += 1
        volume = self._references.get((verification.namespace, status.volume_id or ""))
        if volume is not None:
            volume_metrics.add_drill(volume, verification)
        if verification.metadata.is_being_deleted:
            self._add_deletion(verification.metadata.deletion_timestamp, status.conditions)
        elif phase in (None, VerificationPhase.VERIFYING):
            self._add_pending(OperationKind.VERIFICATION, _working_since(verification))
        elif phase is VerificationPhase.ERROR:
            self._add_failure(OperationKind.VERIFICATION, verification)

    def add_claim(
        self, claim: ClaimRef, selected_since: datetime | None = None, drills_since: datetime | None = None
    ) -> None:
        """Report the backups of an existing claim. A recreated claim of the same name is another volume.

        Args:
            claim: the claim.
            selected_since: since when a schedule selects it; None: none does.
            drills_since: since when a schedule has drills for it; None: none has.
        """
        keys = ((claim.namespace, claim.uid), (claim.namespace, claim.name))
        found = [self._references[key] for key in keys if key in self._references]
        if found:
            self._state.volumes.append(volume_metrics.merged(claim, found, selected_since, drills_since))

    def add_schedule(self, schedule: AnySchedule) -> None:
        """Add a schedule. A namespace with very many of them has metrics of the first ones only."""
        namespace = schedule.namespace
        if schedule.spec.suspend and not schedule.metadata.is_being_deleted:
            self._state.suspended_schedules += 1
        if namespace and self._schedules[namespace] >= MAX_SCHEDULES:
            return
        found = schedule_metrics.metrics_of(schedule)
        if found is not None:
            self._schedules[namespace] += 1
            self._state.schedules.append(found)

    def count_protection(self, claim: PersistentVolumeClaim, protection: Protection) -> None:
        """Count a bound volume by whether a schedule selects it."""
        namespace, created = claim.namespace, claim.metadata.creation_timestamp
        self._state.protection.setdefault(namespace, Counter())[protection] += 1
        if protection is Protection.UNPROTECTED and created is not None:
            _add_time(self._state.unprotected_since, namespace, created.timestamp())

    def result(self, running_movers: int) -> ClusterState:
        """Return the state of all objects that were added."""
        self._state.volumes.sort(key=lambda volume: (volume.namespace, volume.name))
        for store in self._stores.values():
            of_cluster = self._stores.get(("", store.cluster_store)) if store.cluster_store else None
            # A namespace that may not use the store any more has a cause of its own, which nobody else reports.
            store.is_shared = of_cluster is not None and (store.is_ready or not of_cluster.is_ready)
        self._state.schedules = [self._with_freeze(schedule) for schedule in self._state.schedules]
        self._state.stores = [self._stores[key] for key in sorted(self._stores)]
        self._state.running_movers = running_movers
        return self._state

    def _with_freeze(self, schedule: ScheduleMetrics) -> ScheduleMetrics:
        """Add since when the backups of a schedule are frozen: since the oldest open alarm that can freeze them.

        It comes from the alarms themselves, so a restart of the operator or a pass that could not read them moves it
        not at all.
        """
        periods = self._state.suspicious_since
        found = periods.values() if not schedule.namespace else filter(None, [periods.get(schedule.namespace)])
        since = min((period.oldest for period in found), default=None) if schedule.frozen else None
        return replace(schedule, frozen_since=since)

    def _add_pending(self, operation: OperationKind, since: datetime | None) -> None:
        if since is not None:
            oldest = self._state.oldest_pending
            oldest[operation] = min(since.timestamp(), oldest.get(operation, float("inf")))

    def _add_deletion(self, since: datetime | None, conditions: list[Condition]) -> None:
        if _reason(conditions) not in USER_WAIT_REASONS:
            self._add_pending(OperationKind.DELETE, since)

    def _add_queued(self, conditions: list[Condition]) -> None:
        self._state.queued_movers += _reason(conditions) == Reason.QUEUED

    def _add_failure(self, operation: OperationKind, failed: VolumeBackup | VolumeRestore | BackupVerification) -> None:
        when, newest = failure_time(failed.status), self._state.last_failures
        if when is not None and (operation not in newest or when.timestamp() >= newest[operation].time):
            cause = failed.status.fail_reason or ""
            newest[operation] = Failure(when.timestamp(), failed.namespace, failed.name, cause)


def claim_ref(body: Mapping[str, Mapping[str, str]]) -> ClaimRef | None:
    """Return a claim as the API server lists it; None if it is a temporary one of an operation."""
    metadata = body["metadata"]
    if labels.OWNER_UID_LABEL in _labels(metadata):
        return None
    return ClaimRef(metadata["uid"], metadata["namespace"], metadata["name"])


def is_of_drill(restore: VolumeRestore) -> bool:
    """Return whether a VolumeRestore belongs to a verification of level Restore."""
    return any(owner.kind == "BackupVerification" for owner in restore.metadata.owner_references)


def _working_since(verification: BackupVerification) -> datetime | None:
    """Return since when a verification does what it does now; None: it only waits for its turn.

    The time in the queue does not count: it can be longer than the work.
    """
    conditions, created = verification.status.conditions, verification.metadata.creation_timestamp
    shown = next((c for c in conditions if c.type == ConditionType.RECONCILING), None)
    if shown is None or verification.own_phase is None:
        return created
    return None if shown.reason == Reason.QUEUED else shown.last_transition_time


def _labels(metadata: Mapping[str, object]) -> Mapping[str, str]:
    values = metadata.get("labels")
    return values if isinstance(values, Mapping) else {}


def _zeros() -> Counter[tuple[str, str]]:
    """Return zero for every kind and phase. Prometheus cannot distinguish a missing series from a failed scrape."""
    backups = [("VolumeBackup", phase) for phase in (NEW, *BackupPhase)]
    restores = [("VolumeRestore", phase) for phase in (NEW, *RestorePhase)]
    verifications = [("BackupVerification", phase) for phase in (NEW, *VerificationPhase)]
    return Counter(dict.fromkeys([*backups, *restores, *verifications], 0))


def _store_metrics(store: BackupStore | ClusterBackupStore) -> StoreMetrics:
    ready = next((c for c in store.status.conditions if c.type == ConditionType.READY), None)
    imported = next((c for c in store.status.conditions if c.type == ConditionType.IMPORTED), None)
    foreign = next((c for c in store.status.conditions if c.type == ConditionType.FOREIGN_OWNER), None)
    is_disputed = foreign is not None and foreign.status == "True"
    inventory = store.status.inventory
    copied = next((c for c in store.status.conditions if c.type == ConditionType.COPIED), None)
    is_late = copied is not None and copied.reason not in (Reason.COPIED, Reason.COPYING)
    return StoreMetrics(
        store.namespace,
        store.name,
        is_ready=ready is not None and ready.status == "True",
        ready_since=ready.last_transition_time.timestamp() if ready is not None else None,
        cluster_store=store.spec.cluster_store_ref.name if store.spec.cluster_store_ref is not None else "",
        is_imported=imported.status == "True" if imported is not None else None,
        imported_since=imported.last_transition_time.timestamp() if imported is not None else None,
        last_import=inventory.time.timestamp() if inventory is not None else None,
        disputed_since=foreign.last_transition_time.timestamp() if foreign is not None and is_disputed else None,
        server=store.status.endpoint_url or "AWS",
        copies=dict(_copy_counts(store.status.copy_targets or ())),
        copies_late_since=copied.last_transition_time.timestamp() if copied is not None and is_late else None,
        copies_are_late=is_late if copied is not None else None,
    )


def _copy_counts(targets: Iterable[CopyStatus]) -> Iterator[tuple[tuple[str, str], int]]:
    for target in targets:
        yield (target.store_name, "copied"), target.copied
        yield (target.store_name, "pending"), target.pending
        yield (target.store_name, "failed"), target.failed
        yield (target.store_name, "unlocked"), target.unlocked


def _add_time(times: dict[str, Period], namespace: str, time: float) -> None:
    times.setdefault(namespace, Period(time, time)).add(time)


def _alarm_time(conditions: list[Condition]) -> float:
    return next(c.last_transition_time.timestamp() for c in conditions if c.type == ConditionType.SUSPICIOUS)


def _reason(conditions: list[Condition]) -> str:
    """Return the reason of a wait; empty if there is none."""
    return next((c.reason for c in conditions if c.type == ConditionType.RECONCILING), "")
