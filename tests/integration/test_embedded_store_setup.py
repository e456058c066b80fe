"""`cinderblock embedded-store` on a real API server, with only the rights that the chart grants."""

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

from cinderblock.api.labels import DEFAULT_STORE_ANNOTATION
from cinderblock.cli.commands.embedded_store import EmbeddedStore, set_up
from cinderblock.errors import AccessDenied, Conflict, StoreUnreachable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import BACKUP_STORE, NAMESPACE, SECRET
from cinderblock.store.credentials import S3Credentials
from tests.support.cluster.chart import render
from tests.support.cluster.rights import connect_as, grant

pytestmark = pytest.mark.integration

CREDENTIALS, ENCRYPTION = "cinderblock-embedded-store", "cinderblock-embedded-store-encryption"


@pytest.fixture
async def desired(client: KubeClient, namespace: str) -> EmbeddedStore:
    """Return the setup for a server in one namespace and two others that use it."""
    tenants = tuple(f"tenant-{uuid.uuid4().hex[:12]}" for _ in range(2))
    for name in tenants:
        await client.create(NAMESPACE, {"metadata": {"name": name}})
    return EmbeddedStore(namespace, "cinderblock-store-accounts", "http://store.test.svc:7070", tenants)


@pytest.fixture
async def job(
    client: KubeClient, kubeconfig: Path, desired: EmbeddedStore, tmp_path: Path
) -> AsyncIterator[KubeClient]:
    """Connect with the rights of the setup Job."""
    names = ",".join(desired.namespaces)
    settings = ("embeddedStore.enabled=true", f"embeddedStore.namespaces={{{names}}}")
    await grant(client, render(*settings, namespace=desired.accounts_namespace))
    account = "cinderblock-store-setup"
    async with aclosing(await connect_as(kubeconfig, desired.accounts_namespace, account, tmp_path)) as connected:
        yield connected


async def test_every_namespace_gets_an_account_a_key_and_a_default_store(
    client: KubeClient, job: KubeClient, desired: EmbeddedStore
) -> None:
    await set_up_with(job, desired)
    accounts = await _accounts(client, desired)
    for namespace in desired.namespaces:
        credentials = await _data(client, namespace, CREDENTIALS)
        account = accounts[credentials["AWS_ACCESS_KEY_ID"]]
        assert account["secret"] == credentials["AWS_SECRET_ACCESS_KEY"]
        assert account["role"] == "user"
        key = await _data(client, namespace, ENCRYPTION)
        assert [len(base64.b64decode(value)) for value in key.values()] == [32]
        store = await _get(client, BACKUP_STORE, namespace, "default")
        assert store["metadata"]["annotations"][DEFAULT_STORE_ANNOTATION] == "true"
        assert store["spec"]["endpointUrl"] == desired.endpoint_url
        assert store["spec"]["container"] == account["access"]
        assert store["spec"]["createContainer"] is False
        assert store["spec"]["credentialsSecretRef"] == {"name": CREDENTIALS}
        assert store["spec"]["encryptionSecretRef"] == {"name": ENCRYPTION}


async def test_namespaces_share_no_account_and_no_key(
    client: KubeClient, job: KubeClient, desired: EmbeddedStore
) -> None:
    await set_up_with(job, desired)
    for name in (CREDENTIALS, ENCRYPTION):
        first, second = [await _data(client, namespace, name) for namespace in desired.namespaces]
        assert set(first.values()).isdisjoint(second.values())


async def test_second_run_changes_nothing(client: KubeClient, job: KubeClient, desired: EmbeddedStore) -> None:
    await set_up_with(job, desired)
    before = await _everything(client, desired)
    await set_up_with(job, desired)
    assert await _everything(client, desired) == before


async def test_new_namespace_does_not_change_the_others(
    client: KubeClient, job: KubeClient, desired: EmbeddedStore
) -> None:
    first = replace(desired, namespaces=desired.namespaces[:1])
    await set_up_with(job, first)
    before = await _accounts(client, desired)
    await set_up_with(job, desired)
    after = await _accounts(client, desired)
    assert len(after) == 2
    assert before.items() <= after.items()


async def test_changed_credentials_are_reset_to_the_servers(
    client: KubeClient, job: KubeClient, desired: EmbeddedStore
) -> None:
    await set_up_with(job, desired)
    mine, other = desired.namespaces
    before = await _data(client, mine, CREDENTIALS)
    stolen = {"AWS_ACCESS_KEY_ID": f"cinderblock-{other}", "AWS_SECRET_ACCESS_KEY": "chosen"}
    await client.merge_patch(SECRET, CREDENTIALS, mine, {"stringData": stolen})
    await set_up_with(job, desired)
    assert await _data(client, mine, CREDENTIALS) == before
    assert "chosen" not in json.dumps(await _accounts(client, desired))


async def test_existing_encryption_key_never_changes(
    client: KubeClient, job: KubeClient, desired: EmbeddedStore
) -> None:
    for namespace in desired.namespaces:
        body = {"metadata": {"namespace": namespace, "name": ENCRYPTION}, "stringData": {"mine": "kept"}}
        await client.create(SECRET, body)
    await set_up_with(job, desired)
    for namespace in desired.namespaces:
        assert await _data(client, namespace, ENCRYPTION) == {"mine": "kept"}


