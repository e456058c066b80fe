"""How the operator finds out which backups need packs of which others. It reads a manifest once, and blocks no store.

Each batch is a call of its own (see `Patience`), so that others have their turn in between. Two looks at one volume at
the same time do not read the same manifests: the second waits a moment for the first, and is tried again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.stores.pool import StorePool
from cinderblock.errors import InvalidInput, KeyUnavailable, NotFound, TransientError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.reasons import Reason
from cinderblock.repository.reference_cache import ReferenceCache
from cinderblock.repository.references import Dependents, References
from cinderblock.store.base import ObjectStore

TURN_SECONDS: Final = 1.0
"""Seconds that a look waits for another one that reads manifests of the same volume."""


class ReferenceLookups:
    """The looks at manifests of volumes, with what they have read. For one event loop.

    Args:
        turn_seconds: seconds that a look waits for another one that reads manifests of the same volume.
    """

    def __init__(self, turn_seconds: float = TURN_SECONDS) -> None:
        self._turn_seconds = turn_seconds
        self._known = ReferenceCache()
        self._turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def needs(
        self, stores: StorePool, store: BackupStore, container: str, volume_id: str, backup_id: str
    ) -> Dependents:
        """Return which backups need packs of a backup.

        Raises what the store raises; TransientError (ReadingReferences) while another look reads the same manifests.
        """
        opened, keys = await stores.open(store, container), await key_ring(stores, store)
        try:
            look = await stores.call(store, self.begin(opened, keys, store, container, volume_id))
            if not look.is_complete:
                async with self.turn(store, container, volume_id):
                    look.recall()
                    while not look.is_complete:
                        await stores.call(store, look.read_some)
        finally:
            self.settle(store, container, volume_id)
        return look.needs(backup_id)

    def begin(
        self, opened: ObjectStore, keys: KeyRing | None, store: BackupStore, container: str, volume_id: str
    ) -> Callable[[], References]:
        """Return a function that begins a look and lists the manifests of a volume. Any thread may call it."""
        known = self._known.of(_place(store, container, volume_id))
        return partial(References, opened, store.spec.prefix, volume_id, keys, known)

    def settle(self, store: BackupStore, container: str, volume_id: str) -> None:
        """Forget what does not fit into memory, after a look at a volume."""
        self._known.settle(_place(store, container, volume_id))

    @asynccontextmanager
    async def turn(self, store: BackupStore, container: str, volume_id: str) -> AsyncIterator[None]:
        """Be the only look that reads manifests of a volume. Raises TransientError if another look takes long."""
        turn = self._turns.setdefault(_place(store, container, volume_id), asyncio.Lock())
        try:
            async with asyncio.timeout(self._turn_seconds):
                await turn.acquire()
        except TimeoutError:
            raise TransientError(
                f"The manifests of volume {volume_id} are being read for another of its backups",
                reason=Reason.READING_REFERENCES,
            ) from None
        try:
            yield
        finally:
            turn.release()


async def key_ring(stores: StorePool, store: BackupStore) -> KeyRing | None:
    """Return the keys of a store; None if it has none or they cannot be read.

    A deletion does not depend on the encryption Secret: while the line of parents is complete, headers are enough.
    Raises KubeUnavailable.
    """
    try:
        return await stores.keys(store)
    except (NotFound, InvalidInput, KeyUnavailable):
        return None


def _place(store: BackupStore, container: str, volume_id: str) -> Hashable:
    """Return the place of a volume's backups. Other settings of a store may lead to another place."""
    spec = store.spec
    return store.uid, spec.endpoint_url, spec.region, container, spec.prefix, volume_id
