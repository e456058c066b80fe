"""``decide`` for a BackupVerification: choose a backup and a part, run a mover without a volume, record its findings.

A damage is a finding, and its phase is damaged. If the store or a key is unavailable, nothing is known, and the phase
is error.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cinderblock.api import labels
from cinderblock.api.mover import VerifyReport
from cinderblock.api.v1alpha1.verification import (
    BackupVerificationStatus,
    VerificationLevel,
    VerificationPhase,
)
from cinderblock.errors import CinderblockError, fail_reason
from cinderblock.lifecycle import children, conditions, verdicts
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
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedVerification
from cinderblock.lifecycle.operation import Operation, foreign_child, stamp
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.lifecycle.verification import checks, findings, outcome, restore_drill, slots
from cinderblock.lifecycle.verification.findings import Finding
from cinderblock.lifecycle.verification.parts import next_part
from cinderblock.lifecycle.verification.task import mover_task
from cinderblock.reasons import Reason

ACCEPTED = "The verification was accepted"
_NO_FINDINGS = Fail(
    Reason.MOVER_FAILED, "The mover ended without findings: its pod is gone, or its image is of another release."
)
NAMED_IN_MESSAGE = 3
"""Damaged objects that a message names."""


def decide(observed: ObservedVerification, now: datetime) -> Decision:
    """Return what to do about a BackupVerification.

    Args:
        observed: its present state.
        now: the instant of the decision, with time zone.
    """
    return stamp(_decide(observed, now), observed, now)


def on_action_error(observed: ObservedVerification, now: datetime, error: CinderblockError) -> Decision:
    """Return what to do about an action that failed: fail if the action is invalid, otherwise wait."""
    verdict = verdicts.from_api_error(error, observed.policy.deadlines)
    return stamp(_operation(observed, now).apply(verdict), observed, now)


def _decide(observed: ObservedVerification, now: datetime) -> Decision:
    verification = observed.verification
    if verification.metadata.is_being_deleted:
        return _cancel(observed, now)
    if verification.has_ended:
        return _ended(observed)
    if not is_accepted(observed):
        return _accept(observed, now)
    if verification.spec.level is VerificationLevel.RESTORE:
        return _drill(observed, now)
    if observed.mover.job is None:
        return _prepare(observed, now)
    return _follow(observed, now) if observed.mover.is_recorded else _discard(observed, now)


def is_accepted(observed: ObservedVerification) -> bool:
    """Return whether the finalizer is set and the choice of the backup is recorded."""
    verification = observed.verification
    has_choice = verification.own_phase is not None and verification.status.backup_id is not None
    return has_choice and labels.VERIFICATION_FINALIZER in verification.metadata.finalizers


def _accept(observed: ObservedVerification, now: datetime) -> Decision:
    """Add the finalizer and record the choice of backup and part, before anything is created.

    The choice is never made again: the findings of a mover are about this backup and this part.
    """
    operation, verdict = _operation(observed, now), checks.first_verdict(observed)
    verdict = verdict or restore_drill.data_is_new_enough(observed, now)
    if verdict is not None:
        return operation.apply(verdict)
    actions: tuple[Action, ...] = ()
    if labels.VERIFICATION_FINALIZER not in observed.verification.metadata.finalizers:
        actions = (AddFinalizer(labels.VERIFICATION_FINALIZER),)
    accepted = operation.wait(Wait(Reason.ACCEPTED, ACCEPTED, requeue_after=0.0), actions)
    status = accepted.status
    if not isinstance(status, BackupVerificationStatus):
        return accepted
    return Decision(status.model_copy(update=_choice(observed, now)), accepted.actions, accepted.requeue_after)


def _choice(observed: ObservedVerification, now: datetime) -> dict[str, Any]:
    backup, spec = observed.backup, observed.verification.spec
    if backup is None:
        raise ValueError("the checks let nothing pass without a backup")
    reads_data = spec.level is VerificationLevel.DATA
    return {
        "backup_id": backup.backup_id,
        "backup_name": backup.name,
        "volume_id": backup.status.volume_id,
        "data_timestamp": backup.status.data_timestamp,
        "part": next_part(spec.data.parts, observed.reads, now) if reads_data else None,
        "started_at": now.replace(microsecond=0),
    }


def _drill(observed: ObservedVerification, now: datetime) -> Decision:
    """Follow a verification of level Restore. The checks must pass until its VolumeRestore exists."""
    operation, drill = _operation(observed, now), observed.drill
    has_begun = drill is not None and drill.restore is not None
    verdict = None if has_begun else checks.first_verdict(observed)
    return operation.apply(verdict) if verdict is not None else restore_drill.follow(observed, operation, now)


def _prepare(observed: ObservedVerification, now: datetime) -> Decision:
    """Start the mover when the limits allow one more."""
    operation, verdict = _operation(observed, now), checks.first_verdict(observed)
    if verdict is not None:
        return operation.apply(verdict)
    store, backup, settings = observed.store.store, observed.backup, observed.policy.mover
    if store is None or backup is None:
        raise ValueError("the checks let nothing pass without a backup and a store")
    queued = slots.wait_for_slot(observed.mover, observed.load, settings, store)
    if queued is not None:
        return operation.wait(queued)
    job = mover_job.mover_job(
        observed.verification, mover_task(observed.verification, backup, store, settings), store, None, settings
    )
    note = f"Mover Job {job['metadata']['name']} verifies backup {backup.name}"
    started = RecordEvent("Normal", Reason.MOVER_STARTED, note)
    return operation.wait(mover_state.starting(observed.policy), (CreateChild("Job", job), started))


def _discard(observed: ObservedVerification, now: datetime) -> Decision:
    """Remove a mover Job that the status does not record, and create another one.

    The operator may have died right after it had created the Job, which has not started then. Anybody else who creates
    such a Job could report anything, so its findings never count.
    """
    operation, job = _operation(observed, now), observed.mover.job
    foreign = foreign_child(observed.verification, job)
    if foreign is not None or job is None:
        return operation.fail(foreign or Fail(Reason.MOVER_DELETED, "The mover Job is gone"))
    message = "A mover Job that the status does not record is being removed"
    wait = Wait(Reason.STOPPING_MOVER, message, limit=observed.policy.deadlines.deletion, requeue_after=5.0)
    return operation.stay(wait, (DeleteChild("Job", job.name, job.uid),))


def _follow(observed: ObservedVerification, now: datetime) -> Decision:
    operation, foreign = _operation(observed, now), foreign_child(observed.verification, observed.mover.job)
    if foreign is not None:
        return operation.fail(foreign)
    if not outcome.has_ended(observed.mover):
        followed = operation.follow_mover(observed.policy)
        return followed if isinstance(followed, Decision) else operation.fail(_NO_FINDINGS)
    if observed.store.error is not None:
        # The place of the store has moved meanwhile, so a missing manifest there says nothing about the backup.
        return operation.fail(Fail(observed.store.error.reason, observed.store.error.message))
    recording = observed.recording
    if outcome.lacks_manifest(observed.mover) and (recording is None or recording.finding is None):
        return operation.fail(_deleted(observed.verification.status))
    if recording is None or recording.finding is None:
        return operation.fail(_NO_FINDINGS)
    if not recording.is_last:
        return Decision(None, recording.changes, requeue_after=0.0)
    return _conclude(observed, now, outcome.report_of(observed.mover) or VerifyReport(), recording.finding)


def _conclude(observed: ObservedVerification, now: datetime, report: VerifyReport, finding: Finding) -> Decision:
    """Record the findings in the last VolumeBackups, and then the final status."""
    base, recording = _base(observed), observed.recording
    changes = recording.changes if recording is not None else ()
    removed = recording.removed if recording is not None else frozenset[str]()
    status = base.model_copy(update=_reported(report, finding) | {"progress": None, "mover": None})
    generation, before = observed.verification.metadata.generation, base.conditions
    if findings.is_damage(finding, removed):
        message = damage_message(finding)
        update: dict[str, Any] = {
            "phase": VerificationPhase.DAMAGED,
            "fail_reason": fail_reason(message),
            "objects": list(finding.damaged),
            "conditions": conditions.stalled(before, now, generation, Reason.DAMAGED, message),
        }
        event = RecordEvent("Warning", Reason.DAMAGED, message)
        return Decision(status.model_copy(update=update), (*changes, event), requeue_after=0.0)
    if finding.damaged_count and finding.backup_id in removed:
        failed = _operation(observed, now).fail(_deleted(status))
        return Decision(failed.status, (*changes, *failed.actions), failed.requeue_after)
    message = verified_message(observed, status)
    update = {
        "phase": VerificationPhase.VERIFIED,
        "damaged_objects": 0,
        "fail_reason": None,
        "conditions": conditions.ready(before, now, generation, Reason.VERIFIED, message),
    }
    event = RecordEvent("Normal", Reason.VERIFIED, message)
    return Decision(status.model_copy(update=update), (*changes, event), requeue_after=0.0)


def _deleted(status: BackupVerificationStatus) -> Fail:
    message = f"Backup {status.backup_name} was deleted while it was verified. Nothing is known about it."
    return Fail(Reason.BACKUP_NOT_FOUND, message)


def _reported(report: VerifyReport, finding: Finding) -> dict[str, Any]:
    """Return the part of a mover's report that a status keeps."""
    return {
        "complete": report.complete,
        "packs_verified": report.packs_verified,
        "bytes_read": report.bytes_read,
        "damaged_objects": finding.damaged_count,
    }


