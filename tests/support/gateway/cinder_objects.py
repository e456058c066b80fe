"""Volumes, snapshots, stores and backups on an API server without controllers, with the statuses of controllers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from cinderblock.errors import AlreadyExists
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import BACKUP_STORE, POD, PVC, VOLUME_BACKUP, VOLUME_RESTORE, VOLUME_SNAPSHOT
from tests.support.gateway.gateways import SERVICE_ACCOUNT

Object = dict[str, Any]
NOW = "2026-11-23T09:00:00Z"


async def volume(client: KubeClient, namespace: str, name: str = "database", gib: int = 1, phase: str = "Bound") -> str:
    """Create a claim, bound by default. Returns its UID."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": f"{gib}Gi"}},
        "volumeName": f"pv-{namespace}-{name}",
        "storageClassName": "fast",
    }
    created = await client.create(PVC, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    status = {"status": {"phase": phase, "capacity": {"storage": f"{gib}Gi"}, "accessModes": ["ReadWriteOnce"]}}
    await client.merge_patch(PVC, name, namespace, status, subresource="status")
    return str(created["metadata"]["uid"])


async def pod_with(client: KubeClient, namespace: str, claim: str) -> None:
    """Create a pod that uses a claim."""
    spec = {
        "containers": [{"name": "main", "image": "none"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        "automountServiceAccountToken": False,
    }
    with suppress(AlreadyExists):
        await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": namespace}})
    await client.create(POD, {"metadata": {"name": f"user-of-{claim}", "namespace": namespace}, "spec": spec})


async def snapshot(client: KubeClient, namespace: str, claim: str, name: str = "evening", *, ready: bool = True) -> str:
    """Create a VolumeSnapshot of a claim. Returns its UID."""
    spec = {"source": {"persistentVolumeClaimName": claim}}
    created = await client.create(VOLUME_SNAPSHOT, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    status = {"status": {"readyToUse": ready, "creationTime": NOW, "restoreSize": "1Gi"}}
    await client.merge_patch(VOLUME_SNAPSHOT, name, namespace, status, subresource="status")
    return str(created["metadata"]["uid"])


async def store(client: KubeClient, namespace: str, name: str = "default") -> None:
    """Create the namespace's default BackupStore."""
    annotations = {"cinderblock.io/is-default-store": "true"}
    spec = {"container": "backups", "credentialsSecretRef": {"name": "none"}}
    metadata = {"name": name, "namespace": namespace, "annotations": annotations}
    await client.create(BACKUP_STORE, {"metadata": metadata, "spec": spec})


async def backup(client: KubeClient, namespace: str, volume_id: str, name: str = "monday", **status: Any) -> str:
    """Create a VolumeBackup, available by default. Returns its UID. A status field of None is omitted."""
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": {"volumeId": volume_id, "name": name}}
    created = await client.create(VOLUME_BACKUP, body)
    uid = str(created["metadata"]["uid"])
    await set_backup_status(client, namespace, name, uid, volumeId=volume_id, **status)
    return uid


async def set_backup_status(client: KubeClient, namespace: str, name: str, uid: str, **status: Any) -> None:
    """Write the status that the operator would: of an available backup, changed by ``status``."""
    available = {
        "id": uid,
        "phase": "available",
        "size": 1,
        "objectCount": 21,
        "container": "backups",
        "storeName": "default",
        "isIncremental": False,
        "hasDependentBackups": False,
        "createdAt": NOW,
        "updatedAt": NOW,
        "dataTimestamp": NOW,
        "storedBytes": 1000,
        "manifestKey": f"backups/v/{uid}.manifest",
    }
    fields = {key: value for key, value in (available | status).items() if value is not None}
    await client.merge_patch(VOLUME_BACKUP, name, namespace, {"status": fields}, subresource="status")


async def set_restore_status(client: KubeClient, namespace: str, name: str, uid: str, **status: Any) -> None:
    """Write the status of a VolumeRestore."""
    fields = {"id": uid} | status
    await client.merge_patch(VOLUME_RESTORE, name, namespace, {"status": fields}, subresource="status")
