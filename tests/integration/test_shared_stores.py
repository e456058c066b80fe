"""ClusterBackupStores on a real API server and a real S3 server: BackupStores, places, limits of the policies."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import choose_store
from cinderblock.controller.reconcile.reconciler import Reconciler
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.controller.stores.shared import SharedStoreReader
from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import (
    BACKUP_GRANT,
    BACKUP_STORE,
    CLUSTER_BACKUP_STORE,
    NAMESPACE,
    SECRET,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
)
from cinderblock.kube.reduction import reduce_object
from cinderblock.lifecycle.observed import MoverSettings, OperatorAccount, OperatorPolicy
from cinderblock.store.factory import ignores_unsigned_headers
from tests.cluster import s3
from tests.support.cluster.admission import enforce, lift, wait_until_refused
from tests.support.cluster.chart import render
from tests.support.cluster.kubectl import kubectl
from tests.support.cluster.rights import connect_as, grant

pytestmark = pytest.mark.integration

OURS = {labels.MANAGED_BY_LABEL: labels.MANAGED_BY}


@pytest.fixture(scope="module")
def server() -> Iterator[s3.S3Server]:
    with s3.running() as running:
        yield running


@dataclass
class Operator:
    """The operator's reconciler, with a clock that a test advances."""

    context: Context
    now: datetime = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)

    def __post_init__(self) -> None:
        self.context = replace(self.context, clock=lambda: self.now)
        self.reconciler = Reconciler(self.context)

    async def reconcile(self, name: str, namespace: str = "", times: int = 4) -> None:
        kind = BACKUP_STORE if namespace else CLUSTER_BACKUP_STORE
        for _ in range(times):
            await self.reconciler.reconcile(ObjectKey(kind.kind, namespace, name))

    async def resolve(self, namespace: str, name: str) -> SharedStore:
        fresh = replace(self.context, secrets=SecretReader(), shared=SharedStoreReader())
        found = (await choose_store(fresh, namespace, name)).store
        assert isinstance(found, SharedStore)
        return found


@pytest.fixture
async def operator(kubeconfig: Path, client: KubeClient, namespace: str) -> AsyncIterator[Operator]:
    """The operator in ``namespace``, which has the Secrets."""
    policy = OperatorPolicy(MoverSettings("example/cinderblock:1"), account=OperatorAccount(namespace))
    async with aclosing(await connect(kubeconfig=str(kubeconfig), reduce=reduce_object)) as kube:
        pool = StorePool(kube, ignores_unsigned_headers=ignores_unsigned_headers)
        yield Operator(Context(kube, pool, policy))
        pool.close()


async def a_namespace(client: KubeClient, **of_labels: str) -> str:
    name = f"tenant-{uuid.uuid4().hex[:8]}"
    await client.create(NAMESPACE, {"metadata": {"name": name, "labels": of_labels}})
    return name


async def share(client: KubeClient, system: str, server: s3.S3Server, allowed: dict[str, Any], **spec: Any) -> str:
    """Create a ClusterBackupStore with its Secret, and return its name."""
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
    await client.create(SECRET, {"metadata": {"name": "s3", "namespace": system}, "data": data})
    name = f"shared-{uuid.uuid4().hex[:8]}"
    fields = {"endpointUrl": server.url, "credentialsSecretRef": {"name": "s3"}, "allowedNamespaces": allowed} | spec
    metadata = {"name": name, "annotations": {labels.DEFAULT_STORE_ANNOTATION: "true"}}
    await client.create(CLUSTER_BACKUP_STORE, {"metadata": metadata, "spec": fields | {"container": f"b-{name}"}})
    return name


async def ready(client: KubeClient, name: str, namespace: str | None = None) -> tuple[str, str]:
    kind = BACKUP_STORE if namespace else CLUSTER_BACKUP_STORE
    body = await client.get(kind, name, namespace)
    assert body is not None
    found = next(c for c in body["status"]["conditions"] if c["type"] == "Ready")
    return found["status"], found["reason"]


