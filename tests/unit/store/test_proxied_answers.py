"""Answers of proxies, and answers that lack something, never become data, and never count as a stored object."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import closing

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import CinderblockError, PermanentError, StoreUnreachable
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3 import multipart
from cinderblock.store.s3 import store as store_module
from cinderblock.store.s3.store import S3Store
from tests.support.store.hostile_server import Answer, hostile_server
from tests.unit.store.canned import Canned, answer, canned_server, s3_error

CREDENTIALS = S3Credentials("AKIAEXAMPLE", "very/secret")
OBJECT = b"0123456789"


def opened(server: Canned) -> S3Store:
    """Return a store on the server."""
    return S3Store(StoreLocation(endpoint_url=server.url, container="volumebackups"), CREDENTIALS)


def called(call: Callable[[S3Store], object], *answers: bytes) -> object:
    """Return what a call returns."""
    with canned_server(*answers) as server, closing(opened(server)) as store:
        return call(store)


def raised(call: Callable[[S3Store], object], *answers: bytes) -> CinderblockError:
    """Return the error that a call raises."""
    with pytest.raises(CinderblockError) as caught:
        called(call, *answers)
    return caught.value


def read(start: int, length: int | None) -> Callable[[S3Store], bytes]:
    """Return a call that reads a part of an object."""
    return lambda store: store.get("key", start, length)


PAGE = b"<html>maintenance"
TAG = {"ETag": '"x"'}
WITHOUT_LENGTH = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nConnection: close\r\n\r\n01234'


@pytest.mark.parametrize(
    "reply",
    [
        answer("200 OK", PAGE, **TAG, Content_Type="text/html"),
        answer("200 OK", PAGE, **TAG, Content_Type="Text/HTML; charset=utf-8"),
        answer("200 OK", PAGE, **TAG, Content_Type="application/xhtml+xml"),
        answer("206 Partial Content", PAGE[:8], **TAG, Content_Type="text/html", Content_Range="bytes 0-7/10"),
        answer("200 OK", gzip.compress(PAGE), **TAG, Content_Type="text/html", Content_Encoding="gzip"),
        answer("200 OK", OBJECT),
        answer("203 Non-Authoritative Information", OBJECT, **TAG),
        answer("204 No Content", **TAG),
        WITHOUT_LENGTH,
        WITHOUT_LENGTH.replace(b"Connection", b"Content-Length: -5\r\nConnection"),
    ],
)
@pytest.mark.parametrize("call", [read(0, 8), read(0, None), read(2, 3), read(-3, 3)])
def test_answer_that_is_no_object_is_not_read(call: Callable[[S3Store], object], reply: bytes) -> None:
    assert raised(call, reply).reason == "NotS3"


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize(
    ("status", "headers"), [("200 OK", {}), ("206 Partial Content", {"Content_Range": "bytes 0-7/10"})]
)
def test_proxy_that_compresses_objects_is_named(encoding: str, status: str, headers: dict[str, str]) -> None:
    error = raised(read(0, 8), answer(status, OBJECT[:8], **TAG, Content_Encoding=encoding, **headers))
    assert error.reason == "StoreRefuses"
    assert "a proxy in between changes requests" in error.message
    assert f"Content-Encoding {encoding}" in error.message


@pytest.mark.parametrize("headers", [{"Content_Encoding": "identity"}, {"Content_Encoding": "aws-chunked"}, {}])
def test_object_as_it_was_stored_is_read(headers: dict[str, str]) -> None:
    headers = {"Content_Type": "binary/octet-stream", **headers}
    assert called(read(2, 3), answer("200 OK", OBJECT, **TAG, **headers)) == OBJECT[2:5]


def test_chunked_object_is_read_to_its_end() -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n'
    assert called(read(0, None), head + b"a\r\n0123456789\r\n0\r\n\r\n") == OBJECT
    assert isinstance(raised(read(0, None), head + b"a\r\n0123456789\r\n"), StoreUnreachable)


@pytest.mark.parametrize("start", [0, 5, -5])
@pytest.mark.parametrize(
    "refusal",
    [
        answer("416 Range Not Satisfiable", PAGE, Content_Type="text/html"),
        answer("416 Range Not Satisfiable"),
        s3_error("416 Range Not Satisfiable", "Odd"),
    ],
)
def test_refused_range_of_a_proxy_is_no_end(start: int, refusal: bytes) -> None:
    assert isinstance(raised(read(start, 5), refusal), CinderblockError)


@pytest.mark.parametrize(
    ("start", "size", "is_end"),
    [(0, 0, True), (-5, 0, True), (5, 5, True), (5, 0, True), (0, 10, False), (-5, 10, False), (5, 10, False)],
)
def test_refused_range_is_an_end_if_the_object_is_so_short(start: int, size: int, is_end: bool) -> None:
    status, code = "416 Range Not Satisfiable", "<Error><Code>InvalidRange</Code>"
    body = f"{code}<ActualObjectSize>{size}</ActualObjectSize></Error>"
    for refusal in (answer(status, body), answer(status, Content_Range=f"bytes */{size}")):
        if is_end:
            assert called(read(start, 5), refusal) == b""
        else:
            assert "another range" in raised(read(start, 5), refusal).message


def test_refused_range_without_a_size_ends_only_after_the_start() -> None:
    refusal = s3_error("416 Range Not Satisfiable", "InvalidRange")
    assert called(read(5, 5), refusal) == b""
    for start in (0, -5):
        empty, full = answer("200 OK", **TAG), answer("200 OK", **TAG, Content_Length="10")
        assert called(read(start, 5), refusal, empty) == b""
        assert "another range" in raised(read(start, 5), refusal, full).message


@pytest.mark.parametrize(
    ("start", "length", "content_range", "part"),
    [
        (2, 3, "bytes 2-4/*", b"234"),
        (8, 5, "bytes 8-9/*", b"89"),
        (-3, 3, "bytes 7-9/*", b"789"),
        (2, None, "bytes 2-9/*", b"23456789"),
    ],
)
def test_part_of_an_object_of_unknown_size_is_read(
    start: int, length: int | None, content_range: str, part: bytes
) -> None:
    reply = answer("206 Partial Content", part, **TAG, Content_Range=content_range)
    assert called(read(start, length), reply) == part


@pytest.mark.parametrize(
    ("start", "length", "content_range"),
    [(2, 3, "bytes 3-5/*"), (2, 3, "bytes 2-5/*"), (-3, 3, "bytes 2-9/*"), (2, 3, "bytes */*")],
)
def test_another_part_of_an_object_of_unknown_size_is_an_error(start: int, length: int, content_range: str) -> None:
    reply = answer("206 Partial Content", b"xxx", **TAG, Content_Range=content_range)
    assert isinstance(raised(read(start, length), reply), StoreUnreachable)


def page_of(contents: str, *, is_truncated: bool = False) -> bytes:
    """Return a page of a listing without a token."""
    truncated = str(is_truncated).lower()
    return answer("200 OK", f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{contents}</ListBucketResult>")


@pytest.mark.parametrize(
    "contents",
    ["<Contents><Key>k</Key></Contents>", "<Contents><Size>1</Size></Contents>", "<Contents/>"],
    ids=["no size", "no key", "nothing"],
)
def test_incomplete_entry_of_a_listing_is_an_error_of_the_server(contents: str) -> None:
    error = raised(lambda store: list(store.list("k")), page_of(contents))
    assert error.reason == "NotS3"
    assert "a response without" in error.message


@pytest.mark.parametrize("call", [lambda store: list(store.list("k")), S3Store.check])
def test_server_that_cannot_continue_listings_fails_its_check(call: Callable[[S3Store], object]) -> None:
    page = page_of("<Contents><Key>k</Key><Size>1</Size></Contents><NextMarker>k</NextMarker>", is_truncated=True)
    with canned_server(page) as server, closing(opened(server)) as store:
        with pytest.raises(PermanentError, match="NextContinuationToken of ListObjectsV2"):
            call(store)
        assert len(server.requests) == 1, "no request without a token"


def test_long_key_of_a_listing_is_not_quoted_whole() -> None:
    keys = "".join(f"<Contents><Key>{key * 1000}</Key><Size>1</Size></Contents>" for key in "ba")
    assert len(raised(lambda store: list(store.list("")), page_of(keys)).message) < 600


@pytest.mark.parametrize(
    "end",
    [
        answer("200 OK"),
        answer("204 No Content"),
        answer("200 OK", '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body>login</body></html>'),
        answer("200 OK", "<!doctype html><html><br></html>"),
        answer("200 OK", '<?xml version="1.0"?>\n\n<Error><Code>InternalError</Code></Error>'),
    ],
    ids=["empty", "no content", "xhtml", "html", "error"],
)
def test_upload_in_parts_is_stored_only_if_the_server_says_so(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(store_module, "MULTIPART_THRESHOLD_BYTES", 5)
    monkeypatch.setattr(multipart, "PART_BYTES", 8)
    none = answer("200 OK", "<ListMultipartUploadsResult/>")
    begun = answer("200 OK", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    script = (none, begun, answer("200 OK", **TAG), end)
    assert isinstance(raised(lambda store: store.put("key", b"content"), *script), StoreUnreachable)


@pytest.mark.parametrize("phrase", [b"", b" ", b" Expectation Failed", b" \xc3\xa9"])
@pytest.mark.parametrize("status", [b"417", b"413", b"503"])
def test_final_answer_to_an_announced_body_needs_no_phrase(status: bytes, phrase: bytes) -> None:
    def respond(_: bytes) -> Answer:
        yield b"HTTP/1.1 " + status + phrase + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    with hostile_server(respond) as server:
        location = StoreLocation(endpoint_url=server.url, container="volumebackups")
        with closing(S3Store(location, CREDENTIALS)) as store, pytest.raises(CinderblockError) as caught:
            store.put("key", bytes(1 << 20))
        assert caught.value.reason == {b"417": "StoreUnreachable", b"413": "TooLarge"}.get(status, "StoreUnreachable")
        assert "closed the connection" not in caught.value.message
        assert len(server.heads) == 1


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"


def test_interim_answers_are_skipped_before_and_after_a_body() -> None:
    stored = INTERIM + answer("200 OK", **TAG)
    with canned_server(stored) as server, closing(opened(server)) as store:
        store.put("key", bytes(2 << 20))
    assert len(server.requests[0]) > 2 << 20, "the body has arrived"
    assert called(read(0, 10), INTERIM + answer("200 OK", OBJECT, **TAG)) == OBJECT


def test_announced_body_is_sent_after_other_interim_answers() -> None:
    def respond(head: bytes) -> Answer:
        if b"100-continue" in head:
            yield INTERIM
            yield 0.3
        yield answer("200 OK", **TAG)

    with hostile_server(respond) as server:
        location = StoreLocation(endpoint_url=server.url, container="volumebackups")
        with closing(S3Store(location, CREDENTIALS)) as store:
            store.put("key", bytes(1 << 20))


def test_interim_answers_are_bounded() -> None:
    many = b"HTTP/1.1 102 Processing\r\n\r\n" * 1000
    for call in (read(0, 10), lambda store: store.put("key", bytes(1 << 20))):
        error = raised(call, many + answer("200 OK", OBJECT, **TAG))
        assert isinstance(error, StoreUnreachable)
        assert "too many interim answers" in error.message


def test_switch_to_another_protocol_is_final() -> None:
    assert raised(read(0, 10), answer("101 Switching Protocols", **TAG)).reason == "NotS3"
