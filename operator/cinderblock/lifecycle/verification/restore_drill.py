"""Level Restore: restore the chosen backup to a scratch volume, run the user's check on it, and remove everything.

1. Create a VolumeRestore, as a child of the BackupVerification. Its new claim is a scratch claim: it stays a child of
   the VolumeRestore, and its volume is removed with it (`restore.rebind`).
2. When the restore is complete, create the Job of the check, with the claim mounted read-only.
3. Record the result. Only then remove the Job, the VolumeRestore and the claim (`cleanup`).

Names of children contain the UID of the BackupVerification, and its status records the UID of the present one. So
another process continues after a crash, and objects of somebody else are never used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeGuard

from cinderblock.api import labels
from cinderblock.api.conditions import ConditionType
from cinderblock.api.duration import from_timedelta, parse_long_duration, to_timedelta
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.progress import MoverReference
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore, VolumeRestoreSpec
from cinderblock.api.v1alpha1.verification import (
    NAMED_OBJECTS,
    BackupVerification,
    BackupVerificationStatus,
    VerificationLevel,
    VerificationPhase,
)
from cinderblock.errors import fail_reason
from cinderblock.lifecycle import children, conditions
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS, Action, CreateChild, Decision, DeleteChild, RecordEvent
from cinderblock.lifecycle.mover.state import ReportedStatus
from cinderblock.lifecycle.observed import ObservedVerification
from cinderblock.lifecycle.operation import Operation, foreign_child
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.lifecycle.verification import check_job, check_state, checks, slots
from cinderblock.lifecycle.verification.findings import Finding, change_of, stored_id
from cinderblock.lifecycle.verification.observed_drill import ObservedDrill
from cinderblock.lifecycle.verification.restore_cause import condition_of, with_cause
from cinderblock.reasons import Reason, parse_reason

MAX_TIMEOUT: Final = timedelta(hours=24)
"""The longest time limit. A drill holds a slot of verifications, which the drills of other namespaces wait for."""
DAMAGE_REASONS: Final = frozenset(
    {
        *(Reason.INTEGRITY_ERROR, Reason.MANIFEST_MISSING, Reason.MANIFEST_REPLACED),
        *(Reason.FOREIGN_MANIFEST, Reason.SEAL_BROKEN),
    }
)
"""Reasons of a failed restore that say something about the stored bytes."""
_STORED: Final = re.compile(r"(?<![^\s\"'(])(?:[^\s\"'()]*/)?(?:packs|backups)/[^\s\"'():,]+")
"""The key of a stored object in a message."""


@dataclass(frozen=True, slots=True)
class _Damage:
    """The damage that a drill has found.

    Attributes:
        reason, message: the cause.
        at: when it was found.
        objects: keys of damaged objects in the message.
        count: number of damaged objects; 0: a check failed, and no object is known to be damaged.
    """

    reason: Reason
    message: str
    at: datetime
    objects: tuple[str, ...] = ()
    count: int = 0


def data_is_new_enough(observed: ObservedVerification, now: datetime) -> Fail | None:
    """Fail if the newest backup is older than the rule allows: a drill of old data proves too little."""
    rule, backup = observed.verification.spec.restore, observed.backup
    if backup is None or rule.max_data_age is None:
        return None
    since = backup.status.data_timestamp
    if since is not None and now - since <= parse_long_duration(rule.max_data_age):
        return None
    age = f"its data is {from_timedelta(now - since)} old" if since is not None else "the age of its data is unknown"
    message = (
        f"Cannot prove that recent data can be restored: of backup {backup.name}, {age}. At most {rule.max_data_age} is"
        " allowed. Find out why there is no newer backup."
    )
    return Fail(Reason.DATA_TOO_OLD, message)


def follow(observed: ObservedVerification, operation: Operation, now: datetime) -> Decision:
    """Return the next step of a drill whose backup was chosen.

    Args:
        observed: the present state.
        operation: the operation, with the part of the status that does not depend on the outcome.
        now: the instant of the decision.
    """
    drill = observed.drill or ObservedDrill()
    foreign = foreign_child(observed.verification, drill.restore, drill.job)
    if foreign is not None:
        return operation.fail(foreign)
    if drill.restore is None:
        return _begin(observed, operation)
    return _with_reference(_follow(observed, drill, drill.restore, operation, now), observed, drill.restore)


def _begin(observed: ObservedVerification, operation: Operation) -> Decision:
    """Create the VolumeRestore when there is a slot. Level Restore has the slots of verifications."""
    verification, store = observed.verification, observed.store.store
    if operation.status.mover is not None:
        return operation.fail(Fail(Reason.CHECK_INTERRUPTED, "Somebody deleted the VolumeRestore of the verification."))
    if store is None:
        raise ValueError("the checks let nothing pass without a store")
    queued = slots.wait_for_slot(observed.mover, observed.load, observed.policy.mover, store)
    if queued is not None:
        return operation.wait(queued)
    note = f"VolumeRestore {labels.child_name(verification.uid)} restores backup {operation_backup(operation)}"
    wait = Wait(Reason.DRILL_RESTORING, "The backup is being restored to a scratch volume")
    started = RecordEvent("Normal", Reason.DRILL_RESTORING, note)
    return operation.wait(wait, (CreateChild("VolumeRestore", restore_body(verification)), started))


def operation_backup(operation: Operation) -> str:
    """Return the name of the chosen backup."""
    status = operation.status
    return (status.backup_name or "") if isinstance(status, BackupVerificationStatus) else ""


def restore_body(verification: BackupVerification) -> dict[str, Any]:
    """Return the VolumeRestore of a drill."""
    return {
        "apiVersion": verification.api_version,
        "kind": "VolumeRestore",
        "metadata": children.child_metadata(verification),
        "spec": _restore_spec(verification).model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
        ),
    }


def _restore_spec(verification: BackupVerification) -> VolumeRestoreSpec:
    return VolumeRestoreSpec(
        backup_id=verification.status.backup_id or "",
        name=labels.child_name(verification.uid),
        storage_class_name=verification.spec.restore.storage_class_name,
    )


def _follow(
    observed: ObservedVerification, drill: ObservedDrill, restore: VolumeRestore, operation: Operation, now: datetime
) -> Decision:
    recorded, job = operation.status.mover, drill.job.uid if drill.job is not None else None
    if restore.spec != _restore_spec(observed.verification):
        message = f"VolumeRestore {restore.name} does not restore what the verification asks for. Somebody replaced it."
        return operation.fail(Fail(Reason.NAME_TAKEN, message))
    is_known = recorded is None or recorded.uid in (restore.uid, job)
    if restore.metadata.is_being_deleted or not is_known:
        message = "Somebody deleted the VolumeRestore of the verification, or its check."
        return operation.fail(Fail(Reason.CHECK_INTERRUPTED, message))
    if not restore.has_ended:
        return _timed(observed, restore, operation, _restoring(restore), now)
    if restore.own_phase is not RestorePhase.AVAILABLE:
        return _failed_restore(observed, restore, operation, now)
    restored = replace(operation, status=_with_restore(operation.status, restore))
    if observed.verification.spec.restore.check is None:
        return _verified(observed, restored, restore.status.completed_at, "")
    return _check(observed, drill, restore, restored, now)


def _restoring(restore: VolumeRestore) -> Wait | Fail:
    """Return the wait for a running restore. A quota that refuses the scratch volume ends the drill."""
    shown = condition_of(restore, ConditionType.RECONCILING)
    if shown is not None and shown.reason == Reason.QUOTA_EXCEEDED:
        message = f"Cannot create the scratch volume, which counts in the quota of the namespace: {shown.message}"
        return Fail(Reason.QUOTA_EXCEEDED, message)
    detail = f": {shown.reason}" if shown is not None else ""
    message = f"The backup is being restored to a scratch volume{detail}"
    return Wait(Reason.DRILL_RESTORING, message, requeue_after=MIN_REQUEUE_SECONDS)


def _timed(
    observed: ObservedVerification, restore: VolumeRestore, operation: Operation, verdict: Wait | Fail, now: datetime
) -> Decision:
    """Return the decision that follows from a verdict. A wait beyond the time limit of the rule fails."""
    if isinstance(verdict, Wait) and _seconds_left(observed, restore, now) <= 0:
        limit = from_timedelta(_time_limit(observed))
        message = f"The restore and its check have not ended within {limit}. {verdict.message}."
        verdict = Fail(Reason.TIMED_OUT, message)
    if isinstance(verdict, Fail) and not restore.has_ended:
        operation = with_cause(operation, condition_of(restore, ConditionType.RECONCILING))
    return operation.apply(verdict)


def _seconds_left(observed: ObservedVerification, restore: VolumeRestore, now: datetime) -> int:
    began = restore.metadata.creation_timestamp or now
    return int((began + _time_limit(observed) - now) / timedelta(seconds=1))


def _time_limit(observed: ObservedVerification) -> timedelta:
    """Return the time limit of a drill, which holds a slot so long."""
    return min(to_timedelta(observed.verification.spec.restore.timeout), MAX_TIMEOUT)


def _failed_restore(
    observed: ObservedVerification, restore: VolumeRestore, operation: Operation, now: datetime
) -> Decision:
    """Return the decision about a restore that failed: a damage if stored bytes are the cause, otherwise an error."""
    stalled = condition_of(restore, ConditionType.STALLED)
    operation = with_cause(operation, stalled)
    reason = parse_reason(stalled.reason) if stalled is not None else Reason.UNEXPECTED
    message = (stalled.message if stalled is not None else None) or restore.status.fail_reason or "The restore failed"
    objects = tuple(dict.fromkeys(match.group().rstrip(".") for match in _STORED.finditer(message)))
    is_damage = reason in DAMAGE_REASONS or (reason == Reason.NOT_FOUND and bool(objects))
    if not is_damage or not _is_there(observed.backup):
        return operation.fail(Fail(reason, f"Cannot restore the backup to a scratch volume: {message}"))
    at, cause = restore.status.completed_at or now, f"The backup cannot be restored: {message}"
    damage = _Damage(Reason.DAMAGED, cause, at, objects[:NAMED_OBJECTS], max(1, len(objects)))
    return _damaged(observed, operation, damage)


def _is_there(backup: VolumeBackup | None) -> bool:
    """Return whether the chosen backup still exists. One that is being deleted may lack objects."""
    return backup is not None and backup.is_complete and not backup.metadata.is_being_deleted


def _check(
    observed: ObservedVerification, drill: ObservedDrill, restore: VolumeRestore, operation: Operation, now: datetime
) -> Decision:
    """Create the Job of the check, or evaluate it."""
    job, recorded = drill.job, operation.status.mover.uid if operation.status.mover is not None else ""
    if job is None:
        return _start_check(observed, drill, restore, operation, now)
    if job.uid != recorded:
        # The operator may have died right after it had created the Job. Anybody else's Job could claim anything.
        wait = Wait(Reason.CHECK_PENDING, "A check that the status does not record is being removed")
        removal = () if job.metadata.is_being_deleted else (DeleteChild("Job", job.name, job.uid),)
        return operation.wait(replace(wait, requeue_after=MIN_REQUEUE_SECONDS), removal)
    verdict = check_state.evaluate(drill, observed.policy.deadlines)
    if not isinstance(verdict, check_state.Ended):
        return _timed(observed, restore, operation, verdict, now)
    shown = {"check_exit_code": verdict.exit_code, "check_message": verdict.message or None}
    ended = operation.status.model_copy(update=shown)
    operation = replace(operation, status=ended)
    at = verdict.at or restore.status.completed_at
    if verdict.exit_code == 0:
        return _verified(observed, operation, at, " Its check passed.")
    container = f" of container {verdict.container}" if verdict.container else ""
    message = (
        f"The backup was restored, but its check failed with exit code {verdict.exit_code}{container}. The data is not"
        " what the check expects. Compare the data of the volume and of older backups, and test the check."
    )
    return _damaged(observed, operation, _Damage(Reason.CHECK_FAILED, message, at or now))


def _start_check(
    observed: ObservedVerification, drill: ObservedDrill, restore: VolumeRestore, operation: Operation, now: datetime
) -> Decision:
    claim = drill.claim
    if claim is None or claim.metadata.is_being_deleted or not claim.metadata.is_owned_by(restore.uid):
        return operation.fail(Fail(Reason.CHECK_INTERRUPTED, "Somebody deleted the restored scratch volume."))
    refused, seconds = checks.check_may_run(observed), _seconds_left(observed, restore, now)
    if refused is not None:
        return operation.apply(refused)
    if drill.cron_job is None or seconds <= 0:
        wait = Wait(Reason.CHECK_PENDING, "The check has not started")
        return _timed(observed, restore, operation, wait, now)
    verification, mode = observed.verification, claim.spec.volume_mode
    body = check_job.check_job(verification, drill.cron_job, claim.name, mode, seconds)
    note = f"Job {body['metadata']['name']} checks the restored data"
    limit = observed.policy.deadlines.mover_start
    wait = Wait(Reason.CHECK_PENDING, "The check is being started", limit=limit, requeue_after=MIN_REQUEUE_SECONDS)
    return operation.wait(wait, (CreateChild("Job", body), RecordEvent("Normal", Reason.CHECK_RUNNING, note)))


def _with_restore(status: ReportedStatus, restore: VolumeRestore) -> ReportedStatus:
    """Return the status with what the restore has shown: above all, how long it took."""
    shown = restore.status
    return status.model_copy(update={"restored_bytes": shown.restored_bytes, "restore_duration": shown.duration})


def _with_reference(decision: Decision, observed: ObservedVerification, restore: VolumeRestore) -> Decision:
    """Record the present child as long as the drill runs. It holds the slot of the verification."""
    status = decision.status
    if not isinstance(status, BackupVerificationStatus) or status.phase is not VerificationPhase.VERIFYING:
        return decision
    before = observed.verification.status.mover if observed.verification.own_phase is not None else None
    store = observed.store.store.name if observed.store.store is not None else None
    known = before or MoverReference(uid=restore.uid, store_name=store)
    return replace(decision, status=status.model_copy(update={"mover": known, "progress": restore.status.progress}))


def _verified(observed: ObservedVerification, operation: Operation, at: datetime | None, check: str) -> Decision:
    status, verification = operation.status, observed.verification
    took = status.restore_duration if isinstance(status, BackupVerificationStatus) else None
    message = f"Backup {operation_backup(operation)} was restored, and every byte was verified, in {took}.{check}"
    generation = verification.metadata.generation
    update: dict[str, Any] = {
        "phase": VerificationPhase.VERIFIED,
        "progress": None,
        "mover": None,
        "fail_reason": None,
        "conditions": conditions.ready(
            status.conditions, operation.now, generation, Reason.VERIFIED, message.rstrip(".")
        ),
    }
    event = RecordEvent("Normal", Reason.VERIFIED, message)
    changes = _changes(observed, at or operation.now)
    return Decision(status.model_copy(update=update), (*changes, event), requeue_after=0.0)


def _damaged(observed: ObservedVerification, operation: Operation, damage: _Damage) -> Decision:
    before, generation = operation.status.conditions, observed.verification.metadata.generation
    update: dict[str, Any] = {
        "phase": VerificationPhase.DAMAGED,
        "progress": None,
        "mover": None,
        "fail_reason": fail_reason(damage.message),
        "objects": list(damage.objects),
        "damaged_objects": damage.count,
        "conditions": conditions.stalled(before, operation.now, generation, damage.reason, damage.message),
    }
    changes = _changes(observed, damage.at, damage)
    event = RecordEvent("Warning", damage.reason, damage.message)
    return Decision(operation.status.model_copy(update=update), (*changes, event), requeue_after=0.0)


def _changes(observed: ObservedVerification, at: datetime, damage: _Damage | None = None) -> tuple[Action, ...]:
    """Return the write that records the result in the VolumeBackup. One that is being deleted needs no record."""
    backup = observed.backup
    backup_id = stored_id(backup) if backup is not None and _is_there(backup) else None
    if backup is None or backup_id is None:
        return ()
    finding = Finding(
        level=VerificationLevel.RESTORE,
        at=at,
        began=observed.verification.status.started_at or at,
        backup_id=backup_id,
        damaged=damage.objects if damage is not None else (),
        damaged_count=damage.count if damage is not None else 0,
        affected=frozenset({backup_id}) if damage is not None else frozenset(),
        affected_count=int(damage is not None),
    )
    change = change_of(backup, finding)
    return (change,) if change is not None else ()


def cleanup(observed: ObservedVerification) -> tuple[Action, ...]:
    """Return the next actions that remove what a drill has created.

    The check goes first, since its pod uses the volume. The VolumeRestore stops its mover, and removes its claims. An
    ended one is gone at once, and then the claim is removed here.
    """
    drill, owner = observed.drill or ObservedDrill(), observed.verification
    if children.belongs_to(drill.job, owner):
        is_going = drill.job.metadata.is_being_deleted
        return () if is_going else (DeleteChild("Job", drill.job.name, drill.job.uid),)
    if _has_pods(drill):
        return ()
    if children.belongs_to(drill.restore, owner):
        is_going = drill.restore.metadata.is_being_deleted
        return () if is_going else (DeleteChild("VolumeRestore", drill.restore.name, drill.restore.uid),)
    claim = drill.claim
    if _is_scratch(claim, owner) and not claim.metadata.is_being_deleted:
        return (DeleteChild("PersistentVolumeClaim", claim.name, claim.uid),)
    return ()


def remains(observed: ObservedVerification) -> bool:
    """Return whether anything that a drill has created still exists."""
    drill, owner = observed.drill or ObservedDrill(), observed.verification
    has_children = children.belongs_to(drill.job, owner) or children.belongs_to(drill.restore, owner)
    return has_children or _has_pods(drill) or _is_scratch(drill.claim, owner)


def _has_pods(drill: ObservedDrill) -> bool:
    return any(not pod.has_ended for pod in drill.pods)


def _is_scratch(claim: PersistentVolumeClaim | None, owner: BackupVerification) -> TypeGuard[PersistentVolumeClaim]:
    """Return whether a claim is the scratch claim of a drill: only a VolumeRestore of the drill creates it."""
    if claim is None or claim.name != labels.child_name(owner.uid):
        return False
    marks = claim.metadata.labels
    is_ours = marks.get(labels.MANAGED_BY_LABEL) == labels.MANAGED_BY
    return is_ours and marks.get(labels.OWNER_KIND_LABEL) == "VolumeRestore"
