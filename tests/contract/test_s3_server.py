"""The S3 store against a real server: errors, TLS, proxies, and slow, broken or damaging connections."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import AccessDenied, NotFound, PermanentError, StoreUnreachable
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.s3 import client as client_module
from cinderblock.store.s3.store import S3Store
from tests.contract.relay import Relay, relay
from tests.contract.s3_server import S3Server, s3_server

pytestmark = pytest.mark.integration

MIB = 1024**2


@pytest.fixture
def container(server: S3Server) -> str:
    """Return a container that exists."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    with closing(S3Store(server.location(name, create_container=True), server.credentials)) as store:
        store.check()
    return name


@pytest.fixture
def line(server: S3Server) -> Iterator[Relay]:
    """Run a scriptable relay to the server."""
    with relay(server.url) as running:
        yield running


def over(line: Relay, server: S3Server, container: str, **more: object) -> S3Store:
    """Return a store that uses the relay."""
    location = StoreLocation.model_validate({"endpoint_url": line.url, "container": container, **more})
    return S3Store(location, server.credentials)


def refused(server: S3Server, container: str, credentials: S3Credentials) -> AccessDenied:
    """Return the error for credentials, which every call raises."""
    with closing(S3Store(server.location(container), credentials)) as store:
        calls = (
            store.check,
            lambda: store.put("key", bytes(2 * MIB)),
            lambda: store.get("key"),
            lambda: list(store.list("")),
            lambda: store.delete(["key"]),
        )
        errors = []
        for call in calls:
            with pytest.raises(AccessDenied) as caught:
                call()
            errors.append(caught.value)
    assert len({error.message for error in errors}) == 1
    return errors[0]


def test_wrong_access_key_is_named_as_such_and_not_shown(server: S3Server, container: str) -> None:
    error = refused(server, container, S3Credentials("WRONGKEY", server.credentials.secret_key))
    assert "Check AWS_ACCESS_KEY_ID" in error.message
    assert f"container {container} at {server.url}" in error.message
    assert "WRONGKEY" not in error.message


def test_wrong_secret_key_is_named_as_such_and_not_shown(server: S3Server, container: str) -> None:
    error = refused(server, container, S3Credentials(server.credentials.access_key, "wrongsecret"))
    assert "Check AWS_SECRET_ACCESS_KEY" in error.message
    assert "wrongsecret" not in error.message


def test_missing_container_is_named(server: S3Server) -> None:
    with closing(S3Store(server.location("no-such-container"), server.credentials)) as store:
        for call in (store.check, lambda: store.put("key", bytes(100 * MIB)), lambda: store.get("key")):
            with pytest.raises(NotFound, match=f"container no-such-container at {server.url}: .*Create it"):
                call()


