"""``decide`` for a VolumeBackup that is being deleted: stop the mover, wait for dependents, remove the data, release.

Stored data is removed only for an object with a deletionTimestamp and our finalizer, whose manifest contains its UID.
When in doubt, the data is kept.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cinderblock.api import labels
from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import RestorePhase
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import CinderblockError, ObjectLocked, StoreReadOnly, TransientError, fail_reason
from cinderblock.lifecycle import children as lifecycle_children
from cinderblock.lifecycle import conditions, dependents, verdicts
from cinderblock.lifecycle.actions import (
    MIN_REQUEUE_SECONDS,
    Action,
    Decision,
    DeleteStoredData,
    RecordEvent,
    RecordRelease,
    RemoveExpiredData,
    RemoveFinalizer,
)
from cinderblock.lifecycle.alarms import keepers
from cinderblock.lifecycle.backup import checks, expiry, remains
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.imports import releases
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedBackup, RemovedBackup
from cinderblock.lifecycle.store import access
from cinderblock.lifecycle.verdicts import Wait
from cinderblock.reasons import Reason

SLOW_RETRY_SECONDS = 60.0
"""Seconds between attempts once the phase is error_deleting."""
LOCKED_RETRY_SECONDS = 3600.0
"""Most seconds until locked data is checked again: somebody may lift a legal hold, or a retention in GOVERNANCE."""
READ_ONLY_RETRY_SECONDS = 3600.0
"""Seconds until the access of a read-only store is checked again. A change of its BackupStore is noticed at once."""
_LEAVE_DATA_ADVICE = (
    f"To leave the data in the store, annotate the VolumeBackup with {labels.RELEASED_ANNOTATION}=leave-data."
)


_DATA_STAYS: Final = frozenset({Reason.RETAINED, Reason.DATA_LEFT})
"""Reasons of a deletion that leaves the data in the store."""
_EXPIRED = "The expired VolumeBackup and its data were removed"
_ABSENT = (
    "The expired VolumeBackup was removed; the store held nothing of it any more. If the endpoint or the bucket of its"
    " BackupStore was replaced, look for its data in the previous one"
)


def decide(observed: ObservedBackup, now: datetime) -> Decision:
    """Return what to do about a VolumeBackup with a deletionTimestamp."""
    return _after_mark(observed, now, _decide(observed, now))


def _decide(observed: ObservedBackup, now: datetime) -> Decision:
    if labels.BACKUP_FINALIZER not in observed.backup.metadata.finalizers:
        return Decision(None)
    blocked = _blocked(observed, now)
    if blocked is not None:
        return _deleting(observed, now, blocked)
    cleanup = lifecycle_children.cleanup(observed.backup, children_of(observed))
    if cleanup or (mover_state.is_at_work(observed.mover) and not _is_stuck(observed, now)):
        limit = observed.policy.deadlines.deletion
        message = mover_state.stop_message("The mover is being stopped", observed.mover, now)
        return _deleting(observed, now, Wait(Reason.STOPPING_MOVER, message, None, limit, MIN_REQUEUE_SECONDS), cleanup)
    remaining = _remaining(observed)
    return _deletion_fails(observed, now, remaining) if remaining else _release(observed, now)


def children_of(observed: ObservedBackup) -> lifecycle_children.Children:
    """Return the children of a backup, to be removed."""
    return lifecycle_children.Children(
        job=observed.mover.job,
        claim=observed.snapshot_claim,
        snapshot=observed.snapshot,
        volume=observed.snapshot_volume,
    )


def _is_stuck(observed: ObservedBackup, now: datetime) -> bool:
    """Return whether the mover has been stopping for longer than the deadline."""
    status = observed.backup.status
    since = conditions.waiting_since(status.conditions, Reason.STOPPING_MOVER) or now
    return status.phase is BackupPhase.ERROR_DELETING or now - since >= observed.policy.deadlines.deletion


def _remaining(observed: ObservedBackup) -> TransientError | None:
    """Return the error of children that the cluster has not removed yet: without us, nobody reports them.

    A pod that does not end comes first, because it may still read the volume and write to the store.
    """
    pods = mover_state.unfinished(observed.mover)
    if pods:
        return TransientError(lifecycle_children.NODE_LOST_ADVICE.format(pods=pods), reason=Reason.STOPPING_MOVER)
    owner = observed.backup
    children = (observed.mover.job, observed.snapshot_claim, observed.snapshot)
    listed = [
        f"{type(child).__name__} {child.name}" for child in children if lifecycle_children.belongs_to(child, owner)
    ]
    if not listed:
        return None
    return TransientError(
        f"The cluster is still removing {', '.join(listed)}. If the controller of a remaining finalizer is gone for"
        " good, for example that of an uninstalled driver, remove the finalizer.",
        reason=Reason.CHILDREN_REMAIN,
    )


def _blocked(observed: ObservedBackup, now: datetime) -> Wait | None:
    """Wait while other objects need the data."""
    if not _had_data(observed):
        return None
    if expiry.removes_data(observed.backup):
        is_over = observed.removed is not None or observed.removal_runs
        return None if is_over else expiry.obstacle(observed, now)
    waiting = (*dependents.dependents_of(observed), *aliases(observed))
    if waiting and not observed.backup.keeps_data:
        listed = ", ".join(sorted(backup.name for backup in waiting)[:10])
        message = f"Incremental backups exist for this backup: {listed}"
        return Wait(Reason.HAS_DEPENDENT_BACKUPS, message, requeue_after=30.0)
    running = [
        restore.name
        for restore in observed.restores
        if restore.own_phase is RestorePhase.RESTORING and restore.own_backup_id == observed.backup.backup_id
    ]
    if running:
        message = f"VolumeRestore {', '.join(sorted(running)[:10])} reads this backup"
        return Wait(Reason.BACKUP_IN_USE, message, requeue_after=10.0)
    return readers.in_use(observed, now)


def _release(observed: ObservedBackup, now: datetime) -> Decision:
    """Remove or keep the data, then remove the finalizer. No child exists any more."""
    backup = observed.backup
    if backup.keeps_data and (
        observed.manifest_present or backup.spec.import_ or _is_misplaced(observed) or _must_stay(observed)
    ):
        note = "The VolumeBackup was deleted; its data stays in the store (deletionPolicy Retain)"
        return _remove_finalizer(observed, Reason.RETAINED, note)
    if checks.is_forgotten(backup) and observed.manifest_error is not None:
        return on_store_error(observed, now, observed.manifest_error)
    if not _had_data(observed):
        return _remove_finalizer(observed, Reason.DELETED, "The VolumeBackup was deleted; nothing had been stored")
    if backup.is_let_go:
        return _leave_data(observed)
    if expiry.removes_data(backup):
        return _remove_expired(observed, now)
    if observed.data_present is False:
        return _remove_finalizer(observed, *remains.deletion_event(observed.remains or remains.NOTHING))
    if observed.needed_by:
        listed = ", ".join(observed.needed_by[:10])
        note = f"The VolumeBackup was deleted; its data stays in the store for retained backups: {listed}"
        return _remove_finalizer(observed, Reason.DATA_LEFT, note, is_warning=True)
    error = _store_error(observed)
    return _delete_data(observed, now) if error is None else on_store_error(observed, now, error)


def _is_misplaced(observed: ObservedBackup) -> bool:
    """Return whether the data is in another place than that of the store now. Data that stays needs no question."""
    error = observed.store.error or observed.manifest_error
    return error is not None and error.reason == Reason.MANIFEST_MISPLACED


def _must_stay(observed: ObservedBackup) -> bool:
    """Return whether objects of a backup may exist that nothing removes, because the store is read-only."""
    store = observed.store.store
    is_read_only = store is not None and store.is_read_only
    return is_read_only and _had_data(observed) and observed.data_present is not False


def _remove_expired(observed: ObservedBackup, now: datetime) -> Decision:
    """Remove the data of an expired backup, together with other expired ones of the volume, then the finalizer."""
    if observed.removed is not None:
        return _remove_finalizer(observed, Reason.EXPIRED, _expired_note(observed, observed.removed))
    message = "The data of expired backups is being removed from the store"
    wait = Wait(Reason.DELETING_DATA, message, requeue_after=MIN_REQUEUE_SECONDS)
    if observed.removal_runs:
        return _deleting(observed, now, wait)
    error = _store_error(observed)
    status = observed.backup.status
    if error is not None or status.volume_id is None or status.container is None:
        return on_store_error(observed, now, error or TransientError("the status does not say where the data is"))
    store = observed.store.store
    waits = store is not None and _waits_for_locks(observed, store)
    action = RemoveExpiredData(status.container, status.volume_id, expiry.batch(observed), waits)
    return _deleting(observed, now, wait, (action,))


def _expired_note(observed: ObservedBackup, removed: RemovedBackup) -> str:
    if removed.was_absent:
        # An operator that died may have removed it before.
        return _ABSENT
    packs_left, store = removed.packs_left, observed.store.store
    shown = store.status.conditions if store is not None else []
    is_hidden = any(c.type == ConditionType.VERSIONED and c.status == "True" for c in shown)
    note = "The expired VolumeBackup was removed, and its data is hidden" if is_hidden else _EXPIRED
    noun = "pack" if packs_left == 1 else "packs"
    return f"{note}, except {packs_left} {noun} that other backups list" if packs_left else note


def on_store_error(observed: ObservedBackup, now: datetime, error: CinderblockError) -> Decision:
    """Return what to do if the store does not answer or does not remove the data: report and retry, or leave it."""
    return _after_mark(observed, now, _on_store_error(observed, now, error))


def _after_mark(observed: ObservedBackup, now: datetime, decision: Decision) -> Decision:
    """Let a VolumeBackup whose data stays go only after its BackupStore has a mark. Otherwise an import brings it back.

    The mark comes first: if the operator dies in between, the VolumeBackup still exists.
    """
    reasons = {action.reason for action in decision.actions if isinstance(action, RecordEvent)}
    is_over = any(isinstance(action, RemoveFinalizer) for action in decision.actions)
    store = observed.store.store
    if store is None or not is_over or not reasons & _DATA_STAYS or observed.namespace_ending:
        return decision
    unmarked = releases.stores_without_mark(observed.backup, store, observed.same_place)
    if not unmarked:
        return decision
    listed = ", ".join(each.name for each in unmarked)
    message = f"BackupStore {listed} takes note that the backup must not be imported again"
    wait = Wait(Reason.RECORDING_RELEASE, message, requeue_after=MIN_REQUEUE_SECONDS)
    backup_id = releases.release_id(observed.backup)
    return _deleting(observed, now, wait, tuple(RecordRelease(each.name, backup_id) for each in unmarked))


def _on_store_error(observed: ObservedBackup, now: datetime, error: CinderblockError) -> Decision:
    if observed.backup.is_let_go:
        return _leave_data(observed)
    if observed.namespace_ending:
        note = f"The namespace is being deleted, and the data stays in the store: {error.message}"
        return _remove_finalizer(observed, Reason.DATA_LEFT, note, is_warning=True)
    if isinstance(error, ObjectLocked):
        return _wait_for_lock(observed, now, error)
    if isinstance(error, StoreReadOnly):
        message = f"The data of the backup cannot be deleted now. {error.message} {_LEAVE_DATA_ADVICE}"
        return _deleting(observed, now, Wait(error.reason, message, requeue_after=READ_ONLY_RETRY_SECONDS))
    return _deletion_fails(observed, now, error)


def _wait_for_lock(observed: ObservedBackup, now: datetime, error: ObjectLocked) -> Decision:
    """Wait until the store releases a locked object. A lock can also be extended or lifted, so check again earlier."""
    seconds = (error.until - now).total_seconds() if error.until is not None else LOCKED_RETRY_SECONDS
    message = f"{error.message} {_LEAVE_DATA_ADVICE}"
    delay = min(max(seconds, SLOW_RETRY_SECONDS), LOCKED_RETRY_SECONDS)
    return _deleting(observed, now, Wait(error.reason, message, requeue_after=delay))


def _leave_data(observed: ObservedBackup) -> Decision:
    note = f"The VolumeBackup was deleted; its data stays in the store, as {labels.RELEASED_ANNOTATION} requests"
    return _remove_finalizer(observed, Reason.DATA_LEFT, note, is_warning=True)


def _delete_data(observed: ObservedBackup, now: datetime) -> Decision:
    status, store = observed.backup.status, observed.store.store
    if store is None or status.volume_id is None or status.container is None:
        raise ValueError("the status does not say where the data is")
    action = DeleteStoredData(
        container=status.container,
        volume_id=status.volume_id,
        backup_id=observed.backup.backup_id,
        waits_for_lock=_waits_for_locks(observed, store),
    )
    wait = Wait(Reason.DELETING_DATA, "The data of the backup is being removed from the store", requeue_after=0.0)
    return _deleting(observed, now, wait, (action,))


def _waits_for_locks(observed: ObservedBackup, store: BackupStore) -> bool:
    """Return whether locks are those of spec.objectLock: their end is known, and the data is not hidden before."""
    return store.spec.object_lock is not None or observed.backup.status.locked_until is not None


def _store_error(observed: ObservedBackup) -> CinderblockError | None:
    """Return why the data cannot be removed from the store now."""
    if observed.store.store is None:
        return TransientError(observed.store.missing, reason=observed.store.missing_reason)
    read_only = access.read_only(observed.store.store) if observed.store.store.is_read_only else None
    return observed.store.error or read_only or observed.manifest_error or observed.references_error


def _had_data(observed: ObservedBackup) -> bool:
    """Return whether data may have been stored: the manifest's key is recorded before a mover starts."""
    status = observed.backup.status
    is_recorded = bool(status.volume_id and status.container and status.manifest_key)
    return observed.backup.own_phase is not None and is_recorded


