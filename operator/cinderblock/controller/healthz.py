"""/healthz and /readyz: whether the process does its work; a process that cannot any more is started anew."""

from __future__ import annotations

import time

from aiohttp import web

from cinderblock.controller.handlers.watch_manager import WatchManager
from cinderblock.controller.leaderelection.elector import LeaderElector
from cinderblock.controller.workqueue import WorkQueue

WATCH_STALL_SECONDS = 600.0
"""For how long watches may be silent, though the API server answers: three starts of kopf have not helped by then."""
WORKER_STALL_SECONDS = 3600.0
"""For how long one object may be worked on. Every call has a time limit of its own; what takes longest is removing a
backup's objects, a thousand a second or so."""
IDLE_SECONDS = 60.0
"""For how long the Lease may not be asked for. Leader and candidates do so every few seconds, unless work that was to
end with a term does not."""


class Health:
    """A small HTTP server beside the loop; a loop that is stuck does not answer, which is what a probe looks for."""

    def __init__(self, port: int, queue: WorkQueue, watching: WatchManager, leading: LeaderElector) -> None:
        self._port = port
        self._queue = queue
        self._watching = watching
        self._leading = leading
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

    def liveness_error(self) -> str:
        """Why the process should be started anew; empty: it should not."""
        if self._watching.longest_idle() > WATCH_STALL_SECONDS:
            return f"a watch has been silent for {self._watching.longest_idle():.0f} s, though the API server answers"
        idle = time.monotonic() - self._leading.looked_at
        if idle > IDLE_SECONDS:
            return f"the Lease has not been asked for for {idle:.0f} s"
        if self._queue.longest_running_seconds() > WORKER_STALL_SECONDS:
            return f"one object has been worked on for {self._queue.longest_running_seconds():.0f} s"
        return ""

    def readiness_error(self) -> str:
        """What the process waits for before it can do its part, as a leader or as a replica that may become one."""
        if self._leading.reachable_since is None:
            return f"the Lease cannot be had: {self._leading.trouble}"
        if not self._watching.synced:
            return "not everything has been listed yet"
        return ""

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self.liveness_error())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self.readiness_error())


def _answer(trouble: str) -> web.Response:
    return web.Response(status=503, text=f"{trouble}\n") if trouble else web.Response(text="ok\n")