async def test_two_namespaces_share_a_bucket_and_no_prefix(
    client: KubeClient, operator: Operator, namespace: str, server: s3.S3Server
) -> None:
    tenants = [await a_namespace(client) for _ in range(2)]
    name = await share(client, namespace, server, {"from": "Names", "names": tenants}, prefix="company")
    await operator.reconcile(name)
    for tenant in tenants:
        made = await client.get(BACKUP_STORE, name, tenant)
        assert made is not None
        assert made["metadata"]["labels"] == OURS
        assert made["metadata"]["annotations"] == {labels.DEFAULT_STORE_ANNOTATION: "true"}
        assert made["spec"]["clusterStoreRef"] == {"name": name}
        await operator.reconcile(name, tenant)
        assert await ready(client, name, tenant) == ("False", "BrokerDisabled")
        store = await operator.resolve(tenant, name)
        opened = await operator.context.stores.open(store, store.spec.container, SecretReader())
        await operator.context.stores.call(store, lambda: opened.put(f"{store.spec.prefix}/x", tenant.encode()))  # noqa: B023
    files = sorted((server.directory / f"b-{name}" / "company").glob("*/*/x"))
    uids = [(await client.get(NAMESPACE, tenant))["metadata"]["uid"] for tenant in tenants]  # type: ignore[index]
    expected = {Path(tenant) / uid / "x": tenant for tenant, uid in zip(tenants, uids, strict=True)}
    root = server.directory / f"b-{name}" / "company"
    assert {file.relative_to(root): file.read_text() for file in files} == expected
    assert await ready(client, name) == ("False", "BrokerDisabled")
    body = await client.get(CLUSTER_BACKUP_STORE, name)
    assert body is not None
    assert body["status"]["namespaces"] == 2
    assert body["metadata"]["finalizers"] == [labels.STORE_FINALIZER]


async def test_namespace_that_was_created_again_gets_another_prefix(
    client: KubeClient, operator: Operator, namespace: str, server: s3.S3Server
) -> None:
    tenant = await a_namespace(client)
    name = await share(client, namespace, server, {"from": "Names", "names": [tenant]})
    await operator.reconcile(name)
    first = await operator.resolve(tenant, name)
    await client.delete(BACKUP_STORE, name, tenant)
    await client.delete(NAMESPACE, tenant, None)
    body = await client.get(NAMESPACE, tenant)
    assert body is not None
    await client.replace(NAMESPACE, body | {"spec": {"finalizers": []}}, subresource="finalize")
    await client.create(NAMESPACE, {"metadata": {"name": tenant}})
    await operator.reconcile(name)
    second = await operator.resolve(tenant, name)
    assert first.spec.prefix != second.spec.prefix
    assert second.spec.prefix.startswith(f"{tenant}/")
    present = await client.get(NAMESPACE, tenant)
    assert present is not None
    uid = present["metadata"]["uid"]
    former = [{"namespace": tenant, "namespaceUID": uid, "uid": first.spec.prefix.rpartition("/")[2]}]
    await client.merge_patch(CLUSTER_BACKUP_STORE, name, None, {"spec": {"formerNamespaces": former}})
    assert (await operator.resolve(tenant, name)).spec.prefix == first.spec.prefix


