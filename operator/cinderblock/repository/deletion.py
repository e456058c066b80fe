"""Delete a backup from a store, but never what another manifest lists, or may list.

The manifest goes first, so that no manifest ever points to packs that are gone. If the process is killed in between,
the next attempt repeats the whole deletion, and checks again which backups need the packs. If an object is locked,
nothing is deleted, as far as the server shows its locks before. No lock is ever bypassed.

If the backup was the last one to list packs of removed backups, these packs go too: see `inherited`. A mark is written
before the manifest goes, and deleted last, so that a repeated deletion knows of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import (
    BackupNeeded,
    CinderblockError,
    Conflict,
    ForeignManifest,
    IntegrityError,
    ObjectLocked,
    ObjectNotFound,
    ReferencesUnknown,
)
from cinderblock.format.manifest.pack_set import PackSet
from cinderblock.format.manifest.reader import read_header
from cinderblock.repository.inherited import MARK, NO_MANIFEST, Sweep, not_gone, read_needed
from cinderblock.repository.object_locks import check_locks, find_lock, with_effect
from cinderblock.repository.objects import list_pack_objects, mark_key
from cinderblock.repository.references import References
from cinderblock.store.base import DELETE_BATCH_KEYS, ObjectStore

_NAMED_DEPENDENTS: Final = 10
"""Backups that the message of BackupNeeded names at most."""


def delete_backup(
    store: ObjectStore,
    prefix: str,
    volume_id: str,
    backup_id: str,
    references: References,
    *,
    now: datetime,
    waits_for_lock: bool = False,
) -> int:
    """Delete the manifest of a backup and its packs. Other programs' objects stay where they are.

    Args:
        store, prefix: where the backup is.
        volume_id, backup_id: which backup it is.
        references: a new look-up of the manifests of the volume.
        now: the present instant, with time zone; locks end before or after it.
        waits_for_lock: whether a lock of the manifest keeps the backup even if a deletion would only hide it.

    Returns:
        How many objects were deleted.

    Raises:
        BackupNeeded: other backups need its packs; nothing was deleted.
        ReferencesUnknown: nothing shows whether others need its packs; nothing was deleted.
        Conflict: the manifest under its key belongs to another backup (ForeignManifest); nothing was deleted.
        ObjectLocked: the store keeps an object of the backup for now. The message says if others were deleted.
        TransientError: the store confirmed the deletion, and still has an object.

    Every error after the deletion of the manifest has ``is_partly_done``: the store no longer lists the backup, so
    only its ids lead to its packs.
    """
    references.read_all()
    dependents = references.needs(backup_id)
    if dependents.by:
        raise BackupNeeded(
            f"Cannot delete backup {backup_id}: backups {_format_ids(dependents.by)} need its data. Delete them first.",
            dependents.by,
        )
    if dependents.unknown:
        raise ReferencesUnknown(dependents.unknown[0].message, dependents.unknown[0])
    return _Deletion(
        store, prefix, volume_id, backup_id, references=references, now=now, waits_for_lock=waits_for_lock
    ).run()


class _Deletion:
    """The deletion of a backup that no other one needs."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        volume_id: str,
        backup_id: str,
        *,
        references: References,
        now: datetime,
        waits_for_lock: bool,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._volume_id = volume_id
        self._backup_id = backup_id
        self._references = references
        self._now = now
        self._waits_for_lock = waits_for_lock
        self._mark = mark_key(prefix, volume_id, backup_id)

    def run(self) -> int:
        """Delete the manifest, then the packs, then packs that only this backup inherited. Return their number."""
        key = manifest_key(self._prefix, self._volume_id, self._backup_id)
        expected = ExpectedBackup(volume_id=self._volume_id, backup_id=self._backup_id)
        has_manifest = has_own_manifest(self._store, key, expected)
        inherits, known = self._references.inherits(self._backup_id), self._references.listed_ids
        if has_manifest:
            self._delete_manifest(key, inherits=inherits)
        with _partly_done():
            if has_manifest:
                _check_gone(self._store, key)
            if self._backup_id in known:
                self._references.list_again()
            if self._references.listed_ids - known:
                # A backup was committed meanwhile, and may list the packs.
                return has_manifest + self._sweep()
            is_marked = inherits if has_manifest else next(self._objects(), None) == self._mark
            return has_manifest + self._delete_packs() + self._delete_inherited(is_marked=is_marked)

    def _delete_manifest(self, key: str, *, inherits: bool) -> None:
        """Delete a manifest if neither it nor a pack is locked. Raises ObjectLocked; nothing was deleted then."""
        is_marked = False
        try:
            check_locks(self._store, key, self._objects(), self._now, counts_always=self._waits_for_lock)
            if inherits:
                self._store.put(self._mark, MARK)
                is_marked = True
            self._store.delete([key])
        except ObjectLocked as error:
            if is_marked:
                # A mark next to a manifest means nothing, unless that manifest is lost later.
                with suppress(CinderblockError):
                    self._store.delete([self._mark])
            raise with_effect(error, "Nothing was deleted.") from error

    def _delete_packs(self) -> int:
        """Delete the packs of the backup, which has no manifest. Return their number."""
        try:
            count = _delete_all(self._store, self._packs())
        except ObjectLocked as error:
            shown = find_lock(self._store, self._packs(), self._now) or error
            raise with_effect(shown, NO_MANIFEST) from error
        left = next(self._packs(), None)
        if left is not None:
            raise not_gone(left)
        return count

    def _delete_inherited(self, *, is_marked: bool) -> int:
        """Delete packs of removed backups that no manifest lists any more, and the mark. Return their number.

        If a manifest cannot be read, these packs stay until the next removal of a backup of the volume.
        """
        if not is_marked and self._references.listed_ids:
            return 0
        try:
            return self._sweep()
        except ReferencesUnknown:
            self._store.delete([self._mark])
            return int(is_marked)

    def _sweep(self) -> int:
        """Delete all packs of removed backups and of this one that no manifest lists. Return their number."""
        needed = PackSet()
        for _ in read_needed(self._references, needed):
            pass
        sweep = Sweep(
            self._store,
            self._prefix,
            self._volume_id,
            {self._backup_id},
            live=self._references.listed_ids,
            needed=needed,
            clock=lambda: self._now,
        )
        for _ in sweep.steps():
            pass
        if sweep.locked:
            raise next(iter(sweep.locked.values()))
        return sweep.deleted

    def _objects(self) -> Iterator[str]:
        """List the keys of the backup's packs, its mark and its wrapped key."""
        listed = list_pack_objects(self._store, self._prefix, self._volume_id, self._backup_id)
        return (found.key for found in listed)

    def _packs(self) -> Iterator[str]:
        return (key for key in self._objects() if key != self._mark)


