"""The owner markers of stores: read rarely, and written by an operator that may change the store."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cinderblock.api.owner import OwnerMarker
from cinderblock.api.v1alpha1.store import BackupStore, StoreAccess
from cinderblock.controller.stores.owner_marker import create_owner, read_owner, replace_owner
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import PermanentError
from cinderblock.lifecycle.store import owner
from cinderblock.store.base import ObjectStore

if TYPE_CHECKING:
    from datetime import datetime

CACHE_SECONDS: Final = 600.0
"""For how long a marker counts: people move clusters rarely, and nothing that protects data depends on it."""
DELETION_CACHE_SECONDS: Final = 10.0
"""For how long a marker counts before the deletion of imported data. Many deletions come together."""
MAX_STORES: Final = 10_000
"""Stores whose markers are kept, each in 1.4 KiB."""


@dataclass(slots=True)
class _Known:
    """The latest answers about the marker of a BackupStore with one spec.

    Attributes:
        generation: of the BackupStore. A person who changes it waits for no cache.
        read_at: when the marker was read.
        marker: the marker; None: there was none, or it could not be read.
        error: why it could not be read, without the traceback, which would keep its frames.
        written_at: when a marker was written, or could not be.
        write_error: why it could not be written.
    """

    generation: int
    read_at: float = float("-inf")
    marker: OwnerMarker | None = None
    error: PermanentError | None = None
    written_at: float = float("-inf")
    write_error: PermanentError | None = None


class OwnerMarkers:
    """The latest marker of each BackupStore. For one event loop.

    Answers are kept by BackupStore, and not by open store: only few stores stay open. An error that a retry does not
    change counts as an answer.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def read(
        self, stores: StorePool, store: BackupStore, secrets: SecretReader, *, seconds: float = CACHE_SECONDS
    ) -> OwnerMarker | None:
        """Return the marker of a store; None: it has none. Raises what the store raises.

        Args:
            stores: the open stores.
            store: the store, which namespaces do not share.
            secrets: its Secrets.
            seconds: age from which on an earlier answer does not count.
        """
        known = self._of(store)
        if _now() - known.read_at >= seconds:
            opened = await stores.open(store, store.spec.container, secrets)
            marker, error = await _called(stores, store, partial(read_owner, opened, store.spec.prefix))
            known.read_at, known.marker, known.error = _now(), marker, error
        if known.error is not None:
            raise _again(known.error)
        return known.marker

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
        marker = await self.read(stores, store, secrets)
        if store.spec.access is not StoreAccess.READ_WRITE:
            return marker
        write: Callable[[ObjectStore, str], OwnerMarker | None]
        if marker is None:
            write = partial(create_owner, marker=owner.first_marker(cluster, release, store.uid, now))
        elif owner.takes_over(store, marker, cluster):
            replacement = owner.next_marker(marker, cluster, release, now)
            write = partial(replace_owner, epoch=marker.epoch, marker=replacement)
        else:
            return marker
        return await self._write(stores, store, secrets, write)

    async def _write(
        self,
        stores: StorePool,
        store: BackupStore,
        secrets: SecretReader,
        write: Callable[[ObjectStore, str], OwnerMarker | None],
    ) -> OwnerMarker | None:
        """Write a marker, unless that was tried a short time ago, and return the one that is there then."""
        known = self._of(store)
        if _now() - known.written_at >= CACHE_SECONDS:
            opened = await stores.open(store, store.spec.container, secrets)
            marker, error = await _called(stores, store, partial(write, opened, store.spec.prefix))
            known.written_at, known.write_error = _now(), error
            if error is None:
                known.read_at, known.marker = _now(), marker
        if known.write_error is not None:
            raise _again(known.write_error)
        return known.marker

    def _of(self, store: BackupStore) -> _Known:
        known = self._known.get(store.uid)
        if known is None or known.generation != store.metadata.generation:
            known = self._known[store.uid] = _Known(store.metadata.generation)
        self._known.move_to_end(store.uid)
        if len(self._known) > MAX_STORES:
            self._known.popitem(last=False)
        return known


async def _called(
    stores: StorePool, store: BackupStore, call: Callable[[], OwnerMarker | None]
) -> tuple[OwnerMarker | None, PermanentError | None]:
    """Return what a call returns, or its permanent error. Raises temporary ones."""
    try:
        return await stores.call(store, call), None
    except PermanentError as error:
        return None, _again(error)


def _again(error: PermanentError) -> PermanentError:
    """Return the same error without what it came from."""
    return PermanentError(error.message, reason=error.reason)


def _now() -> float:
    return asyncio.get_running_loop().time()
