"""The condition Verified of a VolumeBackup, derived from status.verification.

Its message has no numbers that change with each verification, so that the status is not written each time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cinderblock.api.conditions import Condition, ConditionStatus, ConditionType
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.verification import VerificationLevel, VerificationResult, VerificationSummary
from cinderblock.lifecycle import conditions
from cinderblock.reasons import Reason

NAMED_IN_MESSAGE: Final = 3
"""Damaged objects that a message names."""
_INCOMPLETE: Final = "Verifications have not read all stored data of the backup yet"


def with_verification(shown: list[Condition], backup: VolumeBackup, now: datetime) -> list[Condition]:
    """Return the conditions of a complete backup with Verified, or without it if the backup was never verified."""
    summary = backup.own_verification
    if summary is None:
        return conditions.without(shown, ConditionType.VERIFIED)
    status, reason, message = _state_of(summary, backup.status.manifest_key)
    generation, kind = backup.metadata.generation, ConditionType.VERIFIED
    return conditions.with_lasting(shown, now, generation, kind=kind, status=status, reason=reason, message=message)


def _state_of(summary: VerificationSummary, manifest: str | None) -> tuple[ConditionStatus, Reason, str]:
    match summary.result:
        case VerificationResult.VERIFIED:
            is_restored = summary.level is VerificationLevel.RESTORE
            how = "It was restored and checked" if is_restored else "All of its stored data was read and is sound"
            field = "restoredAt" if is_restored else "dataAt"
            return "True", Reason.VERIFIED, f"{how}; status.verification.{field} says when"
        case VerificationResult.DAMAGED:
            return "False", Reason.DAMAGED, _damage(summary, manifest)
        case _:
            return "Unknown", Reason.NOT_ALL_READ, _INCOMPLETE


def _damage(summary: VerificationSummary, manifest: str | None) -> str:
    if manifest and manifest in summary.objects:
        return (
            f"Its manifest {manifest} is damaged or missing in the store. Without it, this backup cannot be restored,"
            " and retention and deletions of the volume wait. Bring the object back from a version or a copy of the"
            " bucket, or make a new backup of the volume and then delete this VolumeBackup"
        )
    count = summary.damaged_objects or len(summary.objects)
    if not count:
        return "It was restored, but the check of the restored volume failed: its content is not what the check expects"
    what = "1 object is damaged or missing" if count == 1 else f"{count} objects are damaged or missing"
    named = ", ".join(summary.objects[:NAMED_IN_MESSAGE])
    objects = f" Among them: {named}." if named else ""
    return (
        f"In the store, {what}.{objects} Make a new backup of the volume, and keep this one until that is available:"
        " other files of it can still be restored"
    )
