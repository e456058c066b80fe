"""Translate the exceptions of client libraries into errors of Cinderblock that name a remedy."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import urllib3.exceptions
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.util.ssl_match_hostname import CertificateError

from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    ClockSkewed,
    CredentialsRejected,
    InvalidInput,
    PermanentError,
    StoreTooSlow,
    StoreUnreachable,
)
from cinderblock.reasons import Reason
from cinderblock.store.deadline import Deadline
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import from_answer, not_s3, protocol_violation
from cinderblock.store.s3.connection import AnswerTooLong

_LIBRARY_ERRORS: Final = (
    boto.BotoCoreError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    ResponseParserError,
)
PARSER_DEFECTS: Final = (ArithmeticError, AttributeError, RuntimeError, TypeError)
"""Further exceptions of botocore for answers that it does not expect: a date that does not exist, an ``Error`` without
elements, or elements so deep that its recursion ends."""


@contextmanager
def translate(address: StoreAddress, deadline: Deadline) -> Iterator[None]:
    """Translate whatever a client library raises inside a call that has this deadline.

    A socket that the deadline has shut down looks to the library like one that the server has closed.
    """
    try:
        if deadline.has_expired:
            raise _too_slow(address, deadline)
        yield
    except _LIBRARY_ERRORS as error:
        raise (_too_slow(address, deadline) if deadline.has_expired else _from_client(error, address)) from error
    except boto.ClientError as error:
        # A local variable with the new error would make a cycle, which keeps the connection until it is collected.
        raise _of_answer(error, address) from error
    except AnswerTooLong as error:
        raise protocol_violation(address, str(error)) from error
    except KeyError as error:
        raise not_s3(address, f"a response without {error}") from error
    except PARSER_DEFECTS as error:
        raise not_s3(address, "a malformed response") from error


def _of_answer(error: boto.ClientError, address: StoreAddress) -> CinderblockError:
    found = from_answer(error.response, address, error.operation_name)
    return _of_broker(found, address) if address.is_signed_remotely else found


def _of_broker(error: CinderblockError, address: StoreAddress) -> CinderblockError:
    """Return a temporary error if the server rejects what the broker has signed with.

    Somebody replaces the credentials, and the broker reads the new ones within a minute. Or one of its nodes has a
    wrong clock. The mover can do nothing about either, and other replicas of the broker may be right.
    """
    if isinstance(error, ClockSkewed):
        text = f"Cannot access {address}: the clock of the broker differs from the server's clock. Correct the clocks."
        return StoreUnreachable(text, reason=error.reason)
    if isinstance(error, CredentialsRejected):
        text = f"Cannot access {address}: the server rejects what the broker has signed with. {error.message}"
        return StoreUnreachable(text, reason=error.reason)
    return error


def _too_slow(address: StoreAddress, deadline: Deadline) -> StoreTooSlow:
    return StoreTooSlow(
        f"Cannot use {address}: a call was not complete after {deadline.seconds:.0f} s. Check the network, and the"
        " load of the server."
    )


def _from_client(error: Exception, address: StoreAddress) -> CinderblockError:
    if isinstance(error, ValueError | ResponseParserError) and not isinstance(error, boto.BotoCoreError | OSError):
        return not_s3(address, "a malformed response")
    return _from_library(error, address)


def _from_library(error: Exception, address: StoreAddress) -> CinderblockError:
    """Return the error for a request that was not sent, or got no complete response."""
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return AccessDenied(
            f"Cannot access {address}: there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            " AWS_PROFILE."
        )
    if isinstance(error, boto.CredentialRetrievalError | boto.TokenRetrievalError | boto.SSOError):
        return AccessDenied(
            f"Cannot get credentials for {address}. Check the AWS profile, or the role of this machine or pod"
            f" ({address.redact(error)})."
        )
    if isinstance(error, boto.ParamValidationError | boto.UnknownEndpointError):
        return InvalidInput(
            f"Cannot send a request to {address}. Check the settings of the store ({address.redact(error)})."
        )
    return _from_network(error, address)


def _from_network(error: Exception, address: StoreAddress) -> CinderblockError:
    """Return the error for a request that got no complete response."""
    if isinstance(error, boto.ReadTimeoutError | urllib3.exceptions.ReadTimeoutError):
        return StoreUnreachable(
            f"Cannot use {address}: no response arrived in time. Check the network, and the load of the server."
        )
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
    return StoreUnreachable(
        f"Cannot reach {address}: {address.redact(cause).rstrip('.')}. Check the endpoint URL, that the server runs,"
        " and that no firewall or NetworkPolicy is in between."
    )


def _from_tls(cause: BaseException, address: StoreAddress) -> CinderblockError:
    detail = address.redact(cause)
    if isinstance(cause, ssl.SSLCertVerificationError | CertificateError):
        return PermanentError(
            f"Cannot trust the certificate of {address.endpoint}. Provide the CA that signed it, and use a host name"
            f" that it names ({detail}).",
            reason=Reason.CERTIFICATE_NOT_TRUSTED,
        )
    if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None) == "WRONG_VERSION_NUMBER":
        return PermanentError(
            f"Cannot connect to {address.endpoint}: it does not speak TLS. Try http, or another port ({detail}).",
            reason=Reason.NOT_TLS,
        )
    return StoreUnreachable(
        f"Cannot connect to {address.endpoint}: TLS failed. Check the TLS versions and certificates of the server, and"
        f" what is in between ({detail})."
    )


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