async def test_existing_default_store_stays_the_only_default(
    client: KubeClient, job: KubeClient, desired: EmbeddedStore
) -> None:
    namespace = desired.namespaces[0]
    own = {"namespace": namespace, "name": "own", "annotations": {DEFAULT_STORE_ANNOTATION: "true"}}
    await client.create(BACKUP_STORE, {"metadata": own, "spec": {"credentialsSecretRef": {"name": "s3"}}})
    await set_up_with(job, desired)
    store = await _get(client, BACKUP_STORE, namespace, "default")
    assert DEFAULT_STORE_ANNOTATION not in store["metadata"].get("annotations", {})


async def test_changed_store_stays_changed(client: KubeClient, job: KubeClient, desired: EmbeddedStore) -> None:
    await set_up_with(job, desired)
    namespace = desired.namespaces[0]
    await client.merge_patch(BACKUP_STORE, "default", namespace, {"spec": {"compression": {"level": 9}}})
    await set_up_with(job, desired)
    store = await _get(client, BACKUP_STORE, namespace, "default")
    assert store["spec"]["compression"]["level"] == 9


async def test_unsealed_creates_no_key(client: KubeClient, job: KubeClient, desired: EmbeddedStore) -> None:
    await set_up_with(job, replace(desired, sealed=False))
    for namespace in desired.namespaces:
        assert await client.get(SECRET, ENCRYPTION, namespace) is None
        assert "encryptionSecretRef" not in (await _get(client, BACKUP_STORE, namespace, "default"))["spec"]


async def test_rights_of_the_job_are_limited_to_its_secrets(job: KubeClient, desired: EmbeddedStore) -> None:
    await set_up_with(job, desired)
    with pytest.raises(AccessDenied):
        await job.get(SECRET, ENCRYPTION, desired.namespaces[0])
    with pytest.raises(AccessDenied):
        await job.list(SECRET, desired.accounts_namespace)
    with pytest.raises(AccessDenied):
        await job.create(SECRET, {"metadata": {"namespace": "default", "name": "anything"}})


async def test_role_of_older_accounts_is_lowered_and_nothing_else(
    client: KubeClient, job: KubeClient, desired: EmbeddedStore
) -> None:
    await set_up_with(job, desired)
    before = await _data(client, desired.accounts_namespace, desired.accounts_name)
    old = {"users.json": before["users.json"].replace('"user"', '"userplus"')}
    await client.merge_patch(SECRET, desired.accounts_name, desired.accounts_namespace, {"stringData": old})
    await set_up_with(job, desired)
    assert await _data(client, desired.accounts_namespace, desired.accounts_name) == before


async def test_namespace_whose_bucket_is_taken_gets_no_store_and_the_others_do(
    client: KubeClient, job: KubeClient, desired: EmbeddedStore
) -> None:
    robbed, other = desired.namespaces

    def create(url: str, administrator: S3Credentials, name: str, owner: str) -> bool:
        if name == f"cinderblock-{robbed}":
            raise Conflict("it belongs to another account")
        return True

    with pytest.raises(Conflict, match="another account"):
        await set_up(job, desired, create=create)
    assert await client.list(BACKUP_STORE, robbed) == []
    assert len(await client.list(BACKUP_STORE, other)) == 1


async def test_setup_waits_for_the_server(job: KubeClient, desired: EmbeddedStore) -> None:
    waits: list[float] = []

    def create(*_: object) -> bool:
        if len(waits) < 4:
            raise StoreUnreachable("it starts")
        return True

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    await set_up(job, desired, sleep=sleep, create=create)
    assert len(waits) == 4


async def test_setup_gives_up_on_a_server_that_never_starts(job: KubeClient, desired: EmbeddedStore) -> None:
    waited = 0.0

    def create(*_: object) -> bool:
        raise StoreUnreachable("it does not start")

    async def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    with pytest.raises(StoreUnreachable):
        await set_up(job, desired, sleep=sleep, create=create)
    assert 200 < waited <= 300


async def set_up_with(job: KubeClient, desired: EmbeddedStore) -> None:
    """Set up, with a server that creates every bucket for its account."""

    def create(url: str, administrator: S3Credentials, name: str, owner: str) -> bool:
        assert url == desired.endpoint_url
        assert administrator.access_key
        assert administrator.secret_key
        assert name == owner
        return True

    await set_up(job, desired, create=create)


async def _everything(client: KubeClient, desired: EmbeddedStore) -> dict[str, Any]:
    versions = {}
    for namespace in (desired.accounts_namespace, *desired.namespaces):
        for kind in (SECRET, BACKUP_STORE):
            for item in await client.list(kind, namespace):
                versions[f"{kind.kind} {namespace}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return versions


async def _accounts(client: KubeClient, desired: EmbeddedStore) -> dict[str, dict[str, Any]]:
    data = await _data(client, desired.accounts_namespace, desired.accounts_name)
    accounts: dict[str, dict[str, Any]] = json.loads(data["users.json"])["accessAccounts"]
    return accounts


async def _data(client: KubeClient, namespace: str, name: str) -> dict[str, str]:
    secret = await _get(client, SECRET, namespace, name)
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


async def _get(client: KubeClient, kind: Any, namespace: str, name: str) -> dict[str, Any]:
    found = await client.get(kind, name, namespace)
    assert found is not None
    return found
