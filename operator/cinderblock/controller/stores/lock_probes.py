"""Check from time to time that the containers of BackupStores with spec.objectLock lock objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from cinderblock.api.v1alpha1.store import BackupStore, LockMode
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import ObjectLockUnavailable
from cinderblock.store.base import ObjectStore
from cinderblock.store.lock_probe import probe_object_lock

if TYPE_CHECKING:
    from cinderblock.controller.stores.pool import StorePool

AVAILABLE_SECONDS: Final = 86_400.0
"""For how long a success counts. Each probe leaves a version of one byte in the container."""
UNAVAILABLE_SECONDS: Final = 300.0
"""For how long a refusal counts. Another setting or another Secret is tried at once."""


class LockProbes:
    """The probes of all open stores."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[ObjectStore, tuple[float, ObjectLockUnavailable | None]] = WeakKeyDictionary()

    async def check(
        self,
        stores: StorePool,
        store: BackupStore,
        container: str,
        secrets: SecretReader,
        *,
        now: datetime,
        guard: Callable[[], None],
    ) -> None:
        """Check that a container of a BackupStore locks objects, if the BackupStore asks for locks.

        Args:
            stores: opens the container, and limits the calls to it.
            store: the BackupStore.
            container: one of its containers.
            secrets: reads its Secrets.
            now: the present instant.
            guard: raises NotLeading if this process must not write.

        Raises ObjectLockUnavailable with what is missing; and what the store raises.
        """
        if store.spec.object_lock is None or store.is_read_only:
            return
        opened, seconds = await stores.open(store, container, secrets), asyncio.get_running_loop().time()
        until, error = self._known.get(opened, (seconds, None))
        if seconds >= until:
            guard()
            mode, prefix = store.spec.object_lock.mode, store.spec.prefix
            error = await stores.call(store, partial(_probe, opened, prefix, mode, now))
            self._known[opened] = seconds + (AVAILABLE_SECONDS if error is None else UNAVAILABLE_SECONDS), error
        if error is not None:
            raise ObjectLockUnavailable(error.message)


def _probe(store: ObjectStore, prefix: str, mode: LockMode, now: datetime) -> ObjectLockUnavailable | None:
    try:
        probe_object_lock(store, prefix, mode, now)
    except ObjectLockUnavailable as error:
        return error
    return None
