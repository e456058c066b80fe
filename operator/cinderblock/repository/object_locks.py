"""Find locked objects of a backup before a deletion begins, so that no lock leaves half of a backup.

A server refuses a plain deletion of a locked object only if the container keeps no versions. With versioning, a
deletion hides every object, locked or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import Final

from cinderblock.errors import CinderblockError, ObjectLocked, StoreUnreachable
from cinderblock.store.base import ObjectStore
from cinderblock.store.deadline import with_current
from cinderblock.store.retention import ObjectState, Retention

CONCURRENT_LOOKS: Final = 8
"""Objects that are checked at once. Each takes one small request, so latency is what counts."""
_BATCH_OBJECTS: Final = 64
CHECKED_PACKS: Final = 50_000
"""Packs that are checked at most: those of 1.1 TiB. With 10 ms for each, that takes a minute."""
_LOOKS_AFTER_REFUSAL: Final = 64
"""Remaining objects in which the end of a lock is searched after the server has refused a deletion."""


def check_locks(store: ObjectStore, manifest: str, packs: Iterable[str], now: datetime) -> None:
    """Raise ObjectLocked if the server would refuse to delete the manifest or one of the packs.

    This takes two requests, and one more for each pack only in a container with Object Lock and without versions. A
    lock that the credentials may not see, or of a later pack, is found when the server refuses the deletion.

    Args:
        store: holds the objects.
        manifest: key of the manifest.
        packs: keys of the packs; read only if they may be locked.
        now: the present instant.

    Raises what the store raises while it does not answer.
    """
    retention = store.retention
    state = retention.inspect(manifest)
    if state.is_version:
        return
    if state.is_locked(now):
        raise locked(manifest, state)
    if _has_object_lock(retention):
        for key, found in _inspect_all(retention, islice(packs, CHECKED_PACKS)):
            if not found.is_version and found.is_locked(now):
                raise locked(key, found)


def find_lock(store: ObjectStore, keys: Iterable[str], now: datetime) -> ObjectLocked | None:
    """Return the error about the first locked object among a few that remain after a refusal; None: none is seen."""
    for key, found in _inspect_all(store.retention, islice(keys, _LOOKS_AFTER_REFUSAL)):
        if found.is_locked(now):
            return locked(key, found)
    return None


def locked(key: str, state: ObjectState) -> ObjectLocked:
    """Return the error about a locked object: what to do, and when its retention ends."""
    until = state.retained_until
    if state.has_legal_hold:
        error = ObjectLocked(f"The store keeps {key} under a legal hold. Lift it so that the deletion can continue")
    else:
        end = f" until {until:%Y-%m-%dT%H:%M:%SZ}" if until is not None else ""
        error = ObjectLocked(f"Object Lock keeps {key} in the store{end}")
        error.until = until
    return error


def _has_object_lock(retention: Retention) -> bool:
    """Return whether the server says that the container has Object Lock. One that does not know it has none."""
    try:
        return retention.object_lock() is not None
    except StoreUnreachable as error:
        if error.is_of_another:
            return False
        raise
    except CinderblockError:
        return False


def _inspect_all(retention: Retention, keys: Iterable[str]) -> Iterator[tuple[str, ObjectState]]:
    """Return the state of each key, in batches, so that a caller can stop at the first lock."""
    remaining = iter(keys)
    with ThreadPoolExecutor(CONCURRENT_LOOKS, "locks") as pool:
        while batch := [*islice(remaining, _BATCH_OBJECTS)]:
            yield from zip(batch, pool.map(with_current(retention.inspect), batch), strict=True)
