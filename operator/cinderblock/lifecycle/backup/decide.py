"""``decide`` for a VolumeBackup: accept, snapshot, expose, copy, read back, clean up."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cinderblock.api import labels, layout
from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.kubernetes import PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.mover import missed_changes_sentence
from cinderblock.api.origin import Consistency
from cinderblock.api.quantity import to_bytes, to_gib
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackupStatus
from cinderblock.errors import (
    CinderblockError,
    ForeignManifest,
    ManifestReplaced,
    SealBroken,
    SealedTooLate,
)
from cinderblock.lifecycle import children, completion, conditions, dependents, events, verdicts, volume_lock
from cinderblock.lifecycle.actions import Action, AddFinalizer, CreateChild, Decision, RecordEvent
from cinderblock.lifecycle.backup import checks, delete, import_checks, pins, snapshot_checks
from cinderblock.lifecycle.backup.derived import derived_phase, incomplete, newest_failed_restore, with_manifest
from cinderblock.lifecycle.backup.task import container_of, data_timestamp, mover_task
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Fail, Wait

RECHECK_SECONDS = 60.0
"""Seconds until the next question to a store that did not say which backups need this one."""

NOT_OURS = (ForeignManifest, ManifestReplaced, SealBroken, SealedTooLate)
"""The store holds something else in the place of a backup's manifest."""

REJECTED_RETRY_SECONDS = 60.0
"""Seconds between looks at a backup whose status was lost, while the store holds something else in its place."""


def decide(observed: ObservedBackup, now: datetime) -> Decision:
    """What to do about a VolumeBackup.

    Args:
        world: what was seen of it just now.
        now: the instant of the decision, with time zone.
    """
    decision = _decide(observed, now)
    return _stamp(decision, observed, now)


def acknowledge(observed: ObservedBackup, waiting: int, now: datetime) -> VolumeBackupStatus | None:
    """What to say of a new backup that has to wait before anybody looks at it; None: something is known of it already.

    Cinder's API answers with ``creating`` at once, however much there is to do.

    Args:
        world: the backup alone.
        waiting: how many objects want to be looked at, this one among them.
        now: the instant of the decision, with time zone.
    """
    backup = observed.backup
    if volume_lock.own_phase(backup) or backup.metadata.is_being_deleted or checks.is_forgotten(backup):
        return None
    message = f"The backup waits for its turn: {waiting} objects are to be looked at"
    decision = _stamp(_wait(observed, now, Wait(volume_lock.NOTICED, message)), observed, now)
    return decision.status if isinstance(decision.status, VolumeBackupStatus) else None


def on_action_error(observed: ObservedBackup, now: datetime, error: CinderblockError) -> Decision:
    """What to do when an action was refused: what is wrong ends the backup, what may pass is waited for.

    A store that does not remove the data ends nothing: see `deletion.cannot_remove`.
    """
    if observed.backup.metadata.is_being_deleted:
        return _stamp(delete.on_store_error(observed, now, error), observed, now)
    verdict = verdicts.from_api_error(error, observed.policy.deadlines)
    return _stamp(_verdict(observed, now, verdict), observed, now)


def _decide(observed: ObservedBackup, now: datetime) -> Decision:
    backup, forgotten = observed.backup, checks.is_forgotten(observed.backup)
    if backup.metadata.is_being_deleted:
        return (_record_data_location(observed, now) if forgotten else None) or delete.decide(observed, now)
    phase = volume_lock.own_phase(backup)
    if backup.spec.import_ and phase is not BackupPhase.ERROR and phase not in checks.WHOLE:
        return _import(observed, now)
    spoilt = _invalidated(observed) if phase is BackupPhase.CREATING and not forgotten else None
    if spoilt is not None:
        return _fail(observed, now, spoilt)
    if phase in checks.WHOLE or (observed.manifest is not None and (forgotten or phase is not BackupPhase.ERROR)):
        return _complete(observed, now)
    if forgotten and observed.manifest_error is not None:
        return _wait_for_lost_status(observed, now, observed.manifest_error)
    if phase is BackupPhase.ERROR:
        return _failed_before(observed)
    if phase is None:
        return _accept(observed, now)
    return _create(observed, now)


def _invalidated(observed: ObservedBackup) -> Fail | None:
    """Return why a backup that is being made cannot become a good one, whatever its mover says."""
    if isinstance(observed.manifest_error, NOT_OURS):
        return Fail(observed.manifest_error.reason, observed.manifest_error.message)
    return checks.used_during_copy(observed.pods_during_copy)


