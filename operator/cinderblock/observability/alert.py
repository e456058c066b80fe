"""Alerts for people without Prometheus: their names and delays, their objects, and what to do.

Each has the name, the condition and the delay of the rule in the chart's ``templates/metrics/rules.yaml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from typing_extensions import override

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0


class AlertName(StrEnum):
    """Names of alerts, as in the chart's rules."""

    VOLUME_BACKUP_STALE = "CinderblockVolumeBackupStale"
    VOLUME_BACKUP_FAILED = "CinderblockVolumeBackupFailed"
    VOLUME_BACKUP_INCOMPLETE = "CinderblockVolumeBackupIncomplete"
    VOLUME_VERIFICATION_STALE = "CinderblockVolumeVerificationStale"
    VOLUME_NEVER_VERIFIED = "CinderblockVolumeNeverVerified"
    VOLUME_DRILL_STALE = "CinderblockVolumeDrillStale"
    BACKUP_SUSPICIOUS = "CinderblockBackupSuspicious"
    BACKUP_DAMAGED = "CinderblockBackupDamaged"
    VOLUMES_UNPROTECTED = "CinderblockVolumesUnprotected"
    SCHEDULE_LATE = "CinderblockScheduleLate"
    SCHEDULE_FAILING = "CinderblockScheduleFailing"
    SCHEDULE_VERIFICATIONS_REFUSED = "CinderblockScheduleVerificationsRefused"
    SCHEDULE_NOT_READY = "CinderblockScheduleNotReady"
    SCHEDULE_SELECTS_NOTHING = "CinderblockScheduleSelectsNothing"
    RETENTION_FROZEN = "CinderblockRetentionFrozen"
    RESTORE_FAILED = "CinderblockRestoreFailed"
    VERIFICATION_FAILED = "CinderblockVerificationFailed"
    STORE_NOT_READY = "CinderblockStoreNotReady"
    STORE_DISPUTED = "CinderblockStoreDisputed"
    IMPORT_FAILING = "CinderblockImportFailing"
    COPIES_LATE = "CinderblockCopiesLate"


DELAYS: Final[dict[AlertName, float]] = {
    AlertName.VOLUME_BACKUP_STALE: 10 * MINUTE,
    AlertName.VOLUME_BACKUP_FAILED: 0.0,
    AlertName.VOLUME_BACKUP_INCOMPLETE: 0.0,
    AlertName.VOLUME_VERIFICATION_STALE: HOUR,
    AlertName.VOLUME_NEVER_VERIFIED: HOUR,
    AlertName.VOLUME_DRILL_STALE: HOUR,
    AlertName.BACKUP_SUSPICIOUS: 0.0,
    AlertName.BACKUP_DAMAGED: 0.0,
    AlertName.VOLUMES_UNPROTECTED: HOUR,
    AlertName.SCHEDULE_LATE: 10 * MINUTE,
    AlertName.SCHEDULE_FAILING: 10 * MINUTE,
    AlertName.SCHEDULE_VERIFICATIONS_REFUSED: HOUR,
    AlertName.SCHEDULE_NOT_READY: 10 * MINUTE,
    AlertName.SCHEDULE_SELECTS_NOTHING: HOUR,
    AlertName.RETENTION_FROZEN: 0.0,
    AlertName.RESTORE_FAILED: 0.0,
    AlertName.VERIFICATION_FAILED: 0.0,
    AlertName.STORE_NOT_READY: 10 * MINUTE,
    AlertName.STORE_DISPUTED: 10 * MINUTE,
    AlertName.IMPORT_FAILING: HOUR,
    AlertName.COPIES_LATE: 10 * MINUTE,
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


def alert_since(
    name: AlertName, subject: Subject, since: float | None, summary: str, action: str, *, value: int | None = None
) -> Alert:
    """Return an alert that is anchored at the time since when its condition is true; the arguments are as in Alert."""
    return Alert(name, subject, anchor=since or 0.0, since=since, value=value, summary=summary, action=action)


@dataclass(frozen=True, slots=True)
class AlertLimits:
    """The limits of the rules for volumes, in seconds. The defaults are those of the chart.

    Attributes:
        backup_age: greatest age of the newest good backup of a volume that has VolumeBackups.
        verification_age: greatest age of the last successful verification.
        requires_verification: whether volumes count that were never verified in this time.
        drill_age: greatest age of the last drill of a volume that had one; None: any age.
    """

    backup_age: float = 26 * HOUR
    verification_age: float = 45 * DAY
    requires_verification: bool = False
    drill_age: float | None = None


DEFAULT_LIMITS: Final = AlertLimits()


def namespace_subject(name: str) -> Subject:
    """Return a namespace as the object of an alert that counts."""
    return Subject("Namespace", "", name)
