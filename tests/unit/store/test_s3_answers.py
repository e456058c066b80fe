"""Every response of an endpoint becomes a trusted result, or an error that names a remedy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from contextlib import closing
from email.utils import formatdate
from time import time
from xml.sax.saxutils import escape

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    ClockSkewed,
    Conflict,
    ContainerNotFound,
    CredentialsExpired,
    CredentialsRejected,
    NotFound,
    ObjectLocked,
    PermanentError,
    StoreThrottled,
    StoreUnreachable,
    WrongRegion,
)
from cinderblock.store.base import ObjectInfo
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3 import multipart
from cinderblock.store.s3 import store as store_module
from cinderblock.store.s3.store import S3Store
from tests.unit.store.canned import Canned, answer, canned_server, s3_error

CREDENTIALS = S3Credentials("AKIAEXAMPLE", "very/secret", "even+more")
HTML = b"<!DOCTYPE html><html><body><p>Welcome<br></body></html>"

Call = Callable[[S3Store], object]

CALLS: dict[str, Call] = {
    "check": S3Store.check,
    "put": lambda store: store.put("key", b"content"),
    "get": lambda store: store.get("key"),
    "get a part": lambda store: store.get("key", 2, 3),
    "list": lambda store: list(store.list("k")),
    "delete": lambda store: store.delete(["key"]),
}
any_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def opened(server: Canned, **more: object) -> S3Store:
    """Return a store on the server."""
    location = StoreLocation.model_validate({"endpoint_url": server.url, "container": "volumebackups", **more})
    return S3Store(location, CREDENTIALS)


def raised(call: Call, *answers: bytes, **more: object) -> CinderblockError:
    """Return the error that a call raises."""
    with (
        canned_server(*answers) as server,
        closing(opened(server, **more)) as store,
        pytest.raises(CinderblockError) as caught,
    ):
        call(store)
    return caught.value


def connections_for_three(call: Call, unavailable: bytes) -> tuple[int, int]:
    """Return the number of connections and of requests of three calls that get the same transient error."""
    with canned_server(unavailable) as server, closing(opened(server)) as store:
        for _ in range(3):
            with pytest.raises(StoreUnreachable):
                call(store)
        return server.connections, len(server.requests)


@any_call
@pytest.mark.parametrize(
    ("status", "code", "kind", "advice"),
    [
        ("403 Forbidden", "InvalidAccessKeyId", CredentialsRejected, "AWS_ACCESS_KEY_ID"),
        ("404 Not Found", "XAdminUserNotFound", CredentialsRejected, "AWS_ACCESS_KEY_ID"),
        ("403 Forbidden", "SignatureDoesNotMatch", CredentialsRejected, "AWS_SECRET_ACCESS_KEY"),
        ("403 Forbidden", "AccessDenied", AccessDenied, "Allow list, get, put and delete"),
        ("400 Bad Request", "ExpiredToken", CredentialsExpired, "expired"),
        ("400 Bad Request", "InvalidToken", CredentialsRejected, "AWS_SESSION_TOKEN"),
        ("403 Forbidden", "RequestTimeTooSkewed", ClockSkewed, "clock"),
        ("403 Forbidden", "AccountProblem", AccessDenied, "AccountProblem"),
        ("404 Not Found", "NoSuchBucket", ContainerNotFound, "Create it"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", WrongRegion, "Correct the region"),
        ("301 Moved Permanently", "PermanentRedirect", WrongRegion, "Correct the region"),
        ("507 Insufficient Storage", "XMinioStorageFull", PermanentError, "quota"),
        ("403 Forbidden", "QuotaExceeded", PermanentError, "quota"),
        ("501 Not Implemented", "NotImplemented", PermanentError, "NotImplemented"),
        ("400 Bad Request", "InvalidRequest", PermanentError, "It says why"),
        ("503 Slow Down", "SlowDown", StoreThrottled, "SlowDown"),
        ("500 Internal Server Error", "InternalError", StoreUnreachable, "InternalError"),
        ("400 Bad Request", "RequestTimeout", StoreUnreachable, "RequestTimeout"),
        ("400 Bad Request", "BadDigest", StoreUnreachable, "BadDigest"),
        ("400 Bad Request", "XAmzContentSHA256Mismatch", StoreUnreachable, "SHA256"),
        ("429 Too Many Requests", "Anything", StoreThrottled, "Anything"),
        ("409 Conflict", "OperationAborted", StoreUnreachable, "OperationAborted"),
        ("307 Temporary Redirect", "TemporaryRedirect", StoreUnreachable, "TemporaryRedirect"),
    ],
)
def test_error_names_the_store_and_a_remedy(
    call: Call, status: str, code: str, kind: type[CinderblockError], advice: str
) -> None:
    error = raised(call, s3_error(status, code))
    assert type(error) is kind
    assert advice in error.message
    assert "container volumebackups at http://127.0.0.1:" in error.message


def test_missing_object_and_a_missing_container_have_different_reasons() -> None:
    assert raised(CALLS["get"], s3_error("404 Not Found", "NoSuchKey")).reason == "NotFound"
    assert raised(CALLS["get"], s3_error("404 Not Found", "NoSuchBucket")).reason == "ContainerNotFound"


def test_full_store_and_any_other_refusal_have_reasons_of_their_own() -> None:
    assert raised(CALLS["put"], s3_error("403 Forbidden", "QuotaExceeded")).reason == "StoreFull"
    assert raised(CALLS["put"], s3_error("501 Not Implemented", "NotImplemented")).reason == "StoreRefuses"


@any_call
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("403 Forbidden", "AccessDenied", "Access Denied because object protected by object lock."),
        ("400 Bad Request", "InvalidRequest", "Object is WORM protected and cannot be overwritten"),
        ("403 Forbidden", "AccessDenied", "forbidden by object lock"),
        ("403 Forbidden", "ObjectLocked", "no"),
        ("409 Conflict", "ObjectUnderRetention", "The object is under retention and can't be deleted or modified."),
        ("403 Forbidden", "AccessDenied", "Object 'b/k' is subject to bucket's retention policy until 2027-01-02"),
        ("403 Forbidden", "ObjectLockedByBucketPolicy", "no"),
    ],
    ids=["AWS", "MinIO", "Ceph", "code", "ECS", "Google", "R2"],
)
def test_locked_object_is_no_missing_permission(call: Call, status: str, code: str, message: str) -> None:
    error = raised(call, s3_error(status, code, message))
    assert type(error) is ObjectLocked
    assert error.reason == "Locked"
    assert "Wait until its retention ends" in error.message


@any_call
def test_no_text_of_the_server_brings_credentials_into_a_message(call: Call) -> None:
    said = "You are AKIAEXAMPLE with very/secret and even+more"
    error = raised(call, s3_error("403 Forbidden", "SignatureDoesNotMatch", said))
    assert "You are *** with *** and ***" in error.message
    for secret in ("AKIAEXAMPLE", "very/secret", "even+more"):
        assert secret not in f"{error!r}"


def test_long_text_of_the_server_is_cut() -> None:
    assert len(raised(CALLS["get"], s3_error("400 Bad Request", "InvalidRequest", "long " * 1000)).message) < 400


@any_call
@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "404 Not Found", "405 Method Not Allowed"])
def test_web_page_is_not_a_rejection_by_s3(call: Call, status: str) -> None:
    error = raised(call, answer(status, HTML, Content_Type="text/html"))
    assert isinstance(error, StoreUnreachable)
    assert error.reason == "NotS3"
    assert "the response is a web page" in error.message


@any_call
@pytest.mark.parametrize(
    "somebody_else",
    [
        answer("404 Not Found", Connection="keep-alive"),
        answer("200 OK", HTML, Connection="keep-alive"),
        answer("503 Service Unavailable", HTML, Connection="keep-alive"),
    ],
    ids=["not found", "welcome", "no server"],
)
def test_response_of_another_server_closes_the_connections(call: Call, somebody_else: bytes) -> None:
    connections, requests = connections_for_three(call, somebody_else)
    assert connections == requests


@any_call
def test_overloaded_server_keeps_its_connection(call: Call) -> None:
    slow_down = s3_error("503 Slow Down", "SlowDown", Connection="keep-alive")
    assert connections_for_three(call, slow_down) == (1, 3)


@any_call
def test_web_page_that_parses_is_not_a_success(call: Call) -> None:
    error = raised(call, answer("200 OK", "<html><body/></html>", Content_Type="text/html"))
    assert error.reason == "NotS3"


@any_call
def test_malformed_page_is_not_a_success(call: Call) -> None:
    assert isinstance(raised(call, answer("200 OK", HTML, Content_Type="text/html")), StoreUnreachable)


@any_call
def test_redirect_is_shown_and_not_followed(call: Call) -> None:
    error = raised(call, answer("301 Moved Permanently", HTML, Location="https://elsewhere.example/"))
    assert error.reason == "NotS3"
    assert "redirects to https://elsewhere.example/" in error.message


def test_right_region_is_named_if_the_server_sends_it() -> None:
    refusal = s3_error("301 Moved Permanently", "PermanentRedirect", x_amz_bucket_region="eu-central-1")
    assert "the container is in region eu-central-1" in raised(CALLS["get"], refusal).message


@any_call
@pytest.mark.parametrize("reply", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x00\x02\x02\x28garbage\r\n\r\n"])
def test_response_that_is_not_http_is_not_s3(call: Call, reply: bytes) -> None:
    error = raised(call, reply)
    assert error.reason in {"NotS3", "StoreUnreachable"}
    assert "127.0.0.1" in error.message


@any_call
def test_connection_that_is_closed_may_be_tried_again(call: Call) -> None:
    assert isinstance(raised(call, b""), StoreUnreachable)


@any_call
def test_load_balancer_without_servers_may_be_tried_again(call: Call) -> None:
    assert isinstance(raised(call, answer("502 Bad Gateway", HTML, Content_Type="text/html")), StoreUnreachable)


@pytest.mark.parametrize("wait", [lambda: "70", lambda: formatdate(time() + 70, usegmt=True)])
def test_wait_that_a_server_requests_is_kept(wait: Callable[[], str]) -> None:
    error = raised(CALLS["get"], s3_error("503 Slow Down", "SlowDown", Retry_After=wait()))
    assert isinstance(error, StoreUnreachable)
    assert error.retry_after is not None
    assert 40 < error.retry_after <= 70


@pytest.mark.parametrize("headers", [{}, {"Retry_After": "soon"}, {"Retry_After": ""}])
def test_no_wait_is_made_up(headers: dict[str, str]) -> None:
    error = raised(CALLS["get"], s3_error("503 Slow Down", "SlowDown", **headers))
    assert isinstance(error, StoreUnreachable)
    assert error.retry_after is None


@pytest.mark.parametrize("call", [CALLS["get"], CALLS["get a part"]])
def test_body_that_ends_early_may_be_tried_again(call: Call) -> None:
    short = answer("200 OK", b"this", Content_Length="1000", ETag='"x"')
    assert isinstance(raised(call, short), StoreUnreachable)


def test_limited_read_notices_an_early_end_too() -> None:
    short = answer("200 OK", b"only this", Content_Length="1000", ETag='"x"')
    assert isinstance(raised(CALLS["get"], short, download_bytes_per_second=10**9), StoreUnreachable)


def test_server_that_ignores_ranges_gives_the_right_part() -> None:
    whole = answer("200 OK", b"0123456789", ETag='"x"')
    with canned_server(whole) as server, closing(opened(server)) as store:
        assert store.get("key", 2, 3) == b"234"
        assert store.get("key", -3) == b"789"
        assert store.get("key", 20) == b""


@pytest.mark.parametrize("content_range", ["bytes 0-2/10", "bytes 2-4/4", "bytes 2-3/10"])
def test_another_range_than_the_requested_one_is_an_error(content_range: str) -> None:
    part = answer("206 Partial Content", b"012", ETag='"x"', Content_Range=content_range)
    assert isinstance(raised(CALLS["get a part"], part), StoreUnreachable)


def listing(*keys: str, token: str | None = None) -> bytes:
    """Return one page of ListObjectsV2."""
    contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = str(token is not None).lower()
    body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{contents}</ListBucketResult>"
    return answer("200 OK", body)


def test_listing_continues_to_its_last_page() -> None:
    pages = (listing("a", "b", token="1"), listing(token="2"), listing("c"))
    with canned_server(*pages) as server, closing(opened(server)) as store:
        assert list(store.list("")) == [ObjectInfo(key, 1) for key in "abc"]


def test_error_within_a_listing_follows_the_earlier_objects() -> None:
    pages = (listing("a", "b", token="1"), s3_error("500 Internal Server Error", "InternalError"))
    with canned_server(*pages) as server, closing(opened(server)) as store:
        items = store.list("")
        assert [next(items).key, next(items).key] == ["a", "b"]
        with pytest.raises(StoreUnreachable):
            next(items)


@pytest.mark.parametrize(
    "pages",
    [
        (listing("a", token=""), listing("b")),
        (listing("a", token="1"), listing("b", token="1")),
        (listing("b", "a"),),
        (listing("a", token="1"), listing("a")),
    ],
    ids=["no token", "the same token", "out of order", "the same page"],
)
def test_listing_that_makes_no_sense_is_an_error_and_no_end(pages: tuple[bytes, ...]) -> None:
    assert raised(CALLS["list"], *pages).permanent


def deletion(*failures: tuple[str, str], deleted: tuple[str, ...] = ("key",)) -> bytes:
    """Return a response to DeleteObjects."""
    confirmed = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in deleted)
    errors = "".join(
        f"<Error><Key>{key}</Key><Code>{code}</Code><Message>why</Message></Error>" for key, code in failures
    )
    return answer("200 OK", f"<DeleteResult>{confirmed}{errors}</DeleteResult>")


@pytest.mark.parametrize(
    ("failures", "kind"),
    [
        ([("a", "AccessDenied")], AccessDenied),
        ([("a", "InternalError")], StoreUnreachable),
        ([("a", "SlowDown"), ("b", "AccessDenied")], AccessDenied),
        ([("a", "Whatever")], PermanentError),
        ([("a", "SlowDown")], StoreThrottled),
    ],
)
def test_key_that_was_not_deleted_is_an_error(failures: list[tuple[str, str]], kind: type[CinderblockError]) -> None:
    assert type(raised(CALLS["delete"], deletion(*failures))) is kind


def test_deleting_an_absent_key_succeeds() -> None:
    with canned_server(deletion(("key", "NoSuchKey"), deleted=())) as server, closing(opened(server)) as store:
        store.delete(["key"])
    assert len(server.requests) == 1


def test_deletion_sends_the_header_that_older_servers_require() -> None:
    with canned_server(deletion(deleted=("key", "a&b"))) as server, closing(opened(server)) as store:
        store.delete(["key", "a&b"])
    assert len(server.requests) == 1
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"\r\nContent-MD5: " + base64.b64encode(hashlib.md5(body).digest()) in head
    assert b"<Key>a&amp;b</Key>" in body


def test_upload_carries_its_sha256_twice_and_no_trailer() -> None:
    with canned_server(answer("200 OK", ETag='"x"')) as server, closing(opened(server)) as store:
        store.put("key", b"content")
    head = server.requests[0].partition(b"\r\n\r\n")[0].lower()
    digest = hashlib.sha256(b"content").digest()
    assert b"\r\nx-amz-content-sha256: " + digest.hex().encode() in head
    assert b"\r\nx-amz-checksum-sha256: " + base64.b64encode(digest).lower() in head
    assert b"aws-chunked" not in head


@pytest.mark.parametrize(("region", "constraint"), [("us-east-1", False), ("eu-west-3", True)])
def test_container_is_created_in_the_requested_region(region: str, constraint: bool) -> None:
    script = (s3_error("404 Not Found", "NoSuchBucket"), answer("200 OK"), listing())
    with canned_server(*script) as server, closing(opened(server, region=region, create_container=True)) as store:
        store.check()
    assert server.requests[1].startswith(b"PUT /volumebackups")
    assert (f"<LocationConstraint>{region}<".encode() in server.requests[1]) == constraint


def test_container_created_meanwhile_in_our_account_is_accepted() -> None:
    missing = s3_error("404 Not Found", "NoSuchBucket")
    ours = s3_error("409 Conflict", "BucketAlreadyOwnedByYou")
    with canned_server(missing, ours, listing()) as server, closing(opened(server, create_container=True)) as store:
        store.check()
    assert len(server.requests) == 3


def test_container_of_another_account_is_a_conflict() -> None:
    script = (s3_error("404 Not Found", "NoSuchBucket"), s3_error("409 Conflict", "BucketAlreadyExists"))
    assert type(raised(CALLS["check"], *script, create_container=True)) is Conflict


def test_missing_container_is_only_created_on_request() -> None:
    with canned_server(s3_error("404 Not Found", "NoSuchBucket")) as server, closing(opened(server)) as store:
        with pytest.raises(NotFound, match="Create it"):
            store.check()
        assert len(server.requests) == 1


def test_server_that_cannot_list_uploads_accepts_large_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "MULTIPART_THRESHOLD_BYTES", 96 * 1024)
    monkeypatch.setattr(multipart, "PART_BYTES", 64 * 1024)
    begun = answer("200 OK", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    ended = answer("200 OK", "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")
    refused, part = s3_error("501 Not Implemented", "NotImplemented"), answer("200 OK", ETag='"x"')
    with canned_server(refused, begun, part, part, ended) as server, closing(opened(server)) as store:
        store.put("key", bytes(97 << 10))
        assert len(server.requests) == 5


def test_multipart_upload_without_an_id_is_not_s3() -> None:
    error = raised(lambda store: store.put("key", bytes(97 << 20)), answer("200 OK", "<html/>"))
    assert error.reason == "NotS3"
    assert "UploadId" in error.message
