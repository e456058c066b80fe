"""The application for health, readiness and metrics, which has a port of its own in plain HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

READY_SECONDS: Final = 1.0
"""Age of the answer of /readyz. The kubelet asks every 5 s."""


def make_health_app(
    is_ready: Callable[[], Awaitable[bool]], unready: str, render: Callable[[str], tuple[bytes, str]]
) -> ASGIApp:
    """Return the application.

    Args:
        is_ready: asked at most once in READY_SECONDS. It raises nothing.
        unready: what /readyz says if it returns False.
        render: returns the metrics in the format that an Accept header selects, and the content type.
    """
    readiness = _Readiness(is_ready)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if await readiness.read():
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"{unready}\n", 503)

    async def serve_metrics(request: Request) -> Response:
        body, content_type = render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return Router([Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", serve_metrics)])


class _Readiness:
    """Asks at most once in READY_SECONDS, however many callers ask."""

    def __init__(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        self._ask = is_ready
        self._asking = asyncio.Lock()
        self._is_ready = False
        self._valid_until = float("-inf")

    async def read(self) -> bool:
        """Return whether the server is ready."""
        clock = asyncio.get_running_loop().time
        async with self._asking:
            if clock() >= self._valid_until:
                self._is_ready = await self._ask()
                self._valid_until = clock() + READY_SECONDS
            return self._is_ready
