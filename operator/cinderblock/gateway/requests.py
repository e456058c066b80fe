"""Ids of requests and the access log: around everything that is answered."""

from __future__ import annotations

import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger = logging.getLogger("cinderblock.gateway.access")


class Requests:
    """Gives each request an id, tells it in the answer, and writes one line about it.

    The line has the path but not the query, which may hold names, and no header: so no token either.
    """

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        identifier = f"req-{uuid.uuid4()}"
        began = time.monotonic()
        status = 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-compute-request-id"] = identifier
                headers["x-openstack-request-id"] = identifier
            await send(message)

        try:
            await self._inner(scope, receive, told)
        finally:
            client = scope.get("client")
            _logger.info(
                "%s %s %s",
                scope["method"],
                scope["path"],
                status,
                extra={
                    "request_id": identifier,
                    "client": client[0] if client else "",
                    "milliseconds": round(1000 * (time.monotonic() - began), 1),
                },
            )
