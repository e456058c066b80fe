"""How a verdict looks in a status: the parts that backups and restores share."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeGuard, TypeVar

from cinderblock.api import labels
from cinderblock.api.conditions import Condition
from cinderblock.api.kubernetes import Job, PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.meta import Object
from cinderblock.api.mover import MoverReport
from cinderblock.errors import CinderblockError, InvalidInput, fail_reason
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import Action, Announce, DeleteChild
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Wait, overdue

Child = TypeVar("Child", bound=Object)


def settle(wait: Wait, old: list[Condition], now: datetime) -> Fail | Wait:
    """A wait that has gone on for too long is a failure with the same reason."""
    since = conditions.waiting_since(old, wait.reason) or now
    if overdue(wait, since, now):
        limit = wait.limit or timedelta()
        return Fail(wait.reason, f"{wait.message} (waited {int(limit.total_seconds())} s)")
    return wait


def from_refusal(error: CinderblockError, deadlines: Deadlines) -> Fail | Wait:
    """What a refusal of the API server means: an invalid object stays invalid; a quota or a policy may be changed."""
    if isinstance(error, InvalidInput):
        return Fail(error.reason, error.message)
    return Wait(error.reason, error.message, limit=deadlines.mover_start, look_again=30.0)


def awaited(wait: Wait, old: list[Condition], now: datetime) -> str:
    """The message of a wait, with the instant until which it may go on."""
    if wait.limit is None:
        return wait.message
    since = wait.since or conditions.waiting_since(old, wait.reason) or now
    return f"{wait.message} (until {since + wait.limit:%Y-%m-%dT%H:%M:%SZ})"


def said(fail: Fail) -> str:
    """A failure as failReason."""
    return fail_reason(fail.message)


def losses(report: MoverReport | None) -> tuple[Action, ...]:
    """An Event about what a mover could not keep: sockets skipped, owners that may not be set."""
    return (Announce("Warning", "NotAllKept", " ".join(report.warnings)),) if report and report.warnings else ()


def cleanup(
    owner: str, job: Job | None, exposed: PersistentVolumeClaim | None, snapshot: VolumeSnapshot | None
) -> tuple[Action, ...]:
    """Remove what was made for one run. The Job goes first: it uses the claim, which was made from the snapshot.

    What only has a child's name, and not the ``owner`` with this UID, is somebody else's and stays.
    """
    actions: list[Action] = []
    if is_ours(job, owner) and (not job.metadata.is_being_deleted or labels.JOB_FINALIZER in job.metadata.finalizers):
        actions.append(DeleteChild("Job", job.name, job.uid))
    if is_ours(exposed, owner) and not exposed.metadata.is_being_deleted:
        actions.append(DeleteChild("PersistentVolumeClaim", exposed.name, exposed.uid))
    if is_ours(snapshot, owner) and not snapshot.metadata.is_being_deleted:
        actions.append(DeleteChild("VolumeSnapshot", snapshot.name, snapshot.uid))
    return tuple(actions)


NODE_LOST = (
    "The mover was told to stop and has not: {pods}. Nothing else touches its volume before it has. If that node is off"
    " for good, taint it with node.kubernetes.io/out-of-service, or delete the pod with --force."
)
"""Only who sees the machine can say that nothing runs on it any more; a Kubernetes that guesses corrupts volumes."""


def is_ours(child: Child | None, owner: str) -> TypeGuard[Child]:
    """Whether there is a child, and the object with the UID ``owner`` owns it."""
    return child is not None and child.metadata.is_owned_by(owner)