def _remove_finalizer(observed: ObservedBackup, reason: Reason, note: str, *, is_warning: bool = False) -> Decision:
    """Let the VolumeBackup go, after its open alarms have moved to another backup of the volume."""
    keeper = None if observed.namespace_ending else observed.alarm_keeper
    kept = keepers.keep_alarms(observed.backup, keeper)
    moved: tuple[Action, ...] = () if kept is None else (kept,)
    note += keepers.note(observed.backup, keeper)
    event = RecordEvent("Warning" if is_warning else "Normal", reason, note)
    return Decision(None, (*moved, event, RemoveFinalizer(labels.BACKUP_FINALIZER)))


def _deleting(observed: ObservedBackup, now: datetime, wait: Wait, actions: tuple[Action, ...] = ()) -> Decision:
    base = _base(observed)
    message = verdicts.wait_message(wait, base.conditions, now)
    generation = observed.backup.metadata.generation
    # Dependents do not matter to an expired backup, so not all of them are read.
    is_asked = not expiry.removes_data(observed.backup)
    has_dependents = dependents.exist(observed) if is_asked else base.has_dependent_backups
    status = base.model_copy(
        update={
            "phase": BackupPhase.DELETING,
            "has_dependent_backups": has_dependents,
            "conditions": conditions.reconciling(base.conditions, now, generation, wait.reason, message),
        }
    )
    return Decision(status, actions, wait.requeue_after)


