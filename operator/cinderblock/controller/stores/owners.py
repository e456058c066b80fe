"""The owner markers of stores: read rarely, and written by an operator that may change the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from cinderblock.api.owner import OwnerMarker
from cinderblock.api.v1alpha1.store import BackupStore, StoreAccess
from cinderblock.controller.stores.owner_marker import create_owner, read_owner, replace_owner
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.lifecycle.store import owner
from cinderblock.store.base import ObjectStore

if TYPE_CHECKING:
    from datetime import datetime

CACHE_SECONDS: Final = 600.0
"""For how long a marker counts: people move clusters rarely, and nothing that protects data depends on it."""


class OwnerMarkers:
    """The latest marker of each open store. For one event loop."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[ObjectStore, tuple[float, OwnerMarker | None]] = WeakKeyDictionary()

    async def read(
        self, stores: StorePool, store: BackupStore, secrets: SecretReader, *, is_fresh: bool = False
    ) -> OwnerMarker | None:
        """Return the marker of a store; None: it has none. Raises what the store raises.

        Args:
            stores: the open stores.
            store: the store, which namespaces do not share.
            secrets: its Secrets.
            is_fresh: whether no earlier answer counts.
        """
        opened = await stores.open(store, store.spec.container, secrets)
        until, marker = self._known.get(opened, (0.0, None))
        if not is_fresh and _now() < until:
            return marker
        return await self._call(stores, store, opened, partial(read_owner, opened, store.spec.prefix))

    async def claim(
        self,
        stores: StorePool,
        store: BackupStore,
        secrets: SecretReader,
        *,
        cluster: str,
        release: str,
        now: datetime,
    ) -> OwnerMarker | None:
        """Return the marker of a store, after this cluster has written one if there was none, or if it takes over.

        A read-only store gets none. Each write may be repeated: it writes the same. Raises what the store raises.
        """
        known = store.status.owner
        is_fresh = known is not None and known.epoch == store.spec.take_over
        marker = await self.read(stores, store, secrets, is_fresh=is_fresh)
        if store.spec.access is not StoreAccess.READ_WRITE:
            return marker
        opened, prefix = await stores.open(store, store.spec.container, secrets), store.spec.prefix
        if marker is None:
            first = owner.first_marker(cluster, release, store.uid, now)
            return await self._call(stores, store, opened, partial(create_owner, opened, prefix, first))
        if owner.takes_over(store, marker, cluster):
            replacement = owner.next_marker(marker, cluster, release, now)
            replace = partial(replace_owner, opened, prefix, marker.epoch, replacement)
            return await self._call(stores, store, opened, replace)
        return marker

    async def _call(
        self, stores: StorePool, store: BackupStore, opened: ObjectStore, call: Callable[[], OwnerMarker | None]
    ) -> OwnerMarker | None:
        marker = await stores.call(store, call)
        self._known[opened] = _now() + CACHE_SECONDS, marker
        return marker


def _now() -> float:
    return asyncio.get_running_loop().time()
