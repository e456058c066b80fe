"""``decide`` for a VolumeBackup that is being deleted: stop, wait for dependents, remove the data, let go.

Stored data is removed only for an object with a deletionTimestamp and our finalizer, whose manifest names its UID.
When in doubt, data is kept.
"""

from __future__ import annotations

from datetime import datetime

from cinderblock.api import labels
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import RestorePhase
from cinderblock.errors import CinderblockError, TransientError, fail_reason
from cinderblock.lifecycle import children as lifecycle_children
from cinderblock.lifecycle import conditions, dependents, verdicts, volume_lock
from cinderblock.lifecycle.actions import (
    MIN_REQUEUE_SECONDS,
    Action,
    Decision,
    DeleteStoredData,
    RecordEvent,
    RemoveFinalizer,
)
from cinderblock.lifecycle.backup import checks
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Wait

CHILDREN_REMAIN = "ChildrenRemain"
"""What a deletion says while the cluster has not removed a Job, a claim or a snapshot of ours."""

STOPPING = "StoppingMover"
"""What a deletion says while a mover may still be at work."""

SLOW_RETRY_SECONDS = 60.0
"""Seconds between attempts once the phase is error_deleting."""


def decide(observed: ObservedBackup, now: datetime) -> Decision:
    """What to do about a VolumeBackup with a deletionTimestamp."""
    if labels.BACKUP_FINALIZER not in observed.backup.metadata.finalizers:
        return Decision(None)
    blocked = _blocked(observed)
    if blocked is not None:
        return _deleting(observed, now, blocked)
    children = lifecycle_children.cleanup(
        observed.backup.uid, observed.mover.job, observed.snapshot_claim, observed.snapshot
    )
    if children or (mover_state.is_at_work(observed.mover) and not _is_stuck(observed, now)):
        limit = observed.policy.deadlines.deletion
        message = mover_state.stop_message("The mover is being stopped", observed.mover, now)
        return _deleting(observed, now, Wait(STOPPING, message, None, limit, MIN_REQUEUE_SECONDS), children)
    remaining = _remaining(observed)
    return _deletion_fails(observed, now, remaining) if remaining else _release(observed, now)


def _is_stuck(observed: ObservedBackup, now: datetime) -> bool:
    """Whether the mover has been told to stop for longer than that takes."""
    status = observed.backup.status
    since = conditions.waiting_since(status.conditions, STOPPING) or now
    return status.phase is BackupPhase.ERROR_DELETING or now - since >= observed.policy.deadlines.deletion


def _remaining(observed: ObservedBackup) -> TransientError | None:
    """Children whose removal was asked for and has not ended: only while we stay does anybody tell of them.

    A pod that does not end comes first: until it has, it may still read the volume and write to the store.
    """
    pods = mover_state.unfinished(observed.mover)
    if pods:
        return TransientError(lifecycle_children.NODE_LOST_ADVICE.format(pods=pods), reason=STOPPING)
    uid = observed.backup.uid
    children = (observed.mover.job, observed.snapshot_claim, observed.snapshot)
    listed = [f"{_kind(child)} {child.name}" for child in children if lifecycle_children.is_ours(child, uid)]
    if not listed:
        return None
    return TransientError(
        f"Still being removed by the cluster: {', '.join(listed)}. If whoever holds it is gone for good (a snapshot"
        " controller, a driver), take its finalizers off.",
        reason=CHILDREN_REMAIN,
    )


def _kind(child: Object) -> str:
    return {"Claim": "PersistentVolumeClaim", "Snapshot": "VolumeSnapshot"}.get(
        type(child).__name__, type(child).__name__
    )


def _blocked(observed: ObservedBackup) -> Wait | None:
    """Others still need the data. A finished mover of ours does not wait for them: it is stopped in any case."""
    if not _had_data(observed):
        return None
    waiting = (*dependents.dependents_of(observed), *aliases(observed))
    if waiting and not observed.backup.keeps_data:
        listed = ", ".join(sorted(backup.name for backup in waiting)[:10])
        return Wait("HasDependentBackups", f"Incremental backups exist for this backup: {listed}", requeue_after=30.0)
    running = [
        r.name
        for r in observed.restores
        if r.status.id == r.uid
        and r.status.backup_id == observed.backup.backup_id
        and r.status.phase is RestorePhase.RESTORING
    ]
    if running:
        return Wait(
            "BackupInUse", f"VolumeRestore {', '.join(sorted(running)[:10])} reads this backup", requeue_after=10.0
        )
    return None


def _release(observed: ObservedBackup, now: datetime) -> Decision:
    """Nothing of ours runs any more: deal with the data, then let go."""
    backup = observed.backup
    if backup.keeps_data and (observed.manifest_present or backup.spec.import_):
        return _remove_finalizer(
            "Retained", "The VolumeBackup is gone; its data stays in the store (deletionPolicy Retain)"
        )
    if checks.is_forgotten(backup) and observed.manifest_error is not None:
        return on_store_error(observed, now, observed.manifest_error)
    if not _had_data(observed):
        return _remove_finalizer("Deleted", "The VolumeBackup is gone; nothing had been stored")
    if _data_is_abandoned(backup):
        return _leave_data()
    if observed.data_present is False:
        return _remove_finalizer("Deleted", "The VolumeBackup is gone, and so is its data")
    if observed.needed_by:
        needed_by = ", ".join(observed.needed_by[:10])
        return _remove_finalizer(
            "DataLeft", f"The VolumeBackup is gone; its data was left for retained backups: {needed_by}", True
        )
    trouble = _error_wait(observed)
    return _delete_data(observed, now) if trouble is None else on_store_error(observed, now, trouble)


