"""The locks of a backup (spec.objectLock of its BackupStore)."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api.mover import LockTask
from cinderblock.api.v1alpha1.store import BackupStore


def lock_task(store: BackupStore, now: datetime) -> LockTask | None:
    """Return the locks that a mover sets which starts now; None: the store asks for none.

    The operator computes the times, because the clock of a node may be wrong. Objects stay locked for one generation
    longer than needed, so that further backups extend their locks once in a generation, and not each time.
    """
    settings = store.spec.object_lock
    if settings is None:
        return None
    at_least = now.replace(microsecond=0) + settings.period_time
    return LockTask(mode=settings.mode, until=at_least + settings.generation_time, at_least=at_least)