def _fail_lost_status(observed: ObservedBackup, now: datetime, trouble: CinderblockError) -> Decision:
    """Refuse what the store holds, since it must not be taken for a backup whose status was lost. Look again later.

    Somebody may put the manifest right, or allow the store to take an unsealed one.
    """
    cause = "Cannot tell whether the backup is whole: its status was lost."
    remedy = "If it was made without encryption, set spec.allowUnsealed of the BackupStore."
    message = " ".join((cause, *((remedy,) if isinstance(trouble, SealBroken) else ()), trouble.message))
    failed = _fail(observed, now, Fail(trouble.reason, message))
    is_told = any(c.type == "Stalled" and c.reason == trouble.reason for c in observed.backup.status.conditions)
    return Decision(failed.status, () if is_told else failed.actions, REJECTED_RETRY_SECONDS)


def _wait_for_lost_status(observed: ObservedBackup, now: datetime, trouble: CinderblockError) -> Decision:
    """A status was lost and the store does not say whether the backup is whole: it is not made anew meanwhile."""
    if isinstance(trouble, NOT_OURS):
        return _fail_lost_status(observed, now, trouble)
    message = f"The status was lost, and the store does not say whether the backup is whole: {trouble.message}"
    return _wait(observed, now, Wait(volume_lock.STATUS_LOST, message, requeue_after=30.0))


def _record_data_location(observed: ObservedBackup, now: datetime) -> Decision | None:
    """A status was lost and the backup is being deleted: write down where its data is, for the deletion to find it."""
    if observed.manifest is None and (observed.manifest_error is not None or observed.claim is None):
        return None
    recalled = _wait(observed, now, Wait(volume_lock.STATUS_LOST, "The status was lost and is put together again"))
    if observed.manifest is None:
        recalled = _with_choices(observed, recalled)
    status = recalled.status
    if not isinstance(status, VolumeBackupStatus) or observed.store.store is None:
        return None
    status = with_manifest(status, observed.manifest) if observed.manifest else status
    return Decision(status.model_copy(update={"phase": BackupPhase.DELETING}), requeue_after=0.0)


def _import(observed: ObservedBackup, now: datetime) -> Decision:
    """What is in the store becomes the status; nothing is copied."""
    verdict = checks.first_verdict(observed, import_checks.IMPORT_CHECKS)
    return _complete(observed, now) if verdict is None else _verdict(observed, now, verdict)


def _accept(observed: ObservedBackup, now: datetime) -> Decision:
    """Put the finalizer on and write down what was chosen, before anything is made.

    The finalizer comes with the choices and not before: it says that something may be stored.
    A parent is chosen and recorded here, so that its deletion sees a dependent before this backup reads from it.
    """
    verdict = checks.first_verdict(observed, checks.BEFORE_COPY)
    if isinstance(verdict, Wait):
        verdict = verdicts.expire(verdict, observed.backup.status.conditions, now)
    if isinstance(verdict, Fail):
        return _fail(observed, now, verdict)
    if verdict is not None:
        return _wait(observed, now, verdict)
    actions: tuple[Action, ...] = ()
    if labels.BACKUP_FINALIZER not in observed.backup.metadata.finalizers:
        actions = (AddFinalizer(labels.BACKUP_FINALIZER),)
    accepted = _wait(observed, now, Wait("Accepted", "The backup was accepted", requeue_after=0.0), actions)
    return _with_choices(observed, accepted)


def _with_choices(observed: ObservedBackup, accepted: Decision) -> Decision:
    """The acceptance with what it fixes: the key of the manifest, and the parent of an incremental backup.

    From here on something may be stored: a deletion asks the store. Before, it need not, even if the store is down.
    """
    status, store, claim = accepted.status, observed.store.store, observed.claim
    if not isinstance(status, VolumeBackupStatus) or store is None or claim is None:
        return accepted
    update: dict[str, Any] = {"manifest_key": layout.manifest_key(store.spec.prefix, claim.uid, observed.backup.uid)}
    parent = checks.latest_parent(observed) if observed.backup.spec.incremental else None
    if parent is not None:
        update |= {"parent_id": parent.backup_id, "is_incremental": True}
    return Decision(status.model_copy(update=update), accepted.actions, accepted.requeue_after)


