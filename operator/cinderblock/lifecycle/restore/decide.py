"""``decide`` for a VolumeRestore: check, fill a volume, and hand it over only when it is whole.

A new volume is filled under a hidden claim of ours. When every byte has been written and verified, the PersistentVolume
is taken over by a claim of the asked name (`rebinding`); a half-restored volume never has a name that an application
could mount. An existing volume is written in place.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.losses import Loss
from cinderblock.api.mover import MoverOperation, MoverReport, MoverTask
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore, VolumeRestoreStatus
from cinderblock.errors import CinderblockError
from cinderblock.lifecycle import children, completion, conditions, events, expected_manifest, verdicts
from cinderblock.lifecycle import children as lifecycle_children
from cinderblock.lifecycle.actions import (
    MIN_REQUEUE_SECONDS,
    Action,
    AddFinalizer,
    CreateChild,
    Decision,
    RecordEvent,
    RemoveFinalizer,
)
from cinderblock.lifecycle.backup import delete as backup_delete
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.restore import checks, rebind
from cinderblock.lifecycle.verdicts import Fail, Wait

CANCELLING = "Cancelling"
"""What a restore says that was deleted before it had ended, while its mover is being stopped."""
ENDED = frozenset({RestorePhase.AVAILABLE, RestorePhase.ERROR_RESTORING})


def decide(observed: ObservedRestore, now: datetime) -> Decision:
    """What to do about a VolumeRestore.

    Args:
        world: what was seen of it just now.
        now: the instant of the decision, with time zone.
    """
    return _stamp(_decide(observed, now), observed, now)


def on_action_error(observed: ObservedRestore, now: datetime, error: CinderblockError) -> Decision:
    """What to do when the API server refused an action: what is wrong ends the restore, what may pass is waited for."""
    verdict = verdicts.from_api_error(error, observed.policy.deadlines)
    return _stamp(_verdict(observed, now, verdict), observed, now)


def _decide(observed: ObservedRestore, now: datetime) -> Decision:
    phase = checks.own_phase(observed.restore)
    if observed.restore.metadata.is_being_deleted:
        return _cancel(observed, now)
    if phase in ENDED:
        return _ended(observed)
    before = _ended_before(observed.restore) if phase is None else None
    if before is not None:
        return _recover_status(observed, now, before)
    if labels.RESTORE_FINALIZER not in observed.restore.metadata.finalizers:
        # One that is running already had it taken off by an uninstalled release: nothing is checked anew.
        running = phase is RestorePhase.RESTORING
        return Decision(None, (AddFinalizer(labels.RESTORE_FINALIZER),), 0.0) if running else _accept(observed, now)
    if rebind.has_begun(observed):
        return _hand_over(observed, now)
    if observed.mover.job is not None:
        return _copying(observed, now)
    return _prepare(observed, now)


def _accept(observed: ObservedRestore, now: datetime) -> Decision:
    """Refuse at once what can be known at once; else put the finalizer on before anything is made."""
    verdict = checks.first_verdict(observed)
    if isinstance(verdict, Fail):
        return _fail(observed, now, verdict)
    waiting = verdict or Wait("Accepted", "The restore was accepted", requeue_after=0.0)
    return _wait(observed, now, waiting, (AddFinalizer(labels.RESTORE_FINALIZER),))


def _prepare(observed: ObservedRestore, now: datetime) -> Decision:
    """Make the hidden claim if a new volume is asked for, and start the mover."""
    verdict = checks.first_verdict(observed)
    if verdict is not None:
        return _verdict(observed, now, verdict)
    foreign = _foreign_child(observed)
    if foreign:
        return _fail(observed, now, foreign)
    if observed.store.store is not None:
        queued = mover_state.wait_for_slot(observed.mover, observed.policy, observed.store.store)
        if queued:
            return _wait(observed, now, queued)
    if checks.is_in_place(observed.restore):
        return _start(observed, now, observed.target.name if observed.target else "")
    hidden = labels.child_name(observed.restore.uid)
    started = _start(observed, now, hidden)
    if observed.staging_claim is not None:
        return started
    body = children.claim(observed.restore, checks.claim_request(observed))
    return Decision(
        started.status, (CreateChild("PersistentVolumeClaim", body), *started.actions), started.requeue_after
    )


def _foreign_child(observed: ObservedRestore) -> Fail | None:
    """A child's name taken by somebody else's object: never touched, never used."""
    for child in (observed.staging_claim, observed.mover.job):
        if child is not None and not child.metadata.is_owned_by(observed.restore.uid):
            return Fail("NameTaken", f"{type(child).__name__} {child.name} exists and is not ours: remove it.")
    return None


def _start(observed: ObservedRestore, now: datetime, claim_name: str) -> Decision:
    store, manifest = observed.store.store, observed.manifest
    if store is None or manifest is None or observed.backup is None:
        raise ValueError("checks let nothing through without a store and a manifest")
    mode = manifest.description.volume_mode
    task = MoverTask(
        operation=MoverOperation.RESTORE,
        store=children.location(store, observed.backup.status.container or store.spec.container),
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
    waiting = mover_state.starting(observed.policy)
    told = RecordEvent(
        "Normal", "MoverStarted", f"The mover Job {job['metadata']['name']} writes backup {observed.backup.name}"
    )
    return _wait(observed, now, waiting, (CreateChild("Job", job), told))


def _copying(observed: ObservedRestore, now: datetime) -> Decision:
    spoilt = _foreign_child(observed) or checks.used_during_copy(observed.pods_during_copy)
    if spoilt:
        return _fail(observed, now, spoilt)
    start = mover_state.start(observed.mover)
    if start is not None:
        return _wait(observed, now, mover_state.starting(observed.policy), (start,))
    verdict = mover_state.evaluate(observed.mover, observed.policy)
    if not isinstance(verdict, mover_state.Succeeded):
        return _verdict(
            observed,
            now,
            mover_state.check_stall(verdict, observed.mover, _base(observed), now, observed.policy.deadlines),
        )
    if checks.is_in_place(observed.restore):
        done = _done(observed, now, observed.target, verdict.report)
        return Decision(done.status, (*events.metadata_loss(verdict.report), *done.actions), done.requeue_after)
    return _hand_over(observed, now, verdict.report)


def _hand_over(observed: ObservedRestore, now: datetime, report: MoverReport | None = None) -> Decision:
    """Give the filled volume its name."""
    step = rebind.next_step(observed)
    if isinstance(step, Fail):
        return _fail(observed, now, step)
    if isinstance(step, rebind.Finished):
        return _done(observed, now, step.claim, report)
    decision = _verdict(observed, now, step.wait)
    if not isinstance(decision.status, VolumeRestoreStatus) or decision.status.phase in ENDED:
        return decision
    status, told = decision.status, events.metadata_loss(report)
    if report is not None:
        # The mover's report goes away with the Job; what it says is written down before.
        status = status.model_copy(update=_reported(report))
    return Decision(status, (*told, *step.actions), decision.requeue_after)


def _done(
    observed: ObservedRestore, now: datetime, claim: PersistentVolumeClaim | None, report: MoverReport | None
) -> Decision:
    base = _base(observed)
    update: dict[str, Any] = {
        "phase": RestorePhase.AVAILABLE,
        "progress": None,
        "fail_reason": None,
        "conditions": conditions.ready(
            base.conditions,
            now,
            observed.restore.metadata.generation,
            "Restored",
            _restored_message(report, base.losses),
        ),
    }
    if claim is not None:
        update |= {"volume_id": claim.uid, "volume_name": claim.name}
    if report is not None:
        update |= _reported(report)
    status = base.model_copy(update=update)
    note = f"Volume {status.volume_name} holds backup {status.backup_name}"
    is_child = rebind.is_child(claim, observed.restore)
    released = (rebind.release(claim, observed.restore),) if claim is not None and is_child else ()
    return Decision(status, (*released, RecordEvent("Normal", "Restored", note)), requeue_after=0.0)


def _reported(report: MoverReport) -> dict[str, Any]:
    """Return what a status keeps of a mover's report."""
    return {"restored_bytes": report.restored_bytes, "losses": report.losses}


