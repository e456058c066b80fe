"""/metrics on a server of its own, so that access to metrics and access to probes can be granted separately."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web

from cinderblock import __version__
from cinderblock.controller.metrics.collector import ClusterCollector
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.kube.client import KubeClient
from cinderblock.observability.exposition import MetricsPage, MetricsSnapshot
from cinderblock.observability.operator_metrics import OperatorMetrics


@dataclass(frozen=True, slots=True)
class SnapshotReader:
    """Reads all values of a scrape from their sources.

    Attributes:
        kube: the operator's client.
        queue: the work queue.
        collector: the state of the cluster.
        mover_limit: movers that may run at the same time.
        is_leading: whether this process leads. Only the leader reports the state of the cluster.
        watch_idle: seconds since the most idle watch received data; None if unknown.
    """

    kube: KubeClient
    queue: WorkQueue
    collector: ClusterCollector
    mover_limit: int
    is_leading: Callable[[], bool] = lambda: True
    watch_idle: Callable[[], float | None] = lambda: None

    async def read(self) -> MetricsSnapshot:
        """Return the current values."""
        state, age = await self.collector.state() if self.is_leading() else (None, 0.0)
        if not self.is_leading():
            self.collector.forget()
            state = None
        return MetricsSnapshot(
            version=__version__,
            now=time.time(),
            is_leading=self.is_leading(),
            watch_silence=self.watch_idle(),
            # A standby only collects the keys that events report. No work waits for them.
            queue=self.queue.counts() if self.is_leading() else dict.fromkeys(self.queue.counts(), 0),
            requests=dict(self.kube.response_counts),
            unreadable_namespaces=len(self.kube.unreadable),
            mover_limit=self.mover_limit,
            state=state,
            state_age=age,
        )


class MetricsServer:
    """Serves /metrics with current values.

    A page about ten thousand volumes takes some seconds. So a thread makes it, and the Lease is renewed meanwhile. The
    thread belongs to this server: those of the default executor may all wait for stores.
    """

    def __init__(self, port: int, metrics: OperatorMetrics, read: Callable[[], Awaitable[MetricsSnapshot]]) -> None:
        self._port = port
        self._page = MetricsPage(metrics)
        self._read = read
        self._runner: web.AppRunner | None = None
        self._renderer = ThreadPoolExecutor(1, "metrics")

    async def start(self) -> None:
        """Start the server."""
        app = web.Application()
        app.add_routes([web.get("/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        """Stop the server."""
        self._renderer.shutdown(wait=False, cancel_futures=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        snapshot, accept = await self._read(), request.headers.get("Accept", "")
        render = asyncio.get_running_loop().run_in_executor
        content, content_type = await render(self._renderer, self._page.render, snapshot, accept)
        return web.Response(body=content, headers={"Content-Type": content_type})