def _create(observed: ObservedBackup, now: datetime) -> Decision:
    """Go on with the next step that has not been done."""
    if not _is_accepted(observed):
        return _accept(observed, now)
    if observed.mover.job is not None:
        return _copying(observed, now)
    if observed.snapshot is None and observed.snapshot_claim is None:
        verdict = checks.first_verdict(observed, checks.BEFORE_COPY)
        if verdict is not None:
            return _verdict(observed, now, verdict)
    return _prepare(observed, now)


def _is_accepted(observed: ObservedBackup) -> bool:
    """Whether the finalizer is on, and what acceptance fixes has been written down."""
    has_finalizer = labels.BACKUP_FINALIZER in observed.backup.metadata.finalizers
    return has_finalizer and observed.backup.status.manifest_key is not None


def _prepare(observed: ObservedBackup, now: datetime) -> Decision:
    """Snapshot, expose, start the mover; each step only when the one before it is there."""
    foreign = _foreign_child(observed)
    if foreign:
        return _fail(observed, now, foreign)
    claim, snapshot = observed.claim, observed.given_snapshot or observed.snapshot
    if claim is None:
        return _fail(
            observed, now, Fail("VolumeNotFound", f"Volume {observed.backup.spec.volume_id} could not be found.")
        )
    if observed.snapshot_claim is not None:
        # What was exposed is what was asked for, even if its snapshot is gone by now.
        return _start(observed, now, claim, observed.snapshot_claim)
    if snapshot is None:
        if observed.snapshot_class is None:
            return _start(observed, now, claim, claim)
        body = children.volume_snapshot(observed.backup, claim.name, observed.snapshot_class.name)
        waiting = _snapshot_not_ready(observed, None)
        told = RecordEvent("Normal", "SnapshotRequested", waiting.message)
        return _wait(observed, now, waiting, (CreateChild("VolumeSnapshot", body), told))
    if not snapshot.status.ready_to_use:
        return _verdict(observed, now, _snapshot_not_ready(observed, snapshot))
    return _expose(observed, now, claim, snapshot)


def _foreign_child(observed: ObservedBackup) -> Fail | None:
    """A child's name taken by somebody else's object: never touched, never used."""
    for child in (observed.snapshot, observed.snapshot_claim, observed.mover.job):
        if child is not None and not child.metadata.is_owned_by(observed.backup.uid):
            return Fail("NameTaken", f"{type(child).__name__} {child.name} exists and is not ours: remove it.")
    return None


def _snapshot_not_ready(observed: ObservedBackup, snapshot: VolumeSnapshot | None) -> Wait:
    """Wait for a snapshot that is asked for or there: the same status, so that it is written once unless it hangs."""
    error = snapshot.status.error if snapshot else None
    detail = f": {error.message}" if error else ""
    message = f"A snapshot of volume {observed.claim.name if observed.claim else ''} is being made{detail}"
    return Wait("SnapshotNotReady", message, None, observed.policy.deadlines.snapshot, 5.0)


def _expose(
    observed: ObservedBackup, now: datetime, claim: PersistentVolumeClaim, snapshot: VolumeSnapshot
) -> Decision:
    """Make the snapshot mountable, and start the mover at once: a class may bind only when a pod asks for it."""
    size = max(claim.capacity_bytes, to_bytes(snapshot.status.restore_size or "0"))
    storage_class = snapshot_checks.storage_class_for_snapshot(observed) or claim.spec.storage_class_name
    request = children.ClaimRequest(size, storage_class, claim.spec.volume_mode, claim.spec.access_modes)
    body = children.claim(observed.backup, request, from_snapshot=snapshot.name)
    started = _start(observed, now, claim, None)
    return Decision(
        started.status, (CreateChild("PersistentVolumeClaim", body), *started.actions), started.requeue_after
    )


def _start(
    observed: ObservedBackup, now: datetime, claim: PersistentVolumeClaim, mounted: PersistentVolumeClaim | None
) -> Decision:
    """Start the mover on ``mounted``; None: on our own claim, which is being made."""
    store = observed.store.store
    if store is None:
        return _fail(observed, now, Fail("StoreNotFound", observed.store.missing))
    queued = mover_state.wait_for_slot(observed.mover, observed.policy, store)
    if queued:
        return _wait(observed, now, queued)
    parent_problem = checks.parent_is_there(observed)
    if isinstance(parent_problem, Fail):
        return _fail(observed, now, parent_problem)
    claim_name = mounted.name if mounted else labels.child_name(observed.backup.uid)
    consistency = Consistency.LIVE if mounted is claim else Consistency.SNAPSHOT
    task = mover_task(observed, store, claim, consistency)
    job = mover_job.mover_job(observed.backup, task, store, claim_name, observed.policy.mover)
    waiting = mover_state.starting(observed.policy)
    told = RecordEvent("Normal", "MoverStarted", f"The mover Job {job['metadata']['name']} copies volume {claim.name}")
    return _wait(observed, now, waiting, (CreateChild("Job", job), told))


