"""The decisions that all operations share: wait, fail, and reject objects of somebody else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from cinderblock.api.kubernetes import Job, PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackupStatus
from cinderblock.api.v1alpha1.backup_grant import BackupGrantStatus
from cinderblock.api.v1alpha1.progress import MoverReference
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore, VolumeRestoreStatus
from cinderblock.api.v1alpha1.restore_source import RestoreSourceStatus
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreStatus
from cinderblock.api.v1alpha1.verification import BackupVerificationStatus, VerificationPhase
from cinderblock.errors import fail_reason
from cinderblock.lifecycle import completion, conditions, verdicts
from cinderblock.lifecycle.actions import Action, Decision, DeleteChild, RecordEvent
from cinderblock.lifecycle.children import Owner
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.mover import suspension
from cinderblock.lifecycle.mover.state import ReportedStatus
from cinderblock.lifecycle.observed import (
    ObservedBackup,
    ObservedMover,
    ObservedRestore,
    ObservedVerification,
    OperatorPolicy,
    StoreLookup,
)
from cinderblock.lifecycle.store import movers
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.reasons import Reason

_PHASES: Final[Mapping[str, tuple[str, str]]] = {
    "VolumeBackup": (BackupPhase.CREATING, BackupPhase.ERROR),
    "VolumeRestore": (RestorePhase.RESTORING, RestorePhase.ERROR_RESTORING),
    "BackupVerification": (VerificationPhase.VERIFYING, VerificationPhase.ERROR),
}
"""The phase of an operation in progress, and that of a failed one, by kind."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A backup, a restore or a verification in progress.

    Attributes:
        owner: the VolumeBackup, VolumeRestore or BackupVerification.
        status: its status before the outcome of this decision is added.
        mover: its mover Job.
        now: the instant of the decision.
    """

    owner: Owner
    status: ReportedStatus
    mover: ObservedMover
    now: datetime

    def apply(self, verdict: Fail | Wait) -> Decision:
        """Return the decision that follows from a verdict. A wait that has exceeded its limit fails."""
        if isinstance(verdict, Wait):
            verdict = verdicts.expire(verdict, self.status.conditions, self.now)
        return self.fail(verdict) if isinstance(verdict, Fail) else self.wait(verdict)

    def wait(self, wait: Wait, actions: tuple[Action, ...] = ()) -> Decision:
        """Return the decision to execute ``actions`` and to wait."""
        before = self.status.conditions
        message = verdicts.wait_message(wait, before, self.now)
        generation = self.owner.metadata.generation
        status = self.status.model_copy(
            update={
                "phase": _PHASES[self.owner.kind][0],
                "progress": mover_state.to_progress(self.mover.progress) or self.status.progress,
                "mover": mover_state.reference(self.status, self.mover),
                "conditions": conditions.reconciling(before, self.now, generation, wait.reason, message),
            }
        )
        return Decision(status, actions, wait.requeue_after)

    def follow_mover(self, policy: OperatorPolicy) -> mover_state.Succeeded | Decision:
        """Start a suspended mover, or evaluate a running one. Return its success, or the decision to wait or fail."""
        start = suspension.start(self.mover)
        if start is not None:
            return self.wait(mover_state.starting(policy), (start,))
        verdict = mover_state.evaluate(self.mover, policy)
        if isinstance(verdict, mover_state.Succeeded):
            return verdict
        verdict = mover_state.check_injected(verdict, self.mover, self.now)
        return self.apply(mover_state.check_stall(verdict, self.mover, self.status, self.now, policy.deadlines))

    def adopt_mover(self, policy: OperatorPolicy, store: StoreLookup) -> Decision:
        """Record a mover Job that the status does not record, if the limits allow one more mover; else remove it.

        The operator may have died right after it had created the Job. Anybody in the namespace can create such a Job,
        too, so it must gain nothing by that: it waits for a slot as a Job does that is yet to be created. The store is
        checked as before a start, too.
        """
        job = self.mover.job
        if job is None or store.store is None:
            unknown = "Cannot continue with the mover: its BackupStore is unknown."
            return self.fail(Fail(store.missing_reason, store.missing or unknown))
        writes = self.owner.kind == "VolumeBackup"
        held = movers.before_start(store, policy, writes=writes) or mover_state.wait_for_slot(
            self.mover, policy, store.store
        )
        if held is not None:
            decision = self.apply(held)
            return replace(decision, actions=(*decision.actions, DeleteChild("Job", job.name, job.uid)))
        adopted = self.wait(replace(mover_state.starting(policy), requeue_after=0.0))
        return with_mover(adopted, job.uid, store.store)

    def wait_for_claim(
        self, claim: PersistentVolumeClaim, late_classes: Collection[str], policy: OperatorPolicy, meanwhile: Wait
    ) -> Decision | None:
        """Return the decision to wait until the temporary claim can be mounted; None if it can.

        A claim is usually bound within seconds. Until it takes long, the status is that of ``meanwhile``.
        """
        unbound = mover_state.wait_for_claim(claim, late_classes, self.mover, policy)
        if unbound is None:
            return None
        is_late = unbound.since is None or self.now - unbound.since >= mover_state.LATE_CLAIM_AGE
        return self.apply(unbound) if is_late else self.stay(meanwhile)

    def stay(self, wait: Wait, actions: tuple[Action, ...] = ()) -> Decision:
        """Return the decision to wait, without a new status if the present one has the reason already."""
        if conditions.waiting_since(self.status.conditions, wait.reason) is not None:
            return Decision(None, actions, wait.requeue_after)
        return self.wait(wait, actions)

    def fail(self, fail: Fail) -> Decision:
        """Return the decision to end the operation in error."""
        before, generation = self.status.conditions, self.owner.metadata.generation
        status = self.status.model_copy(
            update={
                "phase": _PHASES[self.owner.kind][1],
                "fail_reason": fail_reason(fail.message),
                "progress": None,
                "mover": None,
                "conditions": conditions.stalled(before, self.now, generation, fail.reason, fail.message),
            }
        )
        return Decision(status, (RecordEvent("Warning", fail.reason, fail.message),), requeue_after=0.0)


def with_mover(decision: Decision, uid: str, store: BackupStore) -> Decision:
    """Return the decision with the UID of a mover Job recorded in its status."""
    if decision.status is None or isinstance(
        decision.status, BackupStoreStatus | BackupGrantStatus | RestoreSourceStatus
    ):
        return decision
    recorded = MoverReference(uid=uid, store_name=store.name)
    return replace(decision, status=decision.status.model_copy(update={"mover": recorded}))


def foreign_child(
    owner: Owner, *children: VolumeSnapshot | PersistentVolumeClaim | VolumeRestore | Job | None
) -> Fail | None:
    """Return the failure of an operation if somebody else owns an object with the name of one of its children.

    Such an object is neither changed nor used.
    """
    for child in children:
        if child is not None and not child.metadata.is_owned_by(owner.uid):
            kind = type(child).__name__
            cause = f"Cannot create {kind} {child.name}: an object of this name exists, and {owner.kind} {owner.name}"
            return Fail(Reason.NAME_TAKEN, f"{cause} does not own it. Delete it.")
    return None


def stamp(
    decision: Decision, observed: ObservedBackup | ObservedRestore | ObservedVerification, now: datetime
) -> Decision:
    """Return the decision with updatedAt and completedAt set, or with the previous status if nothing else changes."""
    status: ReportedStatus
    before: ReportedStatus
    if isinstance(observed, ObservedBackup) and isinstance(decision.status, VolumeBackupStatus):
        before, status = observed.backup.status, completion.complete_backup(observed, decision.status, now)
    elif isinstance(observed, ObservedRestore) and isinstance(decision.status, VolumeRestoreStatus):
        before, status = observed.restore.status, completion.complete_restore(observed, decision.status, now)
    elif isinstance(observed, ObservedVerification) and isinstance(decision.status, BackupVerificationStatus):
        before = observed.verification.status
        status = completion.complete_verification(observed.verification, decision.status, now)
    else:
        return decision
    is_unchanged = status.model_copy(update={"updated_at": before.updated_at}) == before
    stamped = before if is_unchanged else status.model_copy(update={"updated_at": now})
    return Decision(stamped, decision.actions, decision.requeue_after)
