"""Liveness and readiness: what restarts a process, and what only makes it unready."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from cinderblock.controller.handlers.watch_liveness import STALL_SECONDS
from cinderblock.controller.handlers.watch_manager import WatchManager
from cinderblock.controller.healthz import ELECTION_STALL_SECONDS, WATCH_STALL_SECONDS, WORKER_STALL_SECONDS, Health
from cinderblock.controller.leaderelection.elector import LeaderElector
from cinderblock.controller.workqueue import WorkQueue
from tests.cluster import choices


@dataclass
class Process:
    """The parts of a process that its health depends on."""

    port: int
    elector: Any = field(
        default_factory=lambda: SimpleNamespace(reachable_since=0.0, error="", last_attempt=time.monotonic())
    )
    watches: Any = field(default_factory=lambda: SimpleNamespace(longest_idle=lambda: 0.0, synced=True))
    queue: Any = field(default_factory=lambda: SimpleNamespace(longest_running_seconds=lambda: 0.0))

    async def probe(self, path: str, seconds: float = 5) -> tuple[int, str]:
        """Return status and text of a probe; 0 and nothing if there is no response in time."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as response,
            ):
                return response.status, await response.text()
        except TimeoutError:
            return 0, ""


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    """A healthy process."""
    [port] = choices.free_ports(1)
    parts = Process(port)
    health = Health(
        port, cast("WorkQueue", parts.queue), cast("WatchManager", parts.watches), cast("LeaderElector", parts.elector)
    )
    await health.start()
    yield parts
    await health.stop()


async def test_working_process_is_alive_and_ready(process: Process) -> None:
    assert await process.probe("/healthz") == (200, "ok\n")
    assert await process.probe("/readyz") == (200, "ok\n")


async def test_stalled_watch_fails_liveness(process: Process) -> None:
    process.watches.longest_idle = lambda: WATCH_STALL_SECONDS - 1
    assert (await process.probe("/healthz"))[0] == 200
    process.watches.longest_idle = lambda: WATCH_STALL_SECONDS + 1
    assert await process.probe("/healthz") == (
        503,
        "a watch has been idle for 601 s although the API server answers\n",
    )


async def test_endless_reconciliation_fails_liveness(process: Process) -> None:
    process.queue.longest_running_seconds = lambda: WORKER_STALL_SECONDS + 1
    assert await process.probe("/healthz") == (503, "the reconciliation of one object has taken 3601 s\n")


async def test_process_that_no_longer_requests_the_lease_fails_liveness(process: Process) -> None:
    process.elector.last_attempt -= ELECTION_STALL_SECONDS + 1
    code, text = await process.probe("/healthz")
    assert (code, text[:32]) == (503, "the Lease has not been requested")


async def test_process_without_api_server_is_alive_and_not_ready(process: Process) -> None:
    process.elector.reachable_since, process.elector.error = None, "no answer in time"
    assert (await process.probe("/healthz"))[0] == 200
    assert await process.probe("/readyz") == (503, "the Lease is unavailable: no answer in time\n")


async def test_process_that_has_not_listed_all_objects_is_not_ready(process: Process) -> None:
    process.watches.synced = False
    assert await process.probe("/readyz") == (503, "not all objects have been listed yet\n")


async def test_hanging_event_loop_does_not_answer(process: Process) -> None:
    timed_out = threading.Event()

    def probe() -> tuple[int, str]:
        try:
            return asyncio.run(process.probe("/healthz", seconds=0.5))
        finally:
            timed_out.set()

    outcome = asyncio.ensure_future(asyncio.to_thread(probe))
    asyncio.get_running_loop().call_soon(timed_out.wait, 30)
    assert await outcome == (0, "")
    assert (await process.probe("/healthz"))[0] == 200


def test_stalled_watch_restarts_kopf_before_the_process() -> None:
    """`WatchManager` restarts kopf first, which costs less than a restart of the process."""
    assert WATCH_STALL_SECONDS > 3 * STALL_SECONDS
