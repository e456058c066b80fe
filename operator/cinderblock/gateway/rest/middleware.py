"""Ids of requests, figures and the access log: around everything that is answered."""

from __future__ import annotations

import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cinderblock.observability.gateway_metrics import GatewayMetrics
from cinderblock.observability.log import ACCESS_LOGGER

OPERATION_KEY = "cinderblock.operation"
"""In a request's scope: what it turned out to be, for the figures."""

_logger = logging.getLogger(ACCESS_LOGGER)


class RequestMiddleware:
    """Gives each request an id, tells it in the answer, counts it, and writes one line about it.

    The line has the path but not the query, which may hold names, and no header: so no token either.
    """

    def __init__(self, inner: ASGIApp, metrics: GatewayMetrics) -> None:
        self._inner = inner
        self._instruments = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        identifier = f"req-{uuid.uuid4()}"
        began = time.monotonic()
        code = 500

        async def told(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-compute-request-id"] = identifier
                headers["x-openstack-request-id"] = identifier
            await send(message)

        try:
            await self._inner(scope, receive, told)
        finally:
            self._tell(scope, identifier, code, time.monotonic() - began)

    def _tell(self, scope: Scope, identifier: str, code: int, seconds: float) -> None:
        self._instruments.observe_request(scope.get(OPERATION_KEY, "other"), code, seconds)
        client = scope.get("client")
        told = {
            "request_id": identifier,
            "client": client[0] if client else "",
            "milliseconds": round(1000 * seconds, 1),
        }
        _logger.info("%s %s %s", scope["method"], scope["path"], code, extra=told)