def _deletion_fails(observed: ObservedBackup, now: datetime, error: CinderblockError) -> Decision:
    """Retry quickly at first, slowly once the phase is error_deleting, and forever, since the data still exists."""
    base = _base(observed)
    is_first = base.phase is not BackupPhase.ERROR_DELETING
    since = conditions.waiting_since(base.conditions, error.reason) or now
    if is_first and isinstance(error, TransientError) and now - since < observed.policy.deadlines.deletion:
        return _deleting(observed, now, Wait(error.reason, error.message, requeue_after=10.0))
    message = (
        error.message
        if error.reason in (Reason.CHILDREN_REMAIN, Reason.STOPPING_MOVER)
        else f"{error.message} The operator retries every {SLOW_RETRY_SECONDS:.0f} s. {_LEAVE_DATA_ADVICE}"
    )
    generation = observed.backup.metadata.generation
    status = base.model_copy(
        update={
            "phase": BackupPhase.ERROR_DELETING,
            "fail_reason": fail_reason(error.message),
            "conditions": conditions.stalled(base.conditions, now, generation, error.reason, message),
        }
    )
    events: tuple[Action, ...] = (RecordEvent("Warning", error.reason, message),) if is_first else ()
    return Decision(status, events, SLOW_RETRY_SECONDS)


def _base(observed: ObservedBackup) -> VolumeBackupStatus:
    """Return the object's own status, or the minimal one."""
    backup = observed.backup
    if backup.own_phase is not None:
        return backup.status.model_copy(update={"mover": mover_state.reference(backup.status, observed.mover)})
    return VolumeBackupStatus(**checks.identity(backup), created_at=backup.metadata.creation_timestamp)


def aliases(observed: ObservedBackup) -> tuple[VolumeBackup, ...]:
    """Return the backups of the namespace that were imported from this backup's manifest under other ids."""
    key = observed.backup.status.manifest_key
    return tuple(
        sibling
        for sibling in observed.siblings
        if sibling.is_alias and sibling.own_phase is not None and sibling.status.manifest_key == key
    )
