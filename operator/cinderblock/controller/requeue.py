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
        self._stores: set[ObjectKey] = set()

    def next(self, key: ObjectKey, version: str, requeue_after: float | None) -> Result:
        """Decide when to reconcile an object again. One that changed and continues at once gets Priority.STARTED.

        Args:
            key: the object.
            version: resourceVersion that this reconciliation read.
            requeue_after: seconds that the decision asks for; None: no requeue.
        """
        if requeue_after is not None and key.kind == BACKUP_STORE.kind:
            self._stores.add(key)
            return Result(requeue_after * max(1.0, len(self._stores) / STORES_AT_FULL_RATE))
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
        self._stores.update(key for key in keys if key.kind == BACKUP_STORE.kind)

    def forget(self, key: ObjectKey) -> None:
        """Forget an object that no longer exists."""
        self._unchanged.pop(key, None)
        self._stores.discard(key)