def _restored_message(report: MoverReport | None, losses: list[Loss]) -> str:
    """Say what was kept. When a new volume has got its name, the report is gone, and the status has its losses."""
    told = report.warnings if report else [f"Not kept: {loss.what}, {loss.objects}." for loss in losses]
    words = "Every byte of the backup was written and verified"
    return f"{words}. {' '.join(told)}" if told else words


def _ended(observed: ObservedRestore) -> Decision:
    """An ended restore is a record; what was made on the way is removed, then the finalizer."""
    actions, remains = _cleanup(observed), _remains(observed)
    status = observed.restore.status
    if status.observed_generation != observed.restore.metadata.generation:
        status = status.model_copy(update={"observed_generation": observed.restore.metadata.generation})
    if actions or remains:
        return Decision(status, actions, requeue_after=MIN_REQUEUE_SECONDS if remains else 0.0)
    if labels.RESTORE_FINALIZER not in observed.restore.metadata.finalizers:
        return Decision(status)
    remembered = {labels.ENDED_ANNOTATION: f"{observed.restore.uid}/{status.phase}"}
    return Decision(status, (RemoveFinalizer(labels.RESTORE_FINALIZER, remembered),))


def _ended_before(restore: VolumeRestore) -> RestorePhase | None:
    """How a restore had ended whose status was lost. That of a copied object counts for nothing."""
    uid, _, phase = restore.metadata.annotations.get(labels.ENDED_ANNOTATION, "").partition("/")
    return next((ended for ended in ENDED if ended == phase), None) if uid == restore.uid else None


