"""Translate botocore's exceptions into errors of Cinderblock that name a remedy.

Codes: S3 API reference, "List of error codes". A response of S3 has a code in words. A response of something else (a
web server, a proxy, a load balancer) has no XML; botocore then replaces the code with the HTTP status.
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
    ContainerNotFound,
    CredentialsRejected,
    InvalidInput,
    ObjectNotFound,
    PermanentError,
    StoreUnreachable,
)
from cinderblock.reasons import Reason
from cinderblock.store.s3.address import StoreAddress

_NO_PERMISSION: Final = ("the credentials lack a permission", "Allow list, get, put and delete on the container")
_UNKNOWN_ACCESS_KEY: Final = ("the server does not know the access key", "Check AWS_ACCESS_KEY_ID")
_TOKEN_EXPIRED: Final = ("the session token has expired", "Get new credentials")
_DENIALS: Final[Mapping[str, tuple[str, str]]] = {
    "InvalidAccessKeyId": _UNKNOWN_ACCESS_KEY,
    "XAdminUserNotFound": _UNKNOWN_ACCESS_KEY,  # versitygw 1.8
    "SignatureDoesNotMatch": (
        "the secret key does not match the access key",
        "Check AWS_SECRET_ACCESS_KEY and the region",
    ),
    "ExpiredToken": _TOKEN_EXPIRED,
    "TokenRefreshRequired": _TOKEN_EXPIRED,
    "InvalidToken": ("the session token is invalid", "Check AWS_SESSION_TOKEN"),
    "RequestTimeTooSkewed": ("the clock of this machine differs from the server's clock", "Correct the clocks"),
    "AccessDenied": _NO_PERMISSION,
}
"""Cause and remedy by code."""

_REJECTED_CREDENTIALS: Final = _DENIALS.keys() - {"RequestTimeTooSkewed", "AccessDenied"}
"""Codes of credentials that are wrong or have expired. Other denials are of the request."""

_FULL_CODES: Final = frozenset(
    {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
)
_WRONG_REGION_CODES: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "InvalidLocationConstraint",
        "InvalidRegion",
        "PermanentRedirect",
    }
)
_TRANSIENT_CODES: Final = frozenset(
    {
        "BadDigest",  # the body was damaged in transit
        "ConnectionClosed",
        "IncompleteBody",
        "InternalError",
        "NoSuchUpload",  # a multipart upload was aborted, by a lifecycle rule for example
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
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@contextmanager
def translate(address: StoreAddress) -> Iterator[None]:
    """Translate whatever a client library raises inside."""
    try:
        yield
    except boto.ClientError as error:
        raise from_answer(error.response, address) from error
    except (boto.BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
        raise _from_library(error, address) from error
    except KeyError as error:
        raise not_s3(address, f"a response without {error}") from error
    except ValueError as error:  # botocore's ResponseParserError is one
        raise not_s3(address, "a malformed response") from error


def from_answer(response: Mapping[str, Any], address: StoreAddress) -> CinderblockError:
    """Return the error for a response that reports an error."""
    error_fields = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    code = str(error_fields.get("Code", ""))
    status = int(metadata.get("HTTPStatusCode", 0))
    headers = metadata.get("HTTPHeaders", {})
    detail = address.redact(f"{code}: {error_fields.get('Message', '')}".rstrip(":. ")) + _origin_hint(headers, address)
    if code in _FULL_CODES or status == 507:
        return PermanentError(
            f"Cannot write to {address}: no space is left. Raise its quota or free space ({detail}).",
            reason=Reason.STORE_FULL,
        )
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUSES:
        error = StoreUnreachable(f"Cannot use {address} now: the server is unavailable or overloaded ({detail}).")
        error.retry_after = _retry_after(headers)
        error.is_of_another = code == str(status)
        return error
    if code == str(status) or not code:
        return not_s3(address, f"status {detail}")
    return _from_code(code, status, detail, address)


def _from_code(code: str, status: int, detail: str, address: StoreAddress) -> CinderblockError:
    """Return the error for a code of an S3 server that another attempt cannot change.

    The server's own words come last, because a failReason is cut at 255 characters.
    """
    if code == "NoSuchBucket":
        return ContainerNotFound(f"Cannot use {address}: the container does not exist. Create it, or correct the name.")
    if code == "NoSuchKey":
        return ObjectNotFound(f"Cannot read from {address}: the object does not exist.")
    if code in _WRONG_REGION_CODES:
        return InvalidInput(
            f"Cannot use {address}: it is not in region {address.region}. Correct the region ({detail})."
        )
    if code in {"BucketAlreadyExists", "BucketNotEmpty"}:
        return Conflict(
            f"Cannot create {address}: the name belongs to another account. Choose another name ({detail})."
        )
    if status in {401, 403} or code in _DENIALS:
        cause, remedy = _DENIALS.get(code, _NO_PERMISSION)
        error = CredentialsRejected if code in _REJECTED_CREDENTIALS else AccessDenied
        return error(f"Cannot access {address}: {cause}. {remedy} ({detail}).")
    return PermanentError(
        f"Cannot use {address}: the server rejects the request ({detail}).", reason=Reason.STORE_REFUSES
    )


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
    except ValueError:
        return None


def _from_library(error: Exception, address: StoreAddress) -> CinderblockError:
    """Return the error for a request that was not sent, or got no complete response."""
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return AccessDenied(
            f"Cannot access {address}: there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            " AWS_PROFILE."
        )
    if isinstance(error, boto.CredentialRetrievalError | boto.TokenRetrievalError | boto.SSOError):
        return AccessDenied(f"Cannot get credentials for {address} ({address.redact(error)}).")
    if isinstance(error, boto.ParamValidationError | boto.UnknownEndpointError):
        return InvalidInput(
            f"Cannot send a request to {address}. Check the settings of the store ({address.redact(error)})."
        )
    return _from_network(error, address)


def _from_network(error: Exception, address: StoreAddress) -> CinderblockError:
    """Return the error for a request that got no complete response."""
    if isinstance(error, boto.ReadTimeoutError | urllib3.exceptions.ReadTimeoutError):
        return StoreUnreachable(f"Cannot use {address}: no response arrived in time.")
    cause = _root_cause(error)
    if isinstance(error, boto.SSLError | urllib3.exceptions.SSLError):
        return _from_tls(cause, address)
    if isinstance(error, boto.ProxyConnectionError):
        return StoreUnreachable(
            f"Cannot reach {address}: the connection to its proxy failed. Check the proxy ({address.redact(error)})."
        )
    if isinstance(cause, socket.gaierror):
        return StoreUnreachable(
            f"Cannot resolve the host name of {address.endpoint}: {cause.strerror}. Check the endpoint URL."
        )
    if isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, http.client.RemoteDisconnected):
        return not_s3(address, "something else than HTTP")
    return StoreUnreachable(f"Cannot reach {address}: {address.redact(cause)}")


def _from_tls(cause: BaseException, address: StoreAddress) -> CinderblockError:
    detail = address.redact(cause)
    if isinstance(cause, ssl.SSLCertVerificationError | CertificateError):
        return PermanentError(
            f"Cannot trust the certificate of {address.endpoint}. Provide the CA that signed it, and use a host name"
            f" that it names ({detail}).",
            reason=Reason.CERTIFICATE_NOT_TRUSTED,
        )
    if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
        return PermanentError(
            f"Cannot connect to {address.endpoint}: it does not speak TLS. Try http, or another port ({detail}).",
            reason=Reason.NOT_TLS,
        )
    return StoreUnreachable(f"Cannot connect to {address.endpoint}: TLS failed ({detail}).")


def _root_cause(error: BaseException) -> BaseException:
    """Return the first cause of an error; botocore and urllib3 wrap it several times."""
    visited = {id(error)}
    while (inner := _next_cause(error)) is not None and id(inner) not in visited:
        error = inner
        visited.add(id(error))
    return error


def _next_cause(error: BaseException) -> BaseException | None:
    candidates = (
        getattr(error, "kwargs", {}).get("error"),
        getattr(error, "reason", None),
        error.__cause__,
        error.__context__,
        *error.args,
    )
    return next((candidate for candidate in candidates if isinstance(candidate, BaseException)), None)
