"""The condition Suspicious of a VolumeBackup: set when the backup becomes available, and cleared when a person accepts.

Retention keeps what is older than a suspicious backup, so the condition does not change by itself afterwards.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cinderblock.api import labels
from cinderblock.api.conditions import Condition, ConditionStatus, ConditionType
from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.alarms.rules import Alarm, ComparedBackup, alarms_of
from cinderblock.lifecycle.alarms.stats import history_of, stats_of
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.reasons import Reason


def with_alarms(
    shown: list[Condition], observed: ObservedBackup, status: VolumeBackupStatus, now: datetime
) -> list[Condition]:
    """Return the conditions of a complete backup with its alarms.

    A backup is compared once, in the decision that makes it available. If its status was lost, it is compared again. An
    imported backup is not compared: somebody else made it.

    Args:
        shown: its other conditions.
        observed: the state of the backup.
        status: its status, with the numbers of its manifest.
        now: the instant of the decision.
    """
    backup = observed.backup
    if backup.is_complete or backup.spec.import_ is not None:
        return _accepted(shown, backup, now) if backup.is_accepted and is_raised(shown) else shown
    alarms = _alarms(observed, status)
    if not alarms:
        return conditions.without(shown, ConditionType.SUSPICIOUS)
    if backup.is_accepted:
        return _accepted(shown, backup, now)
    return _with(shown, backup, now, "True", Alarm(alarms[0].reason, _message(backup, alarms)))


def is_raised(shown: list[Condition]) -> bool:
    """Return whether the condition Suspicious is True."""
    return any(c.type == ConditionType.SUSPICIOUS and c.status == "True" for c in shown)


def _accepted(shown: list[Condition], backup: VolumeBackup, now: datetime) -> list[Condition]:
    accepted = Alarm(Reason.ALARM_ACCEPTED, "A person has accepted this backup, so retention continues")
    return _with(shown, backup, now, "False", accepted)


def _with(
    shown: list[Condition], backup: VolumeBackup, now: datetime, status: ConditionStatus, alarm: Alarm
) -> list[Condition]:
    generation, kind = backup.metadata.generation, ConditionType.SUSPICIOUS
    return conditions.with_lasting(
        shown, now, generation, kind=kind, status=status, reason=alarm.reason, message=alarm.message
    )


def _alarms(observed: ObservedBackup, status: VolumeBackupStatus) -> tuple[Alarm, ...]:
    stats, history = stats_of(status), history_of(observed.siblings, status)
    if stats is None:
        return ()
    since = history.previous.data_time if history.previous else stats.data_time
    writers = (r for r in observed.restores if may_have_written(r, status.volume_id, stats.data_time))
    return alarms_of(ComparedBackup(stats, history, was_restored=any(last_write(r) >= since for r in writers)))


def may_have_written(restore: VolumeRestore, volume_id: str | None, before: datetime | None) -> bool:
    """Return whether a restore has overwritten an existing volume, or a part of it, before an instant."""
    is_in_place = restore.has_own_status and restore.spec.volume_id is not None
    created = restore.metadata.creation_timestamp
    is_earlier = before is None or created is None or created <= before
    return is_in_place and restore.status.volume_id == volume_id and is_earlier


def last_write(restore: VolumeRestore) -> datetime:
    """Return until when a restore may have written."""
    return restore.status.completed_at or restore.status.updated_at or datetime.max.replace(tzinfo=UTC)


def _message(backup: VolumeBackup, alarms: tuple[Alarm, ...]) -> str:
    """Return the numbers of all alarms, and what to do."""
    annotation = f"{labels.ACCEPT_ANNOTATION}={backup.backup_id}"
    accept = f"kubectl -n {backup.namespace} annotate volumebackup {backup.name} {annotation}"
    return (
        f"{' '.join(alarm.message for alarm in alarms)} Retention keeps earlier backups of the volume for now."
        f" Inspect the volume. If all is well, accept the backup: {accept}"
    )
