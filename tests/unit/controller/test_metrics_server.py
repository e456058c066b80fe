"""The server of /metrics holds up nothing else in the process."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import pytest

from cinderblock.controller.metrics import server as server_module
from cinderblock.controller.metrics.server import MetricsServer
from cinderblock.observability.exposition import MetricsSnapshot
from cinderblock.observability.operator_metrics import OperatorMetrics
from tests.cluster import choices

PATIENCE = 20
"""Seconds until a page that holds up the event loop gives up."""


async def test_other_tasks_run_while_a_page_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page about ten thousand volumes takes seconds, in which the Lease must be renewed."""
    begun, renewed = threading.Event(), threading.Event()

    class SlowPage:
        def render(self, _snapshot: MetricsSnapshot, _accept: str) -> tuple[bytes, str]:
            begun.set()
            return (b"made" if renewed.wait(PATIENCE) else b"held up"), "text/plain"

    async def read() -> MetricsSnapshot:
        return MetricsSnapshot(version="1", now=0.0)

    async def scrape(port: int) -> bytes:
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/metrics") as answer:
            return await answer.read()

    monkeypatch.setattr(server_module, "MetricsPage", lambda _metrics: SlowPage())
    [port] = choices.free_ports(1)
    server = MetricsServer(port, OperatorMetrics(), read)
    await server.start()
    try:
        page = asyncio.create_task(scrape(port))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        renewed.set()
        assert await page == b"made"
    finally:
        await server.stop()