def test_credentials_of_the_environment_are_found(
    server: S3Server, container: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "credentials"
    profile.write_text(
        f"[backups]\naws_access_key_id = {server.credentials.access_key}\n"
        f"aws_secret_access_key = {server.credentials.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "backups")
    client_module._session.cache_clear()
    with closing(open_store(server.location(container), None)) as store:
        store.check()
    client_module._session.cache_clear()


def test_missing_credentials_are_reported(server: S3Server, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client_module._session.cache_clear()
    with (
        closing(S3Store(server.location(container), None)) as store,
        pytest.raises(AccessDenied, match="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ):
        store.check()
    client_module._session.cache_clear()


def test_unreachable_endpoint_is_a_temporary_error(server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    location = StoreLocation(endpoint_url=url, container="any")
    with (
        closing(S3Store(location, server.credentials)) as store,
        pytest.raises(StoreUnreachable, match=f"Cannot reach container any at {url}"),
    ):
        store.check()


def test_unknown_host_name_is_named(server: S3Server) -> None:
    location = StoreLocation(endpoint_url="http://s3.invalid:9000", container="any")
    with (
        closing(S3Store(location, server.credentials)) as store,
        pytest.raises(StoreUnreachable, match=r"Cannot resolve the host name of http://s3\.invalid:9000"),
    ):
        store.check()


def test_server_that_never_answers_times_out(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = StoreLocation(endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}", container="any")
        with (
            closing(S3Store(location, server.credentials)) as store,
            pytest.raises(StoreUnreachable, match="no response arrived in time"),
        ):
            store.check()


def test_bit_flipped_during_an_upload_is_detected(server: S3Server, container: str, line: Relay) -> None:
    body = b"a" * 3 * MIB + b"\xfe" + b"b" * MIB
    with closing(over(line, server, container)) as store:
        line.flip_up = b"\xfe"
        with pytest.raises(StoreUnreachable):
            store.put("key", body)
        assert list(store.list("")) == []
        store.put("key", body)
        assert store.get("key") == body


@pytest.mark.parametrize("size", [4 * MIB, 130 * MIB], ids=["whole", "in parts"])
def test_upload_over_a_broken_connection_leaves_nothing(
    server: S3Server, container: str, line: Relay, size: int
) -> None:
    with closing(over(line, server, container)) as store:
        line.break_up = size * 3 // 4
        with pytest.raises(StoreUnreachable):
            store.put("key", bytes(size))
        assert list(store.list("")) == []
        uploads = store._client.list_multipart_uploads(Bucket=container)
        assert uploads.get("Uploads", []) == []


def test_next_upload_removes_parts_that_a_dead_process_left(server: S3Server, container: str) -> None:
    with closing(S3Store(server.location(container), server.credentials)) as store:
        client: Any = store._client
        for key in ("key", "key-of-another"):
            upload = client.create_multipart_upload(Bucket=container, Key=key)["UploadId"]
            client.upload_part(Bucket=container, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 5 * MIB)
        store.put("key", bytes(130 * MIB))
        left = client.list_multipart_uploads(Bucket=container)["Uploads"]
        assert [upload["Key"] for upload in left] == ["key-of-another"]


def test_download_over_a_broken_connection_is_restarted(server: S3Server, container: str, line: Relay) -> None:
    body = os.urandom(4 * MIB)
    with closing(S3Store(server.location(container), server.credentials)) as store:
        store.put("key", body)
    location = StoreLocation(endpoint_url=line.url, container=container)
    with closing(open_store(location, server.credentials)) as store:
        line.break_down = 2 * MIB
        assert store.get("key") == body
    assert line.break_down is None


def test_slow_connection_is_not_treated_as_dead(
    server: S3Server, container: str, line: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT", 1.0)
    line.pause = 0.01
    body = os.urandom(16 * MIB)
    with closing(over(line, server, container)) as store:
        store.put("key", body)
        assert store.get("key") == body


def test_uploads_and_downloads_keep_to_their_limits(server: S3Server, container: str) -> None:
    rate = 8 * MIB
    location = server.location(container, upload_bytes_per_second=rate, download_bytes_per_second=2 * rate)
    with closing(S3Store(location, server.credentials)) as store:
        began = os.times().elapsed
        store.put("key", bytes(8 * MIB))
        stored = os.times().elapsed
        store.get("key")
        read = os.times().elapsed
    assert stored - began > 0.9
    assert read - stored > 0.4


def test_connections_are_used_again(server: S3Server, container: str, line: Relay) -> None:
    with closing(over(line, server, container)) as store:
        for number in range(20):
            store.put(f"key-{number}", bytes(100))
            store.get(f"key-{number}", 5, 10)
        list(store.list(""))
    assert line.connections == 1


def test_proxy_of_the_environment_is_used(
    server: S3Server, container: str, line: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", line.url)
    monkeypatch.setenv("http_proxy", line.url)
    location = StoreLocation(endpoint_url="http://s3.invalid", container=container)
    with closing(S3Store(location, server.credentials)) as store:
        store.put("key", b"through the proxy")
        assert store.get("key") == b"through the proxy"
    assert line.connections == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a self-signed certificate for 127.0.0.1, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    command = f"""
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test
        -addext subjectAltName=IP:127.0.0.1 -keyout {directory}/tls.key -out {directory}/ca.crt
    """
    subprocess.run(command.split(), check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def tls_server(authority: Path) -> Iterator[S3Server]:
    """Run a TLS server with a certificate of its own authority."""
    with s3_server(authority / "ca.crt", authority / "tls.key") as running:
        yield running


def test_server_with_our_own_authority_is_trusted(tls_server: S3Server, authority: Path) -> None:
    location = tls_server.location("tls-container", create_container=True)
    body = os.urandom(3 * MIB)
    with closing(S3Store(location, tls_server.credentials, str(authority / "ca.crt"))) as store:
        store.check()
        store.put("key", body)
        assert store.get("key") == body
        assert store.get("key", -100, 10) == body[-100:-90]
        store.delete(["key"])
        assert list(store.list("")) == []


def test_server_of_an_unknown_authority_is_not_trusted(tls_server: S3Server) -> None:
    with (
        closing(S3Store(tls_server.location("any"), tls_server.credentials)) as store,
        pytest.raises(PermanentError, match=r"Cannot trust the certificate of https://127.0.0.1:[0-9]+\.") as caught,
    ):
        store.check()
    assert caught.value.reason == "CertificateNotTrusted"


def test_server_under_another_name_is_not_trusted(tls_server: S3Server, authority: Path) -> None:
    location = StoreLocation(endpoint_url=tls_server.url.replace("127.0.0.1", "localhost"), container="any")
    with (
        closing(S3Store(location, tls_server.credentials, str(authority / "ca.crt"))) as store,
        pytest.raises(PermanentError, match=r"certificate of https://localhost:[0-9]+\..*localhost"),
    ):
        store.check()


def test_https_to_a_server_without_tls_is_named(server: S3Server) -> None:
    location = StoreLocation(endpoint_url=server.url.replace("http:", "https:"), container="any")
    with (
        closing(S3Store(location, server.credentials)) as store,
        pytest.raises(PermanentError, match=r"does not speak TLS. Try http") as caught,
    ):
        store.check()
    assert caught.value.reason == "NotTls"


def test_http_to_a_tls_server_names_the_endpoint(tls_server: S3Server) -> None:
    location = StoreLocation(endpoint_url=tls_server.url.replace("https:", "http:"), container="any")
    with (
        closing(S3Store(location, tls_server.credentials)) as store,
        pytest.raises((PermanentError, StoreUnreachable), match=location.endpoint_url),
    ):
        store.check()
