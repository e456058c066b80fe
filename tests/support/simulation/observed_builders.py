"""Builders of observed states for decisions about backups and restores, with usual values as defaults."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cinderblock.api.kubernetes import (
    Job,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    StorageClass,
    VolumeSnapshot,
    VolumeSnapshotClass,
)
from cinderblock.api.labels import BACKUP_FINALIZER, RESTORE_FINALIZER, child_name
from cinderblock.api.mover import BackupMetadata, MoverReport, VolumeMode
from cinderblock.api.pins import Pins
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.observed import (
    MoverSettings,
    ObservedBackup,
    ObservedManifest,
    ObservedRestore,
    OperatorPolicy,
    StoreLookup,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
POLICY = OperatorPolicy(MoverSettings(image="example/cinderblock:1"))
PINS = Pins(content_digest="c" * 64, salt="5" * 32, suite=0)
OWNER = [{"uid": "b-1"}]


def a_backup(uid: str = "b-1", *, finalizer: bool = True, deleting: bool = False, **status: Any) -> VolumeBackup:
    """Return a VolumeBackup of claim ``data``; the keyword ``spec`` replaces fields of its spec."""
    spec = {"volumeId": "data"} | status.pop("spec", {})
    metadata = {
        "name": f"backup-{uid}",
        "namespace": "shop",
        "uid": uid,
        "generation": 1,
        "resourceVersion": "7",
        "creationTimestamp": status.pop("created", NOW - timedelta(minutes=1)),
        "deletionTimestamp": status.pop("asked", NOW) if deleting else None,
        "finalizers": [BACKUP_FINALIZER] if finalizer else [],
        "annotations": status.pop("annotations", {}),
    }
    own = {"id": uid} | status if status else {}
    return VolumeBackup.model_validate({"metadata": metadata, "spec": spec, "status": own})


def accepted(uid: str = "b-1", **more: Any) -> VolumeBackup:
    """Return an accepted, unfinished backup."""
    recorded = {
        "phase": "creating",
        "volumeId": "c-1",
        "storeName": "default",
        "container": "volumebackups",
        "manifestKey": f"backups/c-1/{uid}.manifest",
    }
    return a_backup(uid, **(recorded | more))


def available(uid: str = "b-1", **more: Any) -> VolumeBackup:
    """Return a complete backup."""
    usual = {"phase": "available", "dataTimestamp": NOW - timedelta(hours=1), "objectCount": 1, "pins": PINS}
    return accepted(uid, **(usual | more))


def a_claim(name: str = "data", uid: str = "c-1", **spec: Any) -> PersistentVolumeClaim:
    """Return a bound claim of 1 GiB."""
    status = spec.pop("status", {"phase": "Bound", "capacity": {"storage": "1Gi"}})
    fields = {"volumeName": f"pv-{uid}", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"]} | spec
    metadata = {"name": name, "namespace": "shop", "uid": uid} | spec.pop("metadata", {})
    return PersistentVolumeClaim.model_validate({"metadata": metadata, "spec": fields, "status": status})


def a_class(name: str, **more: Any) -> StorageClass:
    """Return a StorageClass of the driver of the volumes."""
    metadata = {"name": name, "annotations": more.pop("annotations", {})}
    return StorageClass.model_validate({"metadata": metadata, "provisioner": "csi.example.org"} | more)


def a_store(**spec: Any) -> BackupStore:
    """Return the store of the namespace."""
    metadata = {"name": "default", "namespace": "shop", "uid": "s-1"}
    fields = {"credentialsSecretRef": {"name": "s3"}} | spec
    return BackupStore.model_validate({"metadata": metadata, "spec": fields})


def a_snapshot(*, ready: bool = True, owner: str = "b-1", **status: Any) -> VolumeSnapshot:
    """Return our VolumeSnapshot."""
    metadata = {
        "name": child_name("b-1"),
        "uid": "sn-1",
        "ownerReferences": [{"uid": owner}],
        "creationTimestamp": NOW - timedelta(seconds=30),
    }
    shown = {"readyToUse": ready, "creationTime": NOW - timedelta(seconds=30), "restoreSize": "1Gi"} | status
    return VolumeSnapshot.model_validate({"metadata": metadata, "status": shown})


def a_job(owner: str = "b-1", **status: Any) -> Job:
    """Return our mover Job."""
    metadata = {
        "name": child_name(owner),
        "uid": "j-1",
        "ownerReferences": [{"uid": owner}],
        "creationTimestamp": NOW - timedelta(seconds=20),
        "finalizers": ["cinderblock.io/mover-result"],
    }
    return Job.model_validate({"metadata": metadata, "status": status})


def a_pod(phase: str = "Running", report: MoverReport | None = None, **status: Any) -> Pod:
    """Return a pod of the mover Job; with a report, its container has ended."""
    shown: dict[str, Any] = {"phase": phase} | status
    if report is not None:
        ended = {"exitCode": 0 if report.succeeded else 3, "message": report.model_dump_json(by_alias=True)}
        shown["containerStatuses"] = [{"name": "mover", "state": {"terminated": ended}}]
    return Pod.model_validate({"metadata": {"name": "mover-x", "uid": "p-1"}, "status": shown})


def a_manifest(parent: str | None = None) -> ObservedManifest:
    """Return the committed manifest of backup b-1."""
    description = BackupMetadata(
        backup_id="b-1",
        volume_id="c-1",
        volume_name="data",
        volume_mode=VolumeMode.FILESYSTEM,
        volume_bytes=1 << 30,
        storage_class="fast",
        access_modes=["ReadWriteOnce"],
        created_at=NOW,
        data_timestamp=NOW,
    )
    return ObservedManifest("backups/c-1/b-1.manifest", description, parent, 2, 3000, 2000, 1000, PINS)


def observed_backup(backup: VolumeBackup, **fields: Any) -> ObservedBackup:
    """Return the state of a backup with a claim, a store and a snapshot class, but without children."""
    usual: dict[str, Any] = {
        "store": StoreLookup(a_store()),
        "claim": a_claim(),
        "volume": PersistentVolume.model_validate(
            {"metadata": {"name": "pv-c-1"}, "spec": {"csi": {"driver": "csi.example.org"}}}
        ),
        "snapshot_class": VolumeSnapshotClass.model_validate(
            {"metadata": {"name": "snap"}, "driver": "csi.example.org"}
        ),
        "classes": (a_class("fast"),),
    }
    return ObservedBackup(backup=backup, policy=POLICY, **(usual | fields))


def a_restore(uid: str = "r-1", *, finalizer: bool = True, deleting: bool = False, **status: Any) -> VolumeRestore:
    """Return a VolumeRestore of backup-b-1 into a new claim ``new``."""
    spec = {"backupId": "backup-b-1"} | status.pop("spec", {"name": "new"})
    metadata = {
        "name": f"restore-{uid}",
        "namespace": "shop",
        "uid": uid,
        "generation": 1,
        "creationTimestamp": NOW - timedelta(minutes=1),
        "deletionTimestamp": NOW if deleting else None,
        "finalizers": [RESTORE_FINALIZER] if finalizer else [],
    }
    own = {"id": uid, "backupId": "b-1"} | status if status else {}
    return VolumeRestore.model_validate({"metadata": metadata, "spec": spec, "status": own})


def observed_restore(restore: VolumeRestore, **fields: Any) -> ObservedRestore:
    """Return the state of a restore with an available backup, a store, a manifest and StorageClass ``fast``."""
    usual: dict[str, Any] = {
        "backup": available(),
        "store": StoreLookup(a_store()),
        "manifest": a_manifest(),
        "classes": ("fast",),
    }
    return ObservedRestore(restore=restore, policy=POLICY, **(usual | fields))


def a_filled_volume(phase: str = "Bound", *, mark: str | None = None, claim: str = "hidden") -> PersistentVolume:
    """Return the PersistentVolume that a restore has filled."""
    metadata = {
        "name": "pv-9",
        "resourceVersion": "5",
        "labels": {"cinderblock.io/restore-uid": mark} if mark else {},
        "annotations": {"cinderblock.io/reclaim-policy": "Delete"} if mark else {},
    }
    spec = {
        "claimRef": {"namespace": "shop", "name": claim, "uid": "" if phase == "Available" else "c-9"},
        "persistentVolumeReclaimPolicy": "Retain" if mark else "Delete",
        "storageClassName": "fast",
    }
    return PersistentVolume.model_validate({"metadata": metadata, "spec": spec, "status": {"phase": phase}})
