"""A request without a complete answer becomes an error with an address, a cause and a remedy, and without secrets."""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
import ssl

import pytest
import urllib3.exceptions
from botocore import exceptions as boto

from cinderblock.errors import CinderblockError, StoreTooSlow
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.deadline import Deadline, check_current, limit_seconds
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.connection import AnswerTooLong
from cinderblock.store.s3.errors import translate

SECRET = "very/secret"
ADDRESS = StoreAddress("https://s3.example", "volumebackups", "eu-west-3", S3Credentials("AKIAEXAMPLE", SECRET))
URL = "https://s3.example"


def caused_by(cause: BaseException) -> boto.EndpointConnectionError:
    """Return the error of botocore for a connection that failed."""
    return boto.EndpointConnectionError(endpoint_url=URL, error=cause)


ERRORS: list[BaseException] = [
    caused_by(ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))),
    caused_by(ConnectionResetError(errno.ECONNRESET, f"reset by {SECRET}.")),
    caused_by(socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
    boto.ConnectTimeoutError(endpoint_url=URL, error=TimeoutError("timed out")),
    boto.ReadTimeoutError(endpoint_url=URL, error=TimeoutError(SECRET)),
    urllib3.exceptions.ReadTimeoutError(None, URL, SECRET),  # type: ignore[arg-type]
    boto.ConnectionClosedError(endpoint_url=URL),
    boto.SSLError(endpoint_url=URL, error=ssl.SSLError(1, "handshake failure")),
    boto.SSLError(endpoint_url=URL, error=ssl.SSLCertVerificationError(1, "self-signed certificate")),
    boto.ProxyConnectionError(proxy_url="http://proxy", error=OSError("refused")),
    boto.NoCredentialsError(),
    boto.CredentialRetrievalError(provider="sso", error_msg=SECRET),
    boto.SSOError(),
    boto.ParamValidationError(report=SECRET),
    boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    http.client.BadStatusLine("SSH-2.0"),
    ConnectionError("the server sent too many interim answers"),
    AnswerTooLong("more than the 10 bytes that were requested"),
    ValueError(SECRET),
    KeyError("ETag"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_request_without_an_answer_has_a_cause_a_remedy_and_an_address(error: Exception) -> None:
    with pytest.raises(CinderblockError) as caught, translate(ADDRESS, Deadline(60)):
        raise error
    message = caught.value.message
    assert "s3.example" in message
    assert SECRET not in message
    assert re.match(r"Cannot .+\. (Check|Provide|Try|Set) .+\.$", message), message


def test_expired_request_names_cause_remedy_and_address() -> None:
    with pytest.raises(CinderblockError) as caught, translate(ADDRESS, Deadline(0)):
        pass
    assert re.match(r"Cannot use container .+s3.example: .+ after 0 s\. Check .+\.$", caught.value.message)


def test_message_names_the_limit_that_has_ended() -> None:
    with pytest.raises(StoreTooSlow, match="after 0 s"), translate(ADDRESS, Deadline(60, Deadline(0))):
        pass
    assert Deadline(1, Deadline(60)).seconds == 1


def test_work_between_requests_ends_with_its_deadline() -> None:
    check_current()
    with limit_seconds(60):
        check_current()
        with limit_seconds(0), pytest.raises(StoreTooSlow, match=r"within 0 s\. Check the network"):
            check_current()
