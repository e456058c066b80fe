"""``decide`` for a VolumeRestore: check, fill a volume, and release it only when it is complete.

A new volume is filled under our staging claim. When every byte is written and verified, the PersistentVolume is
rebound to a claim with the requested name (`rebind`), so that no application can mount a half-restored volume by that
name. An existing volume is written in place.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.losses import Loss
from cinderblock.api.mover import MoverOperation, MoverReport, MoverTask
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestoreStatus
from cinderblock.errors import CinderblockError
from cinderblock.lifecycle import children, conditions, events, expected_manifest, verdicts
from cinderblock.lifecycle.actions import (
    MIN_REQUEUE_SECONDS,
    Action,
    AddFinalizer,
    CreateChild,
    Decision,
    DeleteChild,
    RecordEvent,
    RemoveFinalizer,
)
from cinderblock.lifecycle.backup.delete import SLOW_RETRY_SECONDS
from cinderblock.lifecycle.backup_grants import checks as grant_checks
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.mover import broker, suspension
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.operation import Operation, foreign_child, stamp
from cinderblock.lifecycle.restore import checks, given_claim, rebind
from cinderblock.lifecycle.store import place
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.reasons import Reason

ACCEPTED = "The restore was accepted"
EMPTY_NOTE = "The store holds no backup for the claim, so its volume is empty"
_ACCEPTED_WAIT = Wait(Reason.ACCEPTED, ACCEPTED, requeue_after=MIN_REQUEUE_SECONDS)


def decide(observed: ObservedRestore, now: datetime) -> Decision:
    """Return what to do about a VolumeRestore.

    Args:
        observed: its present state.
        now: the instant of the decision, with time zone.
    """
    return stamp(_decide(observed, now), observed, now)


def on_action_error(observed: ObservedRestore, now: datetime, error: CinderblockError) -> Decision:
    """Return what to do about an action that failed: fail if the action is invalid, otherwise wait."""
    verdict = verdicts.from_api_error(error, observed.policy.deadlines)
    return stamp(_operation(observed, now).apply(verdict), observed, now)


def _decide(observed: ObservedRestore, now: datetime) -> Decision:
    restore = observed.restore
    if restore.metadata.is_being_deleted:
        return _cancel(observed, now)
    if restore.has_ended:
        return _ended(observed)
    before = checks.ended_before(restore) if restore.own_phase is None else None
    if before is not None:
        return _recover_status(observed, now, before)
    if labels.RESTORE_FINALIZER not in restore.metadata.finalizers:
        # An uninstalled release removes the finalizer of a running restore. Do not repeat the checks in that case.
        is_running = restore.own_phase is RestorePhase.RESTORING
        return Decision(None, (AddFinalizer(labels.RESTORE_FINALIZER),), 0.0) if is_running else _accept(observed, now)
    if rebind.has_begun(observed):
        return _rebind(observed, now)
    if observed.mover.job is not None:
        return _copy(observed, now) if observed.mover.is_recorded else _adopt(observed, now)
    return _prepare(observed, now)


def _accept(observed: ObservedRestore, now: datetime) -> Decision:
    """Fail at once if a check fails, otherwise add the finalizer before anything is created."""
    operation, verdict = _operation(observed, now), checks.first_verdict(observed)
    if isinstance(verdict, Fail):
        return operation.fail(verdict)
    wait = verdict or Wait(Reason.ACCEPTED, ACCEPTED, requeue_after=0.0)
    return operation.wait(wait, (AddFinalizer(labels.RESTORE_FINALIZER),))


def _prepare(observed: ObservedRestore, now: datetime) -> Decision:
    """Create the staging claim of a new volume, and start the mover when it can mount its claim."""
    operation, verdict = _operation(observed, now), checks.first_verdict(observed) or _foreign_child(observed)
    if verdict is not None:
        return operation.apply(verdict)
    if observed.restore.fills_nothing:
        return _prepare_empty(observed, now)
    if observed.store.store is not None:
        queued = mover_state.wait_for_slot(observed.mover, observed.policy, observed.store.store)
        if queued:
            return operation.wait(queued)
    held = _hold_backup(observed, now)
    if held is not None:
        return held
    if checks.is_in_place(observed.restore):
        return _start(observed, now, observed.target.name if observed.target else "")
    started, late = _start(observed, now, labels.child_name(observed.restore.uid)), observed.wait_for_consumer_classes
    if observed.staging_claim is not None:
        waiting = operation.wait_for_claim(observed.staging_claim, late, observed.policy, _ACCEPTED_WAIT)
        disposed = rebind.dispose(observed, observed.staging_claim)
        return waiting or Decision(started.status, (*disposed, *started.actions), started.requeue_after)
    claims: tuple[Action, ...] = (*rebind.check_claim(observed), _staging_claim(observed))
    if _staging_request(observed).storage_class not in late:
        return operation.stay(_ACCEPTED_WAIT, claims)
    return Decision(started.status, (*claims, *started.actions), started.requeue_after)


def _staging_request(observed: ObservedRestore) -> children.ClaimRequest:
    is_given = observed.restore.spec.claim is not None
    return given_claim.request(observed) if is_given else checks.claim_request(observed)


def _staging_claim(observed: ObservedRestore) -> CreateChild:
    """Return the action that creates the claim under which the new volume is filled."""
    request = _staging_request(observed)
    temporary = replace(request, access_modes=children.writable(request.access_modes))
    extras = children.extras_of(observed.store.store, observed.policy.mover)
    return CreateChild("PersistentVolumeClaim", children.claim(observed.restore, temporary, extras))


def _prepare_empty(observed: ObservedRestore, now: datetime) -> Decision:
    """Create a new volume without a mover, and hand it over unchanged.

    Provisioners leave a claim alone whose dataSourceRef names our kinds, so it gets an empty volume in the same way.
    """
    operation, staging = _operation(observed, now), observed.staging_claim
    if staging is None:
        return operation.stay(_ACCEPTED_WAIT, (_staging_claim(observed),))
    # No pod will ever use the staging claim, so it must be bound, also in a class that binds late.
    waiting = operation.wait_for_claim(staging, (), observed.policy, _ACCEPTED_WAIT)
    return waiting or _rebind(observed, now)


def _hold_backup(observed: ObservedRestore, now: datetime) -> Decision | None:
    """Return the decision to record the restore in the backup of another namespace; None if it is recorded.

    The next reconciliation repeats all checks, so it sees a deletion that began before.
    """
    backup = observed.backup
    if observed.restore.granted_from is None or backup is None or readers.is_recorded(observed.restore, backup):
        return None
    recorded = readers.record(observed.restore, backup)
    if isinstance(recorded, Wait):
        return _operation(observed, now).wait(recorded)
    return _operation(observed, now).wait(Wait(Reason.ACCEPTED, ACCEPTED, requeue_after=0.0), (recorded,))


def _foreign_child(observed: ObservedRestore) -> Fail | None:
    return foreign_child(observed.restore, observed.staging_claim, observed.mover.job)


def _start(observed: ObservedRestore, now: datetime, claim_name: str) -> Decision:
    store, manifest = observed.store.store, observed.manifest
    if store is None or manifest is None or observed.backup is None:
        raise ValueError("the checks let nothing pass without a backup, a store and a manifest")
    mode = manifest.description.volume_mode
    task = MoverTask(
        operation=MoverOperation.RESTORE,
        store=children.location(
            store,
            place.container_of(store, observed.backup.status.container),
            observed.policy.mover.allowed_endpoints,
        ),
        broker=broker.location(store, observed.policy.mover, lists=observed.restore.granted_from is None),
        volume_mode=mode,
        path=mover_job.mover_path(mode),
        expected=expected_manifest.expected_of_status(observed.backup, store, manifest),
        fidelity=observed.restore.spec.fidelity,
        # The mover does not need labels and annotations of the claim. They are long, so the Job does not hold them.
        backup=manifest.description.model_copy(update={"claim": None}),
        manifest=manifest.key,
        compression=store.spec.compression,
        sealed=bool(observed.backup.status.sealed),
    )
    job = mover_job.mover_job(observed.restore, task, store, claim_name, observed.policy.mover)
    note = f"Mover Job {job['metadata']['name']} restores backup {observed.backup.name}"
    started = RecordEvent("Normal", Reason.MOVER_STARTED, note)
    return _operation(observed, now).wait(mover_state.starting(observed.policy), (CreateChild("Job", job), started))


def _adopt(observed: ObservedRestore, now: datetime) -> Decision:
    operation, foreign, job = _operation(observed, now), _foreign_child(observed), observed.mover.job
    if foreign:
        return operation.fail(foreign)
    refused = grant_checks.before_mover(observed)
    if refused is None or job is None:
        return operation.adopt_mover(observed.policy, observed.store)
    decision = operation.apply(refused)
    return replace(decision, actions=(*decision.actions, DeleteChild("Job", job.name, job.uid)))


def _copy(observed: ObservedRestore, now: datetime) -> Decision:
    operation = _operation(observed, now)
    failure = _foreign_child(observed) or checks.used_during_copy(observed.pods_during_copy)
    if failure:
        return operation.fail(failure)
    refused = grant_checks.before_start(observed) if suspension.is_waiting(observed.mover) else None
    if refused is not None:
        return operation.apply(refused)
    outcome = operation.follow_mover(observed.policy)
    if isinstance(outcome, Decision):
        return outcome
    if checks.is_in_place(observed.restore):
        done = _done(observed, now, observed.target, outcome.report)
        return Decision(done.status, (*events.metadata_loss(outcome.report), *done.actions), done.requeue_after)
    return _rebind(observed, now, outcome.report)


def _rebind(observed: ObservedRestore, now: datetime, report: MoverReport | None = None) -> Decision:
    """Bind the filled volume to a claim with the requested name."""
    operation, step = _operation(observed, now), rebind.next_step(observed)
    if isinstance(step, Fail):
        return operation.fail(step)
    if isinstance(step, rebind.Finished):
        return _done(observed, now, step.claim, report)
    decision = operation.apply(step.wait)
    status = decision.status
    if not isinstance(status, VolumeRestoreStatus) or (status.phase is not None and status.phase.is_final):
        return decision
    # Record the mover's report, which disappears with the Job. The mover itself has ended.
    status = status.model_copy(update={"mover": None} | (_reported(report) if report is not None else {}))
    return Decision(status, (*events.metadata_loss(report), *step.actions), decision.requeue_after)


def _done(
    observed: ObservedRestore, now: datetime, claim: PersistentVolumeClaim | None, report: MoverReport | None
) -> Decision:
    base, generation = _base(observed), observed.restore.metadata.generation
    is_empty = observed.restore.fills_nothing
    message = EMPTY_NOTE if is_empty else _restored_message(report, base.losses)
    update: dict[str, Any] = {
        "phase": RestorePhase.AVAILABLE,
        "progress": None,
        "mover": None,
        "fail_reason": None,
        "conditions": conditions.ready(base.conditions, now, generation, Reason.RESTORED, message),
    }
    if claim is not None:
        update |= {"volume_id": claim.uid, "volume_name": claim.name}
    if report is not None:
        update |= _reported(report)
    status = base.model_copy(update=update)
    note = message if is_empty else f"Volume {status.volume_name} holds backup {status.backup_name}"
    is_child = rebind.is_child(claim, observed.restore) and not rebind.is_scratch(observed.restore)
    released = (rebind.release(claim, observed.restore),) if claim is not None and is_child else ()
    return Decision(status, (*released, RecordEvent("Normal", Reason.RESTORED, note)), requeue_after=0.0)


def _reported(report: MoverReport) -> dict[str, Any]:
    """Return the part of a mover's report that a status keeps."""
    return {"restored_bytes": report.restored_bytes, "losses": report.losses}


