"""`cinderblock embedded-store` on a real API server, with the rights that the chart gives it and no others."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.v1alpha1.store import DEFAULT_STORE_ANNOTATION
from cinderblock.cli.commands.embedded_store import EmbeddedStore, set_up
from cinderblock.errors import AccessDenied
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import BACKUP_STORE, NAMESPACE, SECRET
from tests.support.cluster.chart import render
from tests.support.cluster.rights import connect_as, grant

pytestmark = pytest.mark.integration

CREDENTIALS, ENCRYPTION = "cinderblock-embedded-store", "cinderblock-embedded-store-encryption"


@pytest.fixture
async def wanted(client: KubeClient, namespace: str) -> EmbeddedStore:
    """A server in one namespace and two others that are to use it."""
    tenants = tuple(f"tenant-{uuid.uuid4().hex[:12]}" for _ in range(2))
    for name in tenants:
        await client.create(NAMESPACE, {"metadata": {"name": name}})
    return EmbeddedStore(namespace, "cinderblock-store-accounts", "http://store.test.svc:7070", tenants)


@pytest.fixture
async def job(client: KubeClient, kubeconfig: Path, wanted: EmbeddedStore, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """A client with the setup Job's rights."""
    names = ",".join(wanted.namespaces)
    settings = ("embeddedStore.enabled=true", f"embeddedStore.namespaces={{{names}}}")
    await grant(client, render(*settings, namespace=wanted.accounts_namespace))
    account = "cinderblock-store-setup"
    async with aclosing(await connect_as(kubeconfig, wanted.accounts_namespace, account, tmp_path)) as connected:
        yield connected


async def test_every_namespace_gets_an_account_a_key_and_a_default_store(
    client: KubeClient, job: KubeClient, wanted: EmbeddedStore
) -> None:
    await set_up(job, wanted)
    accounts = await _accounts(client, wanted)
    for namespace in wanted.namespaces:
        credentials = await _data(client, namespace, CREDENTIALS)
        account = accounts[credentials["AWS_ACCESS_KEY_ID"]]
        assert account["secret"] == credentials["AWS_SECRET_ACCESS_KEY"]
        assert account["role"] == "userplus"
        key = await _data(client, namespace, ENCRYPTION)
        assert [len(base64.b64decode(value)) for value in key.values()] == [32]
        store = await _get(client, BACKUP_STORE, namespace, "default")
        assert store["metadata"]["annotations"][DEFAULT_STORE_ANNOTATION] == "true"
        assert store["spec"]["endpointUrl"] == wanted.endpoint_url
        assert store["spec"]["container"] == account["access"]
        assert store["spec"]["credentialsSecretRef"] == {"name": CREDENTIALS}
        assert store["spec"]["encryptionSecretRef"] == {"name": ENCRYPTION}


async def test_no_two_namespaces_share_an_account_or_a_key(
    client: KubeClient, job: KubeClient, wanted: EmbeddedStore
) -> None:
    await set_up(job, wanted)
    for name in (CREDENTIALS, ENCRYPTION):
        first, second = [await _data(client, namespace, name) for namespace in wanted.namespaces]
        assert set(first.values()).isdisjoint(second.values())


async def test_a_second_run_changes_nothing(client: KubeClient, job: KubeClient, wanted: EmbeddedStore) -> None:
    await set_up(job, wanted)
    before = await _everything(client, wanted)
    await set_up(job, wanted)
    assert await _everything(client, wanted) == before


async def test_a_namespace_that_comes_later_leaves_the_others_as_they_are(
    client: KubeClient, job: KubeClient, wanted: EmbeddedStore
) -> None:
    first = replace(wanted, namespaces=wanted.namespaces[:1])
    await set_up(job, first)
    before = await _accounts(client, wanted)
    await set_up(job, wanted)
    after = await _accounts(client, wanted)
    assert len(after) == 2
    assert before.items() <= after.items()


