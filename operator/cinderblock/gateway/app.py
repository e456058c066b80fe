"""The ASGI applications of the gateway: the API, and health for the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from cinderblock.gateway.auth import Authenticator
from cinderblock.gateway.keystone import app as keystone_app
from cinderblock.gateway.request_limits import RequestLimits
from cinderblock.gateway.resources.registry import OPERATIONS
from cinderblock.gateway.rest import openapi
from cinderblock.gateway.rest.endpoint import json_response
from cinderblock.gateway.rest.middleware import RequestMiddleware
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.router import NOT_FOUND, routes
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.list_memory import ListMemory
from cinderblock.observability.gateway_metrics import GatewayMetrics

READY_SECONDS: Final = 1.0
"""Age of the answer of /readyz. The kubelet asks every 5 s."""


def make_app(
    authenticator: Authenticator,
    settings: GatewaySettings,
    metrics: GatewayMetrics | None = None,
    operations: Sequence[Operation] = OPERATIONS,
) -> ASGIApp:
    """Return the API. It does not close ``authenticator``."""
    list_memory = ListMemory()
    document = openapi.document(operations)

    async def serve_document(_: Request) -> Response:
        return json_response(200, document)

    router = Router(
        [
            Route(openapi.PATH, serve_document),
            *keystone_app.routes(authenticator, settings, list_memory),
            *routes(operations, authenticator, settings, list_memory),
        ],
        redirect_slashes=False,
        default=NOT_FOUND,
    )
    return RequestMiddleware(RequestLimits(router, settings), metrics or GatewayMetrics())


def make_health_app(authenticator: Authenticator, metrics: GatewayMetrics) -> ASGIApp:
    """Return the application for health, readiness and metrics, which has a port of its own in plain HTTP."""

    readiness = _Readiness(authenticator)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if await readiness.read():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("the API server does not answer\n", 503)

    async def serve_metrics(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return Router([Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", serve_metrics)])


class _Readiness:
    """Asks the API server at most once in READY_SECONDS, however many callers ask."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._asking = asyncio.Lock()
        self._is_ready = False
        self._valid_until = float("-inf")

    async def read(self) -> bool:
        """Return whether the API server answers."""
        clock = asyncio.get_running_loop().time
        async with self._asking:
            if clock() >= self._valid_until:
                self._is_ready = await self._authenticator.is_ready()
                self._valid_until = clock() + READY_SECONDS
            return self._is_ready
