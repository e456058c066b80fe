"""Signatures for requests of somebody else, and servers that do not check all headers."""

from __future__ import annotations

import hashlib
import http.client
from contextlib import closing
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import Addressing
from cinderblock.errors import AccessDenied, StoreUnreachable
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3.signers import signing, unsigned_headers
from cinderblock.store.s3.signers.signing import CONTENT_HASH, RequestSigner
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server
from tests.support.store.aws.answers import Answer, Request
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.server import CREDENTIALS, AwsStub


def send(method: str, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.integration
def test_server_accepts_signed_requests(server: S3Server) -> None:
    location = server.location("signed", create_container=True)
    S3Store(location, server.credentials).check()
    signer = RequestSigner(server.credentials, location.region)
    url = f"{signing.container_url(location)}/a%3Db/key"
    body = b"content"
    headers = {CONTENT_HASH: hashlib.sha256(body).hexdigest(), "content-type": "text/plain"}
    sent = {"content-type": "text/plain"} | signer.sign("PUT", url, headers)
    assert send("PUT", url, body, sent)[0] == 200
    empty = {CONTENT_HASH: hashlib.sha256(b"").hexdigest()}
    assert send("GET", url, b"", signer.sign("GET", url, empty)) == (200, body)
    assert S3Store(location, server.credentials).get("a=b/key") == body


@pytest.mark.integration
def test_versitygw_refuses_headers_that_no_signature_covers(server: S3Server) -> None:
    location = server.location("probed", create_container=True, prefix="prefix")
    S3Store(location, server.credentials).check()
    assert signing.ignores_unsigned_headers(location, server.credentials) is False


def test_server_that_checks_no_signature_is_found(stub: AwsStub) -> None:
    stub.add_bucket("unsigned")
    assert signing.ignores_unsigned_headers(stub.location("unsigned"), CREDENTIALS) is True


def servers_that_check(stub: AwsStub, monkeypatch: pytest.MonkeyPatch, lax: str) -> list[str]:
    """Let the stub refuse unsigned x-amz-meta headers, but obey one other header. Return the keys that it copied."""
    copied: list[str] = []
    answer = stub.handle

    def handle(request: Request) -> Answer:
        if unsigned_headers.PROBE_HEADER in request.headers:
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        source = request.headers.get(lax, "")
        if source and lax != "x-forwarded-prefix":
            bucket, _, key = source.removeprefix("/").partition("/")
            stored = stub.buckets[bucket].current(key)
            assert stored is not None
            assert stored.body is not None
            copied.append(key)
            stub.buckets[request.bucket].put(request.key, stored.body)
            return Answer()
        if request.bucket not in stub.buckets:
            is_moved = lax == "x-forwarded-prefix" and lax in request.headers
            code = b"NoSuchBucket" if is_moved else b"SignatureDoesNotMatch"
            return Answer(404 if is_moved else 403, b"<Error><Code>%s</Code></Error>" % code)
        return answer(request)

    monkeypatch.setattr(stub, "handle", handle)
    return copied


@pytest.mark.parametrize("lax", ["x-amz-copy-source", "x-goog-copy-source", "x-cos-copy-source", "x-forwarded-prefix"])
@pytest.mark.parametrize("prefix", ["", "some/prefix"])
def test_server_that_obeys_one_unsigned_header_is_found(
    stub: AwsStub, monkeypatch: pytest.MonkeyPatch, lax: str, prefix: str
) -> None:
    bucket = stub.add_bucket("lax")
    servers_that_check(stub, monkeypatch, lax)
    assert signing.ignores_unsigned_headers(stub.location("lax", prefix=prefix), CREDENTIALS) is True
    assert bucket.listed("") == []


def test_server_that_ignores_vendor_headers_passes(stub: AwsStub, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = stub.add_bucket("strict")
    copied = servers_that_check(stub, monkeypatch, "x-nobody")
    assert signing.ignores_unsigned_headers(stub.location("strict"), CREDENTIALS) is False
    assert (copied, bucket.listed("")) == ([], [])


def probed_with_versions(
    stub: AwsStub, monkeypatch: pytest.MonkeyPatch, default: tuple[str, timedelta] | None = None
) -> Bucket:
    """Probe a bucket that keeps versions, in which there are backups, perhaps with a default retention."""
    made = stub.add_bucket("kept", versioning="Enabled", lock=default is not None, default=default)
    made.put("backups/v/b.manifest", b"old")
    made.put("backups/v/b.manifest", b"new")
    servers_that_check(stub, monkeypatch, "x-nobody")
    assert signing.ignores_unsigned_headers(stub.location("kept"), CREDENTIALS) is False
    assert len(made.versions["backups/v/b.manifest"]) == 2
    return made


def test_probe_leaves_no_version_if_it_may_delete_them(stub: AwsStub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(probed_with_versions(stub, monkeypatch).versions) == {"backups/v/b.manifest"}


@pytest.mark.parametrize("refuses", ["right", "lock"])
def test_probe_hides_its_objects_if_it_may_delete_no_version(
    stub: AwsStub, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    if refuses == "right":
        monkeypatch.setitem(stub.refused, "s3:DeleteObjectVersion", (403, "AccessDenied"))
    bucket = probed_with_versions(stub, monkeypatch, ("GOVERNANCE", timedelta(days=1)) if refuses == "lock" else None)
    assert [version.is_marker for version in bucket.versions["cinderblock.probe/source"]] == [False, True]
    assert bucket.listed("cinderblock.probe/") == []


def test_probe_hides_what_an_earlier_one_has_left(stub: AwsStub, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = stub.add_bucket("kept", versioning="Enabled")
    bucket.put("cinderblock.probe/source", b"left")
    servers_that_check(stub, monkeypatch, "x-nobody")
    assert signing.ignores_unsigned_headers(stub.location("kept"), CREDENTIALS) is False
    assert bucket.listed("") == []
    assert [version.body for version in bucket.versions["cinderblock.probe/source"]] == [b"left", None]


@pytest.mark.integration
def test_probe_that_cannot_be_answered_raises_what_is_wrong(server: S3Server) -> None:
    location = server.location("probed-too", create_container=True)
    S3Store(location, server.credentials).check()
    with pytest.raises(AccessDenied):
        signing.ignores_unsigned_headers(location, S3Credentials("nobody", "secret"))
    with pytest.raises(StoreUnreachable):
        signing.ignores_unsigned_headers(
            StoreLocation(endpoint_url="http://127.0.0.1:9", container="x"), server.credentials
        )


@pytest.mark.parametrize(
    ("endpoint", "addressing", "url"),
    [
        ("https://s3.example.com", Addressing.PATH, "https://s3.example.com/bucket"),
        ("https://s3.example.com:9000/", Addressing.PATH, "https://s3.example.com:9000/bucket"),
        ("https://s3.example.com/deeper", Addressing.PATH, "https://s3.example.com/deeper/bucket"),
        ("https://s3.example.com", Addressing.VIRTUAL, "https://bucket.s3.example.com"),
        (None, Addressing.VIRTUAL, "https://bucket.s3.eu-central-1.amazonaws.com"),
        (None, Addressing.PATH, "https://s3.eu-central-1.amazonaws.com/bucket"),
    ],
)
def test_url_of_a_bucket_is_that_of_botocore(endpoint: str | None, addressing: Addressing, url: str) -> None:
    location = StoreLocation(endpoint_url=endpoint, container="bucket", region="eu-central-1", addressing=addressing)
    assert signing.container_url(location) == url


def test_session_token_is_a_part_of_the_signature() -> None:
    credentials = S3Credentials("id", "secret", "session")
    headers = signing.sign(credentials, "us-east-1", "GET", "https://s3.example.com/b/k", {CONTENT_HASH: "0" * 64})
    assert headers["X-Amz-Security-Token"] == "session"
    assert "x-amz-security-token" in headers["Authorization"]
    assert "secret" not in str(headers)


def test_each_covered_header_is_named_in_the_signature() -> None:
    covered = {CONTENT_HASH: "0" * 64, "content-type": "a/b", "x-amz-checksum-sha256": "x"}
    headers = signing.sign(S3Credentials("id", "secret"), "us-east-1", "PUT", "https://s3.example.com/b/k", covered)
    named = headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert named == ["content-type", "host", "x-amz-checksum-sha256", "x-amz-content-sha256", "x-amz-date"]
