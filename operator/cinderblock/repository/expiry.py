"""Remove expired backups, although others may list their packs: these packs stay until the last of the others goes.

The order makes it safe to die at any request, and to begin again. First all manifests that stay are read; if one
cannot be read, nothing is deleted. Then the manifests of the expired backups go. Then the manifests are listed again,
and packs go that none of them lists: see `inherited`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import CinderblockError, Conflict, ObjectLocked, UnsupportedFormat
from cinderblock.format.manifest.pack_set import PackSet
from cinderblock.repository.deletion import has_own_manifest
from cinderblock.repository.inherited import Sweep, not_gone, read_needed
from cinderblock.repository.object_locks import HasRetention, RulesReadOnce, check_locks, with_effect
from cinderblock.repository.objects import list_pack_objects
from cinderblock.repository.references import References
from cinderblock.store.base import DELETE_BATCH_KEYS, ObjectStore
from cinderblock.store.deadline import with_current

CONCURRENT_CHECKS: Final = 8
"""Expired backups that are checked at once. Each takes two small requests, so latency is what counts."""
_CHECKED_AT_ONCE: Final = 64
_NOTHING_DELETED: Final = "Nothing was deleted."


class Expiry:
    """One removal of expired backups of a volume. Use it once.

    Attributes:
        removed: the backups that are gone, and how many of their packs stay because other backups list them.
        absent: those of them of which the store had nothing.
        errors: why others are not gone. Nothing was deleted of those with Conflict (the manifest belongs to another
            backup) or UnsupportedFormat (a later release wrote it). ObjectLocked says if something was deleted.
            TransientError: the store still has a deleted manifest.

    Args:
        store, prefix, volume_id: where the backups are.
        backup_ids: the expired backups, with or without a manifest. The caller makes sure that nobody restores them or
            builds on them.
        begin: begins a new look-up of the manifests of the volume.
        clock: returns the present instant, with time zone; locks end before or after it.
        monotonic: returns seconds.
        waits_for_locks: whether a lock keeps a backup even if a deletion would only hide it.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        volume_id: str,
        backup_ids: Collection[str],
        begin: Callable[[], References],
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        waits_for_locks: bool = False,
    ) -> None:
        self.removed: dict[str, int] = {}
        self.absent: frozenset[str] = frozenset()
        self.errors: dict[str, CinderblockError] = {}
        self._store = store
        self._prefix = prefix
        self._volume_id = volume_id
        self._ids = sorted(set(backup_ids))
        self._begin = begin
        self._clock = clock
        self._monotonic = monotonic
        self._waits_for_locks = waits_for_locks
        self._with_manifest: list[str] = []

    def steps(self) -> Iterator[None]:
        """Remove the backups, and yield between steps of a few seconds each.

        Raises ReferencesUnknown if a manifest that stays cannot be read; TransientError if manifests have come or gone
        meanwhile; and what the store raises. `removed` is only filled in the last step.
        """
        yield from self._check()
        if not self._going:
            return
        references = self._begin()
        references.leave_out(self._going)
        needed = PackSet()
        yield from read_needed(references, needed)
        known = references.listed_ids
        self._delete_manifests()
        yield
        references.list_again()
        self._check_gone(references)
        if references.listed_ids != known or not references.is_complete:
            # A backup was committed meanwhile, or a locked one stays. Or another removal took one: its packs are
            # neither needed nor those of a live backup, and its mark would release them.
            needed = PackSet()
            yield from read_needed(references, needed)
        yield from self._sweep(references.listed_ids, needed)

    @property
    def _going(self) -> list[str]:
        return [backup_id for backup_id in self._ids if backup_id not in self.errors]

    def _check(self) -> Iterator[None]:
        """Find the manifests of the backups, and those that must not be deleted."""
        rules = RulesReadOnce(self._store.retention)
        for start in range(0, len(self._ids), _CHECKED_AT_ONCE):
            batch = self._ids[start : start + _CHECKED_AT_ONCE]
            # Each step has a deadline of its own.
            check = with_current(partial(self._check_one, rules))
            with ThreadPoolExecutor(CONCURRENT_CHECKS, "expired") as pool:
                for backup_id, answer in zip(batch, pool.map(check, batch), strict=True):
                    if isinstance(answer, CinderblockError):
                        self.errors[backup_id] = answer
                    elif answer:
                        self._with_manifest.append(backup_id)
            yield

    def _check_one(self, rules: HasRetention, backup_id: str) -> bool | CinderblockError:
        """Return whether a backup has a manifest, or why that must stay."""
        key = self._key(backup_id)
        try:
            if not has_own_manifest(self._store, key, self._expected(backup_id)):
                return False
            packs = list_pack_objects(self._store, self._prefix, self._volume_id, backup_id)
            keys = (found.key for found in packs)
            check_locks(rules, key, keys, self._clock(), counts_always=self._waits_for_locks)
        except (Conflict, UnsupportedFormat) as error:
            return error
        except ObjectLocked as error:
            return with_effect(error, _NOTHING_DELETED)
        return True

    def _delete_manifests(self) -> None:
        for start in range(0, len(self._with_manifest), DELETE_BATCH_KEYS):
            batch = self._with_manifest[start : start + DELETE_BATCH_KEYS]
            try:
                self._store.delete([self._key(backup_id) for backup_id in batch])
            except ObjectLocked:
                for backup_id in batch:
                    self._delete_one(backup_id)

    def _delete_one(self, backup_id: str) -> None:
        try:
            self._store.delete([self._key(backup_id)])
        except ObjectLocked as error:
            self.errors[backup_id] = with_effect(error, _NOTHING_DELETED)

    def _check_gone(self, references: References) -> None:
        """Take note of manifests that are still listed. Their packs stay, like those of every other backup."""
        for backup_id in references.listed_ids.intersection(self._ids):
            self.errors.setdefault(backup_id, not_gone(self._key(backup_id)))

    def _sweep(self, live: frozenset[str], needed: PackSet) -> Iterator[None]:
        going = self._going
        sweep = Sweep(
            self._store,
            self._prefix,
            self._volume_id,
            going,
            live=live,
            needed=needed,
            clock=self._clock,
            monotonic=self._monotonic,
        )
        yield from sweep.steps()
        self.errors |= sweep.locked
        self.removed = {backup_id: sweep.kept[backup_id] for backup_id in going if backup_id not in sweep.locked}
        self.absent = frozenset(self.removed.keys() - sweep.seen - set(self._with_manifest))

    def _key(self, backup_id: str) -> str:
        return manifest_key(self._prefix, self._volume_id, backup_id)

    def _expected(self, backup_id: str) -> ExpectedBackup:
        return ExpectedBackup(volume_id=self._volume_id, backup_id=backup_id)
