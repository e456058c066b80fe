"""``decide`` for a RestoreSource: say whether claims can use it, and which ones have."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cinderblock.api import labels
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.api.v1alpha1.restore_source import MAX_CLAIMS, PopulatedClaim, RestoreSource, RestoreSourceStatus
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import Decision
from cinderblock.lifecycle.observed import StoreLookup
from cinderblock.reasons import Reason

AGAIN_SECONDS = 30.0
"""Seconds until the status is computed again while a restore runs, or while there is no store."""


def decide(source: RestoreSource, store: StoreLookup, restores: Iterable[VolumeRestore], now: datetime) -> Decision:
    """Return what to do about a RestoreSource.

    Args:
        source: the RestoreSource.
        store: its BackupStore.
        restores: VolumeRestores for claims of its namespace.
        now: the instant of the decision.
    """
    if source.metadata.is_being_deleted:
        return Decision(None)
    before, generation = source.status.conditions if source.status.id == source.uid else [], source.metadata.generation
    is_usable = source.spec.suspend or store.store is not None
    if source.spec.suspend:
        shown = conditions.ready(before, now, generation, Reason.SUSPENDED, "Claims wait while spec.suspend is true")
    elif store.store is None:
        shown = conditions.stalled(before, now, generation, store.missing_reason, store.missing)
    else:
        message = "PersistentVolumeClaims that name it in their dataSourceRef are filled"
        shown = conditions.ready(before, now, generation, Reason.ACCEPTED, message)
    claims = sorted(filter(None, (_claim(source, restore) for restore in restores)), key=_newest_first)
    status = RestoreSourceStatus(
        id=source.uid, claims=claims[:MAX_CLAIMS], observed_generation=generation, conditions=shown
    )
    is_final = is_usable and all(claim.outcome.is_final for claim in status.claims)
    return Decision(status, requeue_after=None if is_final else AGAIN_SECONDS)


def _claim(source: RestoreSource, restore: VolumeRestore) -> PopulatedClaim | None:
    """Return what a VolumeRestore says about a claim that named the source; None if it names another one.

    Anybody who may create VolumeRestores can make one that looks like that.
    """
    given = restore.spec.claim
    if given is None or restore.metadata.annotations.get(labels.SOURCE_ANNOTATION) != source.name:
        return None
    if restore.name != labels.populate_name(given.uid):
        return None
    return PopulatedClaim(
        name=given.name,
        uid=given.uid,
        outcome=restore.own_phase or RestorePhase.RESTORING,
        backup_id=restore.spec.backup_id,
        at=restore.metadata.creation_timestamp,
    )


def _newest_first(claim: PopulatedClaim) -> tuple[float, str]:
    return (-claim.at.timestamp() if claim.at is not None else 0.0, claim.name)
