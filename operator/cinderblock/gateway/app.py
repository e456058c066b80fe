"""The gateway as an ASGI application."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from cinderblock.gateway import identity
from cinderblock.gateway.identification import Identification
from cinderblock.gateway.operations import Operation
from cinderblock.gateway.requests import Requests
from cinderblock.gateway.resources import OPERATIONS
from cinderblock.gateway.routing import NOWHERE, routes
from cinderblock.gateway.settings import GatewaySettings


def make_app(who: Identification, settings: GatewaySettings, operations: Sequence[Operation] = OPERATIONS) -> ASGIApp:
    """Everything that the gateway answers. ``who`` is not closed with it."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if await who.is_ready():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("the API server does not answer\n", 503)

    router = Router(
        [
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            *identity.routes(who, settings),
            *routes(operations, who, settings),
        ],
        redirect_slashes=False,
        default=NOWHERE,
    )
    return Requests(router)
