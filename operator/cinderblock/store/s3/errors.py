"""Turns what botocore raises into errors of our own tree, in words that say what to do.

Codes: S3 API reference, "List of error codes". An answer that S3 gave has a code in words; an answer that something
else gave (a web server, a proxy, a load balancer) has no XML, and botocore puts the HTTP status in place of a code.
"""

from __future__ import annotations

import email.utils
import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import urllib3.exceptions
from botocore import exceptions as boto
from urllib3.util.ssl_match_hostname import CertificateError

from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    Conflict,
    InvalidInput,
    NotFound,
    PermanentError,
    StoreUnreachable,
)
from cinderblock.reasons import Reason
from cinderblock.store.s3.address import StoreAddress

_MAY_NOT: Final = "the credentials are known but may not do this: allow list, get, put and delete on the container"
_UNKNOWN_KEY: Final = "the access key is not known there: check AWS_ACCESS_KEY_ID"
_DENIED: Final[Mapping[str, str]] = {
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "XAdminUserNotFound": _UNKNOWN_KEY,  # versitygw 1.8
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY, and the region",
    "ExpiredToken": "the session token has expired: get new credentials",
    "TokenRefreshRequired": "the session token has expired: get new credentials",
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "the clock of this machine and that of the server differ: set them right",
    "AccessDenied": _MAY_NOT,
}

