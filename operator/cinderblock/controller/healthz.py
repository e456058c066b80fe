"""/healthz and /readyz of the operator: a process that no longer works is restarted."""

from __future__ import annotations

import time

from aiohttp import web

from cinderblock.controller.handlers.watch_manager import WatchManager
from cinderblock.controller.leaderelection.elector import LeaderElector
from cinderblock.controller.workqueue import WorkQueue

WATCH_STALL_SECONDS = 600.0
"""For how long a watch may be idle while the API server answers. Three restarts of kopf have not helped by then."""
WORKER_STALL_SECONDS = 3600.0
"""For how long a worker may hold one object. Every call has its own time limit. The longest work is the deletion of a
backup's objects, about a thousand a second."""
ELECTION_STALL_SECONDS = 60.0
"""For how long no request for the Lease may be made. Leader and candidates make one every few seconds, unless work
that must end with the leadership does not end."""


class Health:
    """A small HTTP server in the operator's event loop. A loop that hangs does not answer, as a probe expects.

    Args:
        port: port to listen on.
        queue: tells for how long workers hold objects.
        watches: tells for how long watches were idle.
        elector: tells when the Lease was last requested.
    """

    def __init__(self, port: int, queue: WorkQueue, watches: WatchManager, elector: LeaderElector) -> None:
        self._port = port
        self._queue = queue
        self._watches = watches
        self._elector = elector
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Start the server."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        """Stop the server."""
        if self._runner is not None:
            await self._runner.cleanup()

    def liveness_error(self) -> str:
        """Return why the process must be restarted; empty if it need not."""
        idle = self._watches.longest_idle()
        if idle > WATCH_STALL_SECONDS:
            return f"a watch has been idle for {idle:.0f} s although the API server answers"
        since_attempt = time.monotonic() - self._elector.last_attempt
        if since_attempt > ELECTION_STALL_SECONDS:
            return f"the Lease has not been requested for {since_attempt:.0f} s"
        held = self._queue.longest_running_seconds()
        if held > WORKER_STALL_SECONDS:
            return f"the reconciliation of one object has taken {held:.0f} s"
        return ""

    def readiness_error(self) -> str:
        """Return what the process still waits for before it can lead or stand by; empty if it is ready."""
        if self._elector.reachable_since is None:
            return f"the Lease is unavailable: {self._elector.error}"
        if not self._watches.synced:
            return "not all objects have been listed yet"
        return ""

    async def _healthz(self, _: web.Request) -> web.Response:
        return _response(self.liveness_error())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _response(self.readiness_error())


def _response(error: str) -> web.Response:
    return web.Response(status=503, text=f"{error}\n") if error else web.Response(text="ok\n")
