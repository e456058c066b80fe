"""Look-ups on a real API server, where selectors are checked and defaults are filled in."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.kube import kinds, queries
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import POD, PVC, VOLUME_ATTACHMENT, VOLUME_BACKUP, Kind

pytestmark = pytest.mark.integration

SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")


def names(items: list[dict[str, Any]]) -> list[str]:
    return sorted(item["metadata"]["name"] for item in items)


async def create_pod(client: KubeClient, namespace: str, name: str, volume: dict[str, Any], phase: str = "") -> None:
    container = {"name": "main", "image": "none"}
    spec = {"containers": [container], "volumes": [volume], "automountServiceAccountToken": False}
    await client.create(POD, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    if phase:
        await client.merge_patch(POD, name, namespace, {"status": {"phase": phase}}, subresource="status")


@pytest.fixture(autouse=True)
async def service_account(client: KubeClient, namespace: str) -> None:
    """Create what the controller manager would create; without it no pod is admitted."""
    await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": namespace}})


async def test_only_running_pods_use_a_claim(client: KubeClient, namespace: str) -> None:
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}
    template = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    ephemeral = {"name": "web-0", "ephemeral": {"volumeClaimTemplate": template}}
    await create_pod(client, namespace, "pending", claim)
    await create_pod(client, namespace, "running", claim, "Running")
    await create_pod(client, namespace, "done", claim, "Succeeded")
    await create_pod(client, namespace, "broken", claim, "Failed")
    await create_pod(client, namespace, "data", ephemeral, "Running")
    await create_pod(client, namespace, "other", {"name": "data", "emptyDir": {}}, "Running")
    pods = await client.list(POD, namespace, fields=kinds.NOT_ENDED_SELECTOR)
    assert names([pod for pod in pods if queries.uses_claim(pod, "data-web-0")]) == ["data", "pending", "running"]
    assert not [pod for pod in pods if queries.uses_claim(pod, "data-web-1")]


async def test_attachments_of_a_volume_are_found(client: KubeClient, namespace: str) -> None:
    for node, volume in (("one", namespace), ("two", namespace), ("one", "other")):
        spec = {"attacher": "csi.example.com", "nodeName": node, "source": {"persistentVolumeName": volume}}
        metadata = {"name": f"{namespace}-{node}-{volume}"}
        await client.create(VOLUME_ATTACHMENT, {"metadata": metadata, "spec": spec})
    found = queries.attachments_of(namespace, await client.list(VOLUME_ATTACHMENT))
    assert sorted(item["spec"]["nodeName"] for item in found) == ["one", "two"]


async def test_uid_precedes_the_name_of_a_claim(client: KubeClient, namespace: str) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    first = await client.create(PVC, {"metadata": {"name": "data", "namespace": namespace}, "spec": spec})
    uid = first["metadata"]["uid"]
    misleading = await client.create(PVC, {"metadata": {"name": uid, "namespace": namespace}, "spec": spec})
    assert await queries.find_claim(client, namespace, "data") == first
    assert await queries.find_claim(client, namespace, uid) == first
    await client.delete(PVC, "data", namespace)
    await client.merge_patch(PVC, "data", namespace, {"metadata": {"finalizers": None}})
    found = await queries.find_claim(client, namespace, uid)
    assert found
    assert found["metadata"]["uid"] == misleading["metadata"]["uid"]
    assert await queries.find_claim(client, namespace, "absent") is None


async def test_object_is_found_only_in_its_own_namespace(client: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "nightly", "namespace": namespace}, "spec": {"volumeId": "data"}}
    backup = await client.create(VOLUME_BACKUP, body)
    uid = backup["metadata"]["uid"]
    assert await queries.find_by_reference(client, VOLUME_BACKUP, namespace, uid) == backup
    assert await queries.find_by_reference(client, VOLUME_BACKUP, "default", uid) is None
