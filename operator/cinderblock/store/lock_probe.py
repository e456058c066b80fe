"""Find out whether a container locks objects as a BackupStore with spec.objectLock needs it.

Only a locked object proves that: a server can accept the headers of a lock and ignore them, and the credentials can
lack a permission. So the probe locks one byte for a few minutes. The byte stays, because nobody can delete it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, TypeVar

from cinderblock.api.v1alpha1.store import LockMode
from cinderblock.errors import CinderblockError, ObjectLockUnavailable, PermanentError, StoreUnreachable
from cinderblock.lifecycle.store.container_rules import ObjectLockRule, Versioning
from cinderblock.store.base import ObjectLock, ObjectStore

T = TypeVar("T")

PROBE_NAME: Final = "cinderblock.probe/lock"
"""Last part of the key of the byte. It is next to backups/ and packs/, so no listing of backups finds it."""
_LOCK_TIME: Final = timedelta(minutes=5)
"""For how long the byte is locked. The clocks of server and operator may differ by less than that."""


def probe_key(prefix: str) -> str:
    """Return the key of the byte below the prefix of a store."""
    return f"{prefix}/{PROBE_NAME}" if prefix else PROBE_NAME


def probe_object_lock(store: ObjectStore, prefix: str, mode: LockMode, now: datetime) -> None:
    """Check that a container keeps versions, and that the credentials can lock an object, see its lock and extend it.

    Args:
        store: the container.
        prefix: of the BackupStore.
        mode: of the locks.
        now: the present instant.

    Raises ObjectLockUnavailable with what is missing; and what the store raises while it does not answer.
    """
    _check_rules(store)
    key, until = probe_key(prefix), now.replace(microsecond=0) + _LOCK_TIME
    try:
        store.put(key, b"0", ObjectLock(mode, until))
    except PermanentError as error:
        raise _unavailable("an object cannot be locked. Allow s3:PutObject and s3:PutObjectRetention", error) from error
    state = store.retention.inspect(key)
    if state.exists and not (state.is_version or state.is_null_version):
        raise _unavailable("the container has no versioning. Switch it on")
    if state.retained_until is None or state.retained_until < until:
        raise _unavailable("the lock of an object is not visible. Allow s3:GetObjectRetention")
    try:
        store.set_lock(key, ObjectLock(mode, until + _LOCK_TIME))
    except PermanentError as error:
        raise _unavailable("a lock cannot be extended. Allow s3:PutObjectRetention", error) from error


def _check_rules(store: ObjectStore) -> None:
    """Check the rules of the container, as far as the server tells them. Raises ObjectLockUnavailable."""
    if _told(store.retention.versioning, Versioning.ENABLED) is not Versioning.ENABLED:
        raise _unavailable("the container has no versioning. Switch it on")
    on: ObjectLockRule | None = ObjectLockRule()
    if _told(store.retention.object_lock, on) is None:
        raise _unavailable("the container has no Object Lock. Switch it on, or use another container")


def _told(ask: Callable[[], T], unknown: T) -> T:
    """Return the answer of a server; ``unknown`` if it does not tell, which the locked object then shows."""
    try:
        return ask()
    except StoreUnreachable:
        raise
    except CinderblockError:
        return unknown


def _unavailable(cause: str, error: CinderblockError | None = None) -> ObjectLockUnavailable:
    detail = f" ({error.message.removesuffix('.')})" if error is not None else ""
    return ObjectLockUnavailable(
        f"The store cannot lock backups as spec.objectLock asks: {cause}{detail}."
        " No backups or copies are made until then."
    )
