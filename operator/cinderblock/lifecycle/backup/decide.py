"""``decide`` for a VolumeBackup: accept, snapshot, expose, copy, read the manifest back, clean up."""

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
from cinderblock.lifecycle import children, conditions, dependents, events, verdicts
from cinderblock.lifecycle.actions import Action, AddFinalizer, CreateChild, Decision, RecordEvent
from cinderblock.lifecycle.alarms.condition import with_alarms
from cinderblock.lifecycle.backup import checks, delete, import_checks, pins, snapshot_checks
from cinderblock.lifecycle.backup.derived import derived_phase, incomplete, newest_failed_restore, with_manifest
from cinderblock.lifecycle.backup.task import container_of, data_timestamp, mover_task
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.imports.condition import with_manifest_missing
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.operation import Operation, foreign_child, stamp
from cinderblock.lifecycle.store import movers, place
from cinderblock.lifecycle.store.locks import lock_task
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.lifecycle.verification.condition import with_verification
from cinderblock.reasons import Reason

ACCEPTED = "The backup was accepted"
RECHECK_SECONDS = 60.0
"""Seconds until a store that did not say which backups need this one is asked again."""

REPLACED_MANIFEST_ERRORS = (ForeignManifest, ManifestReplaced, SealBroken, SealedTooLate)
"""Errors of a store that holds something else in place of the manifest of a backup."""

REJECTED_RETRY_SECONDS = 60.0
"""Seconds between reconciliations of a backup whose status was lost, while the store holds something else instead."""


def decide(observed: ObservedBackup, now: datetime) -> Decision:
    """Return what to do about a VolumeBackup.

    Args:
        observed: its present state.
        now: the instant of the decision, with time zone.
    """
    return stamp(_decide(observed, now), observed, now)


def acknowledge(observed: ObservedBackup, waiting: int, now: datetime) -> VolumeBackupStatus | None:
    """Return the first status of a new backup that has to wait for its reconciliation; None if it has a status.

    Cinder's API answers with ``creating`` at once, however busy the service is.

    Args:
        observed: the backup alone.
        waiting: the number of objects that wait, including this one.
        now: the instant of the decision, with time zone.
    """
    backup = observed.backup
    if backup.own_phase or backup.metadata.is_being_deleted or checks.is_forgotten(backup):
        return None
    message = f"The backup waits for the operator, which has {waiting} objects to reconcile"
    decision = stamp(_operation(observed, now).wait(Wait(Reason.NOTICED, message)), observed, now)
    return decision.status if isinstance(decision.status, VolumeBackupStatus) else None


def on_action_error(observed: ObservedBackup, now: datetime, error: CinderblockError) -> Decision:
    """Return what to do about an action that failed: fail if the action is invalid, otherwise wait.

    The failure to remove stored data ends nothing: see `delete.on_store_error`.
    """
    if observed.backup.metadata.is_being_deleted:
        return stamp(delete.on_store_error(observed, now, error), observed, now)
    verdict = verdicts.from_api_error(error, observed.policy.deadlines)
    return stamp(_operation(observed, now).apply(verdict), observed, now)


def _decide(observed: ObservedBackup, now: datetime) -> Decision:
    backup, is_forgotten = observed.backup, checks.is_forgotten(observed.backup)
    if backup.metadata.is_being_deleted:
        return (_record_data_location(observed, now) if is_forgotten else None) or delete.decide(observed, now)
    if backup.spec.import_ and not backup.has_ended:
        return _import(observed, now)
    invalidated = _invalidated(observed) if backup.own_phase is BackupPhase.CREATING and not is_forgotten else None
    if invalidated is not None:
        return _operation(observed, now).fail(invalidated)
    has_failed = backup.own_phase is BackupPhase.ERROR
    if backup.is_complete or (observed.manifest is not None and (is_forgotten or not has_failed)):
        return _complete(observed, now)
    if is_forgotten and observed.manifest_error is not None:
        return _wait_for_lost_status(observed, now, observed.manifest_error)
    if has_failed:
        return _failed_before(observed)
    return _accept(observed, now) if backup.own_phase is None else _create(observed, now)


def _invalidated(observed: ObservedBackup) -> Fail | None:
    """Return why an unfinished backup cannot succeed, whatever its mover reports."""
    if isinstance(observed.manifest_error, REPLACED_MANIFEST_ERRORS):
        return Fail(observed.manifest_error.reason, observed.manifest_error.message)
    return checks.used_during_copy(observed.pods_during_copy)


