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


def decide(world: ObservedBackup, now: datetime) -> Decision:
    """What to do about a VolumeBackup with a deletionTimestamp."""
    if labels.BACKUP_FINALIZER not in world.backup.metadata.finalizers:
        return Decision(None)
    blocked = _blocked(world)
    if blocked is not None:
        return _deleting(world, now, blocked)
    children = lifecycle_children.cleanup(world.backup.uid, world.mover.job, world.exposed, world.snapshot)
    if children or (mover_state.is_at_work(world.mover) and not _is_stuck(world, now)):
        limit = world.policy.deadlines.deletion
        message = mover_state.stop_message("The mover is being stopped", world.mover, now)
        return _deleting(world, now, Wait(STOPPING, message, None, limit, MIN_REQUEUE_SECONDS), children)
    remaining = _remaining(world)
    return _deletion_fails(world, now, remaining) if remaining else _release(world, now)


def _is_stuck(world: ObservedBackup, now: datetime) -> bool:
    """Whether the mover has been told to stop for longer than that takes."""
    status = world.backup.status
    since = conditions.waiting_since(status.conditions, STOPPING) or now
    return status.phase is BackupPhase.ERROR_DELETING or now - since >= world.policy.deadlines.deletion


def _remaining(world: ObservedBackup) -> TransientError | None:
    """Children whose removal was asked for and has not ended: only while we stay does anybody tell of them.

    A pod that does not end comes first: until it has, it may still read the volume and write to the store.
    """
    pods = mover_state.unfinished(world.mover)
    if pods:
        return TransientError(lifecycle_children.NODE_LOST_ADVICE.format(pods=pods), reason=STOPPING)
    uid = world.backup.uid
    children = (world.mover.job, world.exposed, world.snapshot)
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


def _blocked(world: ObservedBackup) -> Wait | None:
    """Others still need the data. A finished mover of ours does not wait for them: it is stopped in any case."""
    if not _had_data(world):
        return None
    waiting = (*dependents.dependents_of(world), *aliases(world))
    if waiting and not world.backup.keeps_data:
        listed = ", ".join(sorted(backup.name for backup in waiting)[:10])
        return Wait("HasDependentBackups", f"Incremental backups exist for this backup: {listed}", look_again=30.0)
    running = [
        r.name
        for r in world.restores
        if r.status.id == r.uid
        and r.status.backup_id == world.backup.backup_id
        and r.status.phase is RestorePhase.RESTORING
    ]
    if running:
        return Wait(
            "BackupInUse", f"VolumeRestore {', '.join(sorted(running)[:10])} reads this backup", look_again=10.0
        )
    return None


def _release(world: ObservedBackup, now: datetime) -> Decision:
    """Nothing of ours runs any more: deal with the data, then let go."""
    backup = world.backup
    if backup.keeps_data and (world.manifest_stands or backup.spec.import_):
        return _remove_finalizer(
            "Retained", "The VolumeBackup is gone; its data stays in the store (deletionPolicy Retain)"
        )
    if checks.is_forgotten(backup) and world.manifest_trouble is not None:
        return on_store_error(world, now, world.manifest_trouble)
    if not _had_data(world):
        return _remove_finalizer("Deleted", "The VolumeBackup is gone; nothing had been stored")
    if _data_is_abandoned(backup):
        return _leave_data()
    if world.data_left is False:
        return _remove_finalizer("Deleted", "The VolumeBackup is gone, and so is its data")
    if world.needed_by:
        needed_by = ", ".join(world.needed_by[:10])
        return _remove_finalizer(
            "DataLeft", f"The VolumeBackup is gone; its data was left for retained backups: {needed_by}", True
        )
    trouble = _error_wait(world)
    return _delete_data(world, now) if trouble is None else on_store_error(world, now, trouble)


def on_store_error(world: ObservedBackup, now: datetime, trouble: CinderblockError) -> Decision:
    """The store cannot be asked what it holds, or does not remove it: say so and try again, or leave the data."""
    if _data_is_abandoned(world.backup):
        return _leave_data()
    if world.namespace_ending:
        return _remove_finalizer(
            "DataLeft", f"The namespace is being deleted and the data was left: {trouble.message}", True
        )
    return _deletion_fails(world, now, trouble)


