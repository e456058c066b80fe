"""/metrics: an HTTP server of its own, so that who may read figures need not be who may probe."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
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
    """Where figures are read from when they are asked for.

    Attributes:
        kube: the operator's client.
        queue: its queue.
        overview: the cluster's objects.
        mover_limit: movers that may run at once.
        is_leading: whether this process acts. One that does not leaves the cluster's objects to the one that does.
        watch_silence: seconds since the most silent watch was heard; None: nobody knows.
    """

    kube: KubeClient
    queue: WorkQueue
    collector: ClusterCollector
    mover_limit: int
    is_leading: Callable[[], bool] = lambda: True
    watch_idle: Callable[[], float | None] = lambda: None

    async def read(self) -> MetricsSnapshot:
        """The figures of this moment."""
        state, age = await self.collector.state() if self.is_leading() else (None, 0.0)
        if not self.is_leading():
            self.collector.forget()
            state = None
        return MetricsSnapshot(
            version=__version__,
            now=time.time(),
            is_leading=self.is_leading(),
            watch_silence=self.watch_idle(),
            # One that does not act only collects what it hears of: nobody waits for that.
            queue=self.queue.counts() if self.is_leading() else dict.fromkeys(self.queue.counts(), 0),
            requests=dict(self.kube.response_counts),
            mover_limit=self.mover_limit,
            state=state,
            state_age=age,
        )


class MetricsServer:
    """Answers every request with what is known at that moment."""

    def __init__(self, port: int, metrics: OperatorMetrics, figures: Callable[[], Awaitable[MetricsSnapshot]]) -> None:
        self._port = port
        self._page = MetricsPage(metrics)
        self._figures = figures
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to answer."""
        app = web.Application()
        app.add_routes([web.get("/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        content, content_type = self._page.render(await self._figures(), request.headers.get("Accept", ""))
        return web.Response(body=content, headers={"Content-Type": content_type})
