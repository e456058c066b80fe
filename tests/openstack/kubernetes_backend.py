"""The objects of a scenario on a real API server without controllers. This plays the operator and the cluster."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable
from typing import Any

from cinderblock.api import labels
from cinderblock.errors import AlreadyExists
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import (
    BACKUP_STORE,
    POD,
    PVC,
    STORAGE_CLASS,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
    VOLUME_SNAPSHOT,
    Kind,
)
from tests.support.gateway.gateways import ROLE_BINDING, SERVICE_ACCOUNT

KINDS = {"volume": PVC, "snapshot": VOLUME_SNAPSHOT, "backup": VOLUME_BACKUP}
CONTAINER = "volumebackups"

Object = dict[str, Any]

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_RULE = {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get", "list"]}
_REFERENCE = {"apiGroup": ROLE_BINDING.group, "kind": "ClusterRole", "name": "sees-classes"}
_EVERYBODY = {"apiGroup": ROLE_BINDING.group, "kind": "Group", "name": "system:authenticated"}
_SEEN_BY_ALL: tuple[tuple[Kind, Object], ...] = (
    (STORAGE_CLASS, {"metadata": {"name": "standard", "annotations": {_DEFAULT: "true"}}, "provisioner": "test/none"}),
    (
        Kind(ROLE_BINDING.group, "v1", "clusterroles", "ClusterRole", namespaced=False),
        {"metadata": {"name": "sees-classes"}, "rules": [_RULE]},
    ),
    (
        Kind(ROLE_BINDING.group, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
        {"metadata": {"name": "sees-classes"}, "roleRef": _REFERENCE, "subjects": [_EVERYBODY]},
    ),
)


class KubernetesBackend:
    """One namespace."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    async def prepare(self) -> None:
        """Create the objects that every namespace has, and a StorageClass that all users can read."""
        for kind, body in _SEEN_BY_ALL:
            with contextlib.suppress(AlreadyExists):
                await self._client.create(kind, body)
        await self._create(SERVICE_ACCOUNT, "default", {})
        spec = {
            "endpointUrl": "http://s3.example",
            "container": CONTAINER,
            "credentialsSecretRef": {"name": "s3"},
        }
        await self._create(BACKUP_STORE, "default", {"spec": spec}, {"cinderblock.io/is-default-store": "true"})

    async def plant(self, kind: str, name: str, **fields: Any) -> str:
        """Create a volume, snapshot or backup with fields of tests.openstack.scenarios. Returns its id."""
        plant = {"volume": self._plant_volume, "snapshot": self._plant_snapshot, "backup": self._plant_backup}[kind]
        item = await plant(name, **fields)
        return str(item["metadata"]["uid"])

    async def change(self, kind: str, identity: str, **fields: Any) -> None:
        """Do what the operator or the cluster does when fields of Cinder's object change."""
        status = fields.pop("status", None)
        if kind == "volume":
            assert status == "available", "A volume only becomes available: what ran on it has ended"
            await self._end(volume=identity)
        elif kind == "snapshot":
            await self._status(VOLUME_SNAPSHOT, identity, {"readyToUse": status == "available", "restoreSize": "1Gi"})
        else:
            if status == "available":
                await self._end(backup=identity)
            known = {"object_count": "objectCount", "container": "container"}
            changed = {known[field]: value for field, value in fields.items() if field in known}
            if "num_dependent_backups" in fields:
                changed["hasDependentBackups"] = fields["num_dependent_backups"] > 0
            if status:
                changed |= {"phase": status, "storedBytes": 1}
            await self._status(VOLUME_BACKUP, identity, changed)

    async def remove(self, kind: str, identity: str) -> None:
        """Delete an object and its finalizers."""
        found = await self._by_id(KINDS[kind], identity)
        await self._client.merge_patch(
            KINDS[kind], found["metadata"]["name"], self._namespace, {"metadata": {"finalizers": None}}
        )
        await self._client.delete(KINDS[kind], found["metadata"]["name"], self._namespace)

    async def settle(self) -> None:
        """Do what the operator and the cluster do with new objects."""
        for backup in await self._client.list(VOLUME_BACKUP, self._namespace):
            if not backup.get("status", {}).get("phase"):
                await self._accept_backup(backup)
        for restore in await self._client.list(VOLUME_RESTORE, self._namespace):
            if not restore.get("status", {}).get("phase"):
                await self._accept_restore(restore)
        for claim in await self._client.list(PVC, self._namespace):
            if claim.get("status", {}).get("phase") == "Pending" and not claim["spec"].get("volumeName"):
                await self._bind(claim)

    async def _plant_volume(self, name: str, status: str = "available", size: int = 1) -> Object:
        claim = await self._create_claim(name, size)
        phase = {"error": "Lost", "creating": "Pending"}.get(status, "Bound")
        await self._claim_status(claim, phase, size)
        if status == "in-use":
            volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
            spec = {"containers": [{"name": "main", "image": "none"}], "volumes": [volume]}
            await self._create(POD, f"uses-{name}", {"spec": spec})
        return claim

    async def _create_claim(
        self, name: str, size: int, annotations: dict[str, str] | None = None, volume: str | None = None
    ) -> Object:
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{size}Gi"}},
            "volumeName": volume or f"pv-{name}",
        }
        return await self._create(PVC, name, {"spec": spec}, annotations)

    async def _bind(self, claim: Object) -> None:
        """Bind a claim that the gateway has created."""
        meta = claim["metadata"]
        await self._client.merge_patch(
            PVC, meta["name"], self._namespace, {"spec": {"volumeName": f"pv-{meta['name']}"}}
        )
        size = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
        await self._claim_status(claim, "Bound", size)

    async def _claim_status(self, claim: Object, phase: str, size: int) -> None:
        patch = {"status": {"phase": phase, "capacity": {"storage": f"{size}Gi"}}}
        await self._client.merge_patch(PVC, claim["metadata"]["name"], self._namespace, patch, subresource="status")

    async def _plant_snapshot(self, name: str, volume: str, status: str = "available") -> Object:
        claim = await self._by_id(PVC, volume)
        spec = {"source": {"persistentVolumeClaimName": claim["metadata"]["name"]}}
        item = await self._create(VOLUME_SNAPSHOT, name, {"spec": spec}, finalizers=("test/holds",))
        if status == "available":
            await self.change("snapshot", item["metadata"]["uid"], status="available")
        return item

    async def _plant_backup(
        self,
        name: str,
        *,
        volume: str,
        status: str = "available",
        age: int = 1,
        parent: str | None = None,
        size: int = 1,
        container: str | None = None,
        object_count: int = 0,
        description: str | None = None,
        fail_reason: str | None = None,
    ) -> Object:
        claim = await self._by_id(PVC, volume)
        spec = {"volumeId": volume, "name": name, "availabilityZone": "nova"}
        if description:
            spec["description"] = description
        if parent:
            spec["incremental"] = True
        item = await self._create(VOLUME_BACKUP, name, {"spec": spec}, finalizers=(labels.BACKUP_FINALIZER,))
        created = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=age)).isoformat()
        status_fields = {
            "phase": status,
            "id": item["metadata"]["uid"],
            "volumeId": volume,
            "volumeName": claim["metadata"]["name"],
            "storeName": "default",
            "size": size,
            "objectCount": object_count,
            "container": container,
            "failReason": fail_reason,
            "createdAt": created,
            "updatedAt": created,
            "dataTimestamp": created,
            "parentId": parent,
            "isIncremental": bool(parent),
            "hasDependentBackups": False,
            "manifestKey": f"backups/{volume}/{item['metadata']['uid']}.manifest",
            "storedBytes": 1 if status == "available" else None,
        }
        await self._status(VOLUME_BACKUP, item["metadata"]["uid"], status_fields)
        if parent:
            await self._status(VOLUME_BACKUP, parent, {"hasDependentBackups": True})
        return item

    async def _accept_backup(self, backup: Object) -> None:
        meta, spec = backup["metadata"], backup["spec"]
        finalizers = {"metadata": {"finalizers": [labels.BACKUP_FINALIZER]}}
        await self._client.merge_patch(VOLUME_BACKUP, meta["name"], self._namespace, finalizers)
        claim = await self._by_id(PVC, spec["volumeId"]) if "volumeId" in spec else None
        status_fields = {
            "phase": "creating",
            "id": meta["uid"],
            "createdAt": meta["creationTimestamp"],
            "updatedAt": meta["creationTimestamp"],
            "dataTimestamp": meta["creationTimestamp"],
            "storeName": "default",
            "isIncremental": spec.get("incremental", False),
        }
        if claim:
            size = int(claim["status"]["capacity"]["storage"].removesuffix("Gi"))
            status_fields |= {
                "volumeId": claim["metadata"]["uid"],
                "volumeName": claim["metadata"]["name"],
                "size": size,
            }
        await self._status(VOLUME_BACKUP, meta["uid"], status_fields)

    async def _accept_restore(self, restore: Object) -> None:
        uid, backup = restore["metadata"]["uid"], await self._backup_of(restore)
        status_fields = {"phase": "restoring", "id": uid, "backupId": restore["spec"]["backupId"]}
        if "volumeId" in restore["spec"]:
            status_fields["volumeId"] = restore["spec"]["volumeId"]
        await self._status(VOLUME_RESTORE, uid, status_fields)
        await self._status(VOLUME_BACKUP, backup["metadata"]["uid"], {"phase": "restoring"})

    async def _end(self, volume: str = "", backup: str = "") -> None:
        """Complete the operations on a volume or of a backup."""
        for restore in await self._running(VOLUME_RESTORE, "restoring"):
            target = restore["spec"].get("volumeId")
            if (volume and volume == target) or (backup and backup == restore["spec"]["backupId"]):
                await self._end_restore(restore)
        for running in await self._running(VOLUME_BACKUP, "creating"):
            if volume and running["spec"].get("volumeId") == volume:
                status_fields = {
                    "phase": "available",
                    "storedBytes": 1,
                    "dataTimestamp": running["status"]["createdAt"],
                }
                await self._status(VOLUME_BACKUP, running["metadata"]["uid"], status_fields)

    async def _end_restore(self, restore: Object) -> None:
        spec, uid = restore["spec"], restore["metadata"]["uid"]
        status_fields = {"phase": "available"}
        if "volumeId" not in spec:
            size = (await self._backup_of(restore))["status"]["size"]
            annotations = spec.get("annotations", {}) | {labels.VOLUME_ID_ANNOTATION: uid}
            claim = await self._create_claim(spec["name"], size, annotations)
            await self._claim_status(claim, "Bound", size)
            status_fields |= {"volumeId": claim["metadata"]["uid"], "volumeName": spec["name"]}
        await self._status(VOLUME_RESTORE, uid, status_fields)

    async def _backup_of(self, restore: Object) -> Object:
        return await self._by_id(VOLUME_BACKUP, restore["spec"]["backupId"])

    async def _running(self, kind: Kind, phase: str) -> Iterable[Object]:
        found = await self._client.list(kind, self._namespace)
        return [item for item in found if item.get("status", {}).get("phase") == phase]

    async def _by_id(self, kind: Kind, identity: str) -> Object:
        found = await self._client.list(kind, self._namespace)
        return next(item for item in found if item["metadata"]["uid"] == identity)

    async def _status(self, kind: Kind, identity: str, status: Object) -> None:
        found = await self._by_id(kind, identity)
        await self._client.merge_patch(
            kind, found["metadata"]["name"], self._namespace, {"status": status}, subresource="status"
        )

    async def _create(
        self,
        kind: Kind,
        name: str,
        body: Object,
        annotations: dict[str, str] | None = None,
        finalizers: tuple[str, ...] = (),
    ) -> Object:
        meta = {
            "name": name,
            "namespace": self._namespace,
            "annotations": annotations or {},
            "finalizers": list(finalizers),
        }
        return await self._client.create(kind, body | {"metadata": meta})
