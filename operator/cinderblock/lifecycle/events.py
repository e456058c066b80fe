"""Events that follow from a change of conditions: an operation begins an unexpected wait, or a store changes state.

The decisions themselves record the expected steps of an operation, once for each step that takes time.
"""

from __future__ import annotations

from typing import Final, Literal

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.mover import MoverReport
from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.api.v1alpha1.backup_grant import BackupGrantStatus
from cinderblock.api.v1alpha1.restore_source import RestoreSourceStatus
from cinderblock.api.v1alpha1.store import BackupStoreStatus
from cinderblock.lifecycle.actions import Action, AnyStatus, RecordEvent
from cinderblock.reasons import Reason, parse_reason

EXPECTED_WAITS: Final = frozenset(
    {
        Reason.ACCEPTED,
        Reason.CANCELLING,
        Reason.CHECK_PENDING,
        Reason.CHECK_RUNNING,
        Reason.CHILDREN_REMAIN,
        Reason.DELETING_DATA,
        Reason.DRILL_RESTORING,
        Reason.MOVER_PENDING,
        Reason.MOVER_RUNNING,
        Reason.MOVER_STARTING,
        Reason.NOTICED,
        Reason.READING_REFERENCES,
        Reason.REBINDING,
        Reason.RECORDING_RELEASE,
        Reason.SNAPSHOT_NOT_READY,
        Reason.STOPPING_MOVER,
    }
)
"""Waits that every operation goes through, at least where there is much to do. They record no Event."""
BENIGN_WAITS: Final = frozenset(
    {
        Reason.BACKUP_IN_USE,
        Reason.FOREIGN_OWNER,
        Reason.HAS_DEPENDENT_BACKUPS,
        Reason.IN_USE,
        Reason.LOCKED,
        Reason.MOVER_SUSPENDED,
        Reason.QUEUED,
        Reason.STORE_READ_ONLY,
        Reason.VOLUME_BUSY,
    }
)
"""Waits for the turns of other operations, for locks, and for the access to stores. They are Events of type Normal:
nothing is wrong."""


def on_transition(before: AnyStatus, after: AnyStatus) -> tuple[RecordEvent, ...]:
    """Return the Events that the change from one status to the next deserves."""
    old_wait, new_wait = _of_type(before, ConditionType.RECONCILING), _of_type(after, ConditionType.RECONCILING)
    recorded: list[RecordEvent] = []
    if new_wait is not None and (old_wait is None or old_wait.reason != new_wait.reason):
        reason = parse_reason(new_wait.reason)
        if reason not in EXPECTED_WAITS:
            recorded.append(RecordEvent("Normal" if reason in BENIGN_WAITS else "Warning", reason, new_wait.message))
    if isinstance(after, VolumeBackupStatus):
        recorded += _on_alarm(*(_of_type(status, ConditionType.SUSPICIOUS) for status in (before, after)))
        recorded += _on_verified(*(_of_type(status, ConditionType.VERIFIED) for status in (before, after)))
    if isinstance(after, BackupStoreStatus) and new_wait is None:
        recorded += _on_ready_transition(_of_type(before, ConditionType.READY), _of_type(after, ConditionType.READY))
        recorded += _on_warning(*(_of_type(status, ConditionType.HARMFUL_LIFECYCLE) for status in (before, after)))
        recorded += _on_warning(*(_of_type(status, ConditionType.FOREIGN_OWNER) for status in (before, after)))
    if isinstance(after, BackupGrantStatus | RestoreSourceStatus):
        recorded += _on_ready_transition(_of_type(before, ConditionType.READY), _of_type(after, ConditionType.READY))
        recorded += _on_warning(*(_of_type(status, ConditionType.NAMESPACES_ABSENT) for status in (before, after)))
    if isinstance(after, BackupStoreStatus):
        recorded += _on_import(*(_of_type(status, ConditionType.IMPORTED) for status in (before, after)))
        recorded += _on_copies(*(_of_type(status, ConditionType.COPIED) for status in (before, after)))
    return tuple(recorded)


def _on_ready_transition(before: Condition | None, after: Condition | None) -> list[RecordEvent]:
    """Return the Event of a store that begins to answer, to refuse, or to be silent, or of a grant or a source
    that begins to count or ceases to."""
    if after is None or (before is not None and (before.status, before.reason) == (after.status, after.reason)):
        return []
    reason = parse_reason(after.reason)
    return [RecordEvent("Normal" if after.status == "True" else "Warning", reason, after.message)]


def _on_warning(before: Condition | None, after: Condition | None) -> list[RecordEvent]:
    """Return the Event of a condition that warns of something, such as lifecycle rules that destroy backups."""
    is_known = (
        before is not None and after is not None and (before.status, before.reason) == (after.status, after.reason)
    )
    if after is None or after.status != "True" or is_known:
        return []
    return [RecordEvent("Warning", parse_reason(after.reason), after.message)]


def _on_import(before: Condition | None, after: Condition | None) -> list[RecordEvent]:
    """Return the Event of an import that has ended, or that fails for another reason than before."""
    is_known = before is not None and after is not None and before.reason == after.reason
    if after is None or is_known or after.reason == Reason.IMPORTING:
        return []
    is_warning = after.status != "True" or after.reason == Reason.UNREADABLE_LEFT_OUT
    return [RecordEvent("Warning" if is_warning else "Normal", parse_reason(after.reason), after.message)]


def _on_copies(before: Condition | None, after: Condition | None) -> list[RecordEvent]:
    """Return the Event of copies that are late or impossible, or that are late no more.

    Copies that are made in time need none: each backup would cause two.
    """
    in_time = (Reason.COPIED, Reason.COPYING)
    was_bad = before is not None and before.reason not in in_time
    is_known = before is not None and after is not None and before.reason == after.reason
    if after is None or is_known or (after.reason in in_time and not was_bad):
        return []
    kind: Literal["Normal", "Warning"] = "Normal" if after.reason in in_time else "Warning"
    return [RecordEvent(kind, parse_reason(after.reason), after.message)]


def _on_alarm(before: Condition | None, after: Condition | None) -> list[RecordEvent]:
    """Return the Event of a backup that raises an alarm, or that a person accepts.

    The decision itself records changes that timestamps hid, which may be the only alarm.
    """
    is_known = before is not None and after is not None and before.status == after.status
    if after is None or is_known or after.reason in (Reason.CHANGE_MISSED, Reason.ALARM_UNKNOWN):
        return []
    return [RecordEvent("Warning" if after.status == "True" else "Normal", parse_reason(after.reason), after.message)]


def _on_verified(before: Condition | None, after: Condition | None) -> list[RecordEvent]:
    """Return the Event of a backup that is found damaged, or damaged no more. Each verification has Events itself."""
    was_damaged = before is not None and before.status == "False"
    is_damaged = after is not None and after.status == "False"
    if after is None or was_damaged == is_damaged:
        return []
    return [RecordEvent("Warning" if is_damaged else "Normal", parse_reason(after.reason), after.message)]


def _of_type(status: AnyStatus, kind: ConditionType) -> Condition | None:
    return next((condition for condition in status.conditions if condition.type == kind), None)


def metadata_loss(report: MoverReport | None) -> tuple[Action, ...]:
    """Return the Event about what a mover could not keep, for example sockets and owners that it may not set."""
    warnings = " ".join(report.warnings) if report else ""
    return (RecordEvent("Warning", Reason.NOT_ALL_KEPT, warnings),) if warnings else ()
