"""Who calls: the token that a request shows, and a client that shows it to the API server.

A token is handed on and never judged here: no signature is checked, nothing is cached, and what is read out of it
(namespace, expiry) gives nobody a right.
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
from cinderblock.kube.token_clients import TokenClients
from cinderblock.reasons import Reason


class Authenticator(Protocol):
    """How callers are told apart."""

    def token_of(self, headers: Mapping[str, str]) -> str | None:
        """The token that a request shows. Raises AccessDenied (reason Unauthorized) if it shows none."""

    def default_project(self, token: str | None) -> str:
        """The namespace that is meant where the path names none. Raises InvalidInput if there is none."""

    def client(self, token: str | None) -> KubeClient:
        """A client that acts for the caller. Raises AccessDenied (reason Unauthorized) for what can be no token."""

    async def is_ready(self) -> bool:
        """Whether the API server answers. Raises nothing."""

    async def aclose(self) -> None:
        """Give up all connections."""


class TokenAuth(Authenticator):
    """Callers show Kubernetes tokens: ``X-Auth-Token``, as OpenStack's clients do, or ``Authorization: Bearer``."""

    def __init__(self, callers: TokenClients) -> None:
        self._callers = callers

    @override
    def token_of(self, headers: Mapping[str, str]) -> str | None:
        token = headers.get("x-auth-token") or _bearer(headers.get("authorization", ""))
        if not token:
            raise AccessDenied("No token was shown", reason=Reason.UNAUTHORIZED)
        return token

    @override
    def default_project(self, token: str | None) -> str:
        return namespace_in(claims(token or ""))

    @override
    def client(self, token: str | None) -> KubeClient:
        return self._callers.client(token or "")

    @override
    async def is_ready(self) -> bool:
        return await self._callers.server_ready()

    @override
    async def aclose(self) -> None:
        await self._callers.aclose()


class NoAuth(Authenticator):
    """Everybody acts with the gateway's own credentials: for tests."""

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
    def client(self, token: str | None) -> KubeClient:
        return self._kube

    @override
    async def is_ready(self) -> bool:
        return await self._kube.server_ready()

    @override
    async def aclose(self) -> None:
        await self._kube.aclose()


def claims(token: str) -> dict[str, Any]:
    """What a JWT says of itself, unverified; empty for a token that is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        value = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def namespace_in(said: Mapping[str, Any]) -> str:
    """The namespace of a ServiceAccount's token. Raises InvalidInput if it is none."""
    own = said.get("kubernetes.io")
    namespace = own.get("namespace") if isinstance(own, dict) else None
    if not isinstance(namespace, str):
        raise InvalidInput("Malformed request url: name the project in it, or come with a ServiceAccount's token")
    return namespace


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def user_name(kube: KubeClient) -> str:
    """The caller's name: ``system:serviceaccount:shop:alice``. Raises AccessDenied (Unauthorized) for a bad token."""
    status = await kube.create_review(SELF_SUBJECT_REVIEW, {})
    return str(status.get("userInfo", {}).get("username", ""))