def _restored_message(report: MoverReport | None, losses: list[Loss]) -> str:
    """Return the message of a successful restore. After the rebinding the report is gone, but the status has losses."""
    warnings = report.warnings if report else [f"Not kept: {loss.what}, {loss.objects}." for loss in losses]
    message = "Every byte of the backup was written and verified"
    return f"{message}. {' '.join(warnings)}" if warnings else message


def _ended(observed: ObservedRestore) -> Decision:
    """Remove the children of a restore that has ended, then the finalizer. Its status is a record."""
    actions, remains = _cleanup(observed), _remains(observed)
    status = observed.restore.status
    if status.observed_generation != observed.restore.metadata.generation:
        status = status.model_copy(update={"observed_generation": observed.restore.metadata.generation})
    if actions or remains:
        return Decision(status, actions, requeue_after=MIN_REQUEUE_SECONDS if remains else 0.0)
    if labels.RESTORE_FINALIZER not in observed.restore.metadata.finalizers:
        return Decision(status)
    annotations = {labels.ENDED_ANNOTATION: f"{observed.restore.uid}/{status.phase}"}
    return Decision(status, (RemoveFinalizer(labels.RESTORE_FINALIZER, annotations),))


def _recover_status(observed: ObservedRestore, now: datetime, phase: RestorePhase) -> Decision:
    """Restore the status of a restore that has ended. A lost status must not write to the volume again."""
    base = _base(observed)
    outcome = conditions.ready if phase is RestorePhase.AVAILABLE else conditions.stalled
    message = f"The restore had ended in {phase} before its status was lost"
    shown = outcome(base.conditions, now, observed.restore.metadata.generation, Reason.STATUS_LOST, message)
    failed = None if phase is RestorePhase.AVAILABLE else message
    return Decision(base.model_copy(update={"phase": phase, "fail_reason": failed, "conditions": shown}))


