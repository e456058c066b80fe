"""Clients that act for whoever calls us, with the caller's token and with nothing of our own.

A client certificate would outrank the token: the API server asks it first. So the credentials are stripped of all that
tells who we are, and connections can be shared between callers, because nothing but a header differs between them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from typing_extensions import override

from cinderblock.errors import AccessDenied
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import Response
from cinderblock.kube.rest_config import ConfigSource, RestConfig
from cinderblock.kube.transport import CALL_SECONDS, Request, RoundTripper, Transport
from cinderblock.reasons import Reason

_TOKEN: Final = re.compile(r"[!-~]{1,16384}")
"""What may stand in an Authorization header; the API server takes no longer headers than a few tens of KiB."""


class AnonymousSource(ConfigSource):
    """Where the API server is, and how to know it; not who we are."""

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

    def client(self, token: str) -> KubeClient:
        """A client that is whom ``token`` says; it need not be closed.

        Raises:
            AccessDenied: no token looks like this (reason Unauthorized). Whether a token is good, the API server says.
        """
        if not _TOKEN.fullmatch(token):
            raise AccessDenied("What was given as a token cannot be one", reason=Reason.UNAUTHORIZED)
        return KubeClient(_TokenTransport(self._shared, token))

    async def server_ready(self) -> bool:
        """Whether the API server answers at all, if only to say that it does not know us. Raises nothing."""
        return await KubeClient(self._shared).server_answers()

    async def aclose(self) -> None:
        """Give up all connections. May be repeated."""
        await self._shared.aclose()


class _TokenTransport(RoundTripper):
    """The shared connections, with one caller's token in each request."""

    def __init__(self, shared: Transport, token: str) -> None:
        self._shared = shared
        self._token = token

    @override
    async def credentials(self) -> RestConfig:
        return replace(await self._shared.credentials(), token=self._token)

    @override
    async def round_trip(self, request: Request) -> Response:
        return await self._shared.round_trip(replace(request, token=self._token))

    @override
    async def aclose(self) -> None:
        """Nothing: the connections are everybody's."""
