"""A gateway in the process of the test, in front of a real API server, and its callers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from cinderblock.gateway.app import make_app
from cinderblock.gateway.auth import TokenAuth
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.kube.kubeconfig import Kubeconfig
from cinderblock.kube.rest_config import ConfigSource
from cinderblock.kube.token_clients import TokenClients
from cinderblock.kube.transport import Request
from cinderblock.serving.server import running

SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")

READER = ("get", "list", "watch")
MEMBER = (*READER, "create", "update", "patch", "delete")


@dataclass(frozen=True)
class Answer:
    """A response of the gateway."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.text)

    @property
    def fault(self) -> tuple[str, int, str]:
        """Name, code and message of an error."""
        ((name, inside),) = self.json.items()
        assert inside["code"] == self.status
        return name, inside["code"], inside["message"]


@dataclass
class Person:
    """A caller with a token and a project."""

    session: aiohttp.ClientSession
    url: str
    project: str
    token: str = field(repr=False)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        version: str = "",
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """Send a request. A path without a leading slash is below ``/v3/<project>/``."""
        all_headers = {"X-Auth-Token": self.token} | ({"OpenStack-API-Version": f"volume {version}"} if version else {})
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            all_headers["Content-Type"] = "application/json"
        url = self.url + (path if path.startswith("/") else f"/v3/{self.project}/{path}")
        async with self.session.request(
            method, url, data=raw, headers=all_headers | dict(headers or {}), allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def get(self, path: str, **more: Any) -> Answer:
        """Send a GET request."""
        return await self.ask("GET", path, **more)

    async def post(self, path: str, body: object = None, **more: Any) -> Answer:
        """Send a POST request."""
        return await self.ask("POST", path, body, **more)

    async def put(self, path: str, body: object = None, **more: Any) -> Answer:
        """Send a PUT request."""
        return await self.ask("PUT", path, body, **more)

    async def delete(self, path: str, **more: Any) -> Answer:
        """Send a DELETE request."""
        return await self.ask("DELETE", path, **more)


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    session: aiohttp.ClientSession
    admin: KubeClient

    async def person(self, project: str, verbs: tuple[str, ...] = MEMBER, *, admin: bool = False) -> Person:
        """Create a ServiceAccount with rights on Cinderblock's objects, volumes and snapshots.

        Args:
            project: its namespace.
            verbs: the allowed verbs.
            admin: whether it may also write the status of backups.
        """
        name = f"person-{len(verbs)}{'-admin' * admin}"
        where = {"name": name, "namespace": project}
        rules = [
            {"apiGroups": ["cinderblock.io"], "resources": ["*"], "verbs": list(verbs)},
            {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": list(verbs)},
            {"apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"], "verbs": list(verbs)},
            {"apiGroups": [""], "resources": ["pods"], "verbs": [verb for verb in verbs if verb in READER]},
        ]
        if not admin:
            rules[0]["resources"] = ["backupstores", "volumebackups", "volumerestores"]
        if await self.admin.get(SERVICE_ACCOUNT, name, project) is None:
            await self.admin.create(SERVICE_ACCOUNT, {"metadata": where})
            await self.admin.create(ROLE, {"metadata": where, "rules": [rule for rule in rules if rule["verbs"]]})
            reference = {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name}
            subject = {"kind": "ServiceAccount", "name": name, "namespace": project}
            await self.admin.create(ROLE_BINDING, {"metadata": where, "roleRef": reference, "subjects": [subject]})
        return Person(self.session, self.url, project, await token_of(self.admin, project, name))


async def token_of(admin: KubeClient, namespace: str, account: str) -> str:
    """Return a token of a ServiceAccount, like ``kubectl create token``."""
    token_request = {"metadata": {"name": account, "namespace": namespace}, "spec": {}}
    path = f"{SERVICE_ACCOUNT.path(namespace, account)}/token"
    answer = await admin._transport.round_trip(Request("POST", path, body=token_request))
    return str(answer.json()["status"]["token"])


@asynccontextmanager
async def gateway_before(
    source: ConfigSource, admin: KubeClient, settings: GatewaySettings | None = None
) -> AsyncIterator[Gateway]:
    """Run a gateway in front of the API server of ``source`` and ``admin``."""
    settings = settings or GatewaySettings(host="127.0.0.1", port=0)
    authenticator = TokenAuth(TokenClients(source))
    try:
        async with running(make_app(authenticator, settings), settings) as server, aiohttp.ClientSession() as session:
            yield Gateway(f"http://127.0.0.1:{server.port}", session, admin)
    finally:
        await authenticator.aclose()


def source_of(kubeconfig: str) -> ConfigSource:
    """Return the API server's address."""
    return Kubeconfig((kubeconfig,))
