"""A KubeClient that talks to a scripted HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from cinderblock.kube.client import KubeClient
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import Transport
from tests.support.store.scripted_http import Script, ScriptedServer, scripted


class Anonymous:
    """A configuration with a server and without credentials."""

    def __init__(self, server: str) -> None:
        self._server = server

    async def load(self, *, renew: bool = False) -> RestConfig:
        """Return the server's address."""
        del renew
        return RestConfig(server=self._server)


async def no_wait(seconds: float) -> None:
    """Return at once."""
    del seconds


@asynccontextmanager
async def client_of(script: Script) -> AsyncIterator[tuple[KubeClient, ScriptedServer]]:
    """Yield a client and its server; the client does not wait between repeated reads."""
    async with (
        scripted(script) as server,
        aclosing(KubeClient(Transport(Anonymous(server.url), sleep=no_wait))) as client,
    ):
        yield client, server
