"""The ASGI applications of the gateway: the API, and health for the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from cinderblock.gateway.auth import Authenticator
from cinderblock.gateway.keystone import app as keystone_app
from cinderblock.gateway.resources.registry import OPERATIONS
from cinderblock.gateway.rest import faults, openapi
from cinderblock.gateway.rest.endpoint import json_response
from cinderblock.gateway.rest.middleware import RequestMiddleware
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.router import NOT_FOUND, routes
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.list_memory import ListMemory
from cinderblock.observability.gateway_metrics import GatewayMetrics
from cinderblock.serving import health
from cinderblock.serving.request_limits import RequestLimits

_RETRY_SECONDS: Final = "1"
"""Retry-After. python-cinderclient tries again after 413 only if this is not 0."""


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
    return RequestMiddleware(RequestLimits(router, settings, refuse, "gateway"), metrics or GatewayMetrics())


def make_health_app(authenticator: Authenticator, metrics: GatewayMetrics) -> ASGIApp:
    """Return the application for health, readiness and metrics, which has a port of its own in plain HTTP."""
    return health.make_health_app(authenticator.is_ready, "the API server does not answer", metrics.render)


def refuse(code: int, message: str) -> Response:
    """Return a fault in Cinder's form. The client must not send the rest of its request."""
    headers = {"Connection": "close"} | ({"Retry-After": _RETRY_SECONDS} if code in (413, 503) else {})
    fault = faults.envelope(code, message)
    if code == 413:
        fault["overLimit"]["retryAfter"] = _RETRY_SECONDS
    return json_response(code, fault, headers)
