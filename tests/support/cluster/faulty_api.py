"""A proxy between the operator and a real API server that forwards and counts requests, and injects faults.

It speaks plain HTTP to the operator, so it can answer in the server's place: refuse, hang, throttle, forget who is who.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """A recorded request."""

    at: float
    method: str
    path: str
    query: str
    token: str

    @property
    def is_write(self) -> bool:
        """Return whether the request changes something other than a Lease."""
        return self.method != "GET" and "/leases" not in self.path

    @property
    def is_watch(self) -> bool:
        """Return whether the request opens a watch."""
        return "watch=true" in self.query


@dataclass(frozen=True)
class Fault:
    """The fault of a request that is not forwarded as usual.

    Attributes:
        status: answered in the server's place; 0: nothing is answered, and the connection stays open.
        retry_after: header of the answer.
        is_done: whether the request is passed on all the same, so that only its answer is lost.
        is_late: whether the request is on its way until `FaultyApi.deliver`, and arrives only then.
    """

    status: int = 0
    retry_after: int | None = None
    is_done: bool = False
    is_late: bool = False


Rule = Callable[[Seen], Fault | None]


class FaultyApi:
    """A proxy to one API server.

    Attributes:
        url: where the operator connects to.
        seen: every request, in the order of their coming.
        rule: what happens to a request; None: it is passed on.
        mute: whether what the server sends on watches is swallowed, the connections left open.
        arrived: the server's answers (HTTP status) to requests that have arrived late, by method and path.
    """

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self.rule: Rule = lambda seen: None
        self.mute = False
        self.arrived: dict[tuple[str, str], int] = {}
        self._server = server
        self._context = context
        self._watches: list[tuple[str, web.StreamResponse]] = []
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self._transports: set[asyncio.Transport] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._delivery = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    def count(self, wanted: Callable[[Seen], bool], since: float = 0.0) -> int:
        """Return how many such requests have arrived since then (``time.monotonic``)."""
        return sum(wanted(seen) for seen in list(self.seen) if seen.at >= since)

    def up(self) -> None:
        """Listen."""
        self._do(self._up())

    def down(self) -> None:
        """Refuse connections, and cut those that are there."""
        self._do(self._down())

    def deliver(self) -> None:
        """Have all requests arrive that are on their way."""
        self._loop.call_soon_threadsafe(self._delivery.set)

    def say_on_watches(self, plural: str, event: dict[str, Any]) -> int:
        """Put an event into the open watches of a type; returns how many there are."""
        return self._do(self._say(plural, event))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _up(self) -> None:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        if self._runner is None:
            app = web.Application(client_max_size=16 << 20)
            app.router.add_route("*", "/{path:.*}", self._handle)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
            await self._runner.setup()
        self._listener = socket.create_server(("127.0.0.1", self._port))
        await web.SockSite(self._runner, self._listener).start()
        self._port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def _down(self) -> None:
        if self._runner is not None and self._listener is not None:
            # A connection that is accepted just before the server closes would be lost without being closed, since
            # Server._attach of Python 3.11 refuses it then. So accept none, and set up those that were accepted.
            self._loop.remove_reader(self._listener)
            await asyncio.sleep(0)
            for site in list(self._runner.sites):
                await site.stop()
            self._listener = None
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    async def _close(self) -> None:
        await self._down()
        if self._runner is not None:
            await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        # Connections with TLS end in the background: the server answers, or asyncio cuts them after 30 s. Only the
        # loop's own pipe stays.
        while len(self._selector.get_map()) > 1:  # noqa: ASYNC110 - a transport does not tell that it is closed
            await asyncio.sleep(0.01)

    async def _say(self, plural: str, event: dict[str, Any]) -> int:
        responses = [response for watched, response in self._watches if watched == plural]
        for response in responses:
            await response.write(json.dumps(event).encode() + b"\n")
        return len(responses)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            self._transports.add(request.transport)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        seen = Seen(time.monotonic(), request.method, request.path, request.query_string, token)
        self.seen.append(seen)
        fault = self.rule(seen)
        if fault is None:
            return await self._pass_on(request, seen)
        if fault.is_done:
            await self._do_unseen(request)
        if fault.is_late:
            await request.read()
            self._late.add(self._loop.create_task(self._do_late(request)))
        if not fault.status:
            await asyncio.Event().wait()
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        status = {"kind": "Status", "apiVersion": "v1", "code": fault.status, "message": "scripted"}
        return web.json_response(status, status=fault.status, headers=headers)

    async def _do_unseen(self, request: web.Request) -> int:
        """Pass a request on and forget the answer."""
        headers = {name: request.headers[name] for name in ("Content-Type", "Authorization") if name in request.headers}
        assert self._session is not None
        body = await request.read() or None
        async with self._session.request(
            request.method, self._server + request.raw_path, headers=headers, data=body
        ) as answer:
            return answer.status

    async def _do_late(self, request: web.Request) -> None:
        await self._delivery.wait()
        self.arrived[request.method, request.path] = await self._do_unseen(request)

    async def _pass_on(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers}
        headers["Authorization"] = request.headers.get("Authorization", "")
        body = await request.read() or None
        assert self._session is not None
        try:
            answer = await self._session.request(
                request.method, self._server + request.raw_path, headers=headers, data=body, timeout=_NO_LIMIT
            )
        except aiohttp.ClientError:
            return web.Response(status=502)
        response = web.StreamResponse(status=answer.status, headers=_kept(answer))
        try:
            # A test may cut the client off at any moment. Then nobody waits for the rest.
            with contextlib.suppress(ConnectionResetError):
                await response.prepare(request)
                with self._known(seen, response):
                    async for chunk in _chunks(answer):
                        if not (seen.is_watch and self.mute):
                            await response.write(chunk)
            return response
        finally:
            answer.close()

    @contextlib.contextmanager
    def _known(self, seen: Seen, response: web.StreamResponse) -> Iterator[None]:
        entry = (seen.path.rpartition("/")[2], response)
        if seen.is_watch:
            self._watches.append(entry)
        try:
            yield
        finally:
            if entry in self._watches:
                self._watches.remove(entry)


_NO_LIMIT = aiohttp.ClientTimeout(total=None)


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    names = ("Content-Type", "Content-Encoding", "Retry-After")
    return {name: answer.headers[name] for name in names if name in answer.headers}


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # The server may die in the middle: what came before was passed on, and then it ends.
    with contextlib.suppress(aiohttp.ClientError):
        async for chunk in answer.content.iter_any():
            yield chunk


@contextlib.contextmanager
def faulty_api(server: str, context: ssl.SSLContext) -> Iterator[FaultyApi]:
    """Run a proxy to the server, on its own port."""
    line = FaultyApi(server, context)
    thread = threading.Thread(target=line._loop.run_forever)
    thread.start()
    try:
        line.up()
        yield line
    finally:
        line._do(line._close())
        line._loop.call_soon_threadsafe(line._loop.stop)
        thread.join()
        line._loop.close()
