"""Request ids, metrics and the access log, around all requests."""

from __future__ import annotations

import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cinderblock.observability.gateway_metrics import GatewayMetrics
from cinderblock.observability.log import ACCESS_LOGGER

OPERATION_KEY = "cinderblock.operation"
"""Key in a request's scope: the operation, for the metrics."""

_logger = logging.getLogger(ACCESS_LOGGER)


class RequestMiddleware:
    """Gives each request an id, which the response carries, measures it, and logs one line.

    The line contains the path but not the query, which may contain names, and no headers, so no token.
    """

    def __init__(self, inner: ASGIApp, metrics: GatewayMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process one request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        identifier = f"req-{uuid.uuid4()}"
        started = time.monotonic()
        code = 500

        async def send_with_id(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-compute-request-id"] = identifier
                headers["x-openstack-request-id"] = identifier
            await send(message)

        try:
            await self._inner(scope, receive, send_with_id)
        finally:
            self._record(scope, identifier, code, time.monotonic() - started)

    def _record(self, scope: Scope, identifier: str, code: int, seconds: float) -> None:
        self._metrics.observe_request(scope.get(OPERATION_KEY, "other"), code, seconds)
        client = scope.get("client")
        fields = {
            "request_id": identifier,
            "client": client[0] if client else "",
            "milliseconds": round(1000 * seconds, 1),
        }
        _logger.info("%s %s %s", scope["method"], scope["path"], code, extra=fields)