@contextmanager
def _partly_done() -> Iterator[None]:
    """Mark every error: the manifest is gone."""
    try:
        yield
    except CinderblockError as error:
        error.is_partly_done = True
        raise


def _check_gone(store: ObjectStore, manifest: str) -> None:
    """Raise TransientError if the store still has a manifest: its packs must not go before it."""
    try:
        store.get(manifest, 0, 1)
    except ObjectNotFound:
        return
    raise not_gone(manifest)


def _delete_all(store: ObjectStore, keys: Iterator[str]) -> int:
    """Delete packs while they are being listed, in batches. Return their number."""
    count = 0
    # A volume of 64 TiB has 2.8 million packs, so their keys are never held together.
    while batch := list(islice(keys, DELETE_BATCH_KEYS)):
        store.delete(batch)
        count += len(batch)
    return count


def has_own_manifest(store: ObjectStore, key: str, expected: ExpectedBackup) -> bool:
    """Return whether the backup has a manifest. One that is too damaged to name its backup belongs to its key.

    Raises Conflict if the object under the key is the manifest of another backup.
    """
    try:
        read_header(partial(store.get, key), expected, key)
    except ObjectNotFound:
        return False
    except ForeignManifest as error:
        raise Conflict(
            f"{error.message} Nothing was deleted. An S3 client can remove that one object.", reason=error.reason
        ) from error
    except IntegrityError:
        return True
    return True


def _format_ids(backup_ids: Sequence[str]) -> str:
    more = len(backup_ids) - _NAMED_DEPENDENTS
    listed = ", ".join(backup_ids[:_NAMED_DEPENDENTS])
    return f"{listed} and {more} more" if more > 0 else listed
