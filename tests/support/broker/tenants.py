"""Tenants of a shared store on a real API server: namespace, operation, Job, pod and its token. No kubelet runs."""

from __future__ import annotations

import asyncio
import base64
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cinderblock.api import layout
from cinderblock.api.broker import AUDIENCE
from cinderblock.api.labels import OWNER_KIND_LABEL, OWNER_NAME_ANNOTATION, OWNER_UID_LABEL, child_name
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.kube.transport import Request
from tests.support.cluster.custom_resources import DEFINITION

CLUSTER_STORE = "shared"
VOLUME = "6f1c5a52-9d0f-4d3e-8a54-0c2f6a1b7e10"
"""The UID of a volume. Both tenants have the same one: only the namespace separates them."""


@dataclass
class Mover:
    """The pod of a mover.

    Attributes:
        namespace: of the pod.
        kind: of its operation.
        owner: the operation as the API server has it.
        job_uid: UID of the Job.
        pod: name of the pod.
        pod_uid: UID of the pod.
        token: bound to the pod, for the broker.
    """

    namespace: str
    kind: str
    owner: Mapping[str, Any]
    job_uid: str
    pod: str
    pod_uid: str
    token: str = field(repr=False)

    @property
    def uid(self) -> str:
        """UID of the operation."""
        return str(self.owner["metadata"]["uid"])


@dataclass
class Tenant:
    """A namespace that may use the shared store.

    Attributes:
        admin: a client with all rights.
        namespace: its name.
        prefix: of all its keys.
    """

    admin: KubeClient
    namespace: str
    prefix: str

    async def backup(self, **status: Any) -> Mover:
        """Return the mover of a VolumeBackup that runs."""
        owner = await self._operation(kinds.VOLUME_BACKUP, {"volumeId": "data"})
        found = {"id": owner["metadata"]["uid"], "phase": "creating", "volumeId": VOLUME}
        return await self.mover(kinds.VOLUME_BACKUP, owner, found | status)

    async def available_backup(self) -> Mapping[str, Any]:
        """Return a VolumeBackup that is complete."""
        owner = await self._operation(kinds.VOLUME_BACKUP, {"volumeId": "data"})
        uid = owner["metadata"]["uid"]
        manifest = layout.manifest_key(self.prefix, VOLUME, uid)
        status = {"id": uid, "phase": "available", "volumeId": VOLUME, "manifestKey": manifest}
        return await self.set_status(kinds.VOLUME_BACKUP, owner, status)

    async def restore(self, backup: Mapping[str, Any], **status: Any) -> Mover:
        """Return the mover of a VolumeRestore that runs."""
        owner = await self._operation(kinds.VOLUME_RESTORE, {"backupId": backup["metadata"]["name"]})
        found = {
            "id": owner["metadata"]["uid"],
            "phase": "restoring",
            "backupId": backup["metadata"]["uid"],
            "backupName": backup["metadata"]["name"],
        }
        return await self.mover(kinds.VOLUME_RESTORE, owner, found | status)

    async def verification(self, backup: Mapping[str, Any], level: str = "Data", **status: Any) -> Mover:
        """Return the mover of a BackupVerification that runs."""
        spec = {"backupId": backup["metadata"]["name"], "level": level}
        owner = await self._operation(kinds.BACKUP_VERIFICATION, spec)
        found = {
            "id": owner["metadata"]["uid"],
            "phase": "verifying",
            "backupId": backup["metadata"]["uid"],
            "backupName": backup["metadata"]["name"],
        }
        return await self.mover(kinds.BACKUP_VERIFICATION, owner, found | status)

    async def mover(self, kind: Kind, owner: Mapping[str, Any], status: Mapping[str, Any]) -> Mover:
        """Create the Job and the pod of an operation, and record them in its status."""
        job = await self.job(child_name(owner["metadata"]["uid"]))
        recorded = {"mover": {"uid": job, "storeName": CLUSTER_STORE}} | dict(status)
        owner = await self.set_status(kind, owner, {key: value for key, value in recorded.items() if value is not None})
        pod = await self.pod(kind.kind, owner, job)
        name, pod_uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        return Mover(self.namespace, kind.kind, owner, job, name, pod_uid, await self.token(name, pod_uid))

    async def set_status(self, kind: Kind, owner: Mapping[str, Any], status: Mapping[str, Any]) -> Mapping[str, Any]:
        """Set the status of an operation, as the operator does."""
        patch = {"status": dict(status)}
        return await self.admin.merge_patch(
            kind, owner["metadata"]["name"], self.namespace, patch, subresource="status"
        )

    async def job(self, name: str) -> str:
        """Create a Job, and return its UID."""
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "mover", "image": "x"}]}}
        metadata = {"name": name, "namespace": self.namespace}
        job = await self.admin.create(
            kinds.JOB, {"metadata": metadata, "spec": {"suspend": True, "template": template}}
        )
        return str(job["metadata"]["uid"])

    async def pod(self, kind: str, owner: Mapping[str, Any], job_uid: str, **metadata: Any) -> dict[str, Any]:
        """Create a pod as the Job controller does; ``metadata`` replaces fields of its metadata."""
        uid = owner["metadata"]["uid"]
        fields = {
            "name": f"{child_name(uid)}-{uuid.uuid4().hex[:5]}",
            "namespace": self.namespace,
            "labels": {OWNER_KIND_LABEL: kind, OWNER_UID_LABEL: uid},
            "annotations": {OWNER_NAME_ANNOTATION: owner["metadata"]["name"]},
            "ownerReferences": [job_reference(child_name(uid), job_uid)],
        }
        spec = {"serviceAccountName": "default", "containers": [{"name": "mover", "image": "x"}]}
        return await self.admin.create(kinds.POD, {"metadata": fields | metadata, "spec": spec})

    async def token(self, pod: str | None, pod_uid: str = "", audience: str = AUDIENCE, seconds: int = 3600) -> str:
        """Return a token of the ServiceAccount, bound to a pod if one is given."""
        spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": seconds}
        if pod is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pod_uid}
        return await request_token(self.admin, self.namespace, "default", spec)

    async def _operation(self, kind: Kind, spec: Mapping[str, Any]) -> dict[str, Any]:
        name = f"{kind.plural}-{uuid.uuid4().hex[:8]}"
        metadata = {"name": name, "namespace": self.namespace}
        return await self.admin.create(kind, {"metadata": metadata, "spec": dict(spec)})


