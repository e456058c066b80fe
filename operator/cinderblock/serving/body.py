"""Read the body of a request, within limits of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from cinderblock.errors import InvalidInput
from cinderblock.reasons import Reason


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return the body of a request.

    Raises InvalidInput if it exceeds ``limit`` bytes (RequestTooLarge) or takes longer than ``seconds``
    (RequestTimeout).
    """
    try:
        async with asyncio.timeout(seconds):
            return await _collect(request, limit)
    except TimeoutError:
        raise InvalidInput(f"The body did not arrive within {seconds:.0f} s", reason=Reason.REQUEST_TIMEOUT) from None
    except ClientDisconnect:
        raise InvalidInput("The client closed the connection", reason=Reason.REQUEST_TIMEOUT) from None


async def _collect(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > limit:
        raise InvalidInput("Request is too large.", reason=Reason.REQUEST_TOO_LARGE)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise InvalidInput("Request is too large.", reason=Reason.REQUEST_TOO_LARGE)
    return bytes(body)
