"""Whether a watch is alive, from what comes through it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cinderblock.controller.handlers.watch_liveness import PACE_SECONDS, WatchLiveness


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


async def test_a_watch_is_silent_since_its_last_byte_and_one_that_was_never_opened_since_it_was_asked_for() -> None:
    clock, more = Clock(), asyncio.Event()
    liveness = WatchLiveness(clock)

    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await more.wait()
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
            assert liveness.opened("things")
            assert not liveness.opened("others")
            clock.now = 100
            assert liveness.longest_idle(["things"], since=0) == 90
            assert liveness.longest_idle(["things"], since=70) == 30
            more.set()
            await response.content.readline()
            assert liveness.longest_idle(["things"], since=0) == 0
            clock.now = 130
            assert liveness.longest_idle(["things"], since=0) == 30
            assert liveness.longest_idle(["things", "others"], since=-1000) == 30
            clock.now = 150
            later = WatchLiveness(clock, before=liveness)
            assert not later.opened("things")
            assert later.longest_idle(["things"], since=-1000) == 50
            assert later.longest_idle(["others"], since=-1000) == 20
            assert later.longest_idle(["installed-now"], since=-1000) == 0


async def test_a_list_is_no_watch_and_neither_is_a_watch_that_was_refused() -> None:
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
                assert not liveness.opened("things")


async def test_a_watch_that_ends_at_once_is_not_opened_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert [seconds for seconds in slept if seconds] == [PACE_SECONDS, 2 * PACE_SECONDS]
