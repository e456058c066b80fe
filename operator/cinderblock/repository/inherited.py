"""Remove the packs of removed backups that no manifest lists any more.

A removed backup may leave packs that others list: these have inherited them, under the old id. A mark next to them
(see `objects.MARK_NAME`) says that their manifest was deleted on purpose. Packs without manifest and mark belong to
somebody else: to a backup that is being made, to an interrupted one, or to a person. This code never removes them.

No order of events makes a manifest list packs that are gone. The manifests of removed backups are deleted first, then
the manifests are listed, then packs go. A backup that commits before this listing is in it. One that commits later
finds that its parent has no manifest, and withdraws, unless its parent is in this listing too: then this parent lists
all packs of others that the new backup lists.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Final

from cinderblock.errors import (
    IntegrityError,
    KeyUnavailable,
    ObjectLocked,
    ObjectNotFound,
    PermanentError,
    ReferencesUnknown,
    TooLarge,
    TransientError,
    UnsupportedFormat,
)
from cinderblock.format.manifest.footer import MAX_SUMMARY_BYTES
from cinderblock.format.manifest.pack_set import PackSet
from cinderblock.format.manifest.summary_reader import SMALL_SUMMARY_BYTES
from cinderblock.format.pack import Origin, parse_pack_name
from cinderblock.reasons import Reason
from cinderblock.repository.object_locks import find_lock, with_effect
from cinderblock.repository.objects import (
    MARK_NAME,
    BackupRef,
    PackObject,
    list_manifests,
    list_packs_of_volume,
    mark_key,
)
from cinderblock.repository.references import References
from cinderblock.store.base import DELETE_BATCH_KEYS, ObjectStore
from cinderblock.store.deadline import with_current

MARK: Final = b"This backup was removed. Other backups list the packs next to this object.\n"
"""Content of a mark, for people who find it. Only its name counts."""
LISTING_AGE_SECONDS: Final = 60.0
"""Age of a listing of manifests from which they are listed again before packs are deleted."""
CONCURRENT_READS: Final = 4
"""Manifests whose lists of packs are read at once. Each list takes at most 20 MB."""
NO_MANIFEST: Final = "The backup has no manifest, and cannot be restored."
_BATCH_MANIFESTS: Final = 32
_LISTED_AT_ONCE: Final = 8 * DELETE_BATCH_KEYS
"""Objects that are listed in one step: eight requests."""


def read_needed(references: References, needed: PackSet) -> Iterator[None]:
    """Add to ``needed`` the packs that manifests list of backups without a manifest, in steps.

    Args:
        references: a look-up of the manifests that stay.
        needed: an empty set.

    Raises ReferencesUnknown if a manifest cannot be read, because it may list any pack; TransientError if a manifest
    has vanished meanwhile; and what the store raises.
    """
    while not references.is_complete:
        references.read_batch()
        yield
    unknown = references.first_unknown()
    if unknown is not None:
        raise ReferencesUnknown(unknown.message, unknown)
    live, heirs = references.listed_ids, references.heirs()
    for start in range(0, len(heirs), _BATCH_MANIFESTS):
        for packs in _read_lists(references, heirs[start : start + _BATCH_MANIFESTS]):
            needed.update(packs, without=live)
        yield


def _read_lists(references: References, heirs: Sequence[BackupRef]) -> Iterator[PackSet]:
    read = partial(_read_list, references, max_summary_bytes=SMALL_SUMMARY_BYTES)
    with ThreadPoolExecutor(CONCURRENT_READS, "packs") as pool:
        for found, first in zip(heirs, pool.map(with_current(read), heirs), strict=True):
            # A large summary takes much memory, so it is read alone.
            packs = _read_list(references, found) if isinstance(first, TooLarge) else first
            if isinstance(packs, PermanentError):
                raise ReferencesUnknown(packs.message, packs)
            yield packs


def _read_list(
    references: References, found: BackupRef, max_summary_bytes: int = MAX_SUMMARY_BYTES
) -> PackSet | PermanentError:
    try:
        return references.packs_of(found, max_summary_bytes)
    except ObjectNotFound as error:
        raise changed(found.volume_id) from error
    except (IntegrityError, KeyUnavailable, TooLarge, UnsupportedFormat) as error:
        return error


def changed(volume_id: str) -> TransientError:
    """Return the error about manifests that come or go during a removal, which must then begin again."""
    return TransientError(
        f"The manifests of volume {volume_id} have changed during the removal, which begins again.",
        reason=Reason.READING_REFERENCES,
    )


def not_gone(key: str) -> TransientError:
    """Return the error about an object that the store still has: a cache, or a proxy that does not pass requests on."""
    return TransientError(
        f"Cannot delete {key}: the store confirms its deletion, and still has it. Check that no proxy in between caches"
        " or answers requests.",
        reason=Reason.STORE_REFUSES,
    )


class Sweep:
    """One pass over the packs of a volume. Use it once, right after the manifests were listed.

    Attributes:
        deleted: number of objects that were deleted.
        kept: number of packs that stay because manifests list them, by the removed backup that made them.
        locked: errors of removed backups of which the store keeps an object.
        seen: removed backups of which the store had packs or a mark.

    Args:
        store, prefix, volume_id: where the packs are.
        removed: ids of backups that were removed just now. If one has a manifest, its packs stay.
        live: ids of all backups that have a manifest.
        needed: the packs that their manifests list of backups without a manifest.
        clock: returns the present instant, for messages about locks.
        monotonic: returns seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        volume_id: str,
        removed: Collection[str],
        *,
        live: Collection[str],
        needed: PackSet,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deleted = 0
        self.kept: Counter[str] = Counter()
        self.locked: dict[str, ObjectLocked] = {}
        self.seen: set[str] = set()
        self._store = store
        self._prefix = prefix
        self._volume_id = volume_id
        self._removed = frozenset(removed)
        self._live = frozenset(live)
        self._needed = needed
        self._clock = clock
        self._monotonic = monotonic
        self._listed_at = monotonic()
        self._marked: set[str] = set()
        self._locked_elsewhere: ObjectLocked | None = None

    def steps(self) -> Iterator[None]:
        """Delete packs, then marks without packs, and mark removed backups whose packs stay.

        Raises TransientError if a manifest has appeared meanwhile, or a deleted object is still there; and what the
        store raises.
        """
        batch: list[PackObject] = []
        for number, found in enumerate(list_packs_of_volume(self._store, self._prefix, self._volume_id), 1):
            if self._is_garbage(found):
                batch.append(found)
            if len(batch) == DELETE_BATCH_KEYS:
                self._delete(batch)
                batch = []
            if number % _LISTED_AT_ONCE == 0:
                yield
        if batch:
            self._delete(batch)
        yield
        self._update_marks()
        if self._locked_elsewhere is not None and not self._live:
            # No later pass would remove it.
            for backup_id in self._removed:
                self.locked.setdefault(backup_id, self._locked_elsewhere)

    def _is_garbage(self, found: PackObject) -> bool:
        """Return whether an object goes, and take note of marks and of packs that stay."""
        if found.backup_id in self._live:
            return False
        if found.backup_id in self._removed:
            self.seen.add(found.backup_id)
        if found.name == MARK_NAME:
            self._marked.add(found.backup_id)
            return False
        if found.backup_id not in self._removed and found.backup_id not in self._marked:
            return False
        parsed = parse_pack_name(found.name)
        is_needed = parsed is not None and self._needed.has(Origin(found.backup_id, parsed[0]), parsed[1])
        self.kept[found.backup_id] += is_needed
        return not is_needed

    def _delete(self, batch: Sequence[PackObject]) -> None:
        self._check_listing()
        try:
            self._store.delete([found.key for found in batch])
        except ObjectLocked:
            # The locked objects of one backup must not keep those of the others.
            for backup_id, group in groupby(batch, attrgetter("backup_id")):
                self._delete_of_one(backup_id, [found.key for found in group])
            return
        self.deleted += len(batch)
        self._check_gone(batch[-1].key)

    def _delete_of_one(self, backup_id: str, keys: list[str]) -> None:
        try:
            self._store.delete(keys)
        except ObjectLocked as error:
            shown = find_lock(self._store, keys, self._clock()) or error
            if backup_id in self._removed:
                self.locked[backup_id] = with_effect(shown, NO_MANIFEST)
            else:
                self._locked_elsewhere = with_effect(shown, NO_MANIFEST)
            # The mark of the backup stays with its packs.
            self.kept[backup_id] += 1
        else:
            self.deleted += len(keys)

    def _check_listing(self) -> None:
        """List the manifests again if the last listing is old. Raises TransientError if there are more now."""
        if self._monotonic() - self._listed_at <= LISTING_AGE_SECONDS:
            return
        now = self._monotonic()
        if any(found.backup_id not in self._live for found in self._list_manifests()):
            raise changed(self._volume_id)
        self._listed_at = now

    def _list_manifests(self) -> Iterator[BackupRef]:
        return list_manifests(self._store, self._prefix, self._volume_id)

    def _check_gone(self, key: str) -> None:
        """Raise TransientError if the store still has an object that it has deleted."""
        try:
            self._store.get(key, 0, 1)
        except ObjectNotFound:
            return
        raise not_gone(key)

    def _update_marks(self) -> None:
        for backup_id in sorted(self._removed - self._marked):
            if self.kept[backup_id] and backup_id not in self._live:
                self._store.put(mark_key(self._prefix, self._volume_id, backup_id), MARK)
        empty = [backup_id for backup_id in sorted(self._marked) if not self.kept[backup_id]]
        marks = [PackObject(mark_key(self._prefix, self._volume_id, name), name, MARK_NAME) for name in empty]
        for start in range(0, len(marks), DELETE_BATCH_KEYS):
            self._delete(marks[start : start + DELETE_BATCH_KEYS])
