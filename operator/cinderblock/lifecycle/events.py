"""Events that follow from a change of conditions: an operation has begun to wait for something out of the ordinary.

What an operation goes through anyway is told by the decisions themselves, once for each step that takes time.
"""

from __future__ import annotations

from typing import Final

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.mover import MoverReport
from cinderblock.api.v1alpha1.store import BackupStoreStatus
from cinderblock.lifecycle.actions import Action, AnyStatus, RecordEvent

EXPECTED_WAITS: Final = frozenset(
    {
        "Accepted",
        "Cancelling",
        "ChildrenRemain",
        "DeletingData",
        "MoverPending",
        "MoverRunning",
        "MoverStarting",
        "Noticed",
        "ReadingReferences",
        "Rebinding",
        "SnapshotNotReady",
        "StoppingMover",
    }
)
"""Reasons of waits that every operation goes through, or may go through where there is much to do."""
BENIGN_WAITS: Final = frozenset({"BackupInUse", "HasDependentBackups", "InUse", "Queued", "VolumeBusy"})
"""Reasons of waits for others' turns: nothing is wrong."""


def on_transition(before: AnyStatus, after: AnyStatus) -> tuple[RecordEvent, ...]:
    """What a person would want to know of the change from one status to the next."""
    waiting, waited = _of_type(after, ConditionType.RECONCILING), _of_type(before, ConditionType.RECONCILING)
    told: list[RecordEvent] = []
    if (
        waiting is not None
        and (waited is None or waited.reason != waiting.reason)
        and waiting.reason not in EXPECTED_WAITS
    ):
        told.append(
            RecordEvent("Normal" if waiting.reason in BENIGN_WAITS else "Warning", waiting.reason, waiting.message)
        )
    if isinstance(after, BackupStoreStatus) and waiting is None:
        told += _of_store(_of_type(before, ConditionType.READY), _of_type(after, ConditionType.READY))
    return tuple(told)


def _of_store(before: Condition | None, after: Condition | None) -> list[RecordEvent]:
    """A store that answers, refuses, or is silent, and has not been so before."""
    if after is None or (before is not None and (before.status, before.reason) == (after.status, after.reason)):
        return []
    return [RecordEvent("Normal" if after.status == "True" else "Warning", after.reason, after.message)]


def _of_type(status: AnyStatus, kind: ConditionType) -> Condition | None:
    return next((condition for condition in status.conditions if condition.type == kind), None)


def metadata_loss(report: MoverReport | None) -> tuple[Action, ...]:
    """An Event about what a mover could not keep: sockets skipped, owners that may not be set."""
    return (RecordEvent("Warning", "NotAllKept", " ".join(report.warnings)),) if report and report.warnings else ()