def damage_message(finding: Finding) -> str:
    """Return what is damaged, and what to do."""
    count, named = finding.damaged_count, ", ".join(finding.damaged[:NAMED_IN_MESSAGE])
    what = "1 object is damaged or missing" if count == 1 else f"{count} objects are damaged or missing"
    backups = "1 backup needs" if finding.affected_count == 1 else f"{finding.affected_count} backups need"
    remedy = f"Make a new backup of the volume. {backups} what is damaged."
    return f"In the store, {what}. {remedy} Among the objects: {named}" if named else f"In the store, {what}. {remedy}"


def verified_message(observed: ObservedVerification, status: BackupVerificationStatus) -> str:
    """Return what was verified, and whether a limit ended it early."""
    spec, packs = observed.verification.spec, status.packs_verified or 0
    if spec.level is VerificationLevel.STRUCTURE:
        return f"The manifest of backup {status.backup_name} is sound, and all of its packs are present ({packs})"
    part = f"part {status.part} of {spec.data.parts}"
    read = f"Packs of the volume that were read and are sound: {packs} ({part})"
    return read if status.complete else f"{read}. A limit ended the verification before the part was complete"


def _ended(observed: ObservedVerification) -> Decision:
    """Remove the children of a verification that has ended, then the finalizer. Its status is a record."""
    actions, verification = _cleanup(observed), observed.verification
    status = verification.status
    if status.observed_generation != verification.metadata.generation:
        status = status.model_copy(update={"observed_generation": verification.metadata.generation})
    if actions or _remains(observed):
        return Decision(status, actions, requeue_after=MIN_REQUEUE_SECONDS)
    if labels.VERIFICATION_FINALIZER not in verification.metadata.finalizers:
        return Decision(status)
    return Decision(status, (RemoveFinalizer(labels.VERIFICATION_FINALIZER),))


