"""The stub follows AWS where the S3 server of the tests is lenient; tests/contract/test_retention.py has the rest.

Sources: S3 API, PutObject (Content-MD5) and DeleteObjects; S3 User Guide, "How Object Lock works".
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.server import AwsStub, aws_stub

RETENTION = "<Retention xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>"


@pytest.fixture
def stub() -> Iterator[AwsStub]:
    with aws_stub() as running:
        yield running


@pytest.fixture
def bucket(stub: AwsStub) -> Bucket:
    return stub.add_bucket("b", lock=True)


def send(stub: AwsStub, method: str, path: str, body: bytes = b"x", **headers: str) -> tuple[int, str]:
    connection = HTTPConnection(urlsplit(stub.url).netloc)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def md5(body: bytes) -> str:
    return b64encode(hashlib.md5(body).digest()).decode()


def test_upload_that_will_be_locked_needs_a_checksum(stub: AwsStub, bucket: Bucket) -> None:
    assert send(stub, "PUT", "/b/key")[0] == 200
    lock = {"x_amz_object_lock_legal_hold": "ON"}
    status, text = send(stub, "PUT", "/b/key", **lock)
    assert (status, "<Code>InvalidRequest</Code>" in text, "Content-MD5" in text) == (400, True, True)
    bucket.default = ("COMPLIANCE", timedelta(days=1))
    assert send(stub, "PUT", "/b/key")[0] == 400
    assert send(stub, "PUT", "/b/key", Content_MD5=md5(b"x"))[0] == 200
    assert send(stub, "PUT", "/b/key", x_amz_checksum_sha256="any")[0] == 200
    assert send(stub, "PUT", "/b/key", Content_MD5=md5(b"y"))[0] == 400
    assert [version.until is not None for version in bucket.versions["key"]] == [False, True, True]


def test_deletion_of_many_objects_needs_a_checksum_and_has_a_limit(stub: AwsStub, bucket: Bucket) -> None:
    def objects(count: int) -> bytes:
        rows = "".join(f"<Object><Key>{number}</Key></Object>" for number in range(count))
        return f"<Delete xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>{rows}</Delete>".encode()

    assert send(stub, "POST", "/b?delete", objects(1))[0] == 400
    for count, status in ((0, 400), (1, 200), (1000, 200), (1001, 400)):
        assert send(stub, "POST", "/b?delete", objects(count), Content_MD5=md5(objects(count)))[0] == status
    assert all(versions[-1].is_marker for versions in bucket.versions.values())


def test_compliance_is_never_shortened_and_governance_only_by_bypass(stub: AwsStub, bucket: Bucket) -> None:
    bucket.put("key", b"x")
    bypass = {"x_amz_bypass_governance_retention": "true"}

    def retain(mode: str, days: int, **headers: str) -> int:
        until = (stub.now() + timedelta(days=days)).isoformat()
        return send(stub, "PUT", "/b/key?retention", RETENTION.format(mode, until).encode(), **headers)[0]

    assert [retain("GOVERNANCE", 2), retain("GOVERNANCE", 1), retain("GOVERNANCE", 1, **bypass)] == [200, 403, 200]
    assert [retain("COMPLIANCE", 3), retain("COMPLIANCE", 4), retain("COMPLIANCE", 3, **bypass)] == [200, 200, 403]
    assert send(stub, "DELETE", f"/b/key?versionId={bucket.versions['key'][0].id}", **bypass)[0] == 403
    stub.advance(timedelta(days=5))
    assert send(stub, "DELETE", f"/b/key?versionId={bucket.versions['key'][0].id}")[0] == 204
    assert bucket.versions == {}


def test_bypass_deletes_a_version_in_governance_mode(stub: AwsStub, bucket: Bucket) -> None:
    version = bucket.put("key", b"x")
    version.mode, version.until = "GOVERNANCE", stub.now() + timedelta(days=1)
    path = f"/b/key?versionId={version.id}"
    assert send(stub, "DELETE", path)[0] == 403
    assert send(stub, "DELETE", path, x_amz_bypass_governance_retention="true")[0] == 204