def _recover_status(observed: ObservedRestore, now: datetime, phase: RestorePhase) -> Decision:
    """A lost status is no request to write to the volume once more."""
    base = _base(observed)
    said = conditions.ready if phase is RestorePhase.AVAILABLE else conditions.stalled
    message = f"The restore had ended in {phase} before its status was lost"
    shown = said(base.conditions, now, observed.restore.metadata.generation, "StatusLost", message)
    failed = None if phase is RestorePhase.AVAILABLE else message
    return Decision(base.model_copy(update={"phase": phase, "fail_reason": failed, "conditions": shown}))


def _cancel(observed: ObservedRestore, now: datetime) -> Decision:
    """Deleting a VolumeRestore stops it. A new volume that has not been handed over is removed."""
    if labels.RESTORE_FINALIZER not in observed.restore.metadata.finalizers:
        return Decision(None)
    actions, has_ended = _cleanup(observed), checks.own_phase(observed.restore) in ENDED
    if not actions and not _remains(observed):
        left = "the volume may hold a part of the backup" if checks.is_in_place(observed.restore) else "nothing is left"
        note = f"The VolumeRestore was deleted before it had ended; {left}"
        told = () if has_ended else (RecordEvent("Normal", "Cancelled", note),)
        return Decision(None, (*told, RemoveFinalizer(labels.RESTORE_FINALIZER)))
    if _is_stuck(observed, now):
        return _cannot_stop(observed, now, actions)
    since, limit = observed.restore.metadata.deletion_timestamp, observed.policy.deadlines.deletion
    message = mover_state.stop_message("The restore is being stopped", observed.mover, now)
    waiting = Wait(CANCELLING, message, since, limit, MIN_REQUEUE_SECONDS)
    if has_ended:
        return Decision(None, actions, waiting.requeue_after)
    return _wait(observed, now, waiting, actions)


def _is_stuck(observed: ObservedRestore, now: datetime) -> bool:
    """Whether a deletion has gone on for longer than a mover takes to stop."""
    since = observed.restore.metadata.deletion_timestamp
    return since is not None and now - since >= observed.policy.deadlines.deletion


