"""Clients that act for callers, with the caller's token and without any credentials of our own.

The API server prefers a client certificate to a token, so our certificate would make every caller us. The
configuration is therefore stripped of our identity. Callers share the connections, which only differ in a header.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from typing_extensions import override

from cinderblock.errors import AccessDenied
from cinderblock.kube.bounded_client import BoundedKubeClient
from cinderblock.kube.client import KubeClient
from cinderblock.kube.list_memory import ListAccount
from cinderblock.kube.responses import Response
from cinderblock.kube.rest_config import ConfigSource, RestConfig
from cinderblock.kube.transport import CALL_SECONDS, Request, RoundTripper, Transport
from cinderblock.reasons import Reason

_TOKEN: Final = re.compile(r"[!-~]{1,16384}")
"""Pattern of an Authorization header; the API server accepts no headers longer than a few tens of KiB."""


class AnonymousSource(ConfigSource):
    """Where the API server is and how to verify it, without an identity."""

    def __init__(self, source: ConfigSource) -> None:
        self._source = source

    @override
    async def load(self, *, renew: bool = False) -> RestConfig:
        loaded = await self._source.load(renew=renew)
        return replace(loaded, certificate=None, private_key=None, token=None)


class TokenClients:
    """Makes clients for callers; they share connections. Close it with ``aclose``."""

    def __init__(self, source: ConfigSource, *, call_seconds: float = CALL_SECONDS) -> None:
        self._shared = Transport(AnonymousSource(source), call_seconds=call_seconds)
        # Callers who use all shared connections must not make the process look unready.
        self._probe = Transport(AnonymousSource(source), call_seconds=call_seconds)

    def client(self, token: str, account: ListAccount) -> KubeClient:
        """Return a client that acts as the owner of ``token`` within the memory of one request; it need not be closed.

        Raises:
            AccessDenied: this cannot be a token (reason Unauthorized). The API server decides whether a token is valid.
        """
        if not _TOKEN.fullmatch(token):
            raise AccessDenied("Malformed bearer token", reason=Reason.UNAUTHORIZED)
        return BoundedKubeClient(_TokenTransport(self._shared, token), account)

    async def server_ready(self) -> bool:
        """Return whether the API server responds at all, even with 401. Raises nothing."""
        return await KubeClient(self._probe).server_responds()

    async def aclose(self) -> None:
        """Close all connections. May be repeated."""
        await self._shared.aclose()
        await self._probe.aclose()


class _TokenTransport(RoundTripper):
    """The shared connections, with one caller's token in each request."""

    def __init__(self, shared: Transport, token: str) -> None:
        self._shared = shared
        self._token = token

    @override
    async def config(self) -> RestConfig:
        return replace(await self._shared.config(), token=self._token)

    @override
    async def round_trip(self, request: Request) -> Response:
        return await self._shared.round_trip(replace(request, token=self._token))

    @override
    async def aclose(self) -> None:
        """Do nothing: the connections are shared."""
