"""`cinderblock release-finalizers` on a real API server, with the rights of the chart's uninstall hook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import labels as api_labels
from cinderblock.cli.commands.release_finalizers import DEPLOYMENT, Operator, release_finalizers, stop_operator
from cinderblock.errors import AccessDenied, KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import (
    BACKUP_STORE,
    BACKUP_VERIFICATION,
    CLUSTER_BACKUP_STORE,
    JOB,
    POD,
    SECRET,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
    Kind,
)
from cinderblock.kube.responses import RequestInfo
from tests.support.cluster.chart import render
from tests.support.cluster.rights import connect_as, grant

pytestmark = pytest.mark.integration

FOREIGN_FINALIZER = "example.com/foreign"
SPECS: dict[Kind, dict[str, Any]] = {
    BACKUP_STORE: {"credentialsSecretRef": {"name": "s3"}},
    VOLUME_BACKUP: {"volumeId": "files"},
    VOLUME_RESTORE: {"backupId": "files-full"},
    BACKUP_VERIFICATION: {"level": "Data", "volumeId": "files"},
    CLUSTER_BACKUP_STORE: {"credentialsSecretRef": {"name": "s3"}},
}
FINALIZER = {
    BACKUP_STORE: api_labels.STORE_FINALIZER,
    VOLUME_BACKUP: api_labels.BACKUP_FINALIZER,
    VOLUME_RESTORE: api_labels.RESTORE_FINALIZER,
    BACKUP_VERIFICATION: api_labels.VERIFICATION_FINALIZER,
    CLUSTER_BACKUP_STORE: api_labels.STORE_FINALIZER,
}
CONTAINER = {"name": "only", "image": "localhost/nothing:1"}


@pytest.fixture
async def hook(client: KubeClient, kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """Connect with the rights of the uninstall hook."""
    await grant(client, render("uninstall.releaseFinalizers=always", namespace=namespace))
    async with aclosing(await connect_as(kubeconfig, namespace, "cinderblock-uninstall", tmp_path)) as connected:
        yield connected


@pytest.mark.parametrize("kind", SPECS, ids=lambda kind: kind.plural)
async def test_own_finalizer_is_removed_and_others_stay(
    client: KubeClient, hook: KubeClient, namespace: str, kind: Kind
) -> None:
    await _create(client, namespace, kind, FINALIZER[kind], FOREIGN_FINALIZER)
    try:
        released = await release_finalizers(hook)
        assert released[kind.resource] >= 1
        assert await _finalizers(client, namespace, kind) == [FOREIGN_FINALIZER]
    finally:
        await client.merge_patch(kind, "held", namespace, {"metadata": {"finalizers": None}})
        await client.delete(kind, "held", namespace)


@pytest.mark.parametrize("kind", SPECS, ids=lambda kind: kind.plural)
async def test_object_waiting_in_deletion_is_gone(
    client: KubeClient, hook: KubeClient, namespace: str, kind: Kind
) -> None:
    await _create(client, namespace, kind, FINALIZER[kind])
    await client.delete(kind, "held", namespace)
    assert await client.get(kind, "held", namespace) is not None
    await release_finalizers(hook)
    assert await client.get(kind, "held", namespace) is None


async def test_release_for_some_namespaces_leaves_shared_stores_held(
    client: KubeClient, hook: KubeClient, namespace: str
) -> None:
    await _create(client, namespace, CLUSTER_BACKUP_STORE, FINALIZER[CLUSTER_BACKUP_STORE])
    hook.namespaces = (namespace,)
    try:
        assert CLUSTER_BACKUP_STORE.resource not in await release_finalizers(hook)
        assert await _finalizers(client, namespace, CLUSTER_BACKUP_STORE) == [FINALIZER[CLUSTER_BACKUP_STORE]]
    finally:
        await client.merge_patch(CLUSTER_BACKUP_STORE, "held", namespace, {"metadata": {"finalizers": None}})
        await client.delete(CLUSTER_BACKUP_STORE, "held", namespace)


async def test_mover_jobs_are_released_and_others_are_not(client: KubeClient, hook: KubeClient, namespace: str) -> None:
    labels = {api_labels.MANAGED_BY_LABEL: api_labels.MANAGED_BY}
    for name, own in (("mover", labels), ("other", {})):
        pod = {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
        metadata = {"namespace": namespace, "name": name, "labels": own, "finalizers": [api_labels.JOB_FINALIZER]}
        await client.create(JOB, {"metadata": metadata, "spec": {"template": pod}})
    await release_finalizers(hook)
    jobs = {item["metadata"]["name"]: item["metadata"].get("finalizers") for item in await client.list(JOB, namespace)}
    assert jobs == {"mover": None, "other": [api_labels.JOB_FINALIZER]}


async def test_objects_without_the_finalizer_are_not_patched(
    client: KubeClient, hook: KubeClient, namespace: str
) -> None:
    await _create(client, namespace, VOLUME_BACKUP, api_labels.BACKUP_FINALIZER)
    await release_finalizers(hook)
    before = hook.response_counts["patch", VOLUME_BACKUP.resource, 200]
    await release_finalizers(hook)
    assert hook.response_counts["patch", VOLUME_BACKUP.resource, 200] == before


async def test_object_that_changes_meanwhile_is_read_again(
    client: KubeClient, hook: KubeClient, namespace: str
) -> None:
    await _create(client, namespace, VOLUME_BACKUP, api_labels.BACKUP_FINALIZER)
    hook.observer = _ChangesOnce(client, namespace)
    await release_finalizers(hook)
    held = await client.get(VOLUME_BACKUP, "held", namespace)
    assert held is not None
    assert held["metadata"]["annotations"] == {"changed": "yes"}
    assert "finalizers" not in held["metadata"]


async def test_stop_waits_for_the_operator_pods(client: KubeClient, hook: KubeClient, namespace: str) -> None:
    await _create_operator(client, namespace)
    await _create_pod(client, namespace, "unrelated", {"app": "other"})
    waits = 0

    async def delete_pod_in_second_wait(_: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            await client.delete(POD, "operator-1", namespace)

    operator = Operator(namespace, "cinderblock", "app=operator")
    await stop_operator(hook, operator, sleep=delete_pod_in_second_wait)
    assert waits == 2
    deployment = await client.get(DEPLOYMENT, "cinderblock", namespace)
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 0


async def test_operator_that_does_not_stop_is_an_error(client: KubeClient, hook: KubeClient, namespace: str) -> None:
    await _create_operator(client, namespace)

    async def do_not_sleep(_: float) -> None:
        return

    with pytest.raises(KubeUnavailable, match="pods have not ended"):
        await stop_operator(hook, Operator(namespace, "cinderblock", "app=operator"), sleep=do_not_sleep)


async def test_missing_operator_needs_no_stopping(client: KubeClient, hook: KubeClient, namespace: str) -> None:
    await stop_operator(hook, Operator(namespace, "cinderblock", "app=operator"))
    assert await client.get(DEPLOYMENT, "cinderblock", namespace) is None


async def test_hook_may_do_nothing_but_remove_finalizers(client: KubeClient, hook: KubeClient, namespace: str) -> None:
    await _create(client, namespace, VOLUME_BACKUP, api_labels.BACKUP_FINALIZER)
    with pytest.raises(AccessDenied):
        await hook.delete(VOLUME_BACKUP, "held", namespace)
    with pytest.raises(AccessDenied):
        await hook.get(SECRET, "any", namespace)
    with pytest.raises(AccessDenied):
        await stop_operator(hook, Operator(namespace, "another", "app=another"))


class _ChangesOnce:
    """Changes the object right before the first patch of it."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._done = False

    async def before(self, call: RequestInfo) -> None:
        if call.verb == "patch" and call.namespace == self._namespace and not self._done:
            self._done = True
            patch = {"metadata": {"annotations": {"changed": "yes"}}}
            await self._client.merge_patch(VOLUME_BACKUP, "held", self._namespace, patch)

    async def after(self, call: RequestInfo, status: int) -> None:
        return


