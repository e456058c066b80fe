"""Answers of the broker that report failures, as errors."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from cinderblock.api.broker import BrokerFault
from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    IntegrityError,
    InvalidInput,
    KeyUnavailable,
    PermanentError,
    SealedTooLate,
    StoreReadOnly,
    StoreThrottled,
    StoreUnreachable,
)
from cinderblock.reasons import Reason, parse_reason
from cinderblock.store.broker.transport import Answer

MAX_WAIT_SECONDS: Final = 60
"""Most seconds that a broker may ask to wait."""

_ERRORS: Final[Mapping[str, type[CinderblockError]]] = MappingProxyType(
    {
        Reason.ACCESS_DENIED: AccessDenied,
        Reason.NOT_GRANTED: AccessDenied,
        Reason.INVALID_INPUT: InvalidInput,
        Reason.INTEGRITY_ERROR: IntegrityError,
        Reason.KEY_UNAVAILABLE: KeyUnavailable,
        Reason.READ_ONLY_KEY: KeyUnavailable,
        Reason.SEALED_TOO_LATE: SealedTooLate,
        Reason.STORE_READ_ONLY: StoreReadOnly,
    }
)
_DENIED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


def from_answer(answer: Answer, url: str) -> CinderblockError:
    """Return the error for an answer that reports a failure.

    An answer without a fault is not from the broker: while it restarts, a load balancer or a mesh answers for it, with
    404 as often as with 503. That is an outage.
    """
    try:
        fault = BrokerFault.model_validate_json(answer.content)
    except ValidationError:
        return _foreign(answer, url)
    message = " ".join(fault.message.split()) or f"The broker refuses a request ({fault.reason})."
    reason = parse_reason(fault.reason)
    if fault.transient:
        kind = StoreThrottled if reason == Reason.THROTTLED else StoreUnreachable
        error = kind(message, reason=reason)
        error.retry_after = _retry_after(answer)
        return error
    denied = AccessDenied if answer.status in _DENIED else PermanentError
    return _ERRORS.get(fault.reason, denied)(message, reason=reason)


def _foreign(answer: Answer, url: str) -> StoreUnreachable:
    error = StoreUnreachable(
        f"Cannot use the broker at {url} now: status {answer.status} without a fault of the broker. Check its pods, and"
        " what is in between.",
        reason=Reason.BROKER_UNAVAILABLE,
    )
    error.retry_after = _retry_after(answer)
    return error


def _retry_after(answer: Answer) -> float | None:
    """Return the seconds that the broker asks to wait (RFC 9110, section 10.2.3). It never sends a date."""
    value = answer.headers.get("retry-after", "").strip()
    return float(min(int(value), MAX_WAIT_SECONDS)) if value.isdecimal() and len(value) <= 9 else None
