"""Uploads carry the best checksum that the server takes, and no server is lost by that."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import weakref
from contextlib import closing
from functools import partial
from unittest import mock

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import AccessDenied, CinderblockError, ContainerNotFound, InvalidInput, StoreThrottled
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3 import multipart
from cinderblock.store.s3.checksum import Checksum, UploadChecksums
from cinderblock.store.s3.store import S3Store
from cinderblock.store.s3.streaming import ThrottledBody
from tests.unit.store.canned import Canned, answer, canned_server, s3_error

CREDENTIALS = S3Credentials("AKIAEXAMPLE", "very/secret")
TAKEN = answer("200 OK", ETag='"x"')
REJECTED = s3_error("400 Bad Request", "InvalidArgument", "Unknown header x-amz-checksum-sha256")
SHA256 = b"x-amz-checksum-sha256: " + base64.b64encode(hashlib.sha256(b"content").digest())
MD5 = b"Content-MD5: " + base64.b64encode(hashlib.md5(b"content").digest())


def opened(server: Canned) -> S3Store:
    """Return a store on the server."""
    return S3Store(StoreLocation(endpoint_url=server.url, container="volumebackups"), CREDENTIALS)


def kinds(server: Canned) -> list[str]:
    """Return which checksum each request has carried."""
    return ["sha256" if SHA256 in head else "md5" if MD5 in head else "none" for head in server.requests]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((TAKEN,), ["sha256", "sha256"]),
        ((REJECTED, TAKEN), ["sha256", "md5", "md5"]),
        ((REJECTED, REJECTED, TAKEN), ["sha256", "md5", "none", "none"]),
        ((s3_error("501 Not Implemented", "NotImplemented"), TAKEN), ["sha256", "md5", "md5"]),
        ((answer("501 Not Implemented"), TAKEN), ["sha256", "md5", "md5"]),
        ((s3_error("403 Forbidden", "SignatureDoesNotMatch"), TAKEN), ["sha256", "md5", "md5"]),
    ],
)
def test_first_upload_finds_the_checksum_for_all_others(answers: tuple[bytes, ...], expected: list[str]) -> None:
    with canned_server(*answers) as server, closing(opened(server)) as store:
        store.put("key", b"content")
        store.put("key", b"content")
    assert kinds(server) == expected


def test_upload_that_no_checksum_helps_raises_the_first_error() -> None:
    denied = s3_error("403 Forbidden", "AccessDenied", "first")
    with canned_server(denied, REJECTED) as server, closing(opened(server)) as store:
        with pytest.raises(AccessDenied, match="first"):
            store.put("key", b"content")
        assert kinds(server) == ["sha256", "md5", "none"]


@pytest.mark.parametrize("is_taken", [False, True], ids=["rejected", "taken without"])
def test_upload_lets_its_body_go_without_the_garbage_collector(is_taken: bool) -> None:
    bodies: list[weakref.ref[memoryview]] = []

    def upload(checksum: Checksum, body: memoryview) -> None:
        if not (is_taken and checksum is Checksum.NONE):
            raise InvalidInput(f"the header is unknown, for {len(body)} bytes")

    gc.disable()
    try:
        body = memoryview(b"content")
        bodies.append(weakref.ref(body))
        with contextlib.suppress(InvalidInput):
            UploadChecksums().upload(partial(upload, body=body))
        del body
        assert bodies[0]() is None
    finally:
        gc.enable()


def test_proven_checksum_is_not_given_up() -> None:
    with canned_server(TAKEN, REJECTED, TAKEN) as server, closing(opened(server)) as store:
        store.put("key", b"content")
        with pytest.raises(CinderblockError):
            store.put("key", b"content")
        store.put("key", b"content")
    assert kinds(server) == ["sha256", "sha256", "sha256"]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [("404 Not Found", "NoSuchBucket", ContainerNotFound), ("503 Slow Down", "SlowDown", StoreThrottled)],
)
def test_error_that_has_another_cause_is_raised_at_once(status: str, code: str, kind: type[CinderblockError]) -> None:
    with canned_server(s3_error(status, code)) as server, closing(opened(server)) as store:
        with pytest.raises(kind):
            store.put("key", b"content")
        assert len(server.requests) == 1


PAGE = answer("403 Forbidden", "<html><br></html>", Content_Type="text/html")


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "406 Not Acceptable"])
def test_page_of_a_firewall_may_concern_the_checksum(status: str) -> None:
    page = answer(status, "<html><br></html>", Content_Type="text/html")
    with canned_server(page, TAKEN) as server, closing(opened(server)) as store:
        store.put("key", b"content")
    assert kinds(server) == ["sha256", "md5"]


def test_page_for_every_checksum_is_reported_as_a_page() -> None:
    with canned_server(PAGE) as server, closing(opened(server)) as store:
        with pytest.raises(CinderblockError, match="does not speak S3"):
            store.put("key", b"content")
        assert kinds(server) == ["sha256", "md5", "none"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("400 Bad Request", "XAmzContentChecksumMismatch"),
        ("400 Bad Request", "BadDigest"),
        ("500 Internal Server Error", "InternalError"),
    ],
)
def test_checksum_that_a_server_checks_wrongly_is_left_out_after_some_attempts(status: str, code: str) -> None:
    wrong = s3_error(status, code)
    with canned_server(wrong, wrong, wrong, TAKEN) as server, closing(opened(server)) as store:
        for _ in range(2):
            with pytest.raises(CinderblockError) as caught:
                store.put("key", b"content")
            assert not caught.value.permanent
        store.put("key", b"content")
        store.put("key", b"content")
    assert kinds(server) == ["sha256", "sha256", "sha256", "md5", "md5"]


def test_outage_does_not_change_the_checksum() -> None:
    pages = (answer("500 Internal Server Error"), answer("503 Service Unavailable"), s3_error("503 Slow", "SlowDown"))
    with canned_server(*pages, *pages, TAKEN) as server, closing(opened(server)) as store:
        for _ in range(6):
            with pytest.raises(CinderblockError):
                store.put("key", b"content")
        store.put("key", b"content")
    assert kinds(server) == ["sha256"] * 7


def test_body_is_hashed_once() -> None:
    with canned_server(TAKEN) as server, closing(opened(server)) as store:
        with mock.patch.object(ThrottledBody, "read", autospec=True, side_effect=ThrottledBody.read) as read:
            store.put("key", b"content")
        sent = sum(call.args[1] >= 16 << 10 for call in read.call_args_list)
    assert sent <= 2, "urllib3 reads the content, and then its end; the signature reads nothing"


def test_parts_carry_checksums_that_the_end_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinderblock.store.s3.store.MULTIPART_THRESHOLD_BYTES", 5)
    monkeypatch.setattr(multipart, "PART_BYTES", 4)
    none = answer("200 OK", "<ListMultipartUploadsResult/>")
    begun = answer("200 OK", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    done = answer("200 OK", "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")
    with canned_server(none, begun, TAKEN, TAKEN, done) as server, closing(opened(server)) as store:
        store.put("key", b"content")
    parts = [base64.b64encode(hashlib.sha256(part).digest()) for part in (b"cont", b"ent")]
    assert b"x-amz-checksum-algorithm: SHA256" in server.requests[1]
    assert b"x-amz-checksum-sha256: " + parts[0] in server.requests[2]
    assert b"x-amz-checksum-sha256: " + parts[1] in server.requests[3]
    for part in parts:
        assert b"<ChecksumSHA256>" + part + b"</ChecksumSHA256>" in server.requests[4]


def test_server_without_announcements_gets_bodies_at_once() -> None:
    refused = answer("417 Expectation Failed")
    with canned_server(refused, TAKEN) as server, closing(opened(server)) as store:
        with pytest.raises(CinderblockError) as caught:
            store.put("key", bytes(2 << 20))
        assert not caught.value.permanent
        store.put("key", bytes(2 << 20))
    assert b"Expect: 100-continue" in server.requests[0]
    assert b"Expect" not in server.requests[1].partition(b"\r\n\r\n")[0]