async def _create(client: KubeClient, namespace: str, kind: Kind, *finalizers: str) -> None:
    metadata = {"namespace": namespace, "name": "held", "finalizers": list(finalizers)}
    await client.create(kind, {"metadata": metadata, "spec": SPECS[kind]})


async def _create_operator(client: KubeClient, namespace: str) -> None:
    """Create a Deployment, and a pod that no controller or node handles."""
    labels = {"app": "operator"}
    pod = {"schedulerName": "nobody", "serviceAccountName": "cinderblock-uninstall", "containers": [CONTAINER]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    metadata = {"namespace": namespace, "name": "cinderblock"}
    await client.create(DEPLOYMENT, {"metadata": metadata, "spec": {"replicas": 1, "paused": True} | spec})
    await _create_pod(client, namespace, "operator-1", labels)


async def _create_pod(client: KubeClient, namespace: str, name: str, labels: dict[str, str]) -> None:
    spec = {"schedulerName": "nobody", "serviceAccountName": "cinderblock-uninstall", "containers": [CONTAINER]}
    await client.create(POD, {"metadata": {"namespace": namespace, "name": name, "labels": labels}, "spec": spec})


async def _finalizers(client: KubeClient, namespace: str, kind: Kind) -> list[str]:
    found = await client.get(kind, "held", namespace)
    assert found is not None
    finalizers: list[str] = found["metadata"].get("finalizers", [])
    return finalizers
