"""Which operation may start a mover next, so that limits hold and none starves.

An observation is a moment old when a decision uses it: two workers may each see room for one more mover, and start one
each. So a mover started here counts until the API server lists it, which client-go calls an expectation. A queued
operation goes before all younger ones. None of it matters for long or must survive a restart: a started
mover is a Job, and a waiting operation comes back and is queued again.
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
"""Seconds after which every list shows a started mover, or it was never created: the time limit of a request."""
RETURN_FACTOR = 2.0
"""An operation that does not return within this multiple of its requeue interval no longer counts as waiting."""

Operation = VolumeBackup | VolumeRestore
Age = tuple[datetime | None, str]


def loop_time() -> float:
    """Return the time of the event loop."""
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class QueuedMover:
    """An operation that waits for a mover.

    Attributes:
        age: its place among the waiting operations.
        store: UID of the BackupStore that it uses.
        for_store_only: whether it waits only for a slot of that store, and so blocks no operation on another store.
        until: when it must have returned to keep its place.
    """

    age: Age
    store: str
    for_store_only: bool
    until: float


@dataclass(slots=True)
class MoverAdmission:
    """Operations that wait for a mover, and movers started a moment ago. For one event loop."""

    clock: Callable[[], float] = loop_time
    _started: dict[str, tuple[RunningMover, float]] = field(default_factory=dict)
    _queued: dict[str, QueuedMover] = field(default_factory=dict)

    def observe(self, operation: Operation, mover: ObservedMover, store: BackupStore | None) -> ObservedMover:
        """Return the observed mover with what the API server does not show yet. Call it right before deciding."""
        if mover.job is not None or store is None:
            return mover
        now, age = self.clock(), age_key(operation)
        self._started = {uid: entry for uid, entry in self._started.items() if entry[1] > now}
        self._queued = {uid: waiting for uid, waiting in self._queued.items() if waiting.until > now}
        started = {running for running, _ in self._started.values() if running.owner != operation.uid}
        before = [waiting for uid, waiting in self._queued.items() if uid != operation.uid and waiting.age < age]
        return replace(
            mover,
            others=mover.others | started,
            waiting_before=sum(not waiting.for_store_only for waiting in before),
            waiting_before_for_store=sum(waiting.store == store.uid for waiting in before),
        )

    def record(
        self, operation: Operation, mover: ObservedMover, store: BackupStore | None, decision: Decision, limit: int
    ) -> None:
        """Take note of a decision, before any other worker decides."""
        self._queued.pop(operation.uid, None)
        if store is None:
            self._started.pop(operation.uid, None)
        elif any(isinstance(action, CreateChild) and action.kind == "Job" for action in decision.actions):
            self._started[operation.uid] = RunningMover(operation.uid, store.uid), self.clock() + EXPECTATION_SECONDS
        elif _is_queued(decision):
            until = self.clock() + RETURN_FACTOR * (decision.requeue_after or 0.0)
            for_store_only = mover_state.has_room(mover, limit)
            self._queued[operation.uid] = QueuedMover(age_key(operation), store.uid, for_store_only, until)
        elif mover.job is None or mover.job.is_complete or mover.job.failure is not None:
            self._started.pop(operation.uid, None)


def _is_queued(decision: Decision) -> bool:
    conditions = decision.status.conditions if decision.status is not None else []
    return any(c.type == "Reconciling" and c.reason == Reason.QUEUED for c in conditions)
