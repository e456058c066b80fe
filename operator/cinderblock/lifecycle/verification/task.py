"""The task of the mover of a verification."""

from __future__ import annotations

from cinderblock.api import layout
from cinderblock.api.duration import to_timedelta
from cinderblock.api.mover import TREE_PATH, BackupMetadata, MoverOperation, MoverTask, VerifyTask, VolumeMode
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationLevel
from cinderblock.lifecycle import children, expected_manifest
from cinderblock.lifecycle.mover import broker
from cinderblock.lifecycle.observed import MoverSettings
from cinderblock.lifecycle.store import place


def mover_task(
    verification: BackupVerification, backup: VolumeBackup, store: BackupStore, settings: MoverSettings
) -> MoverTask:
    """Return the task to verify ``backup``, and at level Data the recorded part of its volume's data.

    The mover has no volume. The operator does not read the manifest, because a damaged one is a finding.
    """
    status, key = backup.status, backup.status.manifest_key or ""
    volume_id, backup_id = layout.recorded_ids(key)
    return MoverTask(
        operation=MoverOperation.VERIFY,
        store=children.location(store, place.container_of(store, status.container), settings.allowed_endpoints),
        broker=broker.location(store, settings),
        volume_mode=VolumeMode.FILESYSTEM,
        path=TREE_PATH,
        backup=_metadata(backup, volume_id, backup_id),
        expected=expected_manifest.expected_of_status(backup, store),
        manifest=key,
        compression=store.spec.compression,
        sealed=bool(status.sealed),
        verify=_verify_task(verification),
    )


def _metadata(backup: VolumeBackup, volume_id: str, backup_id: str) -> BackupMetadata:
    created, data_timestamp = backup.metadata.creation_timestamp, backup.status.data_timestamp
    if created is None:
        raise ValueError("the VolumeBackup has no creationTimestamp")
    return BackupMetadata(
        backup_id=backup_id,
        backup_name=backup.name,
        namespace=backup.namespace,
        volume_id=volume_id,
        volume_name=backup.status.volume_name or "",
        volume_mode=VolumeMode.FILESYSTEM,
        created_at=created,
        data_timestamp=data_timestamp or created,
    )


def _verify_task(verification: BackupVerification) -> VerifyTask:
    spec, rule = verification.spec, verification.spec.data
    if spec.level is not VerificationLevel.DATA:
        return VerifyTask(level=spec.level)
    return VerifyTask(
        level=spec.level,
        part=verification.status.part or 1,
        parts=rule.parts,
        max_bytes=rule.max_bytes,
        max_seconds=int(to_timedelta(rule.max_duration).total_seconds()) if rule.max_duration else None,
    )
