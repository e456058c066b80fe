"""Record what identifies the content of a backup: when it is complete, or later if an earlier release made it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.errors import CinderblockError, IntegrityError
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import RecordEvent
from cinderblock.lifecycle.backup import checks
from cinderblock.lifecycle.backup.derived import with_manifest
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.reasons import Reason

FIRST_RETRY_SECONDS: Final = 60.0
"""Seconds until a pin is tried again for the first time."""


def recorded(observed: ObservedBackup, status: VolumeBackupStatus) -> VolumeBackupStatus:
    """Return ``status`` with what the manifest says. A backup that was already complete only gets pins."""
    if observed.manifest is None:
        return status
    if checks.is_unpinned(observed.backup):
        return status.model_copy(update={"pins": observed.manifest.pins})
    return with_manifest(status, observed.manifest)


def conditions_of(observed: ObservedBackup, now: datetime, message: str) -> list[Condition]:
    """Return the conditions of a complete backup.

    Ready stays True while the store does not answer. It is False if the store holds something else in its place.

    Args:
        observed: the state of the backup.
        now: the instant of the decision.
        message: the message of condition Ready while it is True.
    """
    before, generation = observed.backup.status.conditions, observed.backup.metadata.generation
    if not observed.backup.own_phase:
        before = []
    error = _error_of(observed)
    if error is None:
        ready = conditions.ready(before, now, generation, Reason.AVAILABLE, message)
        return _regained(observed, now, conditions.without(ready, ConditionType.PINNED) if observed.manifest else ready)
    if _is_wrong(error):
        outcome = conditions.stalled(before, now, generation, error.reason, error.message)
    else:
        outcome = conditions.ready(before, now, generation, Reason.AVAILABLE, message)
    return conditions.with_lasting(
        outcome,
        now,
        generation,
        kind=ConditionType.PINNED,
        status="False",
        reason=error.reason,
        message=_unpinned_message(error),
    )


def retry_seconds(observed: ObservedBackup, now: datetime) -> float | None:
    """Return the seconds until a pin that a failing store prevented is tried again; None: at the resync.

    The wait is as long as the failure so far. An upgrade often restarts the store, too, which takes seconds; and
    thousands of old backups must not keep the operator busy while a store is away.
    """
    error = _error_of(observed)
    if error is None or error.permanent or _is_wrong(error):
        return None
    began = (c.last_transition_time for c in observed.backup.status.conditions if c.type == ConditionType.PINNED)
    return max(FIRST_RETRY_SECONDS, (now - next(began, now)).total_seconds())


def events(observed: ObservedBackup) -> tuple[RecordEvent, ...]:
    """Return the Event that the store holds something else in place of the backup, when that is first observed."""
    error = _error_of(observed)
    if error is None or not _is_wrong(error):
        return ()
    before = observed.backup.status.conditions
    is_known = any(c.type == ConditionType.PINNED and c.reason == error.reason for c in before)
    return () if is_known else (RecordEvent("Warning", error.reason, error.message),)


def _error_of(observed: ObservedBackup) -> CinderblockError | None:
    """Return why this reconciliation could not pin a backup of an earlier release."""
    return observed.manifest_error if checks.is_unpinned(observed.backup) else None


def _is_wrong(error: CinderblockError) -> bool:
    """Return whether the store has answered, and does not hold the backup."""
    return isinstance(error, IntegrityError) or error.reason == Reason.MANIFEST_MISSING


def _unpinned_message(error: CinderblockError) -> str:
    """Return the message of condition Pinned. It omits the texts of a failing store, which differ each time."""
    if _is_wrong(error) or error.permanent:
        return f"Cannot record the pins of this backup, which an earlier release made: {error.message}"
    return "Cannot record the pins of this backup, which an earlier release made. The operator retries"


def _regained(observed: ObservedBackup, now: datetime, before: list[Condition]) -> list[Condition]:
    """Add condition PinRegained if the status was lost and the manifest was found by its key alone."""
    if observed.manifest is None or not checks.is_forgotten(observed.backup):
        return before
    message = (
        "The status was lost, so the operator read the pins from the store again. It cannot tell an older manifest of"
        " this backup from the newest"
    )
    return conditions.with_lasting(
        before,
        now,
        observed.backup.metadata.generation,
        kind=ConditionType.PIN_REGAINED,
        status="True",
        reason=Reason.STATUS_LOST,
        message=message,
    )
