"""Decisions about the mover that copies the backups of a store, and about the start of the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.mover import CopyResult
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, CopyMover, CopyStatus
from cinderblock.errors import fail_reason
from cinderblock.lifecycle import children
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS, Action
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.mover import suspension
from cinderblock.lifecycle.observed import ObservedMover, OperatorPolicy
from cinderblock.lifecycle.verdicts import Fail, Wait, is_overdue
from cinderblock.reasons import AnyReason, Reason

FIRST_RETRY: Final = timedelta(minutes=1)
LAST_RETRY: Final = timedelta(hours=1)
"""Time until another mover starts after a failure: it doubles from the first to the last."""


@dataclass(frozen=True, slots=True)
class Continues:
    """The mover works, or is about to.

    Attributes:
        mover: what the status records about it.
        actions: the actions that let it start.
    """

    mover: CopyMover
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The mover has ended, and its Job can go when the results are recorded.

    Attributes:
        results: what became of each backup that it reached.
        at: when it ended.
        failure: why it failed as a whole; None: it did not.
    """

    results: Sequence[CopyResult]
    at: datetime
    failure: Fail | None = None


def follow(store: BackupStore, mover: ObservedMover, policy: OperatorPolicy, now: datetime) -> Continues | Ended:
    """Start a suspended mover of copies, or evaluate a running one. Its Job exists, and the status records it.

    A store that spec.copies no longer names, and a BackupStore in deletion, end the mover.
    """
    recorded, job = store.status.copy_mover, mover.job
    if recorded is None or job is None:
        raise ValueError("there is no recorded mover of copies")
    report = mover_state.success(mover)
    if report is not None:
        return Ended(report.copies, _ended_at(mover, now))
    if store.metadata.is_being_deleted or not _is_wanted(store, recorded.store_name):
        return Ended((), now)
    start = suspension.start(mover)
    if start is not None:
        return Continues(recorded, (start,))
    verdict = mover_state.evaluate(mover, policy)
    if isinstance(verdict, mover_state.Succeeded):
        return Ended((), now, Fail(Reason.MOVER_FAILED, "The mover ended without a report: its pod is gone."))
    verdict = mover_state.check_injected(verdict, mover, now)
    if isinstance(verdict, Wait) and is_overdue(verdict, job.metadata.creation_timestamp or now, now):
        verdict = Fail(verdict.reason, verdict.message)
    if isinstance(verdict, Fail):
        return Ended((), _ended_at(mover, now), verdict)
    return Continues(_with_progress(recorded, mover))


def must_discard(store: BackupStore, mover: ObservedMover) -> bool:
    """Return whether there is a Job that the status does not record.

    The operator may have died right after it had created the Job, which has not started then. Anybody else who creates
    such a Job could report anything, so its results never count.
    """
    recorded = store.status.copy_mover
    return mover.job is not None and (recorded is None or recorded.uid != mover.job.uid)


def removal(store: BackupStore, mover: ObservedMover) -> tuple[Action, ...]:
    """Return the actions that remove the Job. An object of somebody else is left alone."""
    return children.cleanup(store, children.Children(job=mover.job))


def _is_wanted(store: BackupStore, name: str) -> bool:
    return any(rule.store_name == name for rule in store.spec.copies)


def _with_progress(recorded: CopyMover, mover: ObservedMover) -> CopyMover:
    progress = mover_state.to_progress(mover.progress)
    percent = progress.percent if progress is not None else recorded.progress_percent
    return recorded.model_copy(update={"progress_percent": percent})


def _ended_at(mover: ObservedMover, now: datetime) -> datetime:
    """Return when the newest pod ended, the same in each reconciliation."""
    pods = [pod.terminated for pod in mover.pods if pod.terminated is not None]
    found = pods[-1].finished_at if pods else None
    return (found or now).replace(microsecond=0)


def after_success(status: CopyStatus) -> CopyStatus:
    """Return the numbers of a store after a mover that has reported."""
    return status.model_copy(update={"failures": 0, "retry_at": None, "fail_reason": None})


def after_failure(status: CopyStatus, reason: AnyReason, message: str, now: datetime) -> CopyStatus:
    """Return the numbers of a store after a failure as a whole, with the time of the next attempt."""
    delay = min(FIRST_RETRY * 2 ** min(status.failures, 16), LAST_RETRY)
    return status.model_copy(
        update={
            "failures": status.failures + 1,
            "retry_at": (now + delay).replace(microsecond=0),
            "fail_reason": fail_reason(f"{reason}: {message}"),
        }
    )


def choose(
    statuses: Mapping[str, CopyStatus], batches: Mapping[str, Sequence[VolumeBackup]], now: datetime
) -> str | None:
    """Return the name of the store that gets copies next; None: none can get any now.

    The one whose oldest backup has waited longest comes first. A store that waits after a failure holds up no other.

    Args:
        statuses: numbers of the stores of spec.copies that can get copies, by name.
        batches: the backups to copy next, by name.
        now: the instant of the decision.
    """
    due = [name for name in statuses if batches.get(name) and _may_retry(statuses[name], now)]
    return min(due, key=lambda name: (statuses[name].oldest_pending or now, name), default=None)


def next_step_seconds(statuses: Sequence[CopyStatus], now: datetime, survey_seconds: float) -> float:
    """Return the seconds until the next step: the next attempt after a failure, but at most until the next survey."""
    waits = [(status.retry_at - now).total_seconds() for status in statuses if status.retry_at and status.pending]
    return max(MIN_REQUEUE_SECONDS, min([survey_seconds, *waits]))


def _may_retry(status: CopyStatus, now: datetime) -> bool:
    return status.retry_at is None or status.retry_at <= now
