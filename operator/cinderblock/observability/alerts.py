"""The alerts that are true of a reading of the cluster, for people without Prometheus.

Each has the name, the condition and the delay of the rule in the chart's ``templates/metrics/rules.yaml``.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from cinderblock.lifecycle.alarms.protection import Protection
from cinderblock.observability import volume_alerts
from cinderblock.observability.alert import (
    DAY,
    DEFAULT_LIMITS,
    HOUR,
    Alert,
    AlertLimits,
    AlertName,
    Severity,
    Subject,
    alert_since,
    namespace_subject,
)
from cinderblock.observability.cluster_state import ClusterState, OperationKind
from cinderblock.observability.schedule_metrics import ScheduleMetrics

MAX_SUBJECTS: Final = 20
"""Objects of one namespace with the same alert of their own. One more alert counts the others: an outage of a store
makes all volumes fail at once, and a tenant may create any number of stores."""
MAX_ALERTS: Final = 1000
"""Alerts that are followed at the same time, of which each takes about 1 KiB."""


FROZEN_SECONDS: Final = 3 * DAY
"""Age of an open alarm from which it is an alert that retention keeps backups because of it. The age is that of the
alarm itself, so that no gap in the metrics makes it begin again."""
FAILURE_SECONDS: Final = HOUR
"""For how long a failed restore, or a verification that ended in error, is an alert."""


def true_alerts(state: ClusterState, now: float, limits: AlertLimits = DEFAULT_LIMITS) -> list[Alert]:
    """Return the alerts whose conditions are true, also those whose delay has not passed.

    Information comes last. Namespaces take turns, each with its oldest alert first, so that the alerts of one namespace
    push out none of another one if a reader takes MAX_ALERTS of them.

    Args:
        state: the reading.
        now: the present, in seconds since 1970.
        limits: the limits of the rules for volumes.
    """
    found = chain(
        (alert for schedule in state.schedules for alert in _of_schedule(schedule, now)),
        _of_stores(state),
        _of_disputes(state),
        _of_imports(state),
        _of_copies(state),
        _of_suspicious(state),
        _of_damaged(state),
        _of_unprotected(state),
        _of_failures(state, now),
        (alert for volume in state.volumes for alert in volume_alerts.of_volume(volume, limits, now)),
    )
    return _in_turns(_bounded(found))


def _bounded(alerts: Iterable[Alert]) -> list[Alert]:
    """Return the oldest alerts of each namespace and name, and one alert that counts the others.

    The objects of the cluster itself, which only administrators create, are all returned.
    """
    oldest: dict[tuple[AlertName, str], list[Alert]] = defaultdict(list)
    further: dict[tuple[AlertName, str], Alert] = {}
    for alert in alerts:
        key = alert.name, alert.subject.namespace
        insort(oldest[key], alert, key=_age)
        if alert.subject.namespace and len(oldest[key]) > MAX_SUBJECTS:
            further[key] = _further(oldest[key].pop(), further.get(key))
    return [*chain.from_iterable(oldest.values()), *further.values()]


def _further(alert: Alert, before: Alert | None) -> Alert:
    """Return the alert that counts this one too, besides those that it counted before."""
    namespace, count = alert.subject.namespace, 1 + (before.value or 0 if before is not None else 0)
    summary, resource = _FURTHER[alert.name]
    counted = [alert] if before is None else [before, alert]
    return Alert(
        alert.name,
        namespace_subject(namespace),
        anchor=min(each.anchor for each in counted),
        since=min((each.since for each in counted if each.since is not None), default=None),
        value=count,
        summary=f"{summary}: {count} more in namespace {namespace}.",
        action=f"kubectl -n {namespace} get {resource}",
    )


_FURTHER: Final[dict[AlertName, tuple[str, str]]] = {
    AlertName.VOLUME_BACKUP_STALE: ("Volumes have no new good backup", "volumebackups"),
    AlertName.VOLUME_BACKUP_FAILED: ("The last backups of volumes failed", "volumebackups"),
    AlertName.VOLUME_BACKUP_INCOMPLETE: ("The last backups of volumes lack files", "volumebackups"),
    AlertName.VOLUME_VERIFICATION_STALE: ("Backups of volumes were not verified for too long", "bver"),
    AlertName.VOLUME_NEVER_VERIFIED: ("No existing backup of volumes is verified", "bver"),
    AlertName.VOLUME_DRILL_STALE: ("Volumes had no drill for too long", "bver"),
    AlertName.SCHEDULE_LATE: ("BackupSchedules have not completed a run in time", "backupschedules"),
    AlertName.SCHEDULE_FAILING: ("Volumes of BackupSchedules have no new backup", "backupschedules"),
    AlertName.SCHEDULE_VERIFICATIONS_REFUSED: ("BackupSchedules cannot create verifications", "backupschedules"),
    AlertName.SCHEDULE_NOT_READY: ("BackupSchedules do not work", "backupschedules"),
    AlertName.SCHEDULE_SELECTS_NOTHING: ("BackupSchedules select no volume", "backupschedules"),
    AlertName.RETENTION_FROZEN: ("BackupSchedules keep backups because of a suspicious one", "backupschedules"),
    AlertName.STORE_NOT_READY: ("BackupStores do not answer, or reject requests", "backupstores"),
    AlertName.STORE_DISPUTED: ("BackupStores lead to places that other clusters own", "backupstores"),
    AlertName.IMPORT_FAILING: ("BackupStores cannot import their backups", "backupstores"),
    AlertName.COPIES_LATE: ("Copies of backups in BackupStores are late", "backupstores"),
}
"""Summaries about the objects that have no alert of their own, and the resources that list them."""


def _in_turns(alerts: Iterable[Alert]) -> list[Alert]:
    taken: Counter[tuple[bool, str]] = Counter()
    numbered = []
    for alert in sorted(alerts, key=_age):
        is_info = alert.severity is Severity.INFO
        owner = alert.subject.name if alert.subject.kind == "Namespace" else alert.subject.namespace
        numbered.append(((is_info, taken[is_info, owner]), alert))
        taken[is_info, owner] += 1
    return [alert for _, alert in sorted(numbered, key=lambda pair: pair[0])]


def _age(alert: Alert) -> tuple[float, str, str]:
    return alert.anchor, alert.name, str(alert.subject)


def _of_schedule(schedule: ScheduleMetrics, now: float) -> Iterator[Alert]:
    kind = "BackupSchedule" if schedule.namespace else "ClusterBackupSchedule"
    subject = Subject(kind, schedule.namespace, schedule.name)
    due = schedule.complete_due
    complete_since = max(schedule.last_completed or 0.0, schedule.effective_since or 0.0)
    if due is not None and now > due:
        yield alert_since(
            AlertName.SCHEDULE_LATE,
            subject,
            due,
            summary=f"{kind} {subject} has not completed a run in time.",
            action="status.lastRun of the schedule counts the volumes of its last run.",
        )
    if schedule.failing_volumes:
        yield Alert(
            AlertName.SCHEDULE_FAILING,
            subject,
            anchor=complete_since,
            since=None,
            value=schedule.failing_volumes,
            summary=f"{_volumes(schedule.failing_volumes)} of {kind} {subject} have no new backup.",
            action="status.failing of the schedule names volumes, VolumeBackups and reasons.",
        )
    if schedule.creates_verifications is False:
        yield alert_since(
            AlertName.SCHEDULE_VERIFICATIONS_REFUSED,
            subject,
            schedule.verifications_since,
            summary=f"{kind} {subject} cannot create its verifications.",
            action="The condition VerificationsCreated of the schedule gives the cause.",
        )
    if not schedule.is_ready:
        yield alert_since(
            AlertName.SCHEDULE_NOT_READY,
            subject,
            schedule.ready_since,
            summary=f"{kind} {subject} does not work.",
            action="The condition Ready of the schedule gives the cause.",
        )
    if not schedule.selects:
        yield alert_since(
            AlertName.SCHEDULE_SELECTS_NOTHING,
            subject,
            schedule.selecting_since,
            summary=f"{kind} {subject} selects no volume.",
            action="Check its selectors and storage classes, and the annotation cinderblock.io/backup of the claims.",
        )
    if schedule.frozen and schedule.frozen_since is not None and now - schedule.frozen_since > FROZEN_SECONDS:
        yield alert_since(
            AlertName.RETENTION_FROZEN,
            subject,
            schedule.frozen_since + FROZEN_SECONDS,
            value=schedule.frozen,
            summary=f"Retention of {kind} {subject} keeps {schedule.frozen} backups because of a suspicious one.",
            action="Inspect the suspicious VolumeBackups, and accept them if all is well.",
        )


def _of_stores(state: ClusterState) -> Iterator[Alert]:
    for store in state.stores:
        if store.is_ready or store.is_shared:
            continue
        subject = Subject("BackupStore" if store.namespace else "ClusterBackupStore", store.namespace, store.name)
        yield alert_since(
            AlertName.STORE_NOT_READY,
            subject,
            store.ready_since,
            summary=f"{subject.kind} {subject} does not answer, or rejects requests.",
            action=f"The condition Ready of the {subject.kind} gives the cause.",
        )


def _of_disputes(state: ClusterState) -> Iterator[Alert]:
    for store in state.stores:
        if store.disputed_since is None:
            continue
        subject = Subject("BackupStore", store.namespace, store.name)
        yield alert_since(
            AlertName.STORE_DISPUTED,
            subject,
            store.disputed_since,
            summary=f"Another cluster owns the place of BackupStore {subject}, and both write to it.",
            action="The condition ForeignOwner of the BackupStore names the cluster and the remedies.",
        )


def _of_imports(state: ClusterState) -> Iterator[Alert]:
    for store in state.stores:
        if store.is_imported is not False:
            continue
        subject = Subject("BackupStore", store.namespace, store.name)
        yield alert_since(
            AlertName.IMPORT_FAILING,
            subject,
            store.imported_since,
            summary=f"BackupStore {subject} has not imported all of its backups for an hour.",
            action="The condition Imported of the BackupStore gives the cause.",
        )


def _of_copies(state: ClusterState) -> Iterator[Alert]:
    for store in state.stores:
        if not store.copies_are_late:
            continue
        subject = Subject("BackupStore", store.namespace, store.name)
        yield alert_since(
            AlertName.COPIES_LATE,
            subject,
            store.copies_late_since,
            summary=f"Copies of backups in BackupStore {subject} are late, or cannot be made.",
            action="The condition Copied of the BackupStore gives the cause.",
        )


def _of_suspicious(state: ClusterState) -> Iterator[Alert]:
    for namespace, period in state.suspicious_since.items():
        count = state.suspicious[namespace]
        yield alert_since(
            AlertName.BACKUP_SUSPICIOUS,
            namespace_subject(namespace),
            period.newest,
            value=count,
            summary=f"{count} backup{'s' * (count != 1)} in namespace {namespace} have unusual numbers.",
            action="The condition Suspicious of the VolumeBackups gives the numbers. Inspect the volumes, and accept "
            "the backups if all is well.",
        )


def _of_damaged(state: ClusterState) -> Iterator[Alert]:
    for namespace, period in state.damaged_since.items():
        count = state.damaged[namespace]
        yield alert_since(
            AlertName.BACKUP_DAMAGED,
            namespace_subject(namespace),
            period.newest,
            value=count,
            summary=f"Damaged backups in namespace {namespace}: {count}.",
            action="The condition Verified of the VolumeBackups names damaged objects, or says that a check failed. "
            "Make a new backup of the volumes, and find out what has changed the bucket or the data.",
        )


def _of_unprotected(state: ClusterState) -> Iterator[Alert]:
    """Yield the namespaces with volumes that no schedule selects, unless the cluster has no schedule at all."""
    if not state.schedules and not state.suspended_schedules:
        return
    for namespace, period in state.unprotected_since.items():
        count = state.protection[namespace][Protection.UNPROTECTED]
        yield Alert(
            AlertName.VOLUMES_UNPROTECTED,
            namespace_subject(namespace),
            anchor=period.newest,
            since=None,
            value=count,
            summary=f"No schedule selects {_volumes(count)} in namespace {namespace}.",
            action="Create a schedule that selects them, or end the pause of one. Annotate claims that need no backup "
            "with cinderblock.io/backup=false.",
        )


def _of_failures(state: ClusterState, now: float) -> Iterator[Alert]:
    """Yield the last failed restore and the last verification without a result, for an hour."""
    for operation, name, kind, what in _FAILURES:
        failure = state.last_failures.get(operation)
        if failure is None or now - failure.time >= FAILURE_SECONDS:
            continue
        subject = Subject(kind, failure.namespace, failure.name)
        cause = f": {failure.cause}" if failure.cause else "."
        yield alert_since(
            name,
            subject,
            failure.time,
            summary=f"{kind} {subject} {what}{cause}",
            action=f"kubectl -n {failure.namespace} describe {kind.lower()} {failure.name}",
        )


_FAILURES: Final = (
    (OperationKind.RESTORE, AlertName.RESTORE_FAILED, "VolumeRestore", "failed"),
    (
        OperationKind.VERIFICATION,
        AlertName.VERIFICATION_FAILED,
        "BackupVerification",
        "ended in error, and has proven nothing",
    ),
)


def _volumes(count: int) -> str:
    return f"{count} volume{'s' * (count != 1)}"
