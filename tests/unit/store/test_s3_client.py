"""Settings of a store are checked when it is opened, and secrets are never shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import Addressing
from cinderblock.errors import InvalidInput, StoreUnreachable
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.retrying import OPERATOR_RETRIES
from cinderblock.store.s3 import client as client_module
from cinderblock.store.s3.client import ambient_region, make_client
from cinderblock.store.s3.store import S3Store
from tests.unit.store.canned import answer, canned_server

CREDENTIALS = S3Credentials("AKIAEXAMPLE", "very/secret")


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Simulate a machine without AWS configuration."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    client_module._session.cache_clear()
    yield
    client_module._session.cache_clear()


@pytest.mark.parametrize(
    "url",
    ["ftp://example", "example:9000", "https://", "http://user:hunter2@example", "https://example/?a=b", "https:///x"],
)
def test_malformed_endpoint_is_rejected_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidInput, match="http") as caught:
        open_store(StoreLocation(endpoint_url=url, container="backups"), CREDENTIALS)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_ca_file_must_hold_certificates(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=str(path)):
        open_store(StoreLocation(endpoint_url="https://example", container="backups"), CREDENTIALS, str(path))


def test_profile_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(InvalidInput, match="absent"):
        open_store(StoreLocation(container="backups"), None)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        (
            StoreLocation(container="backups", endpoint_url="https://s3.example:9000"),
            "https://s3.example:9000/backups/key",
        ),
        (StoreLocation(container="backups", region="eu-west-1"), "https://s3.eu-west-1.amazonaws.com/backups/key"),
        (
            StoreLocation(container="backups", region="eu-west-1", addressing=Addressing.VIRTUAL),
            "https://backups.s3.eu-west-1.amazonaws.com/key",
        ),
        (
            StoreLocation(
                container="backups", endpoint_url="https://s3.example/base", addressing=Addressing.VIRTUAL, region="x-1"
            ),
            "https://backups.s3.example/base/key",
        ),
    ],
)
def test_container_is_in_the_path_or_in_the_host_name(location: StoreLocation, url: str) -> None:
    with closing(make_client(location, CREDENTIALS, None)) as client:
        signed = client.generate_presigned_url("get_object", Params={"Bucket": "backups", "Key": "key"})
    assert signed.split("?")[0] == url


def test_region_of_the_environment_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ambient_region() is None
    (tmp_path / "config").write_text("[default]\nregion = eu-north-1\n")
    client_module._session.cache_clear()
    assert ambient_region() == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert ambient_region() == "ap-south-1"


def test_signature_is_for_the_region_of_the_store() -> None:
    with canned_server(answer("200 OK", ETag='"x"')) as server:
        location = StoreLocation(endpoint_url=server.url, container="backups", region="mars-1")
        with closing(S3Store(location, CREDENTIALS)) as store:
            store.put("key", b"x")
    assert b"/mars-1/s3/aws4_request" in server.requests[0]


def test_opened_store_tries_again() -> None:
    with canned_server(b"", answer("200 OK", b"content", ETag='"x"')) as server:
        location = StoreLocation(endpoint_url=server.url, container="backups")
        with closing(open_store(location, CREDENTIALS, policy=OPERATOR_RETRIES)) as store:
            assert store.get("key") == b"content"
    assert len(server.requests) == 2


def test_store_without_retries_asks_once() -> None:
    with canned_server(answer("503 Slow Down")) as server:
        location = StoreLocation(endpoint_url=server.url, container="backups")
        with closing(S3Store(location, CREDENTIALS)) as store, pytest.raises(StoreUnreachable):
            store.get("key")
    assert len(server.requests) == 1
