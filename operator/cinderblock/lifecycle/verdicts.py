"""What a check says about going on: nothing, wait, or fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


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
    look_again: float = 10.0


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


def overdue(wait: Wait, since: datetime, now: datetime) -> bool:
    """Whether ``wait`` has gone on for longer than it may."""
    return wait.limit is not None and now - (wait.since or since) > wait.limit