def _cancel(observed: ObservedVerification, now: datetime) -> Decision:
    """Stop the mover of a deleted BackupVerification, and let it go."""
    verification = observed.verification
    if labels.VERIFICATION_FINALIZER not in verification.metadata.finalizers:
        return Decision(None)
    actions = _cleanup(observed)
    if not actions and not _remains(observed):
        return Decision(None, (RemoveFinalizer(labels.VERIFICATION_FINALIZER),))
    if verification.has_ended:
        return Decision(None, actions, MIN_REQUEUE_SECONDS)
    since, limit = verification.metadata.deletion_timestamp, observed.policy.deadlines.deletion
    is_late = since is not None and now - since >= limit
    message = mover_state.stop_message("The verification is being stopped", observed.mover, now)
    wait = Wait(Reason.CANCELLING, message, since, None, SLOW_RETRY_SECONDS if is_late else MIN_REQUEUE_SECONDS)
    return _operation(observed, now).wait(wait, actions)


def _cleanup(observed: ObservedVerification) -> tuple[Action, ...]:
    if observed.drill is not None:
        return restore_drill.cleanup(observed)
    return children.cleanup(observed.verification, children.Children(job=observed.mover.job))


def _remains(observed: ObservedVerification) -> bool:
    """Return whether the mover, or anything that a drill has created, still exists."""
    if observed.drill is not None:
        return restore_drill.remains(observed)
    has_job = children.belongs_to(observed.mover.job, observed.verification)
    return has_job or mover_state.is_at_work(observed.mover)


def _operation(observed: ObservedVerification, now: datetime) -> Operation:
    return Operation(observed.verification, _base(observed), observed.mover, now)


def _base(observed: ObservedVerification) -> BackupVerificationStatus:
    """Return the part of the status that does not depend on the outcome."""
    verification = observed.verification
    status = verification.status if verification.own_phase else BackupVerificationStatus()
    return status.model_copy(update={"id": verification.uid, "observed_generation": verification.metadata.generation})
