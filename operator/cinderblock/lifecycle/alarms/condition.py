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
from cinderblock.lifecycle.alarms.stats import HISTORY, history_of, stats_of
from cinderblock.lifecycle.backup.checks import is_forgotten
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.reasons import Reason


def with_alarms(
    shown: list[Condition], observed: ObservedBackup, status: VolumeBackupStatus, now: datetime
) -> list[Condition]:
    """Return the conditions of a complete backup with its alarms.

    A backup is compared once, in the decision that makes it available. If its status was lost, it is compared again. If
    other statuses of the volume were lost, earlier backups are missing, and it is compared again when they are back.
    An imported backup is not compared: somebody else made it.

    Args:
        shown: its other conditions.
        observed: the state of the backup.
        status: its status, with the numbers of its manifest.
        now: the instant of the decision.
    """
    backup = observed.backup
    if (backup.is_complete and not backup.has_unknown_alarm) or backup.spec.import_ is not None:
        return _accepted(shown, backup, now) if backup.is_accepted and is_raised(shown) else shown
    alarms = _alarms(observed, status)
    missing = _missing(observed, status)
    if not alarms and not missing:
        return conditions.without(shown, ConditionType.SUSPICIOUS)
    if backup.is_accepted:
        return _accepted(shown, backup, now) if alarms else conditions.without(shown, ConditionType.SUSPICIOUS)
    if not alarms:
        return _with(shown, backup, now, "Unknown", Alarm(Reason.ALARM_UNKNOWN, _unknown(backup, missing)))
    return _with(shown, backup, now, "True", Alarm(alarms[0].reason, _message(backup, alarms)))


def is_raised(shown: list[Condition]) -> bool:
    """Return whether there is an alarm, or may be one."""
    return any(c.type == ConditionType.SUSPICIOUS and c.status != "False" for c in shown)


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


def _missing(observed: ObservedBackup, status: VolumeBackupStatus) -> str:
    """Return which backup of the volume has lost its status, so that the history has gaps; empty if none has."""
    if is_forgotten(observed.backup) and observed.claim is None:
        # Its volume is known only with this status, so the others were not looked for.
        return observed.backup.name
    recent = history_of(observed.siblings, status).recent
    since = recent[0].data_time if len(recent) >= HISTORY else None
    lost = [other for other in observed.siblings if has_lost_status(other, status)]
    return min((other.name for other in lost if _may_be_recent(other, observed.backup, since)), default="")


def _may_be_recent(other: VolumeBackup, backup: VolumeBackup, since: datetime | None) -> bool:
    """Return whether a backup may belong to the history, which begins at ``since`` without it."""
    created, mine = other.metadata.creation_timestamp, backup.metadata.creation_timestamp
    if created is None or mine is None:
        return True
    return created <= mine and (since is None or created >= since)


def has_lost_status(other: VolumeBackup, status: VolumeBackupStatus) -> bool:
    """Return whether a backup has lost its status, and may be one of the same volume."""
    names = {name for name in (status.volume_id, status.volume_name) if name is not None}
    is_same = other.spec.volume_id in names or (other.own_phase is not None and other.status.volume_id in names)
    return is_same and other.spec.import_ is None and is_forgotten(other) and not other.is_complete


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
    return (
        f"{' '.join(alarm.message for alarm in alarms)} Retention keeps earlier backups of the volume for now."
        f" Inspect the volume. If all is well, accept the backup: {_accept_command(backup)}"
    )


def _unknown(backup: VolumeBackup, missing: str) -> str:
    return (
        f"The backup cannot be compared with earlier ones: the status of VolumeBackup {missing} was lost. Retention"
        " keeps earlier backups of the volume until it is there again. If that will not happen, delete that"
        f" VolumeBackup, or accept this one: {_accept_command(backup)}"
    )


def _accept_command(backup: VolumeBackup) -> str:
    annotation = f"{labels.ACCEPT_ANNOTATION}={backup.backup_id}"
    return f"kubectl -n {backup.namespace} annotate volumebackup {backup.name} {annotation}"
