"""Why the restore of a drill failed. The VolumeRestore that tells it is removed with the drill."""

from __future__ import annotations

from dataclasses import replace

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.verification import MESSAGE_LIMIT
from cinderblock.lifecycle.operation import Operation


def condition_of(restore: VolumeRestore, kind: ConditionType) -> Condition | None:
    """Return a condition of a VolumeRestore that is true; None if it is not, or if the status was copied."""
    shown = restore.status.conditions if restore.has_own_status else []
    return next((condition for condition in shown if condition.type == kind and condition.status == "True"), None)


def with_cause(operation: Operation, shown: Condition | None) -> Operation:
    """Return an operation whose status keeps why the restore failed, or what it waited for until time was up."""
    if shown is None:
        return operation
    cause = f"{shown.reason}: {shown.message}"[:MESSAGE_LIMIT]
    return replace(operation, status=operation.status.model_copy(update={"restore_fail_reason": cause}))