def _cannot_stop(observed: ObservedRestore, now: datetime, actions: tuple[Action, ...]) -> Decision:
    """Say what is left and what to do. It ends by itself when that is gone, and never before: it may still write."""
    pods, uid = mover_state.unfinished(observed.mover), observed.restore.uid
    children = (observed.mover.job, observed.staging_claim)
    listed = ", ".join(
        f"{type(child).__name__} {child.name}" for child in children if lifecycle_children.is_ours(child, uid)
    )
    message = (
        lifecycle_children.NODE_LOST_ADVICE.format(pods=pods)
        if pods
        else f"Still being removed by the cluster: {listed}."
    )
    failed, before = _fail(observed, now, Fail(CANCELLING, message)), observed.restore.status
    told = any(c.type == "Stalled" and c.reason == CANCELLING for c in before.conditions)
    status = failed.status
    if status is not None and checks.own_phase(observed.restore) is RestorePhase.AVAILABLE:
        # What was restored is whole, whatever is left of the way there.
        status = before.model_copy(update={"conditions": status.conditions})
    return Decision(status, (*actions, *(() if told else failed.actions)), backup_delete.SLOW_RETRY_SECONDS)


def _cleanup(observed: ObservedRestore) -> tuple[Action, ...]:
    children = lifecycle_children.cleanup(observed.restore.uid, observed.mover.job, observed.staging_claim, None)
    return (*children, *rebind.clean_up_claim(observed), *rebind.release_volume(observed))


def _remains(observed: ObservedRestore) -> bool:
    """Whether anything that was made on the way is still there."""
    uid = observed.restore.uid
    children = (observed.staging_claim, observed.mover.job)
    is_claimed = rebind.is_child(observed.target, observed.restore)
    return (
        is_claimed
        or any(lifecycle_children.is_ours(child, uid) for child in children)
        or mover_state.is_at_work(observed.mover)
    )


def _verdict(observed: ObservedRestore, now: datetime, verdict: Fail | Wait) -> Decision:
    if isinstance(verdict, Wait):
        verdict = verdicts.expire(verdict, observed.restore.status.conditions, now)
    return _fail(observed, now, verdict) if isinstance(verdict, Fail) else _wait(observed, now, verdict)


def _wait(observed: ObservedRestore, now: datetime, wait: Wait, actions: tuple[Action, ...] = ()) -> Decision:
    base = _base(observed)
    status = base.model_copy(
        update={
            "phase": RestorePhase.RESTORING,
            "progress": mover_state.to_progress(observed.mover.progress) or base.progress,
            "conditions": conditions.reconciling(
                base.conditions,
                now,
                observed.restore.metadata.generation,
                wait.reason,
                verdicts.wait_message(wait, base.conditions, now),
            ),
        }
    )
    return Decision(status, actions, wait.requeue_after)


def _fail(observed: ObservedRestore, now: datetime, fail: Fail) -> Decision:
    base = _base(observed)
    status = base.model_copy(
        update={
            "phase": RestorePhase.ERROR_RESTORING,
            "fail_reason": verdicts.fail_message(fail),
            "progress": None,
            "conditions": conditions.stalled(
                base.conditions, now, observed.restore.metadata.generation, fail.reason, fail.message
            ),
        }
    )
    return Decision(status, (RecordEvent("Warning", fail.reason, fail.message),), requeue_after=0.0)


def _base(observed: ObservedRestore) -> VolumeRestoreStatus:
    restore = observed.restore
    status = restore.status if checks.own_phase(restore) else VolumeRestoreStatus()
    update: dict[str, Any] = {
        "id": restore.uid,
        "created_at": restore.metadata.creation_timestamp,
        "observed_generation": restore.metadata.generation,
    }
    if observed.backup is not None and status.backup_id is None:
        update |= {"backup_id": observed.backup.backup_id, "backup_name": observed.backup.name}
    if checks.is_in_place(restore):
        if observed.target is not None:
            update |= {"volume_id": observed.target.uid, "volume_name": observed.target.name}
    elif observed.backup is not None:
        update["volume_name"] = checks.target_name(observed)
    return status.model_copy(update=update)


def _stamp(decision: Decision, observed: ObservedRestore, now: datetime) -> Decision:
    """updatedAt moves only when something else does."""
    before, status = observed.restore.status, decision.status
    if not isinstance(status, VolumeRestoreStatus):
        return decision
    status = completion.complete_restore(observed, status, now)
    unchanged = status.model_copy(update={"updated_at": before.updated_at}) == before
    stamped = before if unchanged else status.model_copy(update={"updated_at": now})
    return Decision(stamped, decision.actions, decision.requeue_after)