async def test_namespaces_are_selected_by_labels_that_may_change(
    client: KubeClient, operator: Operator, namespace: str, server: s3.S3Server
) -> None:
    key = f"team-{uuid.uuid4().hex[:8]}"
    tenant, other = await a_namespace(client, **{key: "a"}), await a_namespace(client, **{key: "b"})
    selector = {"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}
    name = await share(client, namespace, server, {"from": "Selector", "selector": selector})
    await operator.reconcile(name)
    assert await client.get(BACKUP_STORE, name, other) is None
    await client.merge_patch(NAMESPACE, tenant, None, {"metadata": {"labels": {key: "b"}}})
    backup = await client.create(
        VOLUME_BACKUP,
        {
            "metadata": {"name": "full", "namespace": tenant, "finalizers": [labels.BACKUP_FINALIZER]},
            "spec": {"volumeId": "data"},
        },
    )
    status = {"id": backup["metadata"]["uid"], "phase": "available", "storeName": name}
    await client.merge_patch(VOLUME_BACKUP, "full", tenant, {"status": status}, subresource="status")
    await operator.reconcile(name, tenant)
    assert await ready(client, name, tenant) == ("False", "StoreNotAllowed")
    await operator.reconcile(name)
    operator.now += timedelta(minutes=2)
    await operator.reconcile(name)
    assert await client.get(BACKUP_STORE, name, tenant) is not None, "a backup needs it"
    await client.merge_patch(VOLUME_BACKUP, "full", tenant, {"metadata": {"finalizers": []}})
    await client.delete(VOLUME_BACKUP, "full", tenant)
    await operator.reconcile(name, tenant)
    await operator.reconcile(name)
    operator.now += timedelta(minutes=2)
    await operator.reconcile(name)
    assert await client.get(BACKUP_STORE, name, tenant) is None
    await client.delete(CLUSTER_BACKUP_STORE, name, None)
    await operator.reconcile(name)
    assert await client.get(CLUSTER_BACKUP_STORE, name) is None


async def test_store_of_its_own_never_becomes_a_shared_one(client: KubeClient, namespace: str) -> None:
    metadata = {"name": "own", "namespace": namespace}
    await client.create(BACKUP_STORE, {"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "s3"}}})
    change = {"clusterStoreRef": {"name": "own"}, "credentialsSecretRef": None}
    with pytest.raises(InvalidInput, match="clusterStoreRef cannot be changed"):
        await client.merge_patch(BACKUP_STORE, "own", namespace, {"spec": change})
    shared = {"metadata": {"name": "shared", "namespace": namespace}, "spec": {"clusterStoreRef": {"name": "shared"}}}
    await client.create(BACKUP_STORE, shared)
    back = {"clusterStoreRef": None, "credentialsSecretRef": {"name": "s3"}}
    with pytest.raises(InvalidInput, match="clusterStoreRef cannot be changed"):
        await client.merge_patch(BACKUP_STORE, "shared", namespace, {"spec": back})


async def test_kubectl_lists_shared_stores_by_their_short_name(
    client: KubeClient, kubeconfig: Path, operator: Operator, namespace: str, server: s3.S3Server
) -> None:
    tenant = await a_namespace(client)
    name = await share(client, namespace, server, {"from": "Names", "names": [tenant]})
    await operator.reconcile(name)
    await operator.reconcile(name, tenant)
    of_tenant = kubectl(kubeconfig, "get", "bst", "-n", tenant).stdout.splitlines()[1].split()
    assert of_tenant[4:7] == ["ReadWrite", f"b-{name}", server.url]
    lines = kubectl(kubeconfig, "get", "cbst", name).stdout.splitlines()
    header, row = (line.split() for line in lines)
    assert header == ["NAME", "READY", "REASON", "DEFAULT", "ACCESS", "CONTAINER", "ENDPOINT", "NAMESPACES", "AGE"]
    assert row[:8] == [name, "False", "BrokerDisabled", "true", "ReadWrite", f"b-{name}", server.url, "1"]


RELEASE, TENANT = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("release", "tenant"))


@pytest.fixture(scope="module")
def account(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Enforce the chart's rights and policies. Return a directory for the operator's kubeconfig."""
    directory = tmp_path_factory.mktemp("policies")
    chart = render(f"fullnameOverride={RELEASE}", namespace=RELEASE)
    policies = [item for item in chart if "-operator-" in item["metadata"]["name"]]

    async def begin() -> None:
        async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client:
            for name in (RELEASE, TENANT):
                await client.create(NAMESPACE, {"metadata": {"name": name}})
            await grant(client, [item for item in chart if RELEASE in item["metadata"]["name"]])
            await enforce(client, policies)
        async with aclosing(await connect_as(kubeconfig, RELEASE, RELEASE, directory)) as operator:
            body = {"metadata": {"name": "probe", "namespace": TENANT}, "spec": {"backupId": "x"}}
            await wait_until_refused(lambda: operator.create(VOLUME_RESTORE, body), "The operator must")
            probe = {
                "metadata": {"name": "probe", "namespace": TENANT},
                "spec": {"credentialsSecretRef": {"name": "x"}},
            }
            await wait_until_refused(lambda: operator.create(BACKUP_STORE, probe), "The operator must")

    async def end() -> None:
        async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client:
            await lift(client, policies)

    asyncio.run(begin())
    yield directory
    asyncio.run(end())


def body(name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": TENANT, "labels": OURS} | more.pop("metadata", {})
    return {"metadata": metadata, "spec": {"clusterStoreRef": {"name": name}} | more}


async def test_account_of_the_operator_writes_only_shared_stores(
    account: Path, kubeconfig: Path, client: KubeClient
) -> None:
    async with aclosing(await connect_as(kubeconfig, RELEASE, RELEASE, account)) as operator:
        for wrong in (
            body("labelled", metadata={"labels": {}}),
            body("owned", metadata={"finalizers": [labels.STORE_FINALIZER]}),
            {"metadata": {"name": "own", "namespace": TENANT}, "spec": {"credentialsSecretRef": {"name": "s3"}}},
        ):
            with pytest.raises(AccessDenied, match="The operator must create a BackupStore only for"):
                await operator.create(BACKUP_STORE, wrong)
        default = {"annotations": {labels.DEFAULT_STORE_ANNOTATION: "true"}}
        made = await operator.create(BACKUP_STORE, body("made", metadata=default))
        for value in (None, "true"):
            annotations = {labels.DEFAULT_STORE_ANNOTATION: value}
            await operator.merge_patch(BACKUP_STORE, "made", TENANT, {"metadata": {"annotations": annotations}})
        await client.create(BACKUP_STORE, body("handmade", metadata={"labels": {}}))
        with pytest.raises(AccessDenied, match="default of shared stores"):
            await operator.merge_patch(BACKUP_STORE, "handmade", TENANT, {"metadata": default})
        with pytest.raises(AccessDenied, match="The operator must delete only a BackupStore that it created"):
            await operator.delete(BACKUP_STORE, "handmade", TENANT)
        held = {"finalizers": [labels.STORE_FINALIZER]}
        await operator.merge_patch(BACKUP_STORE, "made", TENANT, {"metadata": held})
        with pytest.raises(AccessDenied, match="that no backup needs"):
            await operator.delete(BACKUP_STORE, "made", TENANT)
        await operator.merge_patch(BACKUP_STORE, "made", TENANT, {"metadata": {"finalizers": []}})
        await operator.delete(BACKUP_STORE, "made", TENANT, uid=made["metadata"]["uid"])
        assert await client.get(BACKUP_STORE, "made", TENANT) is None


async def test_account_of_the_operator_changes_no_cluster_store(
    account: Path, kubeconfig: Path, client: KubeClient
) -> None:
    name = f"shared-{uuid.uuid4().hex[:8]}"
    await client.create(
        CLUSTER_BACKUP_STORE, {"metadata": {"name": name}, "spec": {"credentialsSecretRef": {"name": "s3"}}}
    )
    async with aclosing(await connect_as(kubeconfig, RELEASE, RELEASE, account)) as operator:
        held = {"metadata": {"finalizers": [labels.STORE_FINALIZER]}}
        await operator.merge_patch(CLUSTER_BACKUP_STORE, name, None, held)
        change = {"spec": {"allowedNamespaces": {"from": "All"}}}
        with pytest.raises(AccessDenied, match="The operator must change no spec"):
            await operator.merge_patch(CLUSTER_BACKUP_STORE, name, None, change)
        with pytest.raises(AccessDenied):
            await operator.delete(CLUSTER_BACKUP_STORE, name, None)
    await client.merge_patch(CLUSTER_BACKUP_STORE, name, None, {"metadata": {"finalizers": []}})
    await client.delete(CLUSTER_BACKUP_STORE, name, None)


async def test_account_of_the_operator_reports_grants_and_makes_none(
    account: Path, kubeconfig: Path, client: KubeClient
) -> None:
    grant_of_tenant = {"metadata": {"name": "give", "namespace": TENANT}, "spec": {"to": {"namespaces": ["staging"]}}}
    async with aclosing(await connect_as(kubeconfig, RELEASE, RELEASE, account)) as operator:
        with pytest.raises(AccessDenied):
            await operator.create(BACKUP_GRANT, grant_of_tenant)
        made = await client.create(BACKUP_GRANT, grant_of_tenant)
        status = {"id": made["metadata"]["uid"], "observedGeneration": 1}
        await operator.apply_status(BACKUP_GRANT, "give", TENANT, status, uid=made["metadata"]["uid"])
        assert [item["status"]["id"] for item in await operator.list(BACKUP_GRANT, TENANT)] == [status["id"]]
        for refused in (
            operator.merge_patch(BACKUP_GRANT, "give", TENANT, {"spec": {"backups": {"all": True}}}),
            operator.delete(BACKUP_GRANT, "give", TENANT),
        ):
            with pytest.raises(AccessDenied):
                await refused
