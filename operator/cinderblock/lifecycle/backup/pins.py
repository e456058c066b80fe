"""Recording what identifies the content of a backup: when it is whole, or later if an earlier release made it."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.errors import CinderblockError, IntegrityError
from cinderblock.lifecycle import conditions, volume_lock
from cinderblock.lifecycle.actions import RecordEvent
from cinderblock.lifecycle.backup import checks
from cinderblock.lifecycle.backup.derived import with_manifest
from cinderblock.lifecycle.observed import ObservedBackup


def recorded(observed: ObservedBackup, status: VolumeBackupStatus) -> VolumeBackupStatus:
    """Return ``status`` with what the manifest says. A backup that was whole already only gets pins."""
    if observed.manifest is None:
        return status
    if checks.is_unpinned(observed.backup):
        return status.model_copy(update={"pins": observed.manifest.pins})
    return with_manifest(status, observed.manifest)


def conditions_of(observed: ObservedBackup, now: datetime, message: str) -> list[Condition]:
    """Return the conditions of a backup that is whole.

    Ready stays True while the store does not answer. It is False if the store holds something else in its place.

    Args:
        world: what was seen of the backup.
        now: the instant of the decision.
        message: the message of condition Ready while it is True.
    """
    old, generation = observed.backup.status.conditions, observed.backup.metadata.generation
    if not volume_lock.own_phase(observed.backup):
        old = []
    trouble = _error_of(observed)
    if trouble is None:
        ready = conditions.ready(old, now, generation, "Available", message)
        return _regained(observed, now, conditions.without(ready, ConditionType.PINNED) if observed.manifest else ready)
    if _is_wrong(trouble):
        outcome = conditions.stalled(old, now, generation, trouble.reason, trouble.message)
    else:
        outcome = conditions.ready(old, now, generation, "Available", message)
    return conditions.with_lasting(
        outcome,
        now,
        generation,
        kind=ConditionType.PINNED,
        status="False",
        reason=trouble.reason,
        message=_why(trouble),
    )


def events(observed: ObservedBackup) -> tuple[RecordEvent, ...]:
    """Return the Event that something else is in the place of a backup, when that is first seen."""
    trouble = _error_of(observed)
    if trouble is None or not _is_wrong(trouble):
        return ()
    before = observed.backup.status.conditions
    is_known = any(c.type == ConditionType.PINNED and c.reason == trouble.reason for c in before)
    return () if is_known else (RecordEvent("Warning", trouble.reason, trouble.message),)


def _error_of(observed: ObservedBackup) -> CinderblockError | None:
    """Return why a backup of an earlier release could not be pinned in this look."""
    return observed.manifest_error if checks.is_unpinned(observed.backup) else None


def _is_wrong(trouble: CinderblockError) -> bool:
    """Return whether the store has answered, and does not hold the backup."""
    return isinstance(trouble, IntegrityError) or trouble.reason == "ManifestMissing"


def _why(trouble: CinderblockError) -> str:
    """Say what is missing. The words of a failing store differ each time, so the message leaves them out."""
    if _is_wrong(trouble) or trouble.permanent:
        return f"An earlier release made the backup. What identifies its content is not recorded: {trouble.message}"
    return "An earlier release made the backup. The store does not tell what identifies its content; it is asked again"


def _regained(observed: ObservedBackup, now: datetime, before: list[Condition]) -> list[Condition]:
    """Add that the status was lost, if only its key led to the manifest."""
    if observed.manifest is None or not checks.is_forgotten(observed.backup):
        return before
    message = (
        "The status was missing, so the operator read from the store again what identifies the content. It cannot tell"
        " an older manifest of this backup from the newest"
    )
    return conditions.with_lasting(
        before,
        now,
        observed.backup.metadata.generation,
        kind=ConditionType.PIN_REGAINED,
        status="True",
        reason="StatusLost",
        message=message,
    )
