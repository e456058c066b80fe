"""Conditional writes at servers that have them, have none, or answer them in a way of their own."""

from __future__ import annotations

from contextlib import closing

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import AccessDenied, CinderblockError, StoreUnreachable
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3.store import S3Store
from tests.unit.store.canned import Canned, answer, canned_server, s3_error

STORED = answer("200 OK", ETag='"x"')


def opened(server: Canned) -> S3Store:
    """Return a store on the server."""
    location = StoreLocation(endpoint_url=server.url, container="volumebackups")
    return S3Store(location, S3Credentials("AKIAEXAMPLE", "very/secret"))


def conditions(server: Canned) -> list[bool]:
    """Return which requests had a condition."""
    return [b"if-none-match: *" in request.lower() for request in server.requests]


@pytest.mark.parametrize(
    "refusal",
    [
        s3_error("501 Not Implemented", "NotImplemented", "A header you provided implies functionality"),
        s3_error("400 Bad Request", "NotImplemented"),
        s3_error("400 Bad Request", "InvalidArgument", "If-None-Match"),
        s3_error("400 Bad Request", "InvalidRequest"),
        s3_error("405 Method Not Allowed", "MethodNotAllowed"),
        s3_error("403 Forbidden", "SignatureDoesNotMatch"),
        answer("501 Not Implemented"),
        answer("400 Bad Request", "<html>no</html>"),
    ],
)
def test_server_without_conditional_writes_gets_a_plain_one(refusal: bytes) -> None:
    with canned_server(refusal, STORED) as server, closing(opened(server)) as store:
        assert store.create("key", b"content")
        assert conditions(server) == [True, False]


@pytest.mark.parametrize(
    "exists",
    [
        s3_error("412 Precondition Failed", "PreconditionFailed"),
        s3_error("400 Bad Request", "PreconditionFailed"),
        s3_error("412 Precondition Failed", "Other"),
        answer("412 Precondition Failed"),
        answer("304 Not Modified"),
    ],
)
def test_existing_object_is_not_replaced(exists: bytes) -> None:
    """Nor does the answer prove a checksum: a server may check the condition first."""
    rejected = s3_error("400 Bad Request", "InvalidArgument", "Unknown header x-amz-checksum-sha256")
    with canned_server(exists, rejected, STORED) as server, closing(opened(server)) as store:
        assert not store.create("key", b"content")
        assert conditions(server) == [True]
        store.put("other", b"content")


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (s3_error("403 Forbidden", "AccessDenied"), AccessDenied),
        (s3_error("409 Conflict", "ConditionalRequestConflict"), StoreUnreachable),
        (s3_error("503 Slow Down", "SlowDown"), CinderblockError),
        (answer("200 OK", "<html>log in</html>"), CinderblockError),
    ],
)
def test_other_failure_is_raised_and_nothing_else_written(response: bytes, kind: type[CinderblockError]) -> None:
    with canned_server(response) as server, closing(opened(server)) as store:
        with pytest.raises(kind):
            store.create("key", b"content")
        assert all(conditions(server))
