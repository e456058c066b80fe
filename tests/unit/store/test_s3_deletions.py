"""A server without DeleteObjects deletes one by one, and is asked for batches only once."""

from __future__ import annotations

from contextlib import closing

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import AccessDenied, CinderblockError, ObjectLocked, StoreThrottled, StoreUnreachable
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3.store import S3Store
from tests.unit.store.canned import Canned, answer, canned_server, s3_error

CREDENTIALS = S3Credentials("AKIAEXAMPLE", "very/secret")
GONE = answer("204 No Content")
PAGE = b"<html><body>no"


def opened(server: Canned) -> S3Store:
    """Return a store on the server."""
    return S3Store(StoreLocation(endpoint_url=server.url, container="volumebackups"), CREDENTIALS)


def requests(server: Canned) -> list[bytes]:
    """Return method and path of each request."""
    return [request.partition(b" HTTP")[0].replace(b"/volumebackups", b"") for request in server.requests]


@pytest.mark.parametrize(
    "rejection",
    [
        s3_error("501 Not Implemented", "NotImplemented"),
        s3_error("405 Method Not Allowed", "MethodNotAllowed"),
        s3_error("403 Forbidden", "AccessDenied"),
        s3_error("400 Bad Request", "MalformedXML"),
        s3_error("400 Bad Request", "InvalidArgument"),
        s3_error("404 Not Found", "NoSuchKey"),
        answer("501 Not Implemented"),
        answer("400 Bad Request", PAGE, Content_Type="text/html"),
        answer("403 Forbidden", PAGE, Content_Type="text/html"),
        answer("404 Not Found", PAGE, Content_Type="text/html"),
        answer("411 Length Required"),
        answer("413 Content Too Large"),
        answer("415 Unsupported Media Type"),
        answer("200 OK", "<DeleteResult/>"),
        answer("200 OK", "<DeleteResult><Deleted><Key>other</Key></Deleted></DeleteResult>"),
        answer("405 Method Not Allowed"),
        answer("405 Method Not Allowed", PAGE, Content_Type="text/html"),
    ],
)
def test_server_without_batches_deletes_one_by_one_from_then_on(rejection: bytes) -> None:
    with canned_server(rejection, GONE) as server, closing(opened(server)) as store:
        store.delete(["a", "b", "c"])
        store.delete(["d"])
    assert requests(server)[0] == b"POST ?delete"
    assert sorted(requests(server)[1:]) == [b"DELETE /a", b"DELETE /b", b"DELETE /c", b"DELETE /d"]


def test_absent_key_is_no_error_in_a_single_deletion() -> None:
    absent = s3_error("404 Not Found", "NoSuchKey")
    missing = s3_error("501 Not Implemented", "NotImplemented")
    with canned_server(missing, absent) as server, closing(opened(server)) as store:
        store.delete(["a", "b"])
    assert len(server.requests) == 3


def test_denial_of_both_requests_is_a_denial_and_not_remembered() -> None:
    with canned_server(s3_error("403 Forbidden", "AccessDenied")) as server, closing(opened(server)) as store:
        for _ in range(2):
            with pytest.raises(AccessDenied, match="DeleteObjects"):
                store.delete(["a", "b"])
    assert requests(server) == [b"POST ?delete", b"DELETE /a"] * 2


def test_lock_is_reported_by_the_single_deletion() -> None:
    locked = s3_error("403 Forbidden", "AccessDenied", "Access Denied because object protected by object lock.")
    missing = s3_error("501 Not Implemented", "NotImplemented")
    with canned_server(missing, locked) as server, closing(opened(server)) as store, pytest.raises(ObjectLocked):
        store.delete(["a", "b"])


@pytest.mark.parametrize(
    "temporary",
    [
        s3_error("503 Slow Down", "SlowDown"),
        answer("503 Service Unavailable", PAGE),
        answer("408 Request Timeout"),
        answer("425 Too Early"),
        answer("429 Too Many Requests"),
        s3_error("400 Bad Request", "RequestTimeout"),
        s3_error("409 Conflict", "OperationAborted"),
    ],
)
def test_temporary_error_says_nothing_about_batches(temporary: bytes) -> None:
    with canned_server(temporary) as server, closing(opened(server)) as store, pytest.raises(StoreUnreachable):
        store.delete(["a"])
    assert requests(server) == [b"POST ?delete"]