def on_store_error(observed: ObservedBackup, now: datetime, trouble: CinderblockError) -> Decision:
    """The store cannot be asked what it holds, or does not remove it: say so and try again, or leave the data."""
    if _data_is_abandoned(observed.backup):
        return _leave_data()
    if observed.namespace_ending:
        return _remove_finalizer(
            "DataLeft", f"The namespace is being deleted and the data was left: {trouble.message}", True
        )
    return _deletion_fails(observed, now, trouble)


def _data_is_abandoned(backup: VolumeBackup) -> bool:
    return backup.metadata.annotations.get(labels.RELEASED_ANNOTATION) == "leave-data"


def _leave_data() -> Decision:
    note = "The VolumeBackup is gone; its data was left in the store as an administrator asked"
    return _remove_finalizer("DataLeft", note, True)


def _delete_data(observed: ObservedBackup, now: datetime) -> Decision:
    status, store = observed.backup.status, observed.store.store
    if store is None or status.volume_id is None or status.container is None:
        raise ValueError("data can only be removed from a known place")
    action = DeleteStoredData(
        container=status.container,
        volume_id=status.volume_id,
        backup_id=observed.backup.backup_id,
    )
    waiting = Wait("DeletingData", "The backup's objects are being removed from the store", requeue_after=0.0)
    return _deleting(observed, now, waiting, (action,))


def _error_wait(observed: ObservedBackup) -> CinderblockError | None:
    """Why the store cannot be asked to remove the data."""
    if observed.store.store is None:
        return TransientError(observed.store.missing, reason="StoreNotFound")
    return observed.store.error or observed.manifest_error or observed.references_error


def _had_data(observed: ObservedBackup) -> bool:
    """Whether anything may ever have been stored: the manifest's key is written down before a mover is started."""
    status = observed.backup.status
    recorded = bool(status.volume_id and status.container and status.manifest_key)
    return volume_lock.own_phase(observed.backup) is not None and recorded


def _remove_finalizer(reason: str, note: str, warning: bool = False) -> Decision:
    return Decision(
        None,
        (RecordEvent("Warning" if warning else "Normal", reason, note), RemoveFinalizer(labels.BACKUP_FINALIZER)),
    )


def _deleting(observed: ObservedBackup, now: datetime, wait: Wait, actions: tuple[Action, ...] = ()) -> Decision:
    base = _base(observed)
    status = base.model_copy(
        update={
            "phase": BackupPhase.DELETING,
            "has_dependent_backups": dependents.exist(observed),
            "conditions": conditions.reconciling(
                base.conditions,
                now,
                observed.backup.metadata.generation,
                wait.reason,
                verdicts.wait_message(wait, base.conditions, now),
            ),
        }
    )
    return Decision(status, actions, wait.requeue_after)


def _deletion_fails(observed: ObservedBackup, now: datetime, trouble: CinderblockError) -> Decision:
    """Retried: quickly at first, slowly once the phase is error_deleting, and for ever: the data is still there."""
    base = _base(observed)
    first_time = base.phase is not BackupPhase.ERROR_DELETING
    since = conditions.waiting_since(base.conditions, trouble.reason) or now
    if first_time and isinstance(trouble, TransientError) and now - since < observed.policy.deadlines.deletion:
        return _deleting(observed, now, Wait(trouble.reason, trouble.message, requeue_after=10.0))
    message = (
        trouble.message
        if trouble.reason in (CHILDREN_REMAIN, STOPPING)
        else f"{trouble.message} Retried every {SLOW_RETRY_SECONDS:.0f} s. To give the data up,"
        f" annotate the VolumeBackup with {labels.RELEASED_ANNOTATION}=leave-data."
    )
    status = base.model_copy(
        update={
            "phase": BackupPhase.ERROR_DELETING,
            "fail_reason": fail_reason(trouble.message),
            "conditions": conditions.stalled(
                base.conditions, now, observed.backup.metadata.generation, trouble.reason, message
            ),
        }
    )
    events: tuple[Action, ...] = (RecordEvent("Warning", trouble.reason, message),) if first_time else ()
    return Decision(status, events, SLOW_RETRY_SECONDS)


def _base(observed: ObservedBackup) -> VolumeBackupStatus:
    """The object's own status, or the least that one must say."""
    backup = observed.backup
    if volume_lock.own_phase(backup) is not None:
        return backup.status
    return VolumeBackupStatus(**checks.identity(backup), created_at=backup.metadata.creation_timestamp)


def aliases(observed: ObservedBackup) -> tuple[VolumeBackup, ...]:
    """The backups of the namespace that were imported from this one's manifest, under ids of their own."""
    key = observed.backup.status.manifest_key
    return tuple(
        sibling
        for sibling in observed.siblings
        if sibling.is_alias and volume_lock.own_phase(sibling) is not None and sibling.status.manifest_key == key
    )
