"""What a check says about going on: nothing, wait, or fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cinderblock.api.conditions import Condition
from cinderblock.errors import CinderblockError, InvalidInput, fail_reason
from cinderblock.lifecycle import conditions


@dataclass(frozen=True, slots=True)
class Fail:
    """The operation ends in error. ``reason`` is stable, ``message`` is for a person and goes to failReason."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The operation waits.

    Attributes:
        reason: stable CamelCase word.
        message: what is awaited.
        since: when the waiting began; None: when this reason was first reported.
        limit: for how long it may go on before the operation ends in error; None: for as long as it takes.
        look_again: seconds until the world is read again even if nothing is heard.
    """

    reason: str
    message: str
    since: datetime | None = None
    limit: timedelta | None = None
    requeue_after: float = 10.0


Verdict = Fail | Wait | None


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long an operation may wait for things that others must do.

    Attributes:
        volume: for a claim to be bound (who applies it together with its backup, or with the pod that it is bound for),
            and for one that is being deleted to be gone.
        detach: for a volume to be detached from the nodes that no pod uses it on any more. Kubernetes itself gives up
            on a node that does not answer after 6 minutes (attach-detach controller, maxWaitForUnmountDuration).
        store: for an endpoint that does not answer.
        snapshot: for a VolumeSnapshot to become ready (Velero: 10 minutes; full copies on some drivers need longer).
        mover_start: for the mover's pod to run: a node, its volumes, its image.
        stall: without progress until that is said of a running mover.
        stalled: after that until it is given up: a volume that hangs does not come back by waiting.
        rebind: for a restored volume to be bound under its final name.
        deletion: for a mover to stop and for stored data to be removed, before the phase becomes error_deleting or
            error_restoring; retries go on after it.
    """

    volume: timedelta = timedelta(minutes=10)
    detach: timedelta = timedelta(minutes=10)
    store: timedelta = timedelta(minutes=5)
    snapshot: timedelta = timedelta(minutes=30)
    mover_start: timedelta = timedelta(minutes=15)
    stall: timedelta = timedelta(minutes=10)
    stalled: timedelta = timedelta(hours=6)
    rebind: timedelta = timedelta(minutes=5)
    deletion: timedelta = timedelta(minutes=5)


def is_overdue(wait: Wait, since: datetime, now: datetime) -> bool:
    """Whether ``wait`` has gone on for longer than it may."""
    return wait.limit is not None and now - (wait.since or since) > wait.limit


def expire(wait: Wait, old: list[Condition], now: datetime) -> Fail | Wait:
    """A wait that has gone on for too long is a failure with the same reason."""
    since = conditions.waiting_since(old, wait.reason) or now
    if is_overdue(wait, since, now):
        limit = wait.limit or timedelta()
        return Fail(wait.reason, f"{wait.message} (waited {int(limit.total_seconds())} s)")
    return wait


def from_api_error(error: CinderblockError, deadlines: Deadlines) -> Fail | Wait:
    """What a refusal of the API server means: an invalid object stays invalid; a quota or a policy may be changed."""
    if isinstance(error, InvalidInput):
        return Fail(error.reason, error.message)
    return Wait(error.reason, error.message, limit=deadlines.mover_start, requeue_after=30.0)


def wait_message(wait: Wait, old: list[Condition], now: datetime) -> str:
    """The message of a wait, with the instant until which it may go on."""
    if wait.limit is None:
        return wait.message
    since = wait.since or conditions.waiting_since(old, wait.reason) or now
    return f"{wait.message} (until {since + wait.limit:%Y-%m-%dT%H:%M:%SZ})"


def fail_message(fail: Fail) -> str:
    """A failure as failReason."""
    return fail_reason(fail.message)