@pytest.mark.parametrize("rejection", [s3_error("501 Not Implemented", "NotImplemented"), answer("404 Not Found")])
def test_temporary_error_of_the_single_deletion_stays_temporary(rejection: bytes) -> None:
    busy = s3_error("503 Slow Down", "SlowDown")
    with canned_server(rejection, busy) as server, closing(opened(server)) as store, pytest.raises(StoreThrottled):
        store.delete(["a", "b"])
    assert len(server.requests) == 2


def test_page_for_both_requests_is_an_outage_and_not_remembered() -> None:
    with canned_server(answer("404 Not Found", PAGE)) as server, closing(opened(server)) as store:
        for _ in range(2):
            with pytest.raises(StoreUnreachable):
                store.delete(["a", "b"])
    assert requests(server) == [b"POST ?delete", b"DELETE /a"] * 2


def test_refusal_by_s3_says_more_than_a_page() -> None:
    denied = s3_error("403 Forbidden", "AccessDenied")
    page = answer("403 Forbidden", PAGE)
    with canned_server(page, denied) as server, closing(opened(server)) as store, pytest.raises(AccessDenied):
        store.delete(["a"])


def result(*deleted: str, **errors: tuple[str, str]) -> bytes:
    """Return a response to DeleteObjects: the deleted keys, and code and message of the others."""
    rows = [f"<Deleted><Key>{key}</Key></Deleted>" for key in deleted]
    rows += [
        f"<Error><Key>{key}</Key><Code>{code}</Code><Message>{text}</Message></Error>"
        for key, (code, text) in errors.items()
    ]
    return answer("200 OK", f"<DeleteResult>{''.join(rows)}</DeleteResult>")


DENIED = ("AccessDenied", "Access Denied")
LOCKED = ("AccessDenied", "Access Denied because object protected by object lock.")


def test_key_that_is_refused_in_a_batch_says_nothing_about_batches() -> None:
    with canned_server(result("a", b=DENIED), result("c")) as server, closing(opened(server)) as store:
        with pytest.raises(AccessDenied):
            store.delete(["a", "b"])
        store.delete(["c"])
    assert requests(server) == [b"POST ?delete"] * 2


@pytest.mark.parametrize("others", [{"a": DENIED}, {"a": ("SlowDown", "slow")}], ids=["denied", "slow"])
def test_lock_is_reported_before_anything_else(others: dict[str, tuple[str, str]]) -> None:
    answers = result(**others, b=LOCKED)
    with canned_server(answers) as server, closing(opened(server)) as store, pytest.raises(ObjectLocked):
        store.delete(["a", "b"])


def test_unconfirmed_keys_are_deleted_one_by_one() -> None:
    with canned_server(result("a", "zzz"), GONE, GONE, result("d")) as server, closing(opened(server)) as store:
        store.delete(["a", "b", "c"])
        store.delete(["d"])
    assert requests(server)[0] == requests(server)[3] == b"POST ?delete"
    assert sorted(requests(server)[1:3]) == [b"DELETE /b", b"DELETE /c"]


def test_unconfirmed_key_that_cannot_be_deleted_is_an_error() -> None:
    with (
        canned_server(result("a"), s3_error("403 Forbidden", "AccessDenied")) as server,
        closing(opened(server)) as store,
        pytest.raises(AccessDenied),
    ):
        store.delete(["a", "b"])


def test_one_key_that_fails_does_not_stop_the_others() -> None:
    answers = (s3_error("501 Not Implemented", "NotImplemented"), GONE, s3_error("500 Error", "InternalError"), GONE)
    with canned_server(*answers) as server, closing(opened(server)) as store, pytest.raises(CinderblockError):
        store.delete(["a", "b", "c", "d"])
    assert len(server.requests) == 5


def test_web_page_is_no_deletion() -> None:
    page = answer("200 OK", "<html></html>", Content_Type="text/html")
    missing = s3_error("501 Not Implemented", "NotImplemented")
    with canned_server(missing, page) as server, closing(opened(server)) as store, pytest.raises(CinderblockError):
        store.delete(["a"])
