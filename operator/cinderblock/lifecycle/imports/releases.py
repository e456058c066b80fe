"""The marks of released backups: their data stays in the store, and no import brings their VolumeBackup back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from cinderblock.api import layout
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import MAX_RELEASED, BackupStore, ImportMode
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.imports.names import import_id

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


def needs_mark(backup: VolumeBackup, store: BackupStore | None) -> bool:
    """Return whether a VolumeBackup may go only after its BackupStore has a mark, since its data stays.

    A store without imports needs none, and one that is full of marks imports nothing (`is_full`). A VolumeBackup that
    the import itself removes may come back with its manifest.
    """
    if store is None or store.spec.import_.mode is ImportMode.NEVER or store.metadata.is_being_deleted:
        return False
    missing = backup.status.manifest_missing if backup.has_own_status else None
    is_removed = missing is not None and missing.removing
    released = store.status.released or []
    return not is_removed and not is_full(released) and release_id(backup) not in released


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
