"""The result of a check: pass (None), wait, or fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cinderblock.api.conditions import Condition
from cinderblock.errors import CinderblockError, InvalidInput
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.mover.refusals import remedy_for
from cinderblock.reasons import AnyReason, Reason


@dataclass(frozen=True, slots=True)
class Fail:
    """The operation ends in error; ``message`` is for a person and becomes the failReason."""

    reason: AnyReason
    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The operation waits.

    Attributes:
        reason: the reason of condition Reconciling.
        message: what the operation waits for.
        since: when the wait began; None: when its reason was first reported.
        limit: the longest time to wait before the operation fails; None: no limit.
        requeue_after: seconds until the next reconciliation if no event triggers one earlier.
    """

    reason: AnyReason
    message: str
    since: datetime | None = None
    limit: timedelta | None = None
    requeue_after: float = 10.0


Verdict = Fail | Wait | None


def too_many_objects(count: int, limit: int, kind: str) -> Wait | None:
    """Wait while a namespace has more objects than the operator works on."""
    if count <= limit:
        return None
    message = f"The namespace has more than {limit} {kind}s. The operator begins no new ones until you delete some."
    return Wait(Reason.TOO_MANY_OBJECTS, message, requeue_after=60.0)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long an operation waits for the work of others.

    Attributes:
        volume: until a claim is bound, or a claim that is being deleted is gone. Users apply claims together with their
            backups, or with the pods that the claims wait for.
        detach: until a volume is detached from nodes on which no pod uses it. Kubernetes gives up on a node that does
            not answer after 6 minutes (attach-detach controller, maxWaitForUnmountDuration).
        grant: until a BackupGrant permits a restore. People apply both together, or in two repositories.
        store: until an endpoint answers.
        snapshot: until a VolumeSnapshot is ready (Velero: 10 minutes; full copies on some drivers take longer).
        mover_start: until the mover's pod has a node, and then until it runs with its volumes and its image.
        stall: without progress until a running mover counts as stalled.
        stalled: until a stalled mover fails: waiting longer does not help a volume that hangs.
        rebind: until a restored volume is bound to the requested claim.
        deletion: until a mover stops and stored data is removed. After that the phase is error_deleting or
            error_restoring, and the retries continue.
    """

    volume: timedelta = timedelta(minutes=10)
    detach: timedelta = timedelta(minutes=10)
    grant: timedelta = timedelta(minutes=10)
    store: timedelta = timedelta(minutes=5)
    snapshot: timedelta = timedelta(minutes=30)
    mover_start: timedelta = timedelta(minutes=15)
    stall: timedelta = timedelta(minutes=10)
    stalled: timedelta = timedelta(hours=6)
    rebind: timedelta = timedelta(minutes=5)
    deletion: timedelta = timedelta(minutes=5)


def is_overdue(wait: Wait, since: datetime, now: datetime) -> bool:
    """Return whether ``wait`` has exceeded its limit."""
    return wait.limit is not None and now - (wait.since or since) > wait.limit


def expire(wait: Wait, before: list[Condition], now: datetime) -> Fail | Wait:
    """Return ``wait``, or a failure with the same reason if it has exceeded its limit."""
    since = conditions.waiting_since(before, wait.reason) or now
    if is_overdue(wait, since, now):
        limit = wait.limit or timedelta()
        return Fail(wait.reason, f"{wait.message} (waited {int(limit.total_seconds())} s)")
    return wait


def from_api_error(error: CinderblockError, deadlines: Deadlines) -> Fail | Wait:
    """Return the verdict on a rejected action. Invalid objects stay invalid; quotas and policies may change."""
    if isinstance(error, InvalidInput):
        return Fail(error.reason, error.message)
    remedy = remedy_for(error.message)
    message = f"{error.message.rstrip('.')}. {remedy}" if remedy else error.message
    return Wait(error.reason, message, limit=deadlines.mover_start, requeue_after=30.0)


def wait_message(wait: Wait, before: list[Condition], now: datetime) -> str:
    """Return the message of a wait with the instant at which it expires."""
    if wait.limit is None:
        return wait.message
    since = wait.since or conditions.waiting_since(before, wait.reason) or now
    return f"{wait.message} (until {since + wait.limit:%Y-%m-%dT%H:%M:%SZ})"
