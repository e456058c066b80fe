"""Login without Keystone, with a Kubernetes token as the password."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import pytest

from cinderblock.gateway.auth import claims
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE
from tests.support.gateway.gateways import READER, Answer, Gateway, Person

pytestmark = pytest.mark.integration


def by_password(token: str, project: str | None) -> dict[str, object]:
    user = {"name": "alice", "domain": {"id": "default"}, "password": token}
    auth: dict[str, object] = {"identity": {"methods": ["password"], "password": {"user": user}}}
    if project:
        auth["scope"] = {"project": {"name": project, "domain": {"name": "Default"}}}
    return {"auth": auth}


def by_token(token: str, project: str) -> dict[str, object]:
    identity = {"methods": ["token"], "token": {"id": token}}
    return {"auth": {"identity": identity, "scope": {"project": {"id": project}}}}


async def log_in(person: Person, body: object) -> Answer:
    return await person.post("/identity/v3/auth/tokens", body, headers={"X-Auth-Token": ""})


def error_of(answer: Answer) -> tuple[int, str]:
    error = answer.json["error"]
    assert error["code"] == answer.status
    return answer.status, error["message"]


async def test_password_login_returns_token_project_roles_and_catalog(gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    answer = await log_in(person, by_password(person.token, namespace))
    assert (answer.status, answer.headers["X-Subject-Token"]) == (201, person.token)
    token = answer.json["token"]
    assert token["user"]["name"] == f"system:serviceaccount:{namespace}:person-7"
    assert token["project"]["id"] == token["project"]["name"] == namespace
    assert [role["name"] for role in token["roles"]] == ["reader", "member"]
    expires = datetime.fromisoformat(token["expires_at"])
    assert expires == datetime.fromtimestamp(claims(person.token)["exp"], UTC)
    urls = {service["type"]: {face["url"] for face in service["endpoints"]} for service in token["catalog"]}
    assert urls == {
        "block-storage": {f"{gateway.url}/v3/{namespace}"},
        "volumev3": {f"{gateway.url}/v3/{namespace}"},
        "volumev2": {f"{gateway.url}/v2/{namespace}"},
        "identity": {f"{gateway.url}/identity/v3"},
    }


@pytest.mark.parametrize(
    ("verbs", "admin", "roles"),
    [(READER, False, ["reader"]), ((*READER, "create", "patch"), True, ["reader", "member", "admin"])],
)
async def test_roles_match_the_rights(
    gateway: Gateway, namespace: str, verbs: tuple[str, ...], admin: bool, roles: list[str]
) -> None:
    person = await gateway.person(namespace, verbs, admin=admin)
    answer = await log_in(person, by_token(person.token, namespace))
    assert [role["name"] for role in answer.json["token"]["roles"]] == roles


async def test_login_without_project_uses_the_service_accounts_namespace(gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    answer = await log_in(person, by_password(person.token, None))
    assert answer.json["token"]["project"]["name"] == namespace


async def test_wrong_password_is_401_and_is_not_repeated(gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    for wrong in ("guess", "", person.token[:-3] + "xyz", "with\nnewline"):
        answer = await log_in(person, by_password(wrong, namespace))
        assert answer.status == 401
        assert not wrong or wrong not in answer.text


async def test_project_without_rights_is_401_as_in_keystone(
    gateway: Gateway, namespace: str, client: KubeClient
) -> None:
    other = f"test-{uuid.uuid4().hex[:12]}"
    await client.create(NAMESPACE, {"metadata": {"name": other}})
    person = await gateway.person(namespace)
    for project in (other, "no-such-namespace", "../kube-system", "A B"):
        assert (await log_in(person, by_password(person.token, project))).status == 401


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"auth": {}},
        {"auth": {"identity": {"methods": ["totp"]}}},
        {"auth": {"identity": {"methods": ["password"], "password": {"user": {"password": 7}}}}},
        {"auth": {"identity": {"methods": ["token"], "token": {"id": "x"}}, "scope": {"domain": {"id": "default"}}}},
    ],
)
async def test_malformed_logins_are_400(gateway: Gateway, namespace: str, body: object) -> None:
    person = await gateway.person(namespace)
    assert error_of(await log_in(person, body))[0] == 400


async def test_token_can_be_validated(gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    subject = {"X-Subject-Token": person.token}
    answer = await person.get("/identity/v3/auth/tokens", headers=subject)
    assert answer.json["token"]["project"]["name"] == namespace
    answer = await person.ask("HEAD", "/identity/v3/auth/tokens", headers=subject)
    assert (answer.status, answer.text) == (200, "")
    answer = await person.get("/identity/v3/auth/tokens", headers={"X-Subject-Token": "nonsense"})
    assert answer.status == 404


async def test_projects_are_the_namespaces_that_the_caller_may_use(gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    answer = await person.get("/identity/v3/auth/projects")
    assert [project["id"] for project in answer.json["projects"]] == [namespace]
    assert (await person.get(f"/identity/v3/projects/{namespace}")).json["project"]["name"] == namespace
    assert (await person.get("/identity/v3/projects/kube-system")).status == 404
    assert (await person.get("/identity/v3/projects?name=kube-system")).json["projects"] == []


async def test_version_documents_link_to_the_login(gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    answer = await person.get("/identity")
    assert answer.status == 300
    (version,) = answer.json["versions"]["values"]
    assert version == (await person.get("/identity/v3")).json["version"]
    assert version["links"] == [{"rel": "self", "href": f"{gateway.url}/identity/v3/"}]
    assert json.dumps(version)
