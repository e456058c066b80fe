"""An HTTP server on loopback that follows a script, and records its requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

HANG_UP = "hang up"
"""Instead of a reply: close the connection without a response."""
HANG = "hang"
"""Instead of a reply: never respond."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response."""

    status: int = 200
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str


Script = Callable[[Asked], Reply | str] | list[Reply | str]


@dataclass(slots=True)
class ScriptedServer:
    """The server. Responses come from ``script``, in order or from a function; the last one of a list is repeated."""

    script: Script
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Respond to one request."""
        text = (await request.read()).decode()
        headers = {key.lower(): value for key, value in request.headers.items()}
        seen = Asked(request.method, request.raw_path.partition("?")[0], dict(request.query), headers, text)
        self.asked.append(seen)
        reply = self._next(seen)
        if reply == HANG:
            await asyncio.Event().wait()
        if isinstance(reply, str):
            assert request.transport
            request.transport.abort()
            return web.Response()
        return web.Response(status=reply.status, text=reply.body, headers=reply.headers)

    def _next(self, seen: Asked) -> Reply | str:
        if callable(self.script):
            return self.script(seen)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ScriptedServer]:
    """Run a server until the end of the block."""
    scripted_server = ScriptedServer(script)
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", scripted_server.handle)
    async with TestServer(application, host="127.0.0.1") as server:
        scripted_server.url = str(server.make_url("")).rstrip("/")
        yield scripted_server
