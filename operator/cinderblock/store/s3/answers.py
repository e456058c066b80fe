"""Answers of a server: errors for codes of S3, for pages of proxies and for what breaks the rules of S3, and dates."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from botocore.utils import parse_timestamp

from cinderblock.errors import CinderblockError, PermanentError, StoreUnreachable
from cinderblock.reasons import Reason
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.codes import KIND_BY_CODE, MEANINGS, Kind, classify

_OF_ONE_CALL: Final = frozenset({Kind.DENIED, Kind.NO_CHECKSUM, Kind.TOO_LARGE, Kind.UNSUPPORTED, Kind.UNKNOWN})
"""Kinds whose messages name the call: another call may succeed."""

MAX_DATE_CHARACTERS: Final = 64
"""Characters of the longest date. dateutil, which reads it, takes quadratic time: 16 s for 200,000 characters, in which
no deadline stops it."""


def parse_date(text: str) -> datetime:
    """Return a date in any of the forms of S3. Raises ValueError, and what `parse_timestamp` raises."""
    if len(text) > MAX_DATE_CHARACTERS:
        raise ValueError("a date is too long")
    date: datetime = parse_timestamp(text)
    return date


def from_answer(response: Mapping[str, Any], address: StoreAddress, call: str) -> CinderblockError:
    """Return the error for a response that reports an error.

    A response of S3 has a code in words. A response of something else (a web server, a proxy, a load balancer) has no
    XML; botocore then replaces the code with the HTTP status. The server's own words come last, because a failReason is
    cut at 255 characters.

    Args:
        response: as botocore parsed it.
        address: of the store.
        call: name of the request in the S3 API.
    """
    fields = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    code, said = str(fields.get("Code") or ""), str(fields.get("Message") or "")
    status = int(metadata.get("HTTPStatusCode", 0))
    headers = metadata.get("HTTPHeaders", {})
    kind = classify(code, status, said)
    # A problem of the whole store has the same message for every call.
    named = call if kind in _OF_ONE_CALL or code not in KIND_BY_CODE else ""
    words = ": ".join(filter(None, (named, code or str(status or ""), said.rstrip(". "))))
    detail = address.redact(words) + _origin_hint(headers, address)
    if kind is None:
        return not_s3(address, f"status {detail}")
    meaning = MEANINGS[kind]
    message = f"{meaning.problem.format(address)}. {meaning.remedy} ({detail})."
    error = meaning.error(message, reason=meaning.reason)
    if isinstance(error, StoreUnreachable):
        error.retry_after = _retry_after(headers)
        error.is_of_another = code == str(status)
    return error


def not_s3(address: StoreAddress, response: str) -> StoreUnreachable:
    """Return the error for a response that is not from an S3 server.

    The store itself has rejected nothing. While a server restarts, a proxy, an ingress, or the new owner of its address
    responds in its place, with 404 as often as with 503.
    """
    error = StoreUnreachable(_not_s3_message(address, response), reason=Reason.NOT_S3)
    error.is_of_another = True
    return error


def protocol_violation(address: StoreAddress, response: str) -> PermanentError:
    """Return the error for a response in the form of S3 that breaks the rules of S3."""
    return PermanentError(_not_s3_message(address, response), reason=Reason.NOT_S3)


def _not_s3_message(address: StoreAddress, response: str) -> str:
    return (
        f"Cannot use {address}: the endpoint does not speak S3, it sent {response}. Check the endpoint URL, its port,"
        " its scheme, and that no proxy or login page is in between."
    )


def _origin_hint(headers: Mapping[str, str], address: StoreAddress) -> str:
    """Return what the headers of a response show about its sender."""
    if "x-amz-bucket-region" in headers:
        return f"; the container is in region {address.redact(headers['x-amz-bucket-region'])}"
    if "location" in headers:
        return f"; redirects to {address.redact(headers['location'])}"
    if headers.get("content-type", "").startswith("text/html"):
        return "; the response is a web page, which no S3 server sends"
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait, from a number or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