def _cancel(observed: ObservedRestore, now: datetime) -> Decision:
    """Stop the restore of a deleted VolumeRestore, and remove a new volume that has not been released."""
    if labels.RESTORE_FINALIZER not in observed.restore.metadata.finalizers:
        return Decision(None)
    actions, has_ended = _cleanup(observed), observed.restore.has_ended
    if not actions and not _remains(observed):
        in_place = checks.is_in_place(observed.restore)
        result = "the volume may hold a part of the backup" if in_place else "no volume was created"
        note = f"The VolumeRestore was deleted before it ended; {result}"
        cancelled = () if has_ended else (RecordEvent("Normal", Reason.CANCELLED, note),)
        return Decision(None, (*cancelled, RemoveFinalizer(labels.RESTORE_FINALIZER)))
    if _is_stuck(observed, now):
        return _cannot_stop(observed, now, actions)
    since, limit = observed.restore.metadata.deletion_timestamp, observed.policy.deadlines.deletion
    message = mover_state.stop_message("The restore is being stopped", observed.mover, now)
    wait = Wait(Reason.CANCELLING, message, since, limit, MIN_REQUEUE_SECONDS)
    if has_ended:
        return Decision(None, actions, wait.requeue_after)
    return _operation(observed, now).wait(wait, actions)


