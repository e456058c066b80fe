"""Limit requests: their size, their duration, and how many one client has at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cinderblock.serving.client_address import UNKNOWN, TrustedProxies, group_of
from cinderblock.serving.settings import ServerSettings

TARGET_BYTES: Final = 8192
"""Limit of path and query together: eventlet's, which serves Cinder (``url_length_limit``)."""
HEADERS: Final = 100
"""Limit of the number of headers: Apache's ``LimitRequestFields``."""
_UNANSWERED_PER_CONNECTION: Final = 4
"""How many requests may be unanswered for each connection that may be open: clients that go away leave requests behind.
Each takes about 10 KiB."""

Refuse = Callable[[int, str], Response]
"""Returns the response with a status and a message. The client must not send the rest of its request."""


class RequestLimits:
    """Answers requests that exceed a limit, and passes on all others.

    A client that closes its connection does not end its request. So requests are counted here, and not by connection.

    Args:
        inner: answers the other requests.
        settings: the limits, and which proxies are trusted.
        refuse: makes the answers.
        name: what messages call the server.
    """

    def __init__(self, inner: ASGIApp, settings: ServerSettings, refuse: Refuse, name: str) -> None:
        self._inner = inner
        self._settings = settings
        self._refuse = refuse
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._turns = _Turns(settings, refuse, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process one request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        client = self._client_of(scope)
        rejection = self._check_size(scope) or self._turns.check(client)
        if rejection is not None:
            await rejection(scope, receive, send)
            return
        await self._within_time(client, scope, receive, send)

    async def _within_time(self, client: str, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            async with asyncio.timeout(self._settings.handling_seconds) as limit, self._turns.turn(client):
                await self._inner(scope, receive, send_and_note)
        except TimeoutError:
            if has_started or not limit.expired():
                raise
            seconds = self._settings.handling_seconds
            await self._refuse(503, f"The request took longer than {seconds:.0f} s")(scope, receive, send)

    def _check_size(self, scope: Scope) -> Response | None:
        """Return the response to a request whose target or headers are too large; None if they are not."""
        target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if target > TARGET_BYTES:
            return self._refuse(414, f"The URL has {target} bytes, more than {TARGET_BYTES}")
        headers = len(scope["headers"])
        if headers > HEADERS:
            return self._refuse(431, f"The request has {headers} headers, more than {HEADERS}")
        return None

    def _client_of(self, scope: Scope) -> str:
        """Return what identifies the client, and put its address into the scope for the log."""
        peer = scope.get("client") or (UNKNOWN, 0)
        forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
        address = self._proxies.client_of(peer[0], forwarded)
        scope["client"] = (address, peer[1])
        return group_of(address)


class _Turns:
    """The requests of each client: some run, others wait for their turn, in the order of their arrival."""

    def __init__(self, settings: ServerSettings, refuse: Refuse, name: str) -> None:
        self._refuse = refuse
        self._name = name
        self._limit = settings.connections * _UNANSWERED_PER_CONNECTION
        self._client_limit = settings.connections_per_client
        self._counts: Counter[str] = Counter()
        self._running: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(settings.requests_per_client)
        )

    def check(self, client: str) -> Response | None:
        """Return the response to one more request of a client; None if it may be processed."""
        if self._counts.get(client, 0) >= self._client_limit:
            return self._refuse(413, "This request was rate-limited: too many requests of this address are unanswered.")
        if self._counts.total() >= self._limit:
            return self._refuse(503, f"The {self._name} has too many unanswered requests.")
        return None

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Count a request, and wait for its turn."""
        self._counts[client] += 1
        try:
            async with self._running[client]:
                yield
        finally:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client], self._running[client]
