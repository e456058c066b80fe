"""Lock the packs that a manifest lists, and find out for how long the manifest itself may be locked.

A manifest records until when each listed pack is locked. So the next incremental backup extends only those locks that
end too early: once in each generation, and not at each backup.

Crashes. Locks are extended before the manifest is written. If the mover dies in between, some packs are locked for
longer than anybody needs. A manifest never promises what its packs do not keep.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final

from cinderblock.api.layout import pack_prefix
from cinderblock.api.mover import LockTask, MoverTask
from cinderblock.format.pack import NOT_LOCKED, PackTable, lock_end, lock_hours
from cinderblock.repository.locks.extend import CONCURRENT_EXTENSIONS, extend_lock
from cinderblock.store.base import ObjectLock, ObjectStore
from cinderblock.store.deadline import with_current

_BATCH_PACKS: Final = 1024


def lock_of(task: MoverTask) -> ObjectLock | None:
    """Return the lock of a new pack; None: the task sets no locks."""
    return ObjectLock(task.lock.mode, task.lock.until) if task.lock is not None else None


def lock_manifest(task: MoverTask, store: ObjectStore, packs: PackTable) -> ObjectLock | None:
    """Extend the locks of listed packs that end too early, and return the lock of the manifest.

    The manifest is locked for no longer than any pack that it lists.

    Args:
        task: the backup.
        store: holds the packs.
        packs: the packs that the manifest lists. This sets the ends of their locks.

    Returns:
        The lock of the manifest; None: the task sets no locks.

    Raises:
        LockNotExtended: the store refuses to lock a pack for long enough.
        CinderblockError: the store failed.
    """
    if task.lock is None:
        return None
    extend = with_current(partial(_extend, task, task.lock, store, packs))
    _limit_records(task, store, packs)
    short = (pack for pack in range(len(packs)) if not _is_enough(task, task.lock, packs.locked_until(pack)))
    with ThreadPoolExecutor(CONCURRENT_EXTENSIONS, "extend") as pool:
        while batch := [*islice(short, _BATCH_PACKS)]:
            for pack, until in zip(batch, pool.map(extend, batch), strict=True):
                packs.set_locked_until(pack, lock_hours(until))
    ends = (lock_end(packs.locked_until(pack)) for pack in range(len(packs)))
    return ObjectLock(task.lock.mode, min(ends, default=task.lock.until))


def _limit_records(task: MoverTask, store: ObjectStore, packs: PackTable) -> None:
    """Believe what the parent records about locks only up to the end of the lock that its manifest has in this store.

    The record holds for the store that the manifest was written for. A copy in another store is the same bytes, and the
    locks of its packs are others. But no manifest is locked for longer than its packs, and the store tells its lock.
    """
    if task.parent_manifest is None:
        return
    until = store.retention.inspect(task.parent_manifest).retained_until
    limit = lock_hours(until) if until is not None else NOT_LOCKED
    for pack in range(len(packs)):
        if packs.origin(pack).backup_id != task.backup.backup_id:
            packs.set_locked_until(pack, min(packs.locked_until(pack), limit))


def _is_enough(task: MoverTask, lock: LockTask, hours: int) -> bool:
    """Return whether a lock that the manifest of the parent records ends late enough.

    Anybody who can write to the store can forge an unsealed manifest. So a record of it that says more than any earlier
    backup with the present settings has promised counts for nothing, and the store is asked.
    """
    is_plausible = task.sealed or lock_end(hours) <= lock.until
    return hours != NOT_LOCKED and is_plausible and lock_end(hours) >= lock.at_least


def _extend(task: MoverTask, lock: LockTask, store: ObjectStore, packs: PackTable, pack: int) -> datetime:
    """Extend the lock of one pack. Return when it ends."""
    prefix = pack_prefix(task.store.prefix, task.backup.volume_id, packs.origin(pack).backup_id)
    return extend_lock(store, prefix + packs.name(pack), lock)
