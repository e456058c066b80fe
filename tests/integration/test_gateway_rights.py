"""Callers of the gateway have their rights in Kubernetes, and no others."""

from __future__ import annotations

import uuid

import pytest

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE, VOLUME_BACKUP
from tests.support.gateway.gateways import READER, Gateway

pytestmark = pytest.mark.integration


async def test_missing_token_is_401(gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    person.token = ""
    answer = await person.get("backups")
    assert answer.fault == ("unauthorized", 401, "The request you have made requires authentication.")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "with blank", "ümlaut", "x" * 20000])
async def test_invalid_token_is_401(gateway: Gateway, namespace: str, token: str) -> None:
    person = await gateway.person(namespace)
    answer = await person.get("backups", headers={"X-Auth-Token": token})
    assert answer.status == 401


async def test_token_can_be_a_bearer_token(gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    token, person.token = person.token, ""
    answer = await person.get("backups", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status, answer.json) == (200, {"backups": []})


async def test_missing_right_is_403_and_is_named(gateway: Gateway, namespace: str) -> None:
    nobody = await gateway.person(namespace, ())
    name, code, message = (await nobody.get("backups")).fault
    assert (name, code) == ("forbidden", 403)
    assert message.startswith("Policy doesn't allow backup:get_all to be performed.")
    assert 'cannot list resource \\"volumebackups\\"' in message or 'cannot list resource "volumebackups"' in message


async def test_project_of_others_is_403(gateway: Gateway, namespace: str, client: KubeClient) -> None:
    other = f"test-{uuid.uuid4().hex[:12]}"
    await client.create(NAMESPACE, {"metadata": {"name": other}})
    person = await gateway.person(namespace)
    assert (await person.get(f"/v3/{other}/backups")).status == 403


async def test_path_without_project_uses_the_service_accounts_namespace(
    gateway: Gateway, namespace: str, client: KubeClient
) -> None:
    person = await gateway.person(namespace, READER)
    body = {"metadata": {"name": "mine", "namespace": namespace}, "spec": {"volumeId": "database", "name": "monday"}}
    created = await client.create(VOLUME_BACKUP, body)
    answer = await person.get("/v3/backups")
    assert [backup["id"] for backup in answer.json["backups"]] == [created["metadata"]["uid"]]