_FULL: Final = frozenset(
    {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
)
_WRONG_REGION: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "InvalidLocationConstraint",
        "InvalidRegion",
        "PermanentRedirect",
    }
)
_TRANSIENT: Final = frozenset(
    {
        "BadDigest",  # the body was damaged on its way
        "ConnectionClosed",
        "IncompleteBody",
        "InternalError",
        "NoSuchUpload",  # a multipart upload was taken away, by a lifecycle rule for example
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "TemporaryRedirect",  # AWS, while the name of a new container spreads
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@contextmanager
def translate(place: StoreAddress) -> Iterator[None]:
    """Whatever a client library raises inside leaves as an error of our tree."""
    try:
        yield
    except boto.ClientError as error:
        raise from_answer(error.response, place) from error
    except (boto.BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
        raise _from_library(error, place) from error
    except KeyError as error:
        raise not_s3(place, f"an answer without {error}") from error
    except ValueError as error:  # botocore's ResponseParserError is one
        raise not_s3(place, "an answer that cannot be read") from error


def from_answer(response: Mapping[str, Any], place: StoreAddress) -> CinderblockError:
    """The error for an answer with an error in it."""
    answered = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    code = str(answered.get("Code", ""))
    status = int(metadata.get("HTTPStatusCode", 0))
    headers = metadata.get("HTTPHeaders", {})
    said = place.quote(f"{code}: {answered.get('Message', '')}".rstrip(": ")) + _hint(headers, place)
    if code in _FULL or status == 507:
        return PermanentError(
            f"No room left in {place} ({said}): raise its quota or free space", reason=Reason.STORE_FULL
        )
    if code in _TRANSIENT or status in _TRANSIENT_STATUS:
        error = StoreUnreachable(f"{place} cannot serve the request now ({said})")
        error.retry_after = _retry_after(headers)
        error.is_of_another = code == str(status)
        return error
    if code == str(status) or not code:
        return not_s3(place, f"status {said}")
    return _refusal(code, status, said, place)


def _refusal(code: str, status: int, said: str, place: StoreAddress) -> CinderblockError:
    """The error for a definite no of an S3 server."""
    if code == "NoSuchBucket":
        return NotFound(f"There is no {place}: create it, or correct the name", reason=Reason.CONTAINER_NOT_FOUND)
    if code == "NoSuchKey":
        return NotFound(f"The object does not exist in {place}")
    if code in _WRONG_REGION:
        return InvalidInput(f"{place} is not in region {place.region} ({said}): correct the region")
    if code in {"BucketAlreadyExists", "BucketNotEmpty"}:
        return Conflict(f"The name of {place} is taken by somebody else: choose another name ({said})")
    if status in {401, 403} or code in _DENIED:
        return AccessDenied(f"{place} refuses: {_DENIED.get(code, _MAY_NOT)} ({said})")
    return PermanentError(f"{place} refuses the request ({said})", reason=Reason.STORE_REFUSES)


def not_s3(place: StoreAddress, answer: str) -> StoreUnreachable:
    """The error for an endpoint that answers, but not as S3 does.

    That is no refusal by the store: while a server restarts, a proxy, an ingress or whoever has got its address answers
    in its place, with 404 as often as with 503.
    """
    error = StoreUnreachable(_no_s3(place, answer), reason=Reason.NOT_S3)
    error.is_of_another = True
    return error


def protocol_violation(place: StoreAddress, answer: str) -> PermanentError:
    """The error for an endpoint that answers as S3 does, but what S3 never would."""
    return PermanentError(_no_s3(place, answer), reason=Reason.NOT_S3)


def _no_s3(place: StoreAddress, answer: str) -> str:
    return (
        f"{place.endpoint} does not speak S3: it gave {answer} (container {place.container}). Check the endpoint URL, "
        "its port, http or https, and that no proxy or login page stands in between"
    )


def _hint(headers: Mapping[str, str], place: StoreAddress) -> str:
    """What else an answer tells about its sender."""
    if "x-amz-bucket-region" in headers:
        return f"; the container is in region {place.quote(headers['x-amz-bucket-region'])}"
    if "location" in headers:
        return f"; redirects to {place.quote(headers['location'])}"
    if headers.get("content-type", "").startswith("text/html"):
        return "; the answer is a web page, which no S3 server gives"
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks for, given as a number or as a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _from_library(error: Exception, place: StoreAddress) -> CinderblockError:
    """The error for a request that was not made, or got no whole answer."""
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return AccessDenied(
            f"There are no credentials for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, boto.CredentialRetrievalError | boto.TokenRetrievalError | boto.SSOError):
        return AccessDenied(f"Credentials for {place} cannot be had: {place.quote(error)}")
    if isinstance(error, boto.ParamValidationError | boto.UnknownEndpointError):
        return InvalidInput(f"{place} cannot be asked for: {place.quote(error)}")
    return _from_network(error, place)


def _from_network(error: Exception, place: StoreAddress) -> CinderblockError:
    """The error for a request that got no whole answer."""
    if isinstance(error, boto.ReadTimeoutError | urllib3.exceptions.ReadTimeoutError):
        return StoreUnreachable(f"{place} did not answer in time")
    cause = _innermost(error)
    if isinstance(error, boto.SSLError | urllib3.exceptions.SSLError):
        return _from_tls(cause, place)
    if isinstance(error, boto.ProxyConnectionError):
        return StoreUnreachable(f"The proxy to {place} cannot be reached: {place.quote(error)}")
    if isinstance(cause, socket.gaierror):
        return StoreUnreachable(f"The host name of {place.endpoint} cannot be resolved ({cause.strerror}): check it")
    if isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, http.client.RemoteDisconnected):
        return not_s3(place, "something that is not HTTP")
    return StoreUnreachable(f"{place} cannot be reached: {place.quote(cause)}")


def _from_tls(cause: BaseException, place: StoreAddress) -> CinderblockError:
    said = place.quote(cause)
    if isinstance(cause, ssl.SSLCertVerificationError | CertificateError):
        return PermanentError(
            f"The certificate of {place.endpoint} is not trusted: give the CA that signed it, and a host name that "
            f"stands in it ({said})",
            reason=Reason.CERTIFICATE_NOT_TRUSTED,
        )
    if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
        return PermanentError(
            f"{place.endpoint} does not speak TLS: try http, or another port ({said})", reason=Reason.NOT_TLS
        )
    return StoreUnreachable(f"TLS with {place.endpoint} failed: {said}")


def _innermost(error: BaseException) -> BaseException:
    """What went wrong at the bottom; botocore and urllib3 wrap it several times."""
    seen = {id(error)}
    while (inner := _inner(error)) is not None and id(inner) not in seen:
        error = inner
        seen.add(id(error))
    return error


def _inner(error: BaseException) -> BaseException | None:
    candidates = (
        getattr(error, "kwargs", {}).get("error"),
        getattr(error, "reason", None),
        error.__cause__,
        error.__context__,
        *error.args,
    )
    return next((candidate for candidate in candidates if isinstance(candidate, BaseException)), None)
