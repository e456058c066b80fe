"""Errors as answers: a status, and a `BrokerFault`."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from cinderblock.api.broker import BrokerFault
from cinderblock.errors import AccessDenied, CinderblockError, InvalidInput, NotFound, TransientError
from cinderblock.reasons import AnyReason, Reason

_MESSAGE_CHARACTERS: Final = 1024
_BY_REASON: Final[dict[AnyReason, int]] = {
    Reason.UNAUTHORIZED: 401,
    Reason.STORE_READ_ONLY: 403,
    Reason.REQUEST_TIMEOUT: 408,
    Reason.REQUEST_TOO_LARGE: 413,
    Reason.BROKER_UNAVAILABLE: 503,
}
_BY_CLASS: Final[tuple[tuple[type[CinderblockError], int], ...]] = (
    (TransientError, 503),
    (AccessDenied, 403),
    (NotFound, 404),
    (InvalidInput, 400),
)
_REASON_OF_STATUS: Final = {
    401: Reason.UNAUTHORIZED,
    429: Reason.BROKER_UNAVAILABLE,
    503: Reason.BROKER_UNAVAILABLE,
}
_TOO_MANY: Final = 413
"""Status by which `serving` reports too many requests of one address. Only Cinder uses it for that."""
_TRANSIENT: Final = frozenset({408, 429, 503})
UNEXPECTED: Final = "The broker failed unexpectedly. Its log has the cause."


class NotYet(AccessDenied):
    """The mover may not do this now, but perhaps in some seconds: a status does not show its Job so far, or somebody
    is changing the store."""

    permanent = False


class StoreNotReady(NotFound):
    """A Secret of a store is missing or malformed. Somebody may be replacing it, so movers try again."""

    permanent = False


def not_granted(message: str) -> AccessDenied:
    """Return the error of a request that the operation of the mover does not permit."""
    return AccessDenied(message, reason=Reason.NOT_GRANTED)


def status_of(error: CinderblockError) -> int:
    """Return the HTTP status of an error."""
    by_class = next((status for kind, status in _BY_CLASS if isinstance(error, kind)), 409)
    return _BY_REASON.get(error.reason, by_class)


def from_error(error: CinderblockError) -> Response:
    """Return the answer for an error."""
    fault = BrokerFault.model_construct(
        reason=str(error.reason)[:64], message=error.message[:_MESSAGE_CHARACTERS], transient=not error.permanent
    )
    return _response(status_of(error), fault)


def refuse(status: int, message: str) -> Response:
    """Return the answer to a request beyond a limit of the server. The client must not send the rest of it."""
    status = 429 if status == _TOO_MANY else status
    reason = _REASON_OF_STATUS.get(status, Reason.INVALID_INPUT)
    answer = _response(status, BrokerFault(reason=reason, message=message, transient=status in _TRANSIENT))
    answer.headers["Connection"] = "close"
    return answer


def unexpected() -> Response:
    """Return the answer for an error of the broker itself."""
    return _response(500, BrokerFault(reason=Reason.UNEXPECTED, message=UNEXPECTED, transient=True))


def _response(status: int, fault: BrokerFault) -> Response:
    return Response(fault.model_dump_json(by_alias=True), status, media_type="application/json")
