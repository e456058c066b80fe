"""Errors of ours as Cinder's: a code, and an envelope that names the fault (cinder/api/openstack/wsgi.py ``Fault``)."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    Conflict,
    InvalidInput,
    NotFound,
    PermanentError,
    TransientError,
)
from cinderblock.reasons import AnyReason, Reason

_NAMES: Final = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    501: "notImplemented",
    503: "serviceUnavailable",
}

_BY_REASON: Final[dict[AnyReason, int]] = {
    Reason.UNAUTHORIZED: 401,
    Reason.NOT_IN_VERSION: 404,
    Reason.NOT_ACCEPTABLE: 406,
    Reason.REQUEST_TIMEOUT: 408,
    Reason.QUOTA_EXCEEDED: 413,
    Reason.REQUEST_TOO_LARGE: 413,
    Reason.UNSUPPORTED_MEDIA_TYPE: 415,
}
"""Codes of errors whose reason says more than their class."""

_BY_CLASS: Final[tuple[tuple[type[CinderblockError], int], ...]] = (
    (InvalidInput, 400),
    (NotFound, 404),
    (AccessDenied, 403),
    (Conflict, 409),
    (PermanentError, 400),
    (TransientError, 503),
)

UNEXPECTED: Final = "The server has either erred or is incapable of performing the requested operation."
"""What Cinder says of an error that it did not foresee."""
NOT_ROUTED: Final = {
    "message": "The resource could not be found.<br /><br />\n\n\n",
    "code": "404 Not Found",
    "title": "Not Found",
}
"""What is at a path that the API does not have: not Cinder's envelope, but that of its WSGI library."""


def code_of(error: CinderblockError) -> int:
    """HTTP code of an error."""
    by_class = next((code for kind, code in _BY_CLASS if isinstance(error, kind)), 500)
    return _BY_REASON.get(error.reason, by_class)


def envelope(code: int, message: str) -> dict[str, Any]:
    """Body of an answer with an error. Cinder repeats the Retry-After of a 413 in it."""
    fault: dict[str, Any] = {"code": code, "message": message}
    if code == 413:
        fault["retryAfter"] = "0"
    return {_NAMES.get(code, "computeFault"): fault}
