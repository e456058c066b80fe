"""/healthz and /readyz: whether the loop turns, and whether the API server answers."""

from __future__ import annotations

from aiohttp import web

from cinderblock.kube.client import KubeClient


class Health:
    """A small HTTP server beside the loop; a loop that is stuck does not answer, which is what a probe looks for."""

    def __init__(self, kube: KubeClient, port: int) -> None:
        self._kube = kube
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to answer."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if await self._kube.server_ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the API server does not answer\n")
