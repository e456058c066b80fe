"""Storage class and server-side encryption of each object, and proxies."""

from __future__ import annotations

from contextlib import closing

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import ServerSideAlgorithm, ServerSideEncryption
from cinderblock.errors import InvalidInput
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3 import multipart
from cinderblock.store.s3 import store as store_module
from cinderblock.store.s3.store import S3Store
from tests.unit.store.canned import answer, canned_server

CREDENTIALS = S3Credentials("access", "secret-key")
KMS = ServerSideEncryption(algorithm=ServerSideAlgorithm.KMS, kms_key_id="alias/backups")
STORED = answer("200 OK", ETag='"x"')


def headers(request: bytes) -> dict[str, str]:
    """Return the headers of a request, with names in lower case."""
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def sent(body: bytes, *answers: bytes, **more: object) -> list[dict[str, str]]:
    """Return the headers of the requests of one upload."""
    with canned_server(*answers) as server:
        location = StoreLocation.model_validate({"endpoint_url": server.url, "container": "backups", **more})
        with closing(S3Store(location, CREDENTIALS)) as store:
            store.put("key", body)
    return [headers(request) for request in server.requests]


def test_object_gets_its_storage_class_and_encryption() -> None:
    (request,) = sent(b"x", STORED, storage_class="STANDARD_IA", server_side_encryption=KMS)
    assert request["x-amz-storage-class"] == "STANDARD_IA"
    assert request["x-amz-server-side-encryption"] == "aws:kms"
    assert request["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/backups"


def test_large_object_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MULTIPART_THRESHOLD_BYTES", 96 * 1024)
    monkeypatch.setattr(multipart, "PART_BYTES", 64 * 1024)
    begun = answer("200 OK", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    ended = answer("200 OK", "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")
    aes = ServerSideEncryption(algorithm=ServerSideAlgorithm.AES256)
    body = bytes(96 * 1024 + 1)
    earlier = answer("200 OK", "<ListMultipartUploadsResult></ListMultipartUploadsResult>")
    requests = sent(
        body, earlier, begun, STORED, STORED, ended, storage_class="STANDARD_IA", server_side_encryption=aes
    )
    assert requests[1]["x-amz-storage-class"] == "STANDARD_IA"
    assert requests[1]["x-amz-server-side-encryption"] == "AES256"


def test_no_option_is_sent_by_default() -> None:
    (request,) = sent(b"x", STORED)
    assert not [name for name in request if name.startswith(("x-amz-storage", "x-amz-server-side"))]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"storage_class": "DEEP_ARCHIVE"}, "could not be read at once"),
        (
            {"server_side_encryption": ServerSideEncryption(algorithm=ServerSideAlgorithm.AES256, kms_key_id="k")},
            "Set the algorithm to aws:kms",
        ),
    ],
)
def test_impossible_options_are_rejected_before_any_request(more: dict[str, object], words: str) -> None:
    location = StoreLocation.model_validate({"endpoint_url": "http://127.0.0.1:9", "container": "backups", **more})
    with pytest.raises(InvalidInput, match=words):
        S3Store(location, CREDENTIALS)


def test_environments_proxy_and_its_exceptions_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with canned_server(STORED) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        location = StoreLocation(endpoint_url="http://s3.invalid", container="backups")
        with closing(S3Store(location, CREDENTIALS)) as store:
            store.put("key", b"x")
        assert proxy.requests[0].startswith(b"PUT http://s3.invalid/backups/key HTTP/1.1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert len(sent(b"x", STORED)) == 1
        assert len(proxy.requests) == 1
