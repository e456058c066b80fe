"""The alerts that are true of a reading of the cluster, for people without Prometheus.

Each has the name, the condition and the delay of the rule in the chart's ``templates/metrics/rules.yaml``.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Final

from typing_extensions import override

from cinderblock.lifecycle.alarms.protection import Protection
from cinderblock.observability.cluster_state import ClusterState, VolumeMetrics
from cinderblock.observability.schedule_metrics import ScheduleMetrics

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0

MAX_SUBJECTS: Final = 20
"""Objects of one namespace with the same alert of their own. One more alert counts the others: an outage of a store
makes all volumes fail at once, and a tenant may create any number of stores."""
MAX_ALERTS: Final = 1000
"""Alerts that are followed at the same time, of which each takes about 1 KiB."""


class AlertName(StrEnum):
    """Names of alerts, as in the chart's rules."""

    VOLUME_BACKUP_FAILED = "CinderblockVolumeBackupFailed"
    BACKUP_SUSPICIOUS = "CinderblockBackupSuspicious"
    BACKUP_DAMAGED = "CinderblockBackupDamaged"
    VOLUMES_UNPROTECTED = "CinderblockVolumesUnprotected"
    SCHEDULE_LATE = "CinderblockScheduleLate"
    SCHEDULE_FAILING = "CinderblockScheduleFailing"
    SCHEDULE_NOT_READY = "CinderblockScheduleNotReady"
    SCHEDULE_SELECTS_NOTHING = "CinderblockScheduleSelectsNothing"
    RETENTION_FROZEN = "CinderblockRetentionFrozen"
    STORE_NOT_READY = "CinderblockStoreNotReady"


DELAYS: Final[dict[AlertName, float]] = {
    AlertName.VOLUME_BACKUP_FAILED: 0.0,
    AlertName.BACKUP_SUSPICIOUS: 0.0,
    AlertName.BACKUP_DAMAGED: 0.0,
    AlertName.VOLUMES_UNPROTECTED: HOUR,
    AlertName.SCHEDULE_LATE: 10 * MINUTE,
    AlertName.SCHEDULE_FAILING: 10 * MINUTE,
    AlertName.SCHEDULE_NOT_READY: 10 * MINUTE,
    AlertName.SCHEDULE_SELECTS_NOTHING: HOUR,
    AlertName.RETENTION_FROZEN: 3 * DAY,
    AlertName.STORE_NOT_READY: 10 * MINUTE,
}
"""For how long a condition holds before its alert fires, in seconds."""


