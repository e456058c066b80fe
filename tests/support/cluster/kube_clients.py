"""A KubeClient that talks to a scripted HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from cinderblock.kube.client import KubeClient
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import Transport
from tests.support.store.scripted_http import Script, ScriptedServer, scripted


class Anonymous:
    """A source of credentials that has a server and nothing else."""

    def __init__(self, server: str) -> None:
        self._server = server

    async def load(self, *, renew: bool = False) -> RestConfig:
        """The server's address."""
        del renew
        return RestConfig(server=self._server)


async def no_wait(seconds: float) -> None:
    """Wait in no time."""
    del seconds


@asynccontextmanager
async def client_of(script: Script) -> AsyncIterator[tuple[KubeClient, ScriptedServer]]:
    """A client, and the server that it talks to; between repeated reads it does not wait."""
    async with (
        scripted(script) as server,
        aclosing(KubeClient(Transport(Anonymous(server.url), sleep=no_wait))) as client,
    ):
        yield client, server
