"""The identity that a manifest must have. It is known before the manifest is read, and never comes from it."""

from __future__ import annotations

from cinderblock.api import layout
from cinderblock.api.mover import MoverReport
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.observed import ObservedManifest


def must_be_sealed(store: BackupStore, backup: VolumeBackup) -> bool:
    """Return whether a backup without a status must be encrypted: an import, or a backup whose status was lost.

    Anybody who can write to the container can put an unsealed backup there. So a store with an encryption Secret
    accepts none, unless the BackupStore or the import allows it.
    """
    source = backup.spec.import_
    is_allowed = store.spec.allow_unsealed or (source is not None and source.allow_unsealed)
    return store.spec.encryption_secret_ref is not None and not is_allowed


def expected_at_key(backup: VolumeBackup, store: BackupStore, key: str) -> ExpectedBackup:
    """Return the identity to expect at ``key`` for a backup without a status."""
    return _expected(backup, key, sealed=must_be_sealed(store, backup))


def expected_of_run(backup: VolumeBackup, store: BackupStore, key: str, report: MoverReport | None) -> ExpectedBackup:
    """Return the identity to expect at ``key`` when a mover has made the backup.

    Args:
        backup: the backup.
        store: its store.
        key: the key of its manifest.
        report: the report of a mover that has succeeded. A mover of an earlier release reports no pins.
    """
    sealed = store.spec.encryption_secret_ref is not None
    return _expected(backup, key, sealed=sealed, pins=report.pins if report else None)


def expected_of_status(
    backup: VolumeBackup, store: BackupStore, read: ObservedManifest | None = None
) -> ExpectedBackup:
    """Return the identity to expect of a complete backup.

    Args:
        backup: the backup; its status has the key of the manifest.
        store: its store.
        read: its manifest as the operator has read it; its pins count if the status has none yet.

    Raises InvalidInput if the status does not say where the manifest is.
    """
    status = backup.status
    sealed = must_be_sealed(store, backup) if status.sealed is None else status.sealed
    pins = status.pins or (read.pins if read else None)
    expected = _expected(backup, status.manifest_key or "", sealed=sealed, pins=pins)
    return expected.model_copy(update={"volume_id": status.volume_id or expected.volume_id})


def _expected(backup: VolumeBackup, key: str, *, sealed: bool, pins: Pins | None = None) -> ExpectedBackup:
    """Return the expected identity. An imported backup has the ids of its key, and only its manifest has its age."""
    volume_id, backup_id = layout.recorded_ids(key)
    created_at = None if backup.spec.import_ else backup.metadata.creation_timestamp
    return ExpectedBackup(volume_id=volume_id, backup_id=backup_id, sealed=sealed, pins=pins, created_at=created_at)