def _copying(observed: ObservedBackup, now: datetime) -> Decision:
    """The mover exists: see how it does, and believe only what can be read back from the store."""
    foreign = _foreign_child(observed)
    if foreign:
        return _fail(observed, now, foreign)
    start = mover_state.start(observed.mover)
    if start is not None:
        return _wait(observed, now, mover_state.starting(observed.policy), (start,))
    verdict = mover_state.evaluate(observed.mover, observed.policy)
    if not isinstance(verdict, mover_state.Succeeded):
        return _verdict(
            observed,
            now,
            mover_state.check_stall(verdict, observed.mover, _status_of(observed), now, observed.policy.deadlines),
        )
    if observed.manifest_error is not None:
        return _verdict(observed, now, checks.from_error(observed.manifest_error, observed.policy.deadlines))
    return _fail(
        observed,
        now,
        Fail("ManifestMissing", "The mover reported success, but the store has no manifest of the backup"),
    )


def _complete(observed: ObservedBackup, now: datetime) -> Decision:
    """The backup is in the store: say so, derive what others make of it, and remove what was made on the way."""
    before = _status_of(observed)
    status = pins.recorded(observed, before)
    failed = newest_failed_restore(observed)
    status = status.model_copy(
        update={
            "phase": derived_phase(observed),
            "fail_reason": failed.status.fail_reason if failed else None,
            "progress": None,
            "has_dependent_backups": dependents.exist(observed),
            "conditions": _complete_conditions(observed, now, status),
        }
    )
    actions = _cleanup(observed)
    if volume_lock.own_phase(observed.backup) not in checks.WHOLE:
        # What the Job reported is recorded first; the next look at the world removes the Job.
        told = (
            *events.metadata_loss(mover_state.success(observed.mover)),
            *_missed_changes(status),
            *_files_unreadable(status),
        )
        actions = (*told, RecordEvent("Normal", "Available", _summary(status)))
    actions = (*_finalizer_again(observed), *actions, *pins.events(observed))
    is_new = volume_lock.own_phase(observed.backup) not in checks.WHOLE
    asked_in_vain = observed.references_error is not None and observed.needed_by is None
    return Decision(status, actions, requeue_after=0.0 if is_new else RECHECK_SECONDS if asked_in_vain else None)


def _files_unreadable(status: VolumeBackupStatus) -> tuple[Action, ...]:
    lacks = incomplete(status)
    return (RecordEvent("Warning", "FilesUnreadable", lacks),) if lacks else ()


def _missed_changes(status: VolumeBackupStatus) -> tuple[Action, ...]:
    """Return an Event about changes that earlier backups may lack. The manifest counts them, so a crash loses none."""
    missed = status.missed_changes
    return (RecordEvent("Warning", "ChangeMissed", missed_changes_sentence(missed)),) if missed else ()


def _complete_conditions(observed: ObservedBackup, now: datetime, status: VolumeBackupStatus) -> list[Condition]:
    """Return Ready, and Complete as False if files are missing. A complete backup has no condition Complete."""
    generation, lacks = observed.backup.metadata.generation, incomplete(status)
    message = "The backup is whole in the store" + (", but files are missing: see condition Complete" if lacks else "")
    shown = pins.conditions_of(observed, now, message)
    if lacks is None:
        return conditions.without(shown, ConditionType.COMPLETE)
    return conditions.with_lasting(
        shown, now, generation, kind=ConditionType.COMPLETE, status="False", reason="FilesUnreadable", message=lacks
    )


def _summary(status: VolumeBackupStatus) -> str:
    size = f"{status.object_count} objects, {status.stored_bytes} bytes"
    return f"Backup of volume {status.volume_name} is available: {size}"


def _failed_before(observed: ObservedBackup) -> Decision:
    """An error is final; what was made on the way is removed."""
    return Decision(_mirrored(observed, observed.backup.status), (*_finalizer_again(observed), *_cleanup(observed)))