def _data_is_abandoned(backup: VolumeBackup) -> bool:
    return backup.metadata.annotations.get(labels.RELEASED_ANNOTATION) == "leave-data"


def _leave_data() -> Decision:
    note = "The VolumeBackup is gone; its data was left in the store as an administrator asked"
    return _remove_finalizer("DataLeft", note, True)


def _delete_data(world: ObservedBackup, now: datetime) -> Decision:
    status, store = world.backup.status, world.store.store
    if store is None or status.volume_id is None or status.container is None:
        raise ValueError("data can only be removed from a known place")
    action = DeleteStoredData(
        container=status.container,
        volume_id=status.volume_id,
        backup_id=world.backup.backup_id,
    )
    waiting = Wait("DeletingData", "The backup's objects are being removed from the store", look_again=0.0)
    return _deleting(world, now, waiting, (action,))


def _error_wait(world: ObservedBackup) -> CinderblockError | None:
    """Why the store cannot be asked to remove the data."""
    if world.store.store is None:
        return TransientError(world.store.missing, reason="StoreNotFound")
    return world.store.trouble or world.manifest_trouble or world.references_trouble


def _had_data(world: ObservedBackup) -> bool:
    """Whether anything may ever have been stored: the manifest's key is written down before a mover is started."""
    status = world.backup.status
    recorded = bool(status.volume_id and status.container and status.manifest_key)
    return volume_lock.own_phase(world.backup) is not None and recorded


def _remove_finalizer(reason: str, note: str, warning: bool = False) -> Decision:
    return Decision(
        None,
        (RecordEvent("Warning" if warning else "Normal", reason, note), RemoveFinalizer(labels.BACKUP_FINALIZER)),
    )


def _deleting(world: ObservedBackup, now: datetime, wait: Wait, actions: tuple[Action, ...] = ()) -> Decision:
    base = _base(world)
    status = base.model_copy(
        update={
            "phase": BackupPhase.DELETING,
            "has_dependent_backups": dependents.exist(world),
            "conditions": conditions.reconciling(
                base.conditions,
                now,
                world.backup.metadata.generation,
                wait.reason,
                verdicts.wait_message(wait, base.conditions, now),
            ),
        }
    )
    return Decision(status, actions, wait.look_again)


def _deletion_fails(world: ObservedBackup, now: datetime, trouble: CinderblockError) -> Decision:
    """Retried: quickly at first, slowly once the phase is error_deleting, and for ever: the data is still there."""
    base = _base(world)
    first_time = base.phase is not BackupPhase.ERROR_DELETING
    since = conditions.waiting_since(base.conditions, trouble.reason) or now
    if first_time and isinstance(trouble, TransientError) and now - since < world.policy.deadlines.deletion:
        return _deleting(world, now, Wait(trouble.reason, trouble.message, look_again=10.0))
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
                base.conditions, now, world.backup.metadata.generation, trouble.reason, message
            ),
        }
    )
    events: tuple[Action, ...] = (RecordEvent("Warning", trouble.reason, message),) if first_time else ()
    return Decision(status, events, SLOW_RETRY_SECONDS)


def _base(world: ObservedBackup) -> VolumeBackupStatus:
    """The object's own status, or the least that one must say."""
    backup = world.backup
    if volume_lock.own_phase(backup) is not None:
        return backup.status
    return VolumeBackupStatus(**checks.identity(backup), created_at=backup.metadata.creation_timestamp)


def aliases(world: ObservedBackup) -> tuple[VolumeBackup, ...]:
    """The backups of the namespace that were imported from this one's manifest, under ids of their own."""
    key = world.backup.status.manifest_key
    return tuple(
        sibling
        for sibling in world.siblings
        if sibling.is_second_name and volume_lock.own_phase(sibling) is not None and sibling.status.manifest_key == key
    )
