"""Which backups need packs of which others: the operator's cached look-ups in manifests.

Each manifest is read once. A look-up reads them in batches, each a call of its own (see `StoreBreaker`), so that other
calls to the store run in between. Two look-ups do not read the manifests of a volume at the same time: the second waits
a moment for the first, and is retried later.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import InvalidInput, KeyUnavailable, NotFound, TransientError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.reasons import Reason
from cinderblock.repository.reference_cache import ReferenceCache
from cinderblock.repository.references import Dependents, References
from cinderblock.store.base import ObjectStore

LOCK_WAIT_SECONDS: Final = 1.0
"""Seconds that a look-up waits for another one that reads manifests of the same volume."""

LOOKUP_SECONDS: Final = 600.0
"""Seconds of a whole look-up, after which the next one continues from the cache. With the
rates of `repository.references`, 100,000 manifests take 312 seconds."""


class ReferenceLookups:
    """Look-ups in the manifests of volumes, with a cache of what they have read. For one event loop.

    Args:
        lock_wait_seconds: seconds that a look-up waits for another one that reads manifests of the same volume.
    """

    def __init__(self, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        self._lock_wait_seconds = lock_wait_seconds
        self._cache = ReferenceCache()
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def find_dependents(
        self,
        stores: StorePool,
        store: BackupStore,
        container: str,
        volume_id: str,
        backup_id: str,
        *,
        secrets: SecretReader,
    ) -> Dependents:
        """Return which backups need packs of a backup.

        Raises what the store raises; TransientError (ReadingReferences) while another look-up reads the same manifests.
        """
        opened, keys = await stores.open(store, container, secrets), await key_ring(stores, store, secrets)
        try:
            lookup = await stores.call(store, self.begin(opened, keys, store, container, volume_id))
            if not lookup.is_complete:
                async with self.lock(store, container, volume_id):
                    lookup.refresh()
                    ends = asyncio.get_running_loop().time() + LOOKUP_SECONDS
                    while not lookup.is_complete:
                        await stores.call(store, lookup.read_batch)
                        if asyncio.get_running_loop().time() > ends:
                            raise _reading(volume_id)
        finally:
            self.trim(store, container, volume_id)
        return lookup.needs(backup_id)

    def begin(
        self,
        opened: ObjectStore,
        keys: KeyRing | None,
        store: BackupStore,
        container: str,
        volume_id: str,
        *,
        expected: Collection[str] = (),
    ) -> Callable[[], References]:
        """Return a function that begins a look-up by listing the manifests of a volume. Any thread may call it.

        Before a removal, ``expected`` names the complete backups of the volume that stay: see `References`.
        """
        cached = self._cache.of(place_of(store, container, volume_id))
        return partial(References, opened, store.spec.prefix, volume_id, keys, cached, expected=expected)

    def trim(self, store: BackupStore, container: str, volume_id: str) -> None:
        """Drop what does not fit into memory, after a look-up in a volume's manifests."""
        self._cache.account(place_of(store, container, volume_id))

    def is_locked(self, store: BackupStore, container: str, volume_id: str) -> bool:
        """Return whether a look-up, or the removal of expired backups, works on a volume."""
        lock = self._locks.get(place_of(store, container, volume_id))
        return lock is not None and lock.locked()

    @asynccontextmanager
    async def lock(self, store: BackupStore, container: str, volume_id: str) -> AsyncIterator[None]:
        """Be the only look-up that reads manifests of a volume. Raises TransientError if another one takes long."""
        lock = self._locks.setdefault(place_of(store, container, volume_id), asyncio.Lock())
        try:
            async with asyncio.timeout(self._lock_wait_seconds):
                await lock.acquire()
        except TimeoutError:
            raise _reading(volume_id) from None
        try:
            yield
        finally:
            lock.release()


def _reading(volume_id: str) -> TransientError:
    return TransientError(f"The manifests of volume {volume_id} are still being read", reason=Reason.READING_REFERENCES)


async def key_ring(stores: StorePool, store: BackupStore, secrets: SecretReader) -> KeyRing | None:
    """Return the keys of a store; None if it has none or they cannot be read.

    A deletion does not depend on the encryption Secret: while no parent is missing, unencrypted headers are enough.
    Raises KubeUnavailable.
    """
    try:
        return await stores.keys(store, secrets)
    except (NotFound, InvalidInput, KeyUnavailable):
        return None


def place_of(store: BackupStore, container: str, volume_id: str) -> Hashable:
    """Return what identifies the place of a volume's backups. Other settings of a store may lead to another place.

    It is a digest: users choose the URL and the prefix, and very many places are remembered.
    """
    spec = store.spec
    # The prefix of a shared store has the UID of the namespace. The BackupStore may be created again meanwhile.
    uid = store.cluster_store_uid if isinstance(store, SharedStore) else store.uid
    parts = uid, spec.endpoint_url, spec.region, container, spec.prefix, volume_id
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
