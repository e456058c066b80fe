"""Which store may start a mover of copies next: they have few slots of their own, and namespaces take turns.

A mover of copies never holds up a backup: it does not count against the limits of backups and restores. It begins only
while none of those waits in the cluster or in its namespace, except that the cluster always has one slot for copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cinderblock.controller.request import ObjectKey
from cinderblock.lifecycle.observed import MoverLoad, MoverSettings

SHARE_OF_MOVERS: Final = 8
"""One mover of copies for each eight movers that may run in the cluster."""
WAITING_SECONDS: Final = 150.0
"""Seconds for which a store counts as waiting that does not come back: more than twice the delay between its steps."""
SERVED_NAMESPACES: Final = 10_000
"""Namespaces of which it is known when they were served."""


@dataclass(slots=True)
class CopySlots:
    """The movers of copies that run, and the stores that wait for one.

    Losing this memory may start some movers more, at most one for each store.
    """

    _running: set[ObjectKey] = field(default_factory=set)
    _waiting: dict[ObjectKey, tuple[float, float]] = field(default_factory=dict)
    """When each store began to wait, and when it last asked."""
    _served: dict[str, float] = field(default_factory=dict)
    """When a mover of each namespace last began, the latest at the end."""

    def observe_running(self, key: ObjectKey) -> None:
        """Take note that a store has a mover."""
        self._running.add(key)
        self._waiting.pop(key, None)

    def release(self, key: ObjectKey) -> None:
        """Take note that a store has no mover, and wants none now."""
        self._running.discard(key)
        self._waiting.pop(key, None)

    def take(self, key: ObjectKey, load: MoverLoad, settings: MoverSettings, now: float) -> bool:
        """Return whether a store may start a mover now, and count it if so. Otherwise it waits.

        Args:
            key: of the BackupStore.
            load: the backups and restores that go first.
            settings: the limits.
            now: the present, in seconds.
        """
        # A store that asks has no mover: the creation of the one that it began may have failed.
        self._running.discard(key)
        since = self._waiting.get(key, (now, now))[0]
        self._waiting[key] = since, now
        self._waiting = {other: times for other, times in self._waiting.items() if now - times[1] <= WAITING_SECONDS}
        free = max(1, settings.limit // SHARE_OF_MOVERS) - len(self._running)
        if load.waiting_in_namespace or (load.waiting and self._running):
            return False
        if free <= 0 or key not in sorted(self._waiting, key=self._turn)[:free]:
            return False
        self.observe_running(key)
        self._served.pop(key.namespace, None)
        self._served[key.namespace] = now
        if len(self._served) > SERVED_NAMESPACES:
            del self._served[next(iter(self._served))]
        return True

    def _turn(self, key: ObjectKey) -> tuple[float, float, ObjectKey]:
        return self._served.get(key.namespace, float("-inf")), self._waiting[key][0], key
