"""Removals of expired backups, one at a time for each volume, and the memory of what was removed.

One removal takes many backups of a volume along. Each of them is reconciled afterwards, and must know that its data is
gone without asking the store again. A process that has forgotten that begins the removal again, which finds little.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.stores.circuit_breaker import LONG_CALL_SECONDS
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups, key_ring, place_of
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.controller.stores.staying import ListStaying, explain
from cinderblock.errors import CinderblockError, ReferencesUnknown
from cinderblock.lifecycle.observed import RemovedBackup
from cinderblock.repository.expiry import Expiry

REMEMBERED: Final = 100_000
"""Removed backups, and held volumes, that are remembered. Each takes about 500 bytes."""
HELD_FOR: Final = timedelta(seconds=55)
"""For how long a manifest that cannot be read holds the other expired backups of its volume without a new look."""
_END: Final = object()

T = TypeVar("T")


class ExpiryRuns:
    """Removes expired backups, and remembers them. For one event loop."""

    def __init__(self) -> None:
        self._left: OrderedDict[Hashable, RemovedBackup] = OrderedDict()
        self._held: OrderedDict[Hashable, tuple[CinderblockError, datetime]] = OrderedDict()

    def removed(self, store: BackupStore, container: str, volume_id: str, backup_id: str) -> RemovedBackup | None:
        """Return what the removal of a backup found and left; None if this process has not removed it."""
        return self._left.get((place_of(store, container, volume_id), backup_id))

    def held_by(self, store: BackupStore, container: str, volume_id: str, now: datetime) -> CinderblockError | None:
        """Return why the latest removal of the volume deleted nothing, if that was a moment ago."""
        error, when = self._held.get(place_of(store, container, volume_id), (None, now))
        return error if now - when < HELD_FOR else None

    async def remove(
        self,
        store: BackupStore,
        container: str,
        volume_id: str,
        backup_ids: Sequence[str],
        *,
        waits_for_locks: bool,
        stores: StorePool,
        references: ReferenceLookups,
        secrets: SecretReader,
        list_staying: ListStaying,
        guard: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        """Remove expired backups of a volume.

        Args:
            store, container, volume_id: where the backups are.
            backup_ids: which, at most a few thousand. Errors that concern only others than the first are not raised.
            waits_for_locks: whether a lock keeps a backup even if a deletion would only hide it.
            stores, references, secrets: what to remove with.
            list_staying: lists the complete VolumeBackups of the volume in this place that nobody deletes.
            guard: called before each step; raises if this process may not write any more.
            clock: returns the present instant.

        Raises what `Expiry` and ``guard`` raise; TransientError (ReadingReferences) while another call works on the
        volume.
        """
        opened, keys = await stores.open(store, container, secrets), await key_ring(stores, store, secrets)
        begin = references.begin(opened, keys, store, container, volume_id, expected=await list_staying())
        place = place_of(store, container, volume_id)
        run = Expiry(
            opened, store.spec.prefix, volume_id, backup_ids, begin, clock=clock, waits_for_locks=waits_for_locks
        )
        steps = run.steps()
        self._held.pop(place, None)
        try:
            async with references.lock(store, container, volume_id):
                guard()
                while await stores.call(store, partial(next, steps, _END), LONG_CALL_SECONDS) is not _END:
                    guard()
        except ReferencesUnknown as error:
            explained = await explain(error, volume_id, list_staying)
            if explained.permanent:
                # The raised error itself has a traceback, which keeps this removal.
                kept = type(explained)(explained.message, reason=explained.reason)
                self._remember(self._held, place, (kept, clock()))
            raise explained from error
        finally:
            references.trim(store, container, volume_id)
        for backup_id, left in run.removed.items():
            found = RemovedBackup(left, was_absent=backup_id in run.absent)
            self._remember(self._left, (place, backup_id), found)
        if backup_ids[0] in run.errors:
            # Taken out: otherwise the removal would keep the error, and its traceback the removal.
            raise run.errors.pop(backup_ids[0])

    @staticmethod
    def _remember(memory: OrderedDict[Hashable, T], key: Hashable, value: T) -> None:
        memory[key] = value
        if len(memory) > REMEMBERED:
            memory.popitem(last=False)
