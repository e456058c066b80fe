"""Which changes of a status are written at once."""

from __future__ import annotations

from cinderblock.api.v1alpha1.schedule import BackupScheduleStatus, RunStatus
from cinderblock.reasons import Reason


def is_urgent(before: BackupScheduleStatus, after: BackupScheduleStatus) -> bool:
    """Return whether a change of a status is more than counts of an unfinished run, which change every few seconds."""
    is_idle = not any(c.reason == Reason.RUN_IN_PROGRESS for c in after.conditions)
    is_other = (before.failing, before.failing_volumes) != (after.failing, after.failing_volumes)
    return (is_idle and is_other) or _without_counts(before) != _without_counts(after)


def _without_counts(status: BackupScheduleStatus) -> BackupScheduleStatus:
    run = status.last_run
    conditions = [condition.model_copy(update={"message": ""}) for condition in status.conditions]
    return status.model_copy(
        update={
            "last_run": RunStatus(time=run.time, name=run.name) if run is not None else None,
            "failing": [],
            "failing_volumes": None,
            "conditions": conditions,
        }
    )
