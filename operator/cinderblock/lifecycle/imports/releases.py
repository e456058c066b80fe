"""The marks of released backups: their data stays in the store, and no import brings their VolumeBackup back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from cinderblock.api import layout
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import MAX_RELEASED, BackupStore, ImportMode
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.imports.names import import_id
from cinderblock.lifecycle.store import place

TRIM_FROM: Final = MAX_RELEASED * 9 // 10
"""Marks from which on those are dropped whose manifest is not in the store."""


def release_id(backup: VolumeBackup) -> str:
    """Return the id by which an import would know the data of a VolumeBackup."""
    key = backup.status.manifest_key if backup.own_phase is not None else None
    source = backup.spec.import_
    key = key or (source.manifest if source is not None else None)
    try:
        return import_id(key, layout.recorded_ids(key)[1]) if key else backup.backup_id
    except InvalidInput:
        return backup.backup_id


def stores_without_mark(
    backup: VolumeBackup, store: BackupStore, others: Sequence[BackupStore]
) -> tuple[BackupStore, ...]:
    """Return the BackupStores that need a mark before a VolumeBackup may go, since its data stays.

    Its own store needs one, and another one that imports from the place of its data if its own store does not.
    Imports read the marks of all BackupStores of their place, so one of these is enough. A VolumeBackup that the import
    itself removes may come back with its manifest.

    Args:
        backup: the VolumeBackup.
        store: its BackupStore.
        others: the other BackupStores of the namespace that lead to the place of its data.
    """
    missing = backup.status.manifest_missing if backup.has_own_status else None
    if missing is not None and missing.removing:
        return ()
    importing = sorted((other for other in others if _imports(other)), key=lambda other: other.name)
    holders = [store] if _imports(store) else []
    if not is_own_place(backup, store) or not holders:
        holders += importing[:1]
    backup_id = release_id(backup)
    return tuple(each for each in holders if not _has_mark(each, backup_id))


def is_own_place(backup: VolumeBackup, store: BackupStore) -> bool:
    """Return whether the data of a VolumeBackup is in the bucket from which its own store imports."""
    return store.spec.container == place.container_of(store, backup.status.container)


def _imports(store: BackupStore) -> bool:
    return store.spec.import_.mode is not ImportMode.NEVER and not store.metadata.is_being_deleted


def _has_mark(store: BackupStore, backup_id: str) -> bool:
    """Return whether a store has a mark. One that is full of marks needs none: it imports nothing."""
    released = store.status.released or []
    return is_full(released) or backup_id in released


def is_full(released: Collection[str]) -> bool:
    """Return whether no more marks fit, so that nothing may be imported."""
    return len(released) >= MAX_RELEASED


def with_marks(released: Collection[str], added: Iterable[str]) -> list[str]:
    """Return the marks with further ones, the oldest first, at most MAX_RELEASED."""
    return list(dict.fromkeys((*released, *added)))[:MAX_RELEASED]


def trimmed(released: Collection[str], gone: Collection[str]) -> list[str]:
    """Return the marks without those whose manifest a listing lacked, if there are nearly too many.

    Otherwise these stay: a manifest may be back at the next listing. If the marks are full, VolumeBackups were deleted
    without a mark, so all of them stay as well, and nothing is imported.
    """
    if is_full(released) or len(released) < TRIM_FROM:
        return list(released)
    return [backup_id for backup_id in released if backup_id not in gone]
