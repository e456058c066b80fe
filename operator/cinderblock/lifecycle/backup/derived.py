"""The part of a backup's status that is derived from its manifest and its restores."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api.losses import count_files
from cinderblock.api.quantity import to_gib
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.lifecycle import volume_lock
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.observed import ObservedBackup, ObservedManifest


def with_manifest(status: VolumeBackupStatus, manifest: ObservedManifest) -> VolumeBackupStatus:
    """Return ``status`` with what the manifest says about the backup."""
    description = manifest.description
    return status.model_copy(
        update={
            "volume_id": description.volume_id,
            "volume_name": description.volume_name,
            "size": to_gib(description.volume_bytes),
            "object_count": manifest.object_count,
            "logical_bytes": manifest.logical_bytes,
            "transferred_bytes": manifest.transferred_bytes,
            "renewed_bytes": manifest.renewed_bytes or None,
            "stored_bytes": manifest.stored_bytes,
            "manifest_bytes": manifest.manifest_bytes,
            "entries": manifest.entries,
            "is_incremental": manifest.parent_id is not None,
            "parent_id": manifest.parent_id,
            "data_timestamp": description.data_timestamp,
            "manifest_key": manifest.key,
            "sealed": manifest.sealed,
            "reread_files": manifest.reread_files,
            "missed_changes": manifest.missed_changes,
            "pins": manifest.pins,
            "unreadable_files": manifest.unreadable_files or None,
            "unreadable_examples": list(manifest.unreadable_examples),
            "losses": list(manifest.losses),
            "locked_until": manifest.locked_until,
        }
    )


def incomplete(status: VolumeBackupStatus) -> str | None:
    """Return a message about the files that a backup lacks, derived from its status; None if it lacks nothing."""
    if not status.unreadable_files:
        return None
    examples = ", ".join(status.unreadable_examples)
    return (
        f"The backup lacks {count_files(status.unreadable_files)} that could not be read, for example {examples}."
        " Find the cause in the mover's log, repair the volume, and make another backup."
    )


def derived_phase(observed: ObservedBackup) -> BackupPhase:
    """Return restoring while a restore runs, error_restoring if the newest one failed, otherwise available.

    Restores in other namespaces count only while they run: why one fails there is not a matter of the backup.
    """
    if readers.running(observed) or any(r.status.phase is RestorePhase.RESTORING for r in _restores_of(observed)):
        return BackupPhase.RESTORING
    return BackupPhase.ERROR_RESTORING if newest_failed_restore(observed) else BackupPhase.AVAILABLE


def newest_failed_restore(observed: ObservedBackup) -> VolumeRestore | None:
    """Return the newest restore of the backup if it failed."""
    restores = _restores_of(observed)
    newest = restores[-1] if restores else None
    return newest if newest and newest.status.phase is RestorePhase.ERROR_RESTORING else None


def _restores_of(observed: ObservedBackup) -> list[VolumeRestore]:
    """Return the restores of this backup, oldest first."""
    own = [r for r in observed.restores if r.own_backup_id == observed.backup.backup_id]
    return sorted(own, key=restore_age_key)


def restore_age_key(restore: VolumeRestore) -> tuple[datetime | None, bool, str]:
    """Return a key that sorts restores by age.

    Creation times have a resolution of one second. Among restores created in the same second, prefer one that has not
    failed. Their end times do not help: they depend on which restore was interrupted.
    """
    created, uid = volume_lock.age_key(restore)
    return created, restore.status.phase is not RestorePhase.ERROR_RESTORING, uid
