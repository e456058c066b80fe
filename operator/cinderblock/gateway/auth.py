"""Callers: the token of a request, and an API client that sends it.

The gateway passes tokens on and does not judge them. It checks no signature and caches nothing. The claims that it
reads from a token (namespace, expiry) grant no rights.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Protocol

from typing_extensions import override

from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import SELF_SUBJECT_REVIEW
from cinderblock.kube.list_memory import ListAccount
from cinderblock.kube.token_clients import TokenClients
from cinderblock.reasons import Reason


class Authenticator(Protocol):
    """Authenticates callers."""

    def token_of(self, headers: Mapping[str, str]) -> str | None:
        """Return the token of a request. Raises AccessDenied (reason Unauthorized) if there is none."""

    def default_project(self, token: str | None) -> str:
        """Return the namespace for paths without a project. Raises InvalidInput if the token has none."""

    def client(self, token: str | None, account: ListAccount) -> KubeClient:
        """Return a client with the caller's rights, whose lists draw from ``account``.

        Raises AccessDenied (Unauthorized) for a malformed token.
        """

    async def is_ready(self) -> bool:
        """Return whether the API server answers. Raises nothing."""

    async def aclose(self) -> None:
        """Close all connections."""


class TokenAuth(Authenticator):
    """Takes Kubernetes tokens from ``X-Auth-Token``, which OpenStack clients send, or ``Authorization: Bearer``."""

    def __init__(self, clients: TokenClients) -> None:
        self._clients = clients

    @override
    def token_of(self, headers: Mapping[str, str]) -> str | None:
        token = headers.get("x-auth-token") or _bearer(headers.get("authorization", ""))
        if not token:
            raise AccessDenied("No token was sent", reason=Reason.UNAUTHORIZED)
        return token

    @override
    def default_project(self, token: str | None) -> str:
        return namespace_of(claims(token or ""))

    @override
    def client(self, token: str | None, account: ListAccount) -> KubeClient:
        return self._clients.client(token or "", account)

    @override
    async def is_ready(self) -> bool:
        return await self._clients.server_ready()

    @override
    async def aclose(self) -> None:
        await self._clients.aclose()


class NoAuth(Authenticator):
    """Lets every caller act with the gateway's own credentials. For tests only."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    @override
    def token_of(self, headers: Mapping[str, str]) -> str | None:
        return None

    @override
    def default_project(self, token: str | None) -> str:
        return self._namespace

    @override
    def client(self, token: str | None, account: ListAccount) -> KubeClient:
        return self._kube

    @override
    async def is_ready(self) -> bool:
        return await self._kube.server_ready()

    @override
    async def aclose(self) -> None:
        await self._kube.aclose()


def claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT without verifying them; empty if the token is not a JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        value = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def namespace_of(token_claims: Mapping[str, Any]) -> str:
    """Return the namespace in the claims of a ServiceAccount's token. Raises InvalidInput if there is none."""
    kubernetes = token_claims.get("kubernetes.io")
    namespace = kubernetes.get("namespace") if isinstance(kubernetes, dict) else None
    if not isinstance(namespace, str):
        raise InvalidInput("Malformed request url: name the project in it, or use the token of a ServiceAccount")
    return namespace


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def user_name(kube: KubeClient) -> str:
    """Return the caller's name, as in ``system:serviceaccount:shop:alice``. Raises AccessDenied (Unauthorized)."""
    status = await kube.create_review(SELF_SUBJECT_REVIEW, {})
    return str(status.get("userInfo", {}).get("username", ""))
