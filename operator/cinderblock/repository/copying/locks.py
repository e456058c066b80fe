"""Lock copies as their store asks, and never a manifest for longer than the packs that it lists.

The footer of a manifest records locks in the store that it was written for. A copy is the same bytes, so this record
says nothing about the target. Only the target itself is asked: a request for each pack that is there already.

Crashes. New packs are locked when they are written, and present ones before the manifest is. If the mover dies in
between, some packs are locked for longer than anybody needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from cinderblock.api.mover import LockTask
from cinderblock.api.v1alpha1.store import LockMode
from cinderblock.errors import PermanentError, TransientError
from cinderblock.reasons import Reason
from cinderblock.repository.locks.extend import CONCURRENT_EXTENSIONS, extend_lock, running_lock
from cinderblock.repository.verify.bounded_map import map_bounded
from cinderblock.store.base import ObjectLock, ObjectStore

_MOST_KNOWN: Final = 1 << 16
"""Packs whose locks are known: 16 MB. Backups of one volume share packs, and the others are asked again."""


class TargetLocks:
    """The locks in a store that gets copies, for one run of a mover.

    Args:
        store: the target.
        lock: what it asks for; None: it asks for no locks.
    """

    def __init__(self, store: ObjectStore, lock: LockTask | None) -> None:
        self._store = store
        self._lock = lock
        self._known: dict[str, datetime] = {}

    def of_copy(self, manifest: str) -> CopyLocks:
        """Return the locks of one copy, by the key of its manifest. Raises what the store raises."""
        # The clock of a node may be wrong. A lock that ends before those that the store asks for changes nothing.
        counts_after = self._lock.at_least if self._lock is not None else datetime.now(UTC)
        try:
            present = running_lock(self._store, manifest, counts_after)
        except PermanentError:
            # A copy without locks does not depend on a server that can tell.
            if self._lock is not None:
                raise
            present = None
        return CopyLocks(self._store, manifest, _wanted(self._lock, present), present, self._known)


class CopyLocks:
    """The locks of a manifest and of the packs that it lists.

    Args:
        store: the target.
        manifest: key of the manifest.
        wanted: the lock of new packs, and the least one of all packs; None: none.
        present: the lock of the manifest in the target, if it ends later than ``wanted`` needs.
        known: ends of the locks of packs that this run has seen or set.

    Attributes:
        of_manifest: the lock of a new manifest, when `lock_packs` has returned; None: none.
    """

    def __init__(
        self,
        store: ObjectStore,
        manifest: str,
        wanted: LockTask | None,
        present: ObjectLock | None,
        known: dict[str, datetime],
    ) -> None:
        self._store = store
        self._manifest = manifest
        self.of_manifest: ObjectLock | None = None
        self._wanted = wanted
        self._present = present
        self._known = known

    def put_pack(self, key: str, body: bytes) -> None:
        """Write a pack with its lock."""
        wanted = self._wanted
        self._store.put(key, body, ObjectLock(wanted.mode, wanted.until) if wanted is not None else None)
        if wanted is not None:
            self._note(key, wanted.until)

    def lock_packs(self, keys: Iterable[str]) -> None:
        """Extend the locks of packs that end too early.

        Raises:
            LockNotExtended: the target refuses to lock a pack for long enough.
            TransientError: a pack has vanished (Overtaken), or the target does not answer.
        """
        wanted = self._wanted
        if wanted is None:
            return
        earliest = wanted.until
        for key, end in map_bounded(self._end_of, keys, CONCURRENT_EXTENSIONS):
            earliest = min(earliest, end)
            self._note(key, end)
        self.of_manifest = ObjectLock(wanted.mode, earliest)

    def extend_manifest(self) -> None:
        """Extend the lock of the manifest that the target has already. A longer one stays."""
        lock = self.of_manifest
        if lock is not None and (self._present is None or self._present.until < lock.until):
            extend_lock(self._store, self._manifest, LockTask(mode=lock.mode, until=lock.until, at_least=lock.until))

    def end(self) -> datetime | None:
        """Return until when the target keeps the manifest, as it says itself; None: it is not locked."""
        return self._store.retention.inspect(self._manifest).retained_until if self._wanted is not None else None

    def _end_of(self, key: str) -> datetime:
        """Return when the lock of a pack ends, after it was extended if necessary."""
        wanted = self._wanted
        assert wanted is not None
        known = self._known.get(key)
        if known is not None and known >= wanted.at_least:
            return known
        state = self._store.retention.inspect(key)
        if not state.exists:
            raise TransientError(
                f"Cannot lock {key}: it was removed from the target at the same time. The copy is completed later.",
                reason=Reason.OVERTAKEN,
            )
        if state.retained_until is not None and state.retained_until >= wanted.at_least:
            return state.retained_until
        return extend_lock(self._store, key, wanted)

    def _note(self, key: str, end: datetime) -> None:
        if len(self._known) < _MOST_KNOWN:
            self._known[key] = end


def _wanted(lock: LockTask | None, present: ObjectLock | None) -> LockTask | None:
    """Return the locks of packs: what the store asks for, and never less than the lock of the present manifest.

    That one may be longer, because the period was shortened, or because the store no longer asks for locks. A pack
    that is sent again must not end before it.
    """
    if present is None:
        return lock
    if lock is None:
        return LockTask(mode=present.mode, until=present.until, at_least=present.until)
    mode = LockMode.COMPLIANCE if LockMode.COMPLIANCE in (lock.mode, present.mode) else lock.mode
    return LockTask(mode=mode, until=max(lock.until, present.until), at_least=max(lock.at_least, present.until))
