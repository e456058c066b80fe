"""Liveness and readiness: what makes a process that does not do its work be started anew, and what does not."""

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

from cinderblock.controller.handlers.watch_liveness import SILENT_SECONDS
from cinderblock.controller.handlers.watch_manager import WatchManager
from cinderblock.controller.healthz import IDLE_SECONDS, WATCH_STALL_SECONDS, WORKER_STALL_SECONDS, Health
from cinderblock.controller.leaderelection.elector import LeaderElector
from cinderblock.controller.workqueue import WorkQueue
from tests.cluster import choices


@dataclass
class Process:
    """The parts of a process that its health is told from."""

    port: int
    leading: Any = field(
        default_factory=lambda: SimpleNamespace(reachable_since=0.0, trouble="", looked_at=time.monotonic())
    )
    watching: Any = field(default_factory=lambda: SimpleNamespace(longest_idle=lambda: 0.0, synced=True))
    queue: Any = field(default_factory=lambda: SimpleNamespace(longest_running_seconds=lambda: 0.0))

    async def asked(self, path: str, seconds: float = 5) -> tuple[int, str]:
        """What a probe gets; 0 if nothing answers in time."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except TimeoutError:
            return 0, ""


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    """One that is well."""
    [port] = choices.free_ports(1)
    made = Process(port)
    served = Health(
        port, cast("WorkQueue", made.queue), cast("WatchManager", made.watching), cast("LeaderElector", made.leading)
    )
    await served.start()
    yield made
    await served.stop()


async def test_a_process_that_works_is_alive_and_ready(process: Process) -> None:
    assert await process.asked("/healthz") == (200, "ok\n")
    assert await process.asked("/readyz") == (200, "ok\n")


async def test_a_watch_that_is_dead_for_too_long_is_told(process: Process) -> None:
    process.watching.longest_idle = lambda: WATCH_STALL_SECONDS - 1
    assert (await process.asked("/healthz"))[0] == 200
    process.watching.longest_idle = lambda: WATCH_STALL_SECONDS + 1
    assert await process.asked("/healthz") == (
        503,
        "a watch has been silent for 601 s, though the API server answers\n",
    )


async def test_an_object_that_is_worked_on_without_end_is_told(process: Process) -> None:
    process.queue.longest_running_seconds = lambda: WORKER_STALL_SECONDS + 1
    assert await process.asked("/healthz") == (503, "one object has been worked on for 3601 s\n")


async def test_a_process_that_is_a_candidate_no_more_is_told(process: Process) -> None:
    process.leading.looked_at -= IDLE_SECONDS + 1
    code, words = await process.asked("/healthz")
    assert (code, words[:30]) == (503, "the Lease has not been asked f")


async def test_a_process_without_its_api_server_is_alive_and_not_ready(process: Process) -> None:
    process.leading.reachable_since, process.leading.trouble = None, "no answer in time"
    assert (await process.asked("/healthz"))[0] == 200
    assert await process.asked("/readyz") == (503, "the Lease cannot be had: no answer in time\n")


async def test_a_process_that_has_not_listed_everything_is_not_ready(process: Process) -> None:
    process.watching.synced = False
    assert await process.asked("/readyz") == (503, "not everything has been listed yet\n")


async def test_a_loop_that_is_stuck_does_not_answer(process: Process) -> None:
    given_up = threading.Event()

    def ask() -> tuple[int, str]:
        try:
            return asyncio.run(process.asked("/healthz", seconds=0.5))
        finally:
            given_up.set()

    asked = asyncio.ensure_future(asyncio.to_thread(ask))
    asyncio.get_running_loop().call_soon(given_up.wait, 30)
    assert await asked == (0, "")
    assert (await process.asked("/healthz"))[0] == 200


def test_a_dead_watch_is_told_later_than_it_is_opened_anew() -> None:
    """`Watching` starts kopf anew first, which is less than the process."""
    assert WATCH_STALL_SECONDS > 3 * SILENT_SECONDS
