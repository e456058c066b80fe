"""The ASGI applications of the gateway: the API, and health for the cluster."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from cinderblock.gateway.auth import Authenticator
from cinderblock.gateway.keystone import app as keystone_app
from cinderblock.gateway.resources.registry import OPERATIONS
from cinderblock.gateway.rest import openapi
from cinderblock.gateway.rest.endpoint import json_response
from cinderblock.gateway.rest.middleware import RequestMiddleware
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request_limits import RequestLimits
from cinderblock.gateway.rest.router import NOT_FOUND, routes
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.list_memory import ListMemory
from cinderblock.observability.gateway_metrics import GatewayMetrics


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

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if await authenticator.is_ready():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("the API server does not answer\n", 503)

    async def serve_metrics(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return Router([Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", serve_metrics)])
