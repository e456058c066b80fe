"""What the mover of a backup is asked to do, and what its manifest will say about the backup."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api import layout
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverTask
from cinderblock.api.origin import Consistency
from cinderblock.api.v1alpha1.store import BackupStore, ChangeDetection
from cinderblock.lifecycle import children, expected_manifest, volume_lock
from cinderblock.lifecycle.backup import checks, origin
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.observed import ObservedBackup


def mover_task(
    observed: ObservedBackup, store: BackupStore, claim: PersistentVolumeClaim, consistency: Consistency
) -> MoverTask:
    """What the mover is asked to do about ``claim``, whatever it mounts."""
    parent = checks.recorded_parent(observed)
    return MoverTask(
        operation=MoverOperation.BACKUP,
        store=children.location(store, container_of(observed, store)),
        volume_mode=claim.spec.volume_mode,
        path=mover_job.mover_path(claim.spec.volume_mode),
        backup=_description(observed, claim, consistency),
        parent_manifest=parent.status.manifest_key if parent else None,
        unreadable=observed.backup.spec.unreadable,
        expected_parent=expected_manifest.expected_of_status(parent, store, observed.parent) if parent else None,
        change_detection=_change_detection(observed, store, claim),
        dirty_window_seconds=int(store.spec.dirty_window.of(claim.spec.storage_class_name).total_seconds()),
        compare_every=store.spec.compare_every,
        data_instant=data_instant(observed),
        manifest=layout.manifest_key(store.spec.prefix, claim.uid, observed.backup.uid),
        compression=store.spec.compression,
        sealed=store.spec.encryption_secret_ref is not None,
        active_key=observed.store.active_key,
    )


def _change_detection(observed: ObservedBackup, store: BackupStore, claim: PersistentVolumeClaim) -> ChangeDetection:
    """Return what is compared. Timestamps that may reach the disk a day after the data prove nothing."""
    if observed.volume is not None and observed.volume.delays_timestamps:
        return ChangeDetection.CONTENT
    return store.spec.change_detection.of(claim.spec.storage_class_name)


def _description(observed: ObservedBackup, claim: PersistentVolumeClaim, consistency: Consistency) -> BackupMetadata:
    backup = observed.backup
    created = backup.metadata.creation_timestamp
    if created is None:
        raise ValueError("an object of the API server has a creationTimestamp")
    return BackupMetadata(
        backup_id=backup.uid,
        backup_name=backup.name,
        namespace=backup.namespace,
        volume_id=claim.uid,
        volume_name=claim.name,
        volume_mode=claim.spec.volume_mode,
        volume_bytes=claim.capacity_bytes,
        storage_class=claim.spec.storage_class_name or "",
        access_modes=list(claim.spec.access_modes),
        display_name=backup.spec.name,
        description=backup.spec.description,
        metadata=backup.spec.metadata,
        created_at=created,
        data_timestamp=data_timestamp(observed) or created,
        incremental=backup.spec.incremental,
        claim=origin.claim_facts(observed, claim),
        driver=origin.driver_facts(observed.volume),
        cluster=origin.cluster_facts(observed),
        consistency=consistency,
    )


def data_timestamp(observed: ObservedBackup) -> datetime | None:
    """Cinder: that of the snapshot, else when the backup was created. Once known it stays, snapshot or not."""
    snapshot, backup = observed.given_snapshot or observed.snapshot, observed.backup
    known = backup.status.data_timestamp if volume_lock.own_phase(backup) else None
    return (snapshot.status.creation_time if snapshot else None) or known or backup.metadata.creation_timestamp


def data_instant(observed: ObservedBackup) -> datetime | None:
    """Return the earliest time at which the data that the mover reads can have been cut; None if it is unknown.

    A driver may report too late a time for a snapshot, but it takes none before somebody asks for it. A snapshot that
    was imported into the cluster is older than its VolumeSnapshot, and only its driver knows its age.
    """
    created, told = observed.backup.metadata.creation_timestamp, data_timestamp(observed)
    instants = [instant for instant in (created, told) if instant is not None]
    if observed.backup.spec.snapshot_id is not None:
        snapshot = observed.given_snapshot
        if snapshot is None:
            return None
        if snapshot.spec.source.persistent_volume_claim_name is None:
            return min(instants) if snapshot.status.creation_time else None
        instants += [instant for instant in (snapshot.metadata.creation_timestamp,) if instant is not None]
    return min(instants, default=None)


def container_of(observed: ObservedBackup, store: BackupStore) -> str:
    """The bucket that the backup asks for, else the store's."""
    return observed.backup.spec.container or store.spec.container