def job_reference(name: str, uid: str, **more: Any) -> dict[str, Any]:
    """Return the reference of a pod to its Job."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True} | more


async def request_token(admin: KubeClient, namespace: str, account: str, spec: Mapping[str, Any]) -> str:
    """Return a token by TokenRequest."""
    path = f"{kinds.SERVICE_ACCOUNT.path(namespace, account)}/token"
    answer = await admin._transport.round_trip(Request("POST", path, body={"spec": dict(spec)}))
    assert answer.is_success, answer.body
    return str(answer.json()["status"]["token"])


async def make_tenant(admin: KubeClient, name: str | None = None) -> Tenant:
    """Create a namespace with its part of the shared store."""
    name = name or f"tenant-{uuid.uuid4().hex[:8]}"
    labels = {"shared-store": "true"}
    namespace = await admin.create(kinds.NAMESPACE, {"metadata": {"name": name, "labels": labels}})
    await admin.create(kinds.SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": name}})
    metadata = {"name": CLUSTER_STORE, "namespace": name}
    await admin.create(kinds.BACKUP_STORE, {"metadata": metadata, "spec": {"clusterStoreRef": {"name": CLUSTER_STORE}}})
    return Tenant(admin, name, f"prefix/{name}/{namespace['metadata']['uid']}")


async def make_cluster_store(admin: KubeClient, endpoint: str, **spec: Any) -> None:
    """Create the ClusterBackupStore, or give it another endpoint. Namespaces with the label may use it."""
    await install_cluster_stores(admin)
    wanted = {
        "endpointUrl": endpoint,
        "container": "bucket",
        "prefix": "prefix",
        "credentialsSecretRef": {"name": "credentials"},
        "encryptionSecretRef": {"name": "encryption"},
        "allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"shared-store": "true"}}},
    } | spec
    found = await admin.get(kinds.CLUSTER_BACKUP_STORE, CLUSTER_STORE)
    if found is not None:
        # Operators of other tests on the same API server have given it a finalizer.
        await admin.merge_patch(kinds.CLUSTER_BACKUP_STORE, CLUSTER_STORE, None, {"metadata": {"finalizers": None}})
        await admin.delete(kinds.CLUSTER_BACKUP_STORE, CLUSTER_STORE, None)
    await admin.create(kinds.CLUSTER_BACKUP_STORE, {"metadata": {"name": CLUSTER_STORE}, "spec": wanted})


async def make_secrets(admin: KubeClient, namespace: str, access_key: str, secret_key: str) -> dict[str, bytes]:
    """Create the namespace of the broker with the Secrets of the store. Return the encryption keys."""
    await admin.create(kinds.NAMESPACE, {"metadata": {"name": namespace}})
    await admin.create(kinds.SERVICE_ACCOUNT, {"metadata": {"name": "broker", "namespace": namespace}})
    keys = {"2026": os.urandom(32)}
    await make_secret(
        admin,
        namespace,
        "credentials",
        {"AWS_ACCESS_KEY_ID": access_key.encode(), "AWS_SECRET_ACCESS_KEY": secret_key.encode()},
    )
    await make_secret(admin, namespace, "encryption", {name: base64.b64encode(value) for name, value in keys.items()})
    return keys


async def make_secret(admin: KubeClient, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
    """Create a Secret."""
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    await admin.create(kinds.SECRET, {"metadata": {"name": name, "namespace": namespace}, "data": encoded})


async def install_cluster_stores(admin: KubeClient) -> None:
    """Let the API server serve ClusterBackupStores, if it does not yet."""
    kind = kinds.CLUSTER_BACKUP_STORE
    name = f"{kind.plural}.{kind.group}"
    if await admin.get(DEFINITION, name) is None:
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": kind.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"plural": kind.plural, "kind": kind.kind}
        spec = {"group": kind.group, "scope": "Cluster", "names": names, "versions": [version]}
        await admin.create(DEFINITION, {"metadata": {"name": name}, "spec": spec})
    async with asyncio.timeout(30):
        while not (await admin._transport.round_trip(Request("GET", kind.path()))).is_success:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