def _finalizer_again(observed: ObservedBackup) -> tuple[Action, ...]:
    """Our finalizer, where something is stored and it is not there: an uninstalled release had taken it off."""
    stored = observed.backup.status.manifest_key is not None or observed.manifest is not None
    missing = labels.BACKUP_FINALIZER not in observed.backup.metadata.finalizers
    return (AddFinalizer(labels.BACKUP_FINALIZER),) if stored and missing else ()


def _cleanup(observed: ObservedBackup) -> tuple[Action, ...]:
    return children.cleanup(observed.backup.uid, observed.mover.job, observed.snapshot_claim, observed.snapshot)


def _verdict(observed: ObservedBackup, now: datetime, verdict: Fail | Wait) -> Decision:
    if isinstance(verdict, Wait):
        verdict = verdicts.expire(verdict, observed.backup.status.conditions, now)
    return _fail(observed, now, verdict) if isinstance(verdict, Fail) else _wait(observed, now, verdict)


def _wait(
    observed: ObservedBackup,
    now: datetime,
    wait: Wait,
    actions: tuple[Action, ...] = (),
    requeue_after: float | None = None,
) -> Decision:
    base = _status_of(observed)
    status = base.model_copy(
        update={
            "phase": BackupPhase.CREATING,
            "progress": mover_state.to_progress(observed.mover.progress) or base.progress,
            "conditions": conditions.reconciling(
                base.conditions,
                now,
                observed.backup.metadata.generation,
                wait.reason,
                verdicts.wait_message(wait, base.conditions, now),
            ),
        }
    )
    return Decision(status, actions, wait.requeue_after if requeue_after is None else requeue_after)


def _fail(observed: ObservedBackup, now: datetime, fail: Fail) -> Decision:
    base = _status_of(observed)
    status = base.model_copy(
        update={
            "phase": BackupPhase.ERROR,
            "fail_reason": verdicts.fail_message(fail),
            "progress": None,
            "conditions": conditions.stalled(
                base.conditions, now, observed.backup.metadata.generation, fail.reason, fail.message
            ),
        }
    )
    return Decision(status, (RecordEvent("Warning", fail.reason, fail.message),), requeue_after=0.0)


def _status_of(observed: ObservedBackup) -> VolumeBackupStatus:
    """The status as far as it does not depend on the outcome: Cinder's response repeats the request."""
    backup, claim, store = observed.backup, observed.claim, observed.store.store
    status = backup.status if volume_lock.own_phase(backup) else VolumeBackupStatus()
    update: dict[str, Any] = checks.identity(backup) | {"created_at": backup.metadata.creation_timestamp}
    if claim is not None and status.phase not in checks.WHOLE:
        parent = checks.recorded_parent_id(observed)
        update |= {
            "volume_id": claim.uid,
            "volume_name": claim.name,
            "size": to_gib(claim.capacity_bytes),
            "parent_id": parent,
            "is_incremental": parent is not None,
            "data_timestamp": data_timestamp(observed),
        }
    if store is not None and status.container is None:
        update |= {"store_name": store.name, "container": container_of(observed, store)}
    if observed.given_snapshot is not None:
        update["snapshot_id"] = observed.given_snapshot.uid
    if status.object_count is None:
        update |= {"object_count": 0, "has_dependent_backups": False}
    return _mirrored(observed, status.model_copy(update=update))


def _mirrored(observed: ObservedBackup, status: VolumeBackupStatus) -> VolumeBackupStatus:
    """What the user may change at any time, and the generation that it was read from."""
    spec = observed.backup.spec
    return status.model_copy(
        update={
            "name": spec.name,
            "description": spec.description,
            "metadata": spec.metadata or None,
            "availability_zone": spec.availability_zone,
            "observed_generation": observed.backup.metadata.generation,
        }
    )


def _stamp(decision: Decision, observed: ObservedBackup, now: datetime) -> Decision:
    """updatedAt moves only when something else does."""
    before, status = observed.backup.status, decision.status
    if not isinstance(status, VolumeBackupStatus):
        return decision
    status = completion.complete_backup(observed, status, now)
    unchanged = status.model_copy(update={"updated_at": before.updated_at}) == before
    stamped = before if unchanged else status.model_copy(update={"updated_at": now})
    return Decision(stamped, decision.actions, decision.requeue_after)