def _fail_lost_status(observed: ObservedBackup, now: datetime, error: CinderblockError) -> Decision:
    """Fail a backup whose status was lost, and whose place in the store holds something else. Check again later.

    Somebody may put the manifest back, or allow the store to accept a backup that is not encrypted.
    """
    cause = "Cannot tell whether the backup is complete: its status was lost."
    remedy = "If it was made without encryption, set spec.allowUnsealed of the BackupStore."
    message = " ".join((cause, *((remedy,) if isinstance(error, SealBroken) else ()), error.message))
    failed = _operation(observed, now).fail(Fail(error.reason, message))
    is_known = any(c.type == "Stalled" and c.reason == error.reason for c in observed.backup.status.conditions)
    return Decision(failed.status, () if is_known else failed.actions, REJECTED_RETRY_SECONDS)


def _wait_for_lost_status(observed: ObservedBackup, now: datetime, error: CinderblockError) -> Decision:
    """Wait until the store says whether a backup whose status was lost is complete; do not copy it again meanwhile."""
    if isinstance(error, REPLACED_MANIFEST_ERRORS):
        return _fail_lost_status(observed, now, error)
    message = f"Cannot tell whether the backup is complete: its status was lost. {error.message}"
    return _operation(observed, now).wait(Wait(Reason.RECALLING, message, requeue_after=30.0))


def _record_data_location(observed: ObservedBackup, now: datetime) -> Decision | None:
    """Record where the data of a deleted backup is whose status was lost, so that the deletion finds the data."""
    if observed.manifest is None and (observed.manifest_error is not None or observed.claim is None):
        return None
    message = "The status was lost and is being reconstructed"
    reconstructed = _operation(observed, now).wait(Wait(Reason.RECALLING, message))
    if observed.manifest is None:
        reconstructed = _with_choices(observed, reconstructed)
    status = reconstructed.status
    if not isinstance(status, VolumeBackupStatus) or observed.store.store is None:
        return None
    status = with_manifest(status, observed.manifest) if observed.manifest else status
    return Decision(status.model_copy(update={"phase": BackupPhase.DELETING}), requeue_after=0.0)


def _import(observed: ObservedBackup, now: datetime) -> Decision:
    """Take the status of an imported backup from its manifest. Nothing is copied."""
    verdict = checks.first_verdict(observed, import_checks.IMPORT_CHECKS)
    return _complete(observed, now) if verdict is None else _operation(observed, now).apply(verdict)


def _accept(observed: ObservedBackup, now: datetime) -> Decision:
    """Add the finalizer and record the choices, before anything is created.

    The finalizer and the choices come together: the finalizer means that the store may hold data.
    The parent is recorded here, so that its deletion sees a dependent before this backup reads from it.
    """
    operation = _operation(observed, now)
    verdict = checks.first_verdict(observed, checks.BEFORE_COPY)
    if verdict is not None:
        return operation.apply(verdict)
    actions: tuple[Action, ...] = ()
    if labels.BACKUP_FINALIZER not in observed.backup.metadata.finalizers:
        actions = (AddFinalizer(labels.BACKUP_FINALIZER),)
    accepted = operation.wait(Wait(Reason.ACCEPTED, ACCEPTED, requeue_after=0.0), actions)
    return _with_choices(observed, accepted)


