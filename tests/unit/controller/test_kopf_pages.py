"""kopf gets pages of a bounded size, with reduced metadata, and misses no object."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cinderblock.controller.handlers.kopf_pages import SmallPages

OBJECTS = 40
LIMITS = web.AppKey("limits", list[int])
LARGE = {"x": "y" * (1 << 20)}


async def _list(request: web.Request) -> web.Response:
    """Answer with large objects, as many as were asked for."""
    first, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
    request.app[LIMITS].append(limit)
    items = [{"metadata": {"name": f"o-{n}", "annotations": LARGE}} for n in range(first, min(first + limit, OBJECTS))]
    token = str(first + limit) if first + limit < OBJECTS else ""
    return web.json_response({"kind": "JobList", "items": items, "metadata": {"continue": token}})


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    application = web.Application()
    application[LIMITS] = []
    application.router.add_get("/jobs", _list)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server()
    yield server
    await server.close()


async def test_large_objects_come_in_small_pages(server: TestServer) -> None:
    names, token, sizes = [], "", []
    async with aiohttp.ClientSession(middlewares=[SmallPages()]) as session:
        while not names or token:
            query = {"limit": "500"} | ({"continue": token} if token else {})
            async with session.get(server.make_url("/jobs"), params=query) as response:
                page = await response.json()
                sizes.append(len(await response.read()))
            names += [item["metadata"]["name"] for item in page["items"]]
            token = page["metadata"]["continue"]
    assert names == [f"o-{number}" for number in range(OBJECTS)]
    assert max(sizes) < 10_000, "annotations are not passed on"
    assert server.app[LIMITS][:4] == [500, 62, 7, 1]


async def test_other_requests_are_left_alone(server: TestServer) -> None:
    async with aiohttp.ClientSession(middlewares=[SmallPages()]) as session:
        query = {"limit": "1", "watch": "true"}
        async with session.get(server.make_url("/jobs"), params=query) as response:
            assert "annotations" in (await response.json())["items"][0]["metadata"]
        async with session.get(server.make_url("/nothing"), params={"limit": "5"}) as response:
            assert response.status == 404
