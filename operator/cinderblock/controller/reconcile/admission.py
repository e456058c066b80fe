"""Which operation may start a mover next, so that limits hold, namespaces share, and none starves.

A mover counts from the decision to start it until its Job has ended. Only this process starts movers while it leads, so
it knows all of them: those that statuses record when it begins to lead (`load`), and its own decisions since then.
Labels, owners and annotations of Jobs do not count, because anybody can set them.

A queued operation goes before younger ones of its namespace, and namespaces take turns. None of that must survive a
restart: a waiting operation comes back and is queued again.

Verifications have an instance of their own, so that their movers use up no slot of a backup or a restore.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.request import ObjectKey
from cinderblock.lifecycle.actions import Action, CreateChild, Decision
from cinderblock.lifecycle.children import Owner
from cinderblock.lifecycle.mover import fair_order
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.mover.fair_order import Age
from cinderblock.lifecycle.observed import MoverLoad, MoverSettings, ObservedMover, RunningMover
from cinderblock.lifecycle.volume_lock import age_key
from cinderblock.reasons import Reason

EXPECTATION_SECONDS = 30.0
"""Seconds for which a mover counts that was decided on, and whose creation nobody has confirmed: the time limit of a
request."""
LOADED_SECONDS = 600.0
"""Seconds for which a mover counts that only a status records. Meanwhile, its operation is reconciled."""
RETURN_FACTOR = 2.0
"""An operation that does not return within this multiple of its requeue interval no longer counts as waiting."""
PURGE_SECONDS = 1.0
"""Seconds between two searches for operations that did not return."""
TURN_SECONDS = 2 * mover_state.MAX_QUEUE_SECONDS
"""Seconds for which a free slot is left to the namespace that was served longest ago: each looks twice in this time."""
SERVED_NAMESPACES = 10_000
"""Namespaces of which it is known when they were served."""
COUNTED_TURNS = 16
"""Operations that wait longer than this multiple of the limit all check for a slot at the same, longest interval."""


def loop_time() -> float:
    """Return the time of the event loop."""
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class _Queued:
    """An operation that waits for a mover.

    Attributes:
        age: its place among the waiting operations of its namespace.
        store: name of the BackupStore that it uses.
        for_store_only: whether it waits only for a slot of that store, and so blocks no operation on another store.
        until: when it must have returned to keep its place.
        cluster_store: name of the ClusterBackupStore of that; empty: it is a store of its own.
    """

    age: Age
    store: str
    for_store_only: bool
    until: float
    cluster_store: str = ""


@dataclass(slots=True)
class _Queue:
    """The waiting operations of a namespace, by UID; and the ages of those that wait for a slot of any store.

    The ages are kept sorted: every decision needs those of all namespaces.
    """

    entries: dict[str, _Queued] = field(default_factory=dict)
    ages: list[Age] = field(default_factory=list)
    of_cluster_stores: dict[str, list[Age]] = field(default_factory=dict)
    """The ages of those that use a ClusterBackupStore, by its name."""

    def set(self, uid: str, entry: _Queued) -> None:
        self.remove(uid)
        self.entries[uid] = entry
        if not entry.for_store_only:
            bisect.insort(self.ages, entry.age)
        if entry.cluster_store:
            bisect.insort(self.of_cluster_stores.setdefault(entry.cluster_store, []), entry.age)

    def remove(self, uid: str) -> None:
        entry = self.entries.pop(uid, None)
        if entry is None:
            return
        if not entry.for_store_only:
            del self.ages[bisect.bisect_left(self.ages, entry.age)]
        if entry.cluster_store:
            ages = self.of_cluster_stores[entry.cluster_store]
            del ages[bisect.bisect_left(ages, entry.age)]
            if not ages:
                del self.of_cluster_stores[entry.cluster_store]


@dataclass(slots=True)
class MoverAdmission:
    """The running movers, and the operations that wait for one. For one event loop."""

    clock: Callable[[], float] = loop_time
    is_loaded: bool = False
    _running: dict[ObjectKey, tuple[RunningMover, float]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    """UIDs of operations that were found without a mover before the statuses were loaded."""
    _queues: dict[str, _Queue] = field(default_factory=dict)
    _purged_at: float = float("-inf")
    _served: dict[str, float] = field(default_factory=dict)
    """When a mover of each namespace last began, the latest at the end."""
    _freed_at: float = float("-inf")
    """When a mover last ended."""

    def reset(self) -> None:
        """Forget everything: another process may have started movers since. Call it before leading."""
        self.is_loaded = False
        self._running.clear()
        self._ended.clear()
        self._queues.clear()
        self._served.clear()

    def load(self, movers: Iterable[tuple[ObjectKey, RunningMover]]) -> None:
        """Count the movers that statuses record, unless a newer observation contradicts."""
        until = self.clock() + LOADED_SECONDS
        found = {key: (mover, until) for key, mover in movers if mover.owner not in self._ended}
        self._running = found | self._running
        self._ended.clear()
        self.is_loaded = True

    def observe(
        self, operation: Owner, mover: ObservedMover, store: BackupStore | None, settings: MoverSettings
    ) -> ObservedMover:
        """Return the observed mover with the other movers and the queue. Call it right before deciding."""
        if store is None or (mover.job is not None and mover.is_recorded):
            return mover
        self._purge()
        namespace, age, own = operation.namespace, age_key(operation), self._queues.get(operation.namespace)
        others = frozenset(running for running, _ in self._running.values() if running.owner != operation.uid)
        ages = _with(own.ages if own is not None else (), age)
        before = fair_order.count_before(
            (namespace, age),
            {name: queue.ages for name, queue in self._queues.items()} | {namespace: ages},
            Counter(other.namespace for other in others),
            namespace_limit=settings.namespace_limit,
            at_most=COUNTED_TURNS * settings.limit,
        )
        queued = own.entries.items() if own is not None else ()
        same_store = [entry for uid, entry in queued if uid != operation.uid and entry.store == store.name]
        return replace(
            mover,
            others=others,
            waiting_before=before,
            waiting_before_in_namespace=bisect.bisect_left(ages, age),
            waiting_before_for_store=sum(entry.age < age for entry in same_store),
            is_its_turn=self._is_turn_of(namespace),
            waiting_before_for_cluster_store=self._before_for_cluster_store(operation, store, others, settings),
        )

    def _before_for_cluster_store(
        self, operation: Owner, store: BackupStore, others: Iterable[RunningMover], settings: MoverSettings
    ) -> int:
        """Return how many operations of all namespaces get a mover of the same ClusterBackupStore earlier.

        Another namespace counts with as many operations as it may start now. It may use all of its own slots for stores
        of its own, for hours, and must not keep slots of the shared store free meanwhile.
        """
        if not isinstance(store, SharedStore):
            return 0
        name, age = store.cluster_store, age_key(operation)
        running = Counter(other.namespace for other in others)
        waiting: dict[str, Sequence[Age]] = {
            namespace: queue.of_cluster_stores[name][: max(0, settings.namespace_limit - running[namespace])]
            for namespace, queue in self._queues.items()
            if name in queue.of_cluster_stores
        }
        own = self._queues.get(operation.namespace)
        waiting[operation.namespace] = _with(own.of_cluster_stores.get(name, ()) if own is not None else (), age)
        return fair_order.count_before(
            (operation.namespace, age),
            waiting,
            Counter(other.namespace for other in others if other.cluster_store == name),
            namespace_limit=min(store.movers_per_namespace or settings.namespace_limit, settings.namespace_limit),
            at_most=COUNTED_TURNS * settings.limit,
        )

    def _is_turn_of(self, namespace: str) -> bool:
        """Return whether no waiting namespace was served longer ago, or whether such ones did not begin in time."""
        if self.clock() - self._freed_at >= TURN_SECONDS:
            return True
        never = float("-inf")
        mine = self._served.get(namespace, never)
        return all(self._served.get(name, never) >= mine for name in self._queues)

    def record(
        self,
        operation: Owner,
        mover: ObservedMover,
        store: BackupStore | None,
        decision: Decision,
        settings: MoverSettings,
        *,
        stays_queued: bool = False,
    ) -> None:
        """Take note of a decision, right after it was made.

        Call it again if no Job was created although the decision was to create one: a slot without a mover would stay
        taken, and the next attempt would take it again.

        Args:
            operation: the operation.
            mover: its mover, as `observe` returned it.
            store: its BackupStore.
            decision: what to do.
            settings: the limits.
            stays_queued: whether no younger operation may take the slot until this one returns, because a failure held
                it up that may pass within seconds.
        """
        self._dequeue(operation)
        key = ObjectKey(operation.kind, operation.namespace, operation.name)
        name = store.name if store is not None else ""
        cluster_store = store.cluster_store if isinstance(store, SharedStore) else ""
        starts = any(creates_mover(action) for action in decision.actions)
        is_adopted = not mover.is_recorded and decision.status is not None and mover_state.recorded_uid(decision.status)
        if starts or is_adopted or mover_state.is_running(mover):
            until = self.clock() + EXPECTATION_SECONDS if starts else float("inf")
            known = operation.status.mover.store_name if operation.status.mover is not None else None
            shared = cluster_store if known in (None, name) else ""
            running = RunningMover(operation.uid, operation.namespace, known or name, shared)
            if key not in self._running:
                self._served.pop(operation.namespace, None)
                self._served[operation.namespace] = self.clock()
                if len(self._served) > SERVED_NAMESPACES:
                    del self._served[next(iter(self._served))]
            self._running[key] = running, until
            return
        self._release(key)
        if not self.is_loaded:
            self._ended.add(operation.uid)
        if stays_queued or _is_queued(decision):
            until = self.clock() + RETURN_FACTOR * (decision.requeue_after or 0.0)
            has_room = mover_state.has_room(mover, settings) and mover_state.has_room_in_namespace(
                mover, operation.namespace, settings
            )
            for_store_only = has_room and not stays_queued
            entry = _Queued(age_key(operation), name, for_store_only, until, cluster_store)
            self._queues.setdefault(operation.namespace, _Queue()).set(operation.uid, entry)

    def measure(self, namespace: str, settings: MoverSettings) -> MoverLoad:
        """Return how many movers run, and how many operations wait for one that their namespaces let start."""
        self._purge()
        running = Counter(mover.namespace for mover, _ in self._running.values())
        limit, queued = settings.namespace_limit, {name: len(queue.ages) for name, queue in self._queues.items()}
        return MoverLoad(
            movers=sum(min(count, limit) for count in running.values()),
            movers_in_namespace=running[namespace],
            waiting=sum(min(count, max(0, limit - running[name])) for name, count in queued.items()),
            waiting_in_namespace=queued.get(namespace, 0),
        )

    def confirm(self, key: ObjectKey) -> None:
        """Take note that the Job of a mover exists."""
        if key in self._running:
            self._running[key] = self._running[key][0], float("inf")

    def forget(self, key: ObjectKey) -> None:
        """Forget an operation that no longer exists."""
        found = self._release(key)
        if found is not None and not self.is_loaded:
            self._ended.add(found[0].owner)

    def _release(self, key: ObjectKey) -> tuple[RunningMover, float] | None:
        found = self._running.pop(key, None)
        if found is not None:
            self._freed_at = self.clock()
        return found

    def _dequeue(self, operation: Owner) -> None:
        queue = self._queues.get(operation.namespace)
        if queue is not None:
            queue.remove(operation.uid)

    def _purge(self) -> None:
        """Remove what was not confirmed, and operations that did not return."""
        now = self.clock()
        self._running = {key: entry for key, entry in self._running.items() if entry[1] > now}
        if now - self._purged_at < PURGE_SECONDS:
            return
        self._purged_at = now
        for namespace, queue in list(self._queues.items()):
            for uid in [uid for uid, entry in queue.entries.items() if entry.until <= now]:
                queue.remove(uid)
            if not queue.entries:
                del self._queues[namespace]


def creates_mover(action: Action) -> bool:
    """Return whether an action creates the Job of a mover, or what holds the slot of a verification instead."""
    return isinstance(action, CreateChild) and action.kind in ("Job", "VolumeRestore")


def _with(ages: Sequence[Age], age: Age) -> list[Age]:
    """Return sorted ages with another one, which may be among them already."""
    found = list(ages)
    if age not in found[bisect.bisect_left(found, age) :][:1]:
        bisect.insort(found, age)
    return found


def _is_queued(decision: Decision) -> bool:
    conditions = decision.status.conditions if decision.status is not None else []
    return any(c.type == "Reconciling" and c.reason == Reason.QUEUED for c in conditions)