def _with_choices(observed: ObservedBackup, accepted: Decision) -> Decision:
    """Add what the acceptance fixes: the key of the manifest, and the parent of an incremental backup.

    From here on the store may hold data, so a deletion has to ask it. A deletion before this point does not, which
    matters while the store is down.
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
    """Continue with the first step that is not done."""
    if not _is_accepted(observed):
        return _accept(observed, now)
    if observed.mover.job is not None:
        return _copy(observed, now) if observed.mover.is_recorded else _adopt(observed, now)
    if observed.snapshot is None and observed.snapshot_claim is None:
        verdict = checks.first_verdict(observed, checks.BEFORE_COPY)
        if verdict is not None:
            return _operation(observed, now).apply(verdict)
    return _prepare(observed, now)


def _is_accepted(observed: ObservedBackup) -> bool:
    """Return whether the finalizer is set and the choices of the acceptance are recorded."""
    has_finalizer = labels.BACKUP_FINALIZER in observed.backup.metadata.finalizers
    return has_finalizer and observed.backup.status.manifest_key is not None


def _prepare(observed: ObservedBackup, now: datetime) -> Decision:
    """Take the snapshot, expose it and start the mover, each when the step before it is done."""
    operation = _operation(observed, now)
    foreign = _foreign_child(observed)
    if foreign:
        return operation.fail(foreign)
    claim, snapshot = observed.claim, observed.given_snapshot or observed.snapshot
    if claim is None:
        return operation.fail(checks.volume_not_found(observed.backup.spec.volume_id))
    if observed.snapshot_claim is not None:
        # The claim was exposed from the right snapshot, even if that snapshot is gone by now.
        late, meanwhile = snapshot_checks.late_classes(observed), _before_mover(observed)
        held = _held_before_mover(observed, now)
        return (
            held
            or operation.wait_for_claim(observed.snapshot_claim, late, observed.policy, meanwhile)
            or _start(observed, now, claim, observed.snapshot_claim)
        )
    if snapshot is None:
        if observed.snapshot_class is None:
            return _start(observed, now, claim, claim)
        body = children.volume_snapshot(observed.backup, claim.name, observed.snapshot_class.name, _extras(observed))
        wait = _snapshot_not_ready(observed, None)
        requested = RecordEvent("Normal", Reason.SNAPSHOT_REQUESTED, wait.message)
        return operation.wait(wait, (CreateChild("VolumeSnapshot", body), requested))
    if not snapshot.status.ready_to_use:
        return operation.apply(_snapshot_not_ready(observed, snapshot))
    return _expose(observed, now, claim, snapshot)


def _foreign_child(observed: ObservedBackup) -> Fail | None:
    return foreign_child(observed.backup, observed.snapshot, observed.snapshot_claim, observed.mover.job)


def _snapshot_not_ready(observed: ObservedBackup, snapshot: VolumeSnapshot | None) -> Wait:
    """Wait for a snapshot, with the same status before and after its creation, so that it is written only once."""
    error = snapshot.status.error if snapshot else None
    detail = f": {error.message}" if error else ""
    message = f"A snapshot of volume {observed.claim.name if observed.claim else ''} is being taken{detail}"
    return Wait(Reason.SNAPSHOT_NOT_READY, message, None, observed.policy.deadlines.snapshot, 5.0)


def _before_mover(observed: ObservedBackup) -> Wait:
    """Wait for the claim of a snapshot, with the status that the operation already has, so that nothing is written."""
    is_given = observed.given_snapshot is not None or observed.backup.spec.snapshot_id is not None
    return Wait(Reason.ACCEPTED, ACCEPTED, requeue_after=5.0) if is_given else _snapshot_not_ready(observed, None)


def _expose(
    observed: ObservedBackup, now: datetime, claim: PersistentVolumeClaim, snapshot: VolumeSnapshot
) -> Decision:
    """Create a claim from the snapshot. Start the mover at once only if the class binds when a pod needs the claim.

    A backup that waits for a mover gets its claim as well: somebody may delete a given snapshot meanwhile.
    """
    size = max(claim.capacity_bytes, to_bytes(snapshot.status.restore_size or "0"))
    storage_class = snapshot_checks.storage_class_for_snapshot(observed) or claim.spec.storage_class_name
    modes = children.writable(claim.spec.access_modes)
    request = children.ClaimRequest(size, storage_class, claim.spec.volume_mode, modes)
    created = CreateChild(
        "PersistentVolumeClaim",
        children.claim(observed.backup, request, _extras(observed), from_snapshot=snapshot.name),
    )
    held = _held_before_mover(observed, now)
    if held is None and storage_class not in snapshot_checks.late_classes(observed):
        return _operation(observed, now).stay(_before_mover(observed), (created,))
    started = held or _start(observed, now, claim, None)
    has_failed = isinstance(started.status, VolumeBackupStatus) and started.status.phase is BackupPhase.ERROR
    actions = started.actions if has_failed else (created, *started.actions)
    return Decision(started.status, actions, started.requeue_after)


def _start(
    observed: ObservedBackup, now: datetime, claim: PersistentVolumeClaim, mounted: PersistentVolumeClaim | None
) -> Decision:
    """Start the mover on the claim ``mounted``; None: on our own claim, which does not exist yet."""
    held, store = _held_before_mover(observed, now), observed.store.store
    if held is not None:
        return held
    if store is None:
        raise ValueError("without a store, the mover is held")
    claim_name = mounted.name if mounted else labels.child_name(observed.backup.uid)
    consistency = Consistency.LIVE if mounted is claim else Consistency.SNAPSHOT
    task = mover_task(observed, store, claim, consistency, lock_task(store, now))
    job = mover_job.mover_job(observed.backup, task, store, claim_name, observed.policy.mover)
    note = f"Mover Job {job['metadata']['name']} copies volume {claim.name}"
    started = RecordEvent("Normal", Reason.MOVER_STARTED, note)
    # Now rather than in the end: somebody may delete the claim, or the namespace, at any time.
    is_temporary = mounted is not None and mounted is observed.snapshot_claim
    disposed = children.dispose(observed.snapshot_volume, mounted) if mounted and is_temporary else ()
    starting = mover_state.starting(observed.policy)
    return _operation(observed, now).wait(starting, (*disposed, CreateChild("Job", job), started))


def _extras(observed: ObservedBackup) -> children.Extras:
    return children.extras_of(observed.store.store, observed.policy.mover)


def _held_before_mover(observed: ObservedBackup, now: datetime) -> Decision | None:
    """Return the decision to wait or fail instead of preparing a mover; None: nothing is in the way."""
    operation, store = _operation(observed, now), observed.store.store
    if store is None:
        return operation.fail(Fail(observed.store.missing_reason, observed.store.missing))
    # The checks of the acceptance may be hours ago, and a task must name the place that the status records.
    refused = checks.place_is_recorded(observed) or movers.before_start(observed.store, observed.policy, writes=True)
    if refused is not None:
        return operation.apply(refused)
    queued = mover_state.wait_for_slot(observed.mover, observed.policy, store)
    if queued:
        return operation.wait(queued)
    parent_error = checks.parent_is_there(observed)
    return operation.fail(parent_error) if isinstance(parent_error, Fail) else None


def _adopt(observed: ObservedBackup, now: datetime) -> Decision:
    operation, foreign = _operation(observed, now), _foreign_child(observed)
    return operation.fail(foreign) if foreign else operation.adopt_mover(observed.policy, observed.store)


def _copy(observed: ObservedBackup, now: datetime) -> Decision:
    """Follow the mover. Its success counts only when the operator has read the manifest back from the store."""
    operation = _operation(observed, now)
    foreign = _foreign_child(observed)
    if foreign:
        return operation.fail(foreign)
    outcome = operation.follow_mover(observed.policy)
    if isinstance(outcome, Decision):
        return outcome
    if observed.manifest_error is not None:
        return operation.apply(checks.from_error(observed.manifest_error, observed.policy.deadlines))
    if observed.store.store is None:
        # The backup may be whole, and its ClusterBackupStore may be there again in a moment.
        return operation.apply(
            Wait(
                observed.store.missing_reason,
                f"The mover reported success, and its result cannot be checked now. {observed.store.missing}",
                limit=observed.policy.deadlines.store,
                requeue_after=10.0,
            )
        )
    message = "The mover reported success, but the store has no manifest of the backup"
    return operation.fail(Fail(Reason.MANIFEST_MISSING, message))


def _complete(observed: ObservedBackup, now: datetime) -> Decision:
    """Report a complete backup, derive its phase from its restores, and remove the children."""
    is_new = not observed.backup.is_complete
    status = pins.recorded(observed, _status_of(observed))
    failed = newest_failed_restore(observed)
    status = status.model_copy(
        update={
            "phase": derived_phase(observed),
            "fail_reason": failed.status.fail_reason if failed else None,
            "progress": None,
            "mover": None,
            "has_dependent_backups": dependents.exist(observed),
            "conditions": _complete_conditions(observed, now, status),
        }
    )
    actions = _cleanup(observed)
    if is_new:
        # The report of the Job is recorded first; the next reconciliation removes the Job.
        actions = (
            *events.metadata_loss(mover_state.success(observed.mover)),
            *_missed_changes(status),
            *_files_unreadable(status),
            RecordEvent("Normal", Reason.AVAILABLE, _summary(status)),
        )
    actions = (*_missing_finalizer(observed), *readers.release(observed), *actions, *pins.events(observed))
    is_unanswered = observed.references_error is not None and observed.needed_by is None
    is_unknown = any(c.type == ConditionType.SUSPICIOUS and c.status == "Unknown" for c in status.conditions)
    is_read = bool(readers.running(observed))
    retry = RECHECK_SECONDS if is_unanswered or is_unknown or is_read else pins.retry_seconds(observed, now)
    # An import has no Job. The event of its status reconciles it once more.
    removes_job = is_new and observed.backup.spec.import_ is None
    return Decision(status, actions, requeue_after=0.0 if removes_job else retry)


def _files_unreadable(status: VolumeBackupStatus) -> tuple[Action, ...]:
    message = incomplete(status)
    return (RecordEvent("Warning", Reason.FILES_UNREADABLE, message),) if message else ()


def _missed_changes(status: VolumeBackupStatus) -> tuple[Action, ...]:
    """Return an Event about changes that earlier backups may lack. The manifest counts them, so a crash loses none."""
    missed = status.missed_changes
    return (RecordEvent("Warning", Reason.CHANGE_MISSED, missed_changes_sentence(missed)),) if missed else ()


def _complete_conditions(observed: ObservedBackup, now: datetime, status: VolumeBackupStatus) -> list[Condition]:
    """Return Ready, Suspicious if there are alarms, and Complete as False if files are missing."""
    generation, lacks = observed.backup.metadata.generation, incomplete(status)
    # A changed message would rewrite the status of every stored backup after an upgrade.
    message = "The backup is whole in the store" + (", but files are missing: see condition Complete" if lacks else "")
    shown = pins.conditions_of(observed, now, message)
    shown = with_verification(with_alarms(shown, observed, status, now), observed.backup, now)
    shown = with_manifest_missing(shown, observed.backup, now)
    if lacks is None:
        return conditions.without(shown, ConditionType.COMPLETE)
    reason = Reason.FILES_UNREADABLE
    return conditions.with_lasting(
        shown, now, generation, kind=ConditionType.COMPLETE, status="False", reason=reason, message=lacks
    )


def _summary(status: VolumeBackupStatus) -> str:
    size = f"{status.object_count} objects, {status.stored_bytes} bytes"
    return f"Backup of volume {status.volume_name} is available: {size}"


def _failed_before(observed: ObservedBackup) -> Decision:
    """Keep the status of a failed backup, and remove its children."""
    return Decision(_mirrored(observed, observed.backup.status), (*_missing_finalizer(observed), *_cleanup(observed)))


def _missing_finalizer(observed: ObservedBackup) -> tuple[Action, ...]:
    """Add our finalizer to a stored backup that lacks it, because the release was uninstalled for some time."""
    is_stored = observed.backup.status.manifest_key is not None or observed.manifest is not None
    is_missing = labels.BACKUP_FINALIZER not in observed.backup.metadata.finalizers
    return (AddFinalizer(labels.BACKUP_FINALIZER),) if is_stored and is_missing else ()


def _cleanup(observed: ObservedBackup) -> tuple[Action, ...]:
    return children.cleanup(observed.backup, delete.children_of(observed))


def _operation(observed: ObservedBackup, now: datetime) -> Operation:
    return Operation(observed.backup, _status_of(observed), observed.mover, now)


def _status_of(observed: ObservedBackup) -> VolumeBackupStatus:
    """Return the part of the status that does not depend on the outcome. Cinder's response repeats the request."""
    backup, claim, store = observed.backup, observed.claim, observed.store.store
    status = backup.status if backup.own_phase else VolumeBackupStatus()
    update: dict[str, Any] = checks.identity(backup) | {"created_at": backup.metadata.creation_timestamp}
    if claim is not None and not backup.is_complete:
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
    if store is not None and status.manifest_key is None:
        update["store_place"] = place.place_id(store)
    if observed.given_snapshot is not None:
        update["snapshot_id"] = observed.given_snapshot.uid
    if status.object_count is None:
        update |= {"object_count": 0, "has_dependent_backups": False}
    return _mirrored(observed, status.model_copy(update=update))


def _mirrored(observed: ObservedBackup, status: VolumeBackupStatus) -> VolumeBackupStatus:
    """Return ``status`` with the fields that users may change at any time, and with their generation."""
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