class Severity(StrEnum):
    """Severity of an alert."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


_SEVERITIES: Final[dict[AlertName, Severity]] = {
    AlertName.BACKUP_DAMAGED: Severity.CRITICAL,
    AlertName.VOLUMES_UNPROTECTED: Severity.INFO,
}
"""All other alerts are warnings."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The object of an alert.

    Attributes:
        kind: kind of the object.
        namespace: its namespace; empty for a ClusterBackupSchedule.
        name: its name; for alerts that count, the namespace itself is the object.
    """

    kind: str
    namespace: str
    name: str

    @override
    def __str__(self) -> str:
        """Return the name that people use in kubectl."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert whose condition is true.

    Attributes:
        name: the alert.
        subject: what it is about.
        anchor: a time that the objects give, in seconds since 1970. It stays while nothing new happens, also when the
            operator restarts, and changes when the same alert becomes true for a new cause.
        since: when the condition became true, in seconds since 1970; None: the objects do not say.
        value: the number that the alert counts; None: it counts nothing.
        summary: what is wrong, in one sentence.
        action: what to do.
    """

    name: AlertName
    subject: Subject
    anchor: float
    since: float | None
    value: int | None
    summary: str
    action: str

    @property
    def severity(self) -> Severity:
        """Return the severity, which is that of the rule."""
        return _SEVERITIES.get(self.name, Severity.WARNING)

    @property
    def key(self) -> tuple[AlertName, Subject]:
        """Return the identity of the alert, whatever its cause."""
        return self.name, self.subject


def true_alerts(state: ClusterState, now: float) -> list[Alert]:
    """Return the alerts whose conditions are true, also those whose delay has not passed.

    Information comes last. Namespaces take turns, each with its oldest alert first, so that the alerts of one namespace
    push out none of another one if a reader takes MAX_ALERTS of them.
    """
    found = chain(
        (alert for schedule in state.schedules for alert in _of_schedule(schedule, state, now)),
        _of_stores(state),
        _of_suspicious(state),
        _of_damaged(state),
        _of_unprotected(state),
        map(_of_volume, (volume for volume in state.volumes if volume.has_failed)),
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
        _namespace(namespace),
        anchor=min(each.anchor for each in counted),
        since=min((each.since for each in counted if each.since is not None), default=None),
        value=count,
        summary=f"{summary}: {count} more in namespace {namespace}.",
        action=f"kubectl -n {namespace} get {resource}",
    )


_FURTHER: Final[dict[AlertName, tuple[str, str]]] = {
    AlertName.VOLUME_BACKUP_FAILED: ("The last backups of volumes failed", "volumebackups"),
    AlertName.SCHEDULE_LATE: ("BackupSchedules have not completed a run in time", "backupschedules"),
    AlertName.SCHEDULE_FAILING: ("Volumes of BackupSchedules have no new backup", "backupschedules"),
    AlertName.SCHEDULE_NOT_READY: ("BackupSchedules do not work", "backupschedules"),
    AlertName.SCHEDULE_SELECTS_NOTHING: ("BackupSchedules select no volume", "backupschedules"),
    AlertName.RETENTION_FROZEN: ("BackupSchedules keep backups because of a suspicious one", "backupschedules"),
    AlertName.STORE_NOT_READY: ("BackupStores do not answer, or reject requests", "backupstores"),
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


def _of_schedule(schedule: ScheduleMetrics, state: ClusterState, now: float) -> Iterator[Alert]:
    kind = "BackupSchedule" if schedule.namespace else "ClusterBackupSchedule"
    subject = Subject(kind, schedule.namespace, schedule.name)
    due = _late_since(schedule)
    complete_since = max(schedule.last_completed or 0.0, schedule.effective_since or 0.0)
    if due is not None and now > due:
        yield Alert(
            AlertName.SCHEDULE_LATE,
            subject,
            anchor=due,
            since=due,
            value=None,
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
    if not schedule.is_ready:
        yield Alert(
            AlertName.SCHEDULE_NOT_READY,
            subject,
            anchor=schedule.ready_since or 0.0,
            since=schedule.ready_since,
            value=None,
            summary=f"{kind} {subject} does not work.",
            action="The condition Ready of the schedule gives the cause.",
        )
    if not schedule.selects:
        yield Alert(
            AlertName.SCHEDULE_SELECTS_NOTHING,
            subject,
            anchor=schedule.selecting_since or 0.0,
            since=schedule.selecting_since,
            value=None,
            summary=f"{kind} {subject} selects no volume.",
            action="Check its selectors and storage classes, and the annotation cinderblock.io/backup of the claims.",
        )
    if schedule.frozen:
        since = _oldest_alarm(schedule, state)
        yield Alert(
            AlertName.RETENTION_FROZEN,
            subject,
            anchor=since or 0.0,
            since=since,
            value=schedule.frozen,
            summary=f"Retention of {kind} {subject} keeps {schedule.frozen} backups because of a suspicious one.",
            action="Inspect the suspicious VolumeBackups, and accept them if all is well.",
        )


def _late_since(schedule: ScheduleMetrics) -> float | None:
    """Return the time at which a complete run was due; None if the times are invalid or not known yet."""
    if schedule.interval is None or schedule.effective_since is None:
        return None
    complete = max(schedule.last_completed or 0.0, schedule.effective_since)
    return complete + 2 * schedule.interval + schedule.deadline


def _oldest_alarm(schedule: ScheduleMetrics, state: ClusterState) -> float | None:
    """Return when the oldest open alarm was raised that can freeze the backups of a schedule."""
    periods = state.suspicious_since
    found = (
        [periods[schedule.namespace]]
        if schedule.namespace in periods
        else []
        if schedule.namespace
        else list(periods.values())
    )
    return min((period.oldest for period in found), default=None)


def _of_stores(state: ClusterState) -> Iterator[Alert]:
    for store in state.stores:
        if store.is_ready or store.is_shared:
            continue
        subject = Subject("BackupStore" if store.namespace else "ClusterBackupStore", store.namespace, store.name)
        yield Alert(
            AlertName.STORE_NOT_READY,
            subject,
            anchor=store.ready_since or 0.0,
            since=store.ready_since,
            value=None,
            summary=f"{subject.kind} {subject} does not answer, or rejects requests.",
            action=f"The condition Ready of the {subject.kind} gives the cause.",
        )


def _of_suspicious(state: ClusterState) -> Iterator[Alert]:
    for namespace, period in state.suspicious_since.items():
        count = state.suspicious[namespace]
        yield Alert(
            AlertName.BACKUP_SUSPICIOUS,
            _namespace(namespace),
            anchor=period.newest,
            since=period.newest,
            value=count,
            summary=f"{count} backup{'s' * (count != 1)} in namespace {namespace} have unusual numbers.",
            action="The condition Suspicious of the VolumeBackups gives the numbers. Inspect the volumes, and accept "
            "the backups if all is well.",
        )


def _of_damaged(state: ClusterState) -> Iterator[Alert]:
    for namespace, period in state.damaged_since.items():
        count = state.damaged[namespace]
        yield Alert(
            AlertName.BACKUP_DAMAGED,
            _namespace(namespace),
            anchor=period.newest,
            since=period.newest,
            value=count,
            summary=f"Damaged backups in namespace {namespace}: {count}.",
            action="The condition Verified of the VolumeBackups names damaged objects, or says that a check failed. "
            "Make a new backup of the volumes, and find out what has changed the bucket or the data.",
        )


def _of_unprotected(state: ClusterState) -> Iterator[Alert]:
    """Yield the namespaces with volumes that no schedule selects, unless the cluster has no schedule at all."""
    if not state.schedules:
        return
    for namespace, period in state.unprotected_since.items():
        count = state.protection[namespace][Protection.UNPROTECTED]
        yield Alert(
            AlertName.VOLUMES_UNPROTECTED,
            _namespace(namespace),
            anchor=period.newest,
            since=None,
            value=count,
            summary=f"No schedule selects {_volumes(count)} in namespace {namespace}.",
            action="Create a schedule that selects them, or annotate claims that need no backup with "
            "cinderblock.io/backup=false.",
        )


def _of_volume(volume: VolumeMetrics) -> Alert:
    subject, failed = Subject("PersistentVolumeClaim", volume.namespace, volume.name), volume.last_failure or 0.0
    cause = f": {volume.fail_reason}" if volume.fail_reason else "."
    return Alert(
        AlertName.VOLUME_BACKUP_FAILED,
        subject,
        anchor=failed,
        since=failed,
        value=None,
        summary=f"The last backup of volume {subject} failed{cause}",
        action=f"kubectl -n {volume.namespace} describe volumebackup {volume.failed_backup}",
    )


def _namespace(name: str) -> Subject:
    return Subject("Namespace", "", name)


def _volumes(count: int) -> str:
    return f"{count} volume{'s' * (count != 1)}"
