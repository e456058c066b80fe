"""The task of a backup's mover, and the description of the backup in its manifest."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api import layout
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.mover import BackupMetadata, LockTask, MoverOperation, MoverTask
from cinderblock.api.origin import Consistency
from cinderblock.api.v1alpha1.store import BackupStore, ChangeDetection
from cinderblock.lifecycle import children, expected_manifest
from cinderblock.lifecycle.backup import checks, damage, origin
from cinderblock.lifecycle.mover import broker
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.store import place


def mover_task(
    observed: ObservedBackup,
    store: BackupStore,
    claim: PersistentVolumeClaim,
    consistency: Consistency,
    lock: LockTask | None = None,
) -> MoverTask:
    """Return the task to back up ``claim``, whatever volume the mover mounts for it."""
    parent = checks.recorded_parent(observed)
    return MoverTask(
        operation=MoverOperation.BACKUP,
        store=children.location(store, container_of(observed, store), observed.policy.mover.allowed_endpoints),
        broker=broker.location(store, observed.policy.mover),
        volume_mode=claim.spec.volume_mode,
        path=mover_job.mover_path(claim.spec.volume_mode),
        backup=_description(observed, claim, consistency),
        parent_manifest=parent.status.manifest_key if parent else None,
        unreadable=observed.backup.spec.unreadable,
        expected_parent=expected_manifest.expected_of_status(parent, store, observed.parent) if parent else None,
        change_detection=_change_detection(observed, store, claim),
        dirty_window_seconds=int(store.spec.dirty_window.of(claim.spec.storage_class_name).total_seconds()),
        compare_every=store.spec.compare_every,
        renew_below=store.spec.renew_below,
        data_instant=data_instant(observed),
        manifest=layout.manifest_key(store.spec.prefix, claim.uid, observed.backup.uid),
        compression=store.spec.compression,
        sealed=store.spec.encryption_secret_ref is not None,
        active_key=observed.store.active_key,
        lock=lock,
        avoid_packs=damage.avoided_packs(checks.damaged_siblings(observed), store.spec.prefix) if parent else [],
    )


def _change_detection(observed: ObservedBackup, store: BackupStore, claim: PersistentVolumeClaim) -> ChangeDetection:
    """Return how changes are detected. Timestamps that may reach the disk a day after the data prove nothing."""
    if observed.volume is not None and observed.volume.delays_timestamps:
        return ChangeDetection.CONTENT
    return store.spec.change_detection.of(claim.spec.storage_class_name)


def _description(observed: ObservedBackup, claim: PersistentVolumeClaim, consistency: Consistency) -> BackupMetadata:
    backup = observed.backup
    created = backup.metadata.creation_timestamp
    if created is None:
        raise ValueError("the VolumeBackup has no creationTimestamp")
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
        incremental=checks.recorded_parent(observed) is not None,
        claim=origin.claim_facts(observed, claim),
        driver=origin.driver_facts(observed.volume),
        cluster=origin.cluster_facts(observed),
        consistency=consistency,
    )


def data_timestamp(observed: ObservedBackup) -> datetime | None:
    """Return the creation time of the snapshot, as in Cinder, otherwise that of the backup. A known one stays."""
    snapshot, backup = observed.given_snapshot or observed.snapshot, observed.backup
    known = backup.status.data_timestamp if backup.own_phase else None
    return (snapshot.status.creation_time if snapshot else None) or known or backup.metadata.creation_timestamp


def data_instant(observed: ObservedBackup) -> datetime | None:
    """Return the earliest instant whose data the mover can read; None if it is unknown.

    A driver may report a time for a snapshot that is too late, but it takes none before its VolumeSnapshot exists. A
    snapshot that was imported into the cluster is older than its VolumeSnapshot, and only its driver knows its age.
    """
    created, reported = observed.backup.metadata.creation_timestamp, data_timestamp(observed)
    instants = [instant for instant in (created, reported) if instant is not None]
    if observed.backup.spec.snapshot_id is not None:
        snapshot = observed.given_snapshot
        if snapshot is None:
            return None
        if snapshot.spec.source.persistent_volume_claim_name is None:
            return min(instants) if snapshot.status.creation_time else None
        instants += [instant for instant in (snapshot.metadata.creation_timestamp,) if instant is not None]
    return min(instants, default=None)


def container_of(observed: ObservedBackup, store: BackupStore) -> str:
    """Return the bucket of the backup: the recorded one, that of spec.container, or that of the store."""
    backup = observed.backup
    return place.container_of(store, (backup.status.container if backup.own_phase else None) or backup.spec.container)
