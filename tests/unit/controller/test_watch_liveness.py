"""How long a watch has been idle, from the bytes that it has received."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cinderblock.controller.handlers.watch_liveness import MIN_OPEN_INTERVAL_SECONDS, WatchLiveness


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def test_watch_is_idle_since_its_last_byte() -> None:
    """One that was never opened is idle since the first question about it."""
    clock, may_write = Clock(), asyncio.Event()
    liveness = WatchLiveness(clock)

    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await may_write.wait()
        await response.write(b"{}\n")
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_get("/apis/g/v1/things", watch)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(server.make_url("/"), trace_configs=[liveness.trace()]) as session,
    ):
        assert liveness.longest_idle(["things"], since=-1000) == 0
        clock.now = 10
        assert liveness.longest_idle(["things"], since=-1000) == 10
        async with session.get("/apis/g/v1/things?watch=true") as response:
            assert liveness.is_open("things")
            assert not liveness.is_open("others")
            clock.now = 100
            assert liveness.longest_idle(["things"], since=0) == 90
            assert liveness.longest_idle(["things"], since=70) == 30
            may_write.set()
            await response.content.readline()
            assert liveness.longest_idle(["things"], since=0) == 0
            clock.now = 130
            assert liveness.longest_idle(["things"], since=0) == 30
            assert liveness.longest_idle(["things", "others"], since=-1000) == 30
            clock.now = 150
            next_run = WatchLiveness(clock, previous=liveness)
            assert not next_run.is_open("things")
            assert next_run.longest_idle(["things"], since=-1000) == 50
            assert next_run.longest_idle(["others"], since=-1000) == 20
            assert next_run.longest_idle(["installed-now"], since=-1000) == 0


async def test_lists_and_rejected_watches_do_not_count() -> None:
    liveness = WatchLiveness(Clock())

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=200 if "limit" in request.query else 503)

    app = web.Application()
    app.router.add_get("/apis/g/v1/things", answer)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(server.make_url("/"), trace_configs=[liveness.trace()]) as session,
    ):
        for query in ("limit=500", "watch=true"):
            async with session.get(f"/apis/g/v1/things?{query}"):
                assert not liveness.is_open("things")


async def test_watch_that_ends_at_once_is_reopened_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept = Clock(), []
    liveness = WatchLiveness(clock)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("cinderblock.controller.handlers.watch_liveness.asyncio.sleep", sleep)

    async def end(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/api/v1/pods", end)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(server.make_url("/"), trace_configs=[liveness.trace()]) as session,
    ):
        for _ in range(3):
            async with session.get("/api/v1/pods?watch=true"):
                pass
        async with session.get("/api/v1/pods?limit=500"):
            pass
    assert [seconds for seconds in slept if seconds] == [MIN_OPEN_INTERVAL_SECONDS, 2 * MIN_OPEN_INTERVAL_SECONDS]
