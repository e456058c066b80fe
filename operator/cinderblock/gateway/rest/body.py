"""Reading the body of a request, within limits of size and time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.message import Message

from starlette.requests import Request

from cinderblock.errors import InvalidInput
from cinderblock.reasons import Reason
from cinderblock.serving.body import read_body

MAX_DEPTH = 32
"""Limit of objects and arrays within each other. Cinder's deepest body has five."""
_NO_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


async def read(request: Request, limit: int, seconds: float) -> bytes:
    """Return the body; empty for methods without one.

    Raises:
        InvalidInput: the Content-Type is not JSON (reason UnsupportedMediaType), the body exceeds ``limit`` bytes
            (RequestTooLarge), or it takes longer than ``seconds`` (RequestTimeout).
    """
    if request.method in _NO_BODY:
        return b""
    body = await read_body(request, limit, seconds)
    if body and not _is_json(request.headers.get("content-type", "application/json")):
        raise InvalidInput("Unsupported Content-Type", reason=Reason.UNSUPPORTED_MEDIA_TYPE)
    return body


def _is_json(content_type: str) -> bool:
    """Return whether Cinder accepts a Content-Type (cinder/api/openstack/wsgi.py)."""
    message = Message()
    message["content-type"] = content_type
    return message.get_content_type() in ("application/json", "application/vnd.openstack.volume+json")


def parse(body: bytes) -> object:
    """Parse JSON in UTF-8. Raises InvalidInput for anything else: NaN, lone surrogates, deep nesting."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_reject_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise InvalidInput("Malformed request body") from None
    if _depth(value) > MAX_DEPTH:
        raise InvalidInput("Malformed request body")
    return value


def _depth(value: object) -> int:
    """Return how many objects and arrays are within each other in a value, at most one more than MAX_DEPTH."""
    depth, level = 0, [value]
    while (containers := [item for item in level if isinstance(item, dict | list)]) and depth <= MAX_DEPTH:
        depth += 1
        level = [item for container in containers for item in _items(container)]
    return depth


def _items(container: dict[str, object] | list[object]) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container


def _reject_constant(constant: str) -> None:
    """Reject NaN and Infinity, which Python accepts."""
    raise ValueError(constant)
