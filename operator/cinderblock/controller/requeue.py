"""How soon to look again: at once after something was done, and no more often than every five seconds otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import IN_HAND
from cinderblock.kube.kinds import BACKUP_STORE
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS

SLOW: Final = MIN_REQUEUE_SECONDS
"""Seconds between looks at an object with which nothing happens; what happens to it is heard of in any case."""
QUICK_LOOKS: Final = 5
"""Looks that may follow each other at once although the object itself says the same: its children were changed."""
STORES: Final = 60
"""Stores that are each looked at as often as is asked for: all that answer together once a second. Of more, each waits
longer in proportion, for a look takes some 25 ms of processor time (`make scale`: processor at rest)."""


class RequeuePolicy:
    """Remembers of each object how often it was looked at in vain. Losing that costs a few looks."""

    def __init__(self) -> None:
        self._idle: dict[ObjectKey, tuple[str, int]] = {}
        self._stores: set[ObjectKey] = set()

    def next(self, key: ObjectKey, version: str, requeue_after: float | None) -> float | None:
        """Seconds until ``key`` is looked at again.

        One that goes on at once is put before others: see `IN_HAND`.

        Args:
            key: the object.
            version: its resourceVersion when it was looked at now.
            look_again: what the decision asks for; None: nothing.
        """
        if requeue_after is not None and key.kind == BACKUP_STORE.kind:
            self._stores.add(key)
            return requeue_after * max(1.0, len(self._stores) / STORES)
        if requeue_after is None or requeue_after >= SLOW:
            self._idle.pop(key, None)
            return requeue_after
        before, looks = self._idle.get(key, ("", 0))
        looks = looks + 1 if before == version else 0
        self._idle[key] = version, looks
        if requeue_after == 0.0 and looks == 0:
            # It changes, and goes on at once: above all, what has ended is cleaned up before more is begun.
            return IN_HAND
        return requeue_after if looks < QUICK_LOOKS else SLOW

    def register(self, keys: Iterable[ObjectKey]) -> None:
        """These objects are there, though not all of them have been looked at yet."""
        self._stores.update(key for key in keys if key.kind == BACKUP_STORE.kind)

    def forget(self, key: ObjectKey) -> None:
        """The object is gone."""
        self._idle.pop(key, None)
        self._stores.discard(key)
