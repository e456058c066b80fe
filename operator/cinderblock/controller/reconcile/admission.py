"""Who may start a mover next, so that limits hold and nobody starves.

An answer of the API server is a moment old when something is decided: two workers may each see room for one more
mover, and start one each. What was started here counts until the server shows it, and whoever was told to wait is
before everybody younger. Nothing of it matters for long, and nothing has to survive a restart: a mover that was started
is a Job, and whoever waits comes back and is told so again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.actions import CreateChild, Decision
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedMover, RunningMover
from cinderblock.lifecycle.volume_lock import age_key
from cinderblock.reasons import Reason

EXPECTATION_SECONDS = 30.0
"""Seconds after which a mover that was started is in every list of Jobs, or was never created (a call's time limit)."""
RETURN_SECONDS = 2.0
"""Whoever does not come back in so many times the interval that it was told is not waiting any more."""

Operation = VolumeBackup | VolumeRestore
Age = tuple[datetime | None, str]


def loop_time() -> float:
    """Seconds, as the event loop counts them."""
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class QueuedMover:
    """An operation in line.

    Attributes:
        age: its place.
        store: UID of the BackupStore that it is to use.
        for_store_only: whether only that store's own limit keeps it waiting, so that it is in nobody else's way.
        until: when it should have come back.
    """

    age: Age
    store: str
    for_store_only: bool
    until: float


@dataclass(slots=True)
class MoverAdmission:
    """Operations that wait for a mover, and movers that were started a moment ago. For one event loop."""

    clock: Callable[[], float] = loop_time
    _started: dict[str, tuple[RunningMover, float]] = field(default_factory=dict)
    _queued: dict[str, QueuedMover] = field(default_factory=dict)

    def observe(self, me: Operation, view: ObservedMover, store: BackupStore | None) -> ObservedMover:
        """What ``me`` has to know of the others, beyond what the API server said. Asked right before deciding."""
        if view.job is not None or store is None:
            return view
        now, mine = self.clock(), age_key(me)
        self._started = {uid: entry for uid, entry in self._started.items() if entry[1] > now}
        self._queued = {uid: waiting for uid, waiting in self._queued.items() if waiting.until > now}
        started = {mover for mover, _ in self._started.values() if mover.owner != me.uid}
        before = [waiting for uid, waiting in self._queued.items() if uid != me.uid and waiting.age < mine]
        return replace(
            view,
            others=view.others | started,
            waiting_before=sum(not waiting.for_store_only for waiting in before),
            waiting_before_for_store=sum(waiting.store == store.uid for waiting in before),
        )

    def record(
        self, me: Operation, view: ObservedMover, store: BackupStore | None, decision: Decision, limit: int
    ) -> None:
        """Take note of what was decided, before anybody else decides."""
        self._queued.pop(me.uid, None)
        if store is None:
            self._started.pop(me.uid, None)
        elif any(isinstance(action, CreateChild) and action.kind == "Job" for action in decision.actions):
            self._started[me.uid] = RunningMover(me.uid, store.uid), self.clock() + EXPECTATION_SECONDS
        elif _is_queued(decision):
            until = self.clock() + RETURN_SECONDS * (decision.requeue_after or 0.0)
            self._queued[me.uid] = QueuedMover(age_key(me), store.uid, mover_state.has_room(view, limit), until)
        elif view.job is None or view.job.is_complete or view.job.failure is not None:
            self._started.pop(me.uid, None)


def _is_queued(decision: Decision) -> bool:
    conditions = decision.status.conditions if decision.status is not None else []
    return any(c.type == "Reconciling" and c.reason == Reason.QUEUED for c in conditions)