def _is_stuck(observed: ObservedRestore, now: datetime) -> bool:
    """Return whether the deletion has taken longer than its deadline."""
    since = observed.restore.metadata.deletion_timestamp
    return since is not None and now - since >= observed.policy.deadlines.deletion


def _cannot_stop(observed: ObservedRestore, now: datetime, actions: tuple[Action, ...]) -> Decision:
    """Report what remains and what to do. The deletion ends only when nothing remains: a mover may still write."""
    pods, restore = mover_state.unfinished(observed.mover), observed.restore
    owned = (child for child in (observed.mover.job, observed.staging_claim) if children.belongs_to(child, restore))
    listed = ", ".join(f"{type(child).__name__} {child.name}" for child in owned)
    message = children.NODE_LOST_ADVICE.format(pods=pods) if pods else f"The cluster is still removing {listed}."
    failed, before = _operation(observed, now).fail(Fail(Reason.CANCELLING, message)), observed.restore.status
    is_known = any(c.type == "Stalled" and c.reason == Reason.CANCELLING for c in before.conditions)
    status = failed.status
    if status is not None and observed.restore.own_phase is RestorePhase.AVAILABLE:
        # The restored volume is complete, whatever children remain.
        status = before.model_copy(update={"conditions": status.conditions})
    return Decision(status, (*actions, *(() if is_known else failed.actions)), SLOW_RETRY_SECONDS)


def _cleanup(observed: ObservedRestore) -> tuple[Action, ...]:
    # A marked volume is complete. It outlives its claim, and `rebind.release_volume` decides about it.
    volume = None if rebind.has_begun(observed) else observed.volume
    owned = children.Children(job=observed.mover.job, claim=observed.staging_claim, volume=volume)
    removals = children.cleanup(observed.restore, owned)
    return (*removals, *rebind.clean_up_claim(observed), *rebind.release_volume(observed))


def _remains(observed: ObservedRestore) -> bool:
    """Return whether a child of the restore still exists."""
    return (
        (rebind.is_left(observed.target, observed) and not rebind.keeps_scratch(observed.restore))
        or any(children.belongs_to(child, observed.restore) for child in (observed.staging_claim, observed.mover.job))
        or mover_state.is_at_work(observed.mover)
    )


def _operation(observed: ObservedRestore, now: datetime) -> Operation:
    return Operation(observed.restore, _base(observed), observed.mover, now)


def _base(observed: ObservedRestore) -> VolumeRestoreStatus:
    """Return the part of the status that does not depend on the outcome."""
    restore = observed.restore
    status = restore.status if restore.own_phase else VolumeRestoreStatus()
    update: dict[str, Any] = {
        "id": restore.uid,
        "created_at": restore.metadata.creation_timestamp,
        "observed_generation": restore.metadata.generation,
    }
    if observed.backup is not None and status.backup_id is None:
        update |= {"backup_id": observed.backup.backup_id, "backup_name": observed.backup.name}
        update["backup_namespace"] = restore.granted_from
    if checks.is_in_place(restore):
        if observed.target is not None:
            update |= {"volume_id": observed.target.uid, "volume_name": observed.target.name}
    elif observed.backup is not None or restore.fills_nothing:
        update["volume_name"] = checks.target_name(observed)
    return status.model_copy(update=update)
