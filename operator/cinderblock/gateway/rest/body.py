"""Reading a request's body: not without end, and not for ever."""

from __future__ import annotations

import asyncio
import json
from email.message import Message

from starlette.requests import ClientDisconnect, Request

from cinderblock.errors import InvalidInput
from cinderblock.reasons import Reason

_NO_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


async def read(request: Request, limit: int, seconds: float) -> bytes:
    """The body. Of methods that have none, nothing is read.

    Raises:
        InvalidInput: it is no JSON by its type (reason UnsupportedMediaType), is larger than ``limit`` bytes
            (RequestTooLarge), or takes longer than ``seconds`` (RequestTimeout).
    """
    if request.method in _NO_BODY:
        return b""
    try:
        async with asyncio.timeout(seconds):
            body = await _collected(request, limit)
    except TimeoutError:
        raise InvalidInput(f"The body did not arrive within {seconds:.0f} s", reason=Reason.REQUEST_TIMEOUT) from None
    except ClientDisconnect:
        raise InvalidInput("The caller has gone", reason=Reason.REQUEST_TIMEOUT) from None
    if body and not _is_json(request.headers.get("content-type", "application/json")):
        raise InvalidInput("Unsupported Content-Type", reason=Reason.UNSUPPORTED_MEDIA_TYPE)
    return body


async def _collected(request: Request, limit: int) -> bytes:
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told[:20]) > limit:
        raise InvalidInput("Request is too large.", reason=Reason.REQUEST_TOO_LARGE)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise InvalidInput("Request is too large.", reason=Reason.REQUEST_TOO_LARGE)
    return bytes(body)


def _is_json(content_type: str) -> bool:
    """Whether a Content-Type is one that Cinder takes (cinder/api/openstack/wsgi.py)."""
    message = Message()
    message["content-type"] = content_type
    return message.get_content_type() in ("application/json", "application/vnd.openstack.volume+json")


def parse(body: bytes) -> object:
    """JSON in UTF-8. Raises InvalidInput for anything else: NaN, half a surrogate pair, nesting without end."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise InvalidInput("Malformed request body") from None
    return value


def _refuse(constant: str) -> None:
    """NaN and Infinity, which Python would take."""
    raise ValueError(constant)