async def test_credentials_that_were_changed_by_hand_are_made_equal_to_the_servers(
    client: KubeClient, job: KubeClient, wanted: EmbeddedStore
) -> None:
    await set_up(job, wanted)
    mine, other = wanted.namespaces
    before = await _data(client, mine, CREDENTIALS)
    stolen = {"AWS_ACCESS_KEY_ID": f"cinderblock-{other}", "AWS_SECRET_ACCESS_KEY": "chosen"}
    await client.merge_patch(SECRET, CREDENTIALS, mine, {"stringData": stolen})
    await set_up(job, wanted)
    assert await _data(client, mine, CREDENTIALS) == before
    assert "chosen" not in json.dumps(await _accounts(client, wanted))


async def test_an_encryption_key_that_is_there_is_never_touched(
    client: KubeClient, job: KubeClient, wanted: EmbeddedStore
) -> None:
    for namespace in wanted.namespaces:
        body = {"metadata": {"namespace": namespace, "name": ENCRYPTION}, "stringData": {"mine": "kept"}}
        await client.create(SECRET, body)
    await set_up(job, wanted)
    for namespace in wanted.namespaces:
        assert await _data(client, namespace, ENCRYPTION) == {"mine": "kept"}


async def test_a_default_store_of_the_namespaces_own_stays_the_only_default(
    client: KubeClient, job: KubeClient, wanted: EmbeddedStore
) -> None:
    namespace = wanted.namespaces[0]
    own = {"namespace": namespace, "name": "own", "annotations": {DEFAULT_STORE_ANNOTATION: "true"}}
    await client.create(BACKUP_STORE, {"metadata": own, "spec": {"credentialsSecretRef": {"name": "s3"}}})
    await set_up(job, wanted)
    store = await _get(client, BACKUP_STORE, namespace, "default")
    assert DEFAULT_STORE_ANNOTATION not in store["metadata"].get("annotations", {})


async def test_a_store_that_people_have_changed_stays_changed(
    client: KubeClient, job: KubeClient, wanted: EmbeddedStore
) -> None:
    await set_up(job, wanted)
    namespace = wanted.namespaces[0]
    await client.merge_patch(BACKUP_STORE, "default", namespace, {"spec": {"compression": {"level": 9}}})
    await set_up(job, wanted)
    store = await _get(client, BACKUP_STORE, namespace, "default")
    assert store["spec"]["compression"]["level"] == 9


async def test_unsealed_means_no_key(client: KubeClient, job: KubeClient, wanted: EmbeddedStore) -> None:
    await set_up(job, replace(wanted, sealed=False))
    for namespace in wanted.namespaces:
        assert await client.get(SECRET, ENCRYPTION, namespace) is None
        assert "encryptionSecretRef" not in (await _get(client, BACKUP_STORE, namespace, "default"))["spec"]


async def test_the_jobs_rights_end_at_its_own_secrets(job: KubeClient, wanted: EmbeddedStore) -> None:
    await set_up(job, wanted)
    with pytest.raises(AccessDenied):
        await job.get(SECRET, ENCRYPTION, wanted.namespaces[0])
    with pytest.raises(AccessDenied):
        await job.list(SECRET, wanted.accounts_namespace)
    with pytest.raises(AccessDenied):
        await job.create(SECRET, {"metadata": {"namespace": "default", "name": "anything"}})


async def _everything(client: KubeClient, wanted: EmbeddedStore) -> dict[str, Any]:
    versions = {}
    for namespace in (wanted.accounts_namespace, *wanted.namespaces):
        for kind in (SECRET, BACKUP_STORE):
            for item in await client.list(kind, namespace):
                versions[f"{kind.kind} {namespace}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return versions


async def _accounts(client: KubeClient, wanted: EmbeddedStore) -> dict[str, dict[str, Any]]:
    data = await _data(client, wanted.accounts_namespace, wanted.accounts_name)
    accounts: dict[str, dict[str, Any]] = json.loads(data["users.json"])["accessAccounts"]
    return accounts


async def _data(client: KubeClient, namespace: str, name: str) -> dict[str, str]:
    secret = await _get(client, SECRET, namespace, name)
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


async def _get(client: KubeClient, kind: Any, namespace: str, name: str) -> dict[str, Any]:
    found = await client.get(kind, name, namespace)
    assert found is not None
    return found
