"""Requeue delays: none after a change, and otherwise at least a few seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import Priority
from cinderblock.kube.kinds import BACKUP_STORE
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS

IDLE_REQUEUE_SECONDS: Final = MIN_REQUEUE_SECONDS
"""Seconds between two reconciliations of an object that does not change. Events report changes in any case."""
FAST_REQUEUES: Final = 5
"""Fast requeues of an object that stays the same: its children may have changed."""
STORES_AT_FULL_RATE: Final = 60
"""BackupStores that are checked as often as their decisions ask for: together one check a second.

If there are more, each one waits longer in proportion. A check takes about 25 ms of processor time (`make scale`,
processor at rest)."""
STORES_OF_A_NAMESPACE: Final = 20
"""BackupStores for which one namespace counts at most: its own wait longer in proportion, and others hardly do. However
many it has, they take a third of the checks of STORES_AT_FULL_RATE."""


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of a reconciliation, as in controller-runtime.

    Attributes:
        requeue_after: seconds until the next reconciliation; None: not before something changes.
        priority: priority of the next reconciliation.
    """

    requeue_after: float | None = None
    priority: Priority = Priority.NORMAL


class RequeuePolicy:
    """Counts how often each object was reconciled without a change. Losing the counts costs a few reconciliations."""

    def __init__(self) -> None:
        self._unchanged: dict[ObjectKey, tuple[str, int]] = {}
        self._stores = _StoreCounts()
        self._shared_stores = _StoreCounts()
        """BackupStores of ClusterBackupStores: they share a check, and must not delay those that need their own."""

    def next(
        self, key: ObjectKey, version: str, requeue_after: float | None, *, is_shared_store: bool = False
    ) -> Result:
        """Decide when to reconcile an object again. One that changed and continues at once gets Priority.STARTED.

        Args:
            key: the object.
            version: resourceVersion that this reconciliation read.
            requeue_after: seconds that the decision asks for; None: no requeue.
            is_shared_store: whether it is a BackupStore of a ClusterBackupStore.
        """
        if requeue_after is not None and key.kind == BACKUP_STORE.kind:
            mine, others = self._stores, self._shared_stores
            if is_shared_store:
                mine, others = others, mine
            others.discard(key)
            mine.add(key)
            return Result(requeue_after * mine.delay_factor(key.namespace))
        if requeue_after is None or requeue_after >= IDLE_REQUEUE_SECONDS:
            self._unchanged.pop(key, None)
            return Result(requeue_after)
        previous, count = self._unchanged.get(key, ("", 0))
        count = count + 1 if previous == version else 0
        self._unchanged[key] = version, count
        if requeue_after == 0.0 and count == 0:
            # Clean up what has ended before more operations start.
            return Result(0.0, Priority.STARTED)
        return Result(requeue_after if count < FAST_REQUEUES else IDLE_REQUEUE_SECONDS)

    def register(self, keys: Iterable[ObjectKey]) -> None:
        """Count the BackupStores among these objects before their first reconciliation."""
        for key in keys:
            if key.kind == BACKUP_STORE.kind and key not in self._shared_stores:
                self._stores.add(key)

    def forget(self, key: ObjectKey) -> None:
        """Forget an object that no longer exists."""
        self._unchanged.pop(key, None)
        if key.kind == BACKUP_STORE.kind:
            self._stores.discard(key)
            self._shared_stores.discard(key)


class _StoreCounts:
    """The BackupStores of each namespace."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, set[str]] = {}
        self._counted = 0
        """The stores of all namespaces, of each at most STORES_OF_A_NAMESPACE."""

    def __contains__(self, key: ObjectKey) -> bool:
        return key.name in self._by_namespace.get(key.namespace, ())

    def add(self, key: ObjectKey) -> None:
        names = self._by_namespace.setdefault(key.namespace, set())
        self._counted -= min(len(names), STORES_OF_A_NAMESPACE)
        names.add(key.name)
        self._counted += min(len(names), STORES_OF_A_NAMESPACE)

    def discard(self, key: ObjectKey) -> None:
        names = self._by_namespace.get(key.namespace, set())
        self._counted -= min(len(names), STORES_OF_A_NAMESPACE)
        names.discard(key.name)
        self._counted += min(len(names), STORES_OF_A_NAMESPACE)
        if not names:
            self._by_namespace.pop(key.namespace, None)

    def delay_factor(self, namespace: str) -> float:
        """Return how many times longer the stores of a namespace wait for their next check."""
        own = len(self._by_namespace.get(namespace, ())) / STORES_OF_A_NAMESPACE
        return max(1.0, own) * max(1.0, self._counted / STORES_AT_FULL_RATE)
