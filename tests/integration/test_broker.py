"""The broker with a real API server and a real S3 server: what movers may do, and what they get."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from cinderblock.api.broker import CREDENTIALS_PATH, NEW_DATA_KEY_PATH, SIGN_PATH, UNWRAP_PATH
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.broker import authenticator
from cinderblock.format.crypto.keyring import KeyRing, WrappedKey
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.store import place, shared
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server, s3_server
from tests.support.broker.attacks import PACK
from tests.support.broker.brokers import Answer, Broker, broker_before
from tests.support.broker.tenants import (
    CLUSTER_STORE,
    VOLUME,
    Mover,
    Tenant,
    make_cluster_store,
    make_secrets,
    make_tenant,
)
from tests.support.store.aws.server import aws_stub

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """Run an S3 server with one bucket."""
    with s3_server() as running:
        S3Store(running.location("bucket", create_container=True), running.credentials).check()
        yield running


@pytest.fixture
async def system(client: KubeClient, server: S3Server) -> str:
    """Return the namespace of the broker, with the Secrets of the shared store."""
    name = f"system-{uuid.uuid4().hex[:8]}"
    await make_secrets(client, name, server.credentials.access_key, server.credentials.secret_key)
    await make_cluster_store(client, server.url)
    return name


@pytest.fixture
async def broker(kubeconfig: Path, system: str) -> AsyncIterator[Broker]:
    """Run a broker."""
    async with broker_before(str(kubeconfig), system) as running:
        yield running


@pytest.fixture
async def tenant(client: KubeClient, system: str) -> Tenant:
    """Return a namespace that may use the store."""
    return await make_tenant(client)


def refused(answer: Answer, status: int, reason: str) -> str:
    """Check a refusal, and return its message."""
    fault = answer.json
    assert (answer.status, fault["reason"]) == (status, reason), answer.body
    return str(fault["message"])


def own_pack(tenant: Tenant, mover: Mover, server: S3Server, name: str = PACK) -> str:
    return f"{server.url}/bucket/{tenant.prefix}/packs/{VOLUME}/{mover.uid}/{name}"


async def test_backup_writes_reads_lists_and_deletes_its_objects(
    broker: Broker, tenant: Tenant, server: S3Server
) -> None:
    mover = await tenant.backup()
    pack, content = own_pack(tenant, mover, server), b"x" * 1000
    put = await broker.send(mover.token, "PUT", pack, content, {"Content-Type": "application/octet-stream"})
    assert put.status == 200, put.body
    assert (await broker.send(mover.token, "GET", pack, headers={"Range": "bytes=0-9"})).body == content[:10]
    assert (await broker.send(mover.token, "HEAD", pack)).status == 200
    listing = f"{server.url}/bucket?list-type=2&prefix={quote(f'{tenant.prefix}/packs/{VOLUME}/', safe='')}"
    assert mover.uid.encode() in (await broker.send(mover.token, "GET", listing)).body
    checked = f"{server.url}/bucket?list-type=2&prefix={quote(tenant.prefix + '/', safe='')}&max-keys=1"
    assert (await broker.send(mover.token, "GET", checked)).status == 200
    assert (await broker.send(mover.token, "DELETE", pack)).status == 204
    assert (await broker.send(mover.token, "GET", pack)).status == 404


async def test_backup_uploads_its_manifest_in_parts(broker: Broker, tenant: Tenant, server: S3Server) -> None:
    mover = await tenant.backup()
    manifest = f"{server.url}/bucket/{tenant.prefix}/backups/{VOLUME}/{mover.uid}.manifest"
    begun = await broker.send(mover.token, "POST", f"{manifest}?uploads")
    upload = begun.body.partition(b"<UploadId>")[2].partition(b"</UploadId>")[0].decode()
    part = f"{manifest}?partNumber=1&uploadId={quote(upload, safe='')}"
    tag = (await broker.send(mover.token, "PUT", part, b"manifest")).headers["ETag"]
    key = quote(f"{tenant.prefix}/backups/{VOLUME}/{mover.uid}.manifest", safe="")
    uploads = await broker.send(mover.token, "GET", f"{server.url}/bucket?uploads&prefix={key}")
    assert upload.encode() in uploads.body
    parts = (
        f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>"
    )
    done = await broker.send(mover.token, "POST", f"{manifest}?uploadId={quote(upload, safe='')}", parts.encode())
    assert done.status == 200, done.body
    assert (await broker.send(mover.token, "GET", manifest)).body == b"manifest"


async def test_restore_and_verification_read_and_do_not_write(broker: Broker, tenant: Tenant, server: S3Server) -> None:
    backup = await tenant.available_backup()
    key = f"{tenant.prefix}/packs/{VOLUME}/{backup['metadata']['uid']}/{PACK}"
    store = S3Store(server.location("bucket"), server.credentials)
    store.put(key, b"stored")
    for mover in (await tenant.restore(backup), await tenant.verification(backup)):
        assert (await broker.send(mover.token, "GET", f"{server.url}/bucket/{key}")).body == b"stored"
        for method in ("PUT", "DELETE"):
            refused(await broker.sign(mover.token, method, f"{server.url}/bucket/{key}"), 403, "NotGranted")
        refused(await broker.ask(NEW_DATA_KEY_PATH, {}, mover.token), 403, "NotGranted")


async def test_data_keys_open_only_for_readers_of_the_volume(
    broker: Broker, tenant: Tenant, client: KubeClient, system: str
) -> None:
    mover = await tenant.backup()
    made = await broker.ask(NEW_DATA_KEY_PATH, {}, mover.token)
    assert made.status == 200, made.body
    assert made.headers["Cache-Control"] == "no-store"
    wrapped = made.json["wrapped"]
    request = {"volumeId": VOLUME, "backupId": mover.uid, "wrapped": wrapped}
    restore = await tenant.restore(await tenant.available_backup())
    assert (await broker.ask(UNWRAP_PATH, request, restore.token)).json == made.json
    secret = await client.get(kinds.SECRET, "encryption", system)
    assert secret is not None
    keys = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    ring = KeyRing.from_secret(keys, None)
    parts = WrappedKey(wrapped["keyId"], base64.b64decode(wrapped["salt"]), base64.b64decode(wrapped["sealed"]))
    assert ring.unwrap(parts, (VOLUME, mover.uid)).reveal() == base64.b64decode(made.json["dataKey"])
    other = request | {"volumeId": "another"}
    refused(await broker.ask(UNWRAP_PATH, other, restore.token), 403, "NotGranted")


async def test_mark_of_a_read_only_key_is_obeyed(
    broker: Broker, tenant: Tenant, client: KubeClient, system: str
) -> None:
    mark = f"2026={datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    patch = {"metadata": {"annotations": {"cinderblock.io/read-only-keys": mark}}}
    await client.merge_patch(kinds.SECRET, "encryption", system, patch)
    mover = await tenant.backup()
    answer = await broker.ask(NEW_DATA_KEY_PATH, {}, mover.token)
    assert answer.json["reason"] == "ReadOnlyKey"


async def test_only_accepted_backups_end_without_the_permission(
    broker: Broker, tenant: Tenant, client: KubeClient, server: S3Server
) -> None:
    mover = await tenant.backup()
    await client.merge_patch(kinds.NAMESPACE, tenant.namespace, None, {"metadata": {"labels": {"shared-store": None}}})
    answer = await broker.sign(mover.token, "GET", own_pack(tenant, mover, server))
    message = refused(answer, 403, "StoreNotAllowed")
    assert tenant.namespace in message
    cluster = await client.get(kinds.CLUSTER_BACKUP_STORE, CLUSTER_STORE)
    assert cluster is not None
    spec = ClusterBackupStore.model_validate(cluster)
    accepted = await tenant.backup(storePlace=place.place_id(shared.whole(spec, "system")))
    answer = await broker.sign(accepted.token, "GET", own_pack(tenant, accepted, server))
    assert answer.status == 200, "it was accepted while its namespace was allowed"


async def test_missing_cluster_store_is_named(
    broker: Broker, tenant: Tenant, client: KubeClient, server: S3Server
) -> None:
    mover = await tenant.backup()
    await client.delete(kinds.CLUSTER_BACKUP_STORE, CLUSTER_STORE, None)
    answer = await broker.sign(mover.token, "GET", own_pack(tenant, mover, server))
    refused(answer, 404, "ClusterStoreNotFound")


async def test_missing_secret_is_named_without_its_name(
    broker: Broker, tenant: Tenant, client: KubeClient, server: S3Server
) -> None:
    await make_cluster_store(client, server.url, credentialsSecretRef={"name": "hidden-name"})
    mover = await tenant.backup()
    answer = await broker.sign(mover.token, "GET", own_pack(tenant, mover, server))
    assert "hidden-name" not in refused(answer, 404, "SecretNotFound")


async def test_secret_that_is_replaced_ends_no_mover(
    kubeconfig: Path, tenant: Tenant, client: KubeClient, server: S3Server, system: str
) -> None:
    mover = await tenant.backup()
    secret = await client.get(kinds.SECRET, "credentials", system)
    assert secret is not None
    broken = {"data": {"AWS_SECRET_ACCESS_KEY": base64.b64encode(b"\0").decode()}}
    await client.merge_patch(kinds.SECRET, "credentials", system, broken)
    async with broker_before(str(kubeconfig), system) as restarted:
        answer = await restarted.sign(mover.token, "GET", own_pack(tenant, mover, server))
        assert answer.json["transient"] is True
        await client.delete(kinds.SECRET, "credentials", system)
        answer = await restarted.sign(mover.token, "GET", own_pack(tenant, mover, server))
        assert answer.json["transient"] is True
        refused(answer, 404, "SecretNotFound")
        data = {"metadata": {"name": "credentials", "namespace": system}, "data": secret["data"]}
        await client.create(kinds.SECRET, data)
        assert (await restarted.sign(mover.token, "GET", own_pack(tenant, mover, server))).status == 200


async def test_broker_signs_nothing_for_a_server_that_ignores_unsigned_headers(
    broker: Broker, tenant: Tenant, client: KubeClient
) -> None:
    """The stub checks no signature at all. The operator has not checked the changed store so far."""
    with aws_stub() as lax:
        lax.add_bucket("bucket")
        await make_cluster_store(client, lax.url)
        mover = await tenant.backup()
        pack = f"{lax.url}/bucket/{tenant.prefix}/packs/{VOLUME}/{mover.uid}/{PACK}"
        refused(await broker.sign(mover.token, "PUT", pack), 403, "UnsignedHeadersAccepted")
        count = len(lax.requests)
        refused(await broker.sign(mover.token, "PUT", pack), 403, "UnsignedHeadersAccepted")
        assert len(lax.requests) == count
    await make_cluster_store(client, "http://127.0.0.1:9")
    mover = await tenant.backup()
    pack = f"http://127.0.0.1:9/bucket/{tenant.prefix}/packs/{VOLUME}/{mover.uid}/{PACK}"
    answer = await broker.sign(mover.token, "PUT", pack)
    refused(answer, 503, "BrokerUnavailable")
    assert answer.json["transient"] is True


async def test_mover_that_is_not_recorded_yet_may_try_again(broker: Broker, tenant: Tenant, server: S3Server) -> None:
    mover = await tenant.backup(mover=None)
    answer = await broker.sign(mover.token, "GET", own_pack(tenant, mover, server))
    refused(answer, 403, "NotGranted")
    assert answer.json["transient"] is True


async def test_read_only_store_signs_no_write_and_gives_no_key(
    broker: Broker, tenant: Tenant, client: KubeClient, server: S3Server
) -> None:
    backup = await tenant.available_backup()
    stored = f"{tenant.prefix}/packs/{VOLUME}/{backup['metadata']['uid']}/{PACK}"
    S3Store(server.location("bucket"), server.credentials).put(stored, b"stored")
    running = await tenant.backup()
    await make_cluster_store(client, server.url, access="ReadOnly")
    writer, reader = await tenant.backup(), await tenant.restore(backup)
    for mover in (running, writer):
        pack = own_pack(tenant, mover, server)
        for method, url in (("PUT", pack), ("POST", f"{pack}?uploads"), ("DELETE", pack)):
            message = refused(await broker.sign(mover.token, method, url), 403, "StoreReadOnly")
            assert "Ask an administrator" in message
        refused(await broker.ask(NEW_DATA_KEY_PATH, {}, mover.token), 403, "StoreReadOnly")
    assert (await broker.send(reader.token, "GET", f"{server.url}/bucket/{stored}")).body == b"stored"
    refused(await broker.sign(reader.token, "PUT", f"{server.url}/bucket/{stored}"), 403, "NotGranted")
    await make_cluster_store(client, server.url)
    again = await tenant.backup()
    assert (await broker.send(again.token, "PUT", own_pack(tenant, again, server), b"new")).status == 200


async def test_running_mover_loses_the_right_to_write_within_a_minute(
    broker: Broker, tenant: Tenant, client: KubeClient, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator, "ACCESS_SECONDS", 0.0)
    mover = await tenant.backup()
    pack = own_pack(tenant, mover, server)
    assert (await broker.sign(mover.token, "PUT", pack)).status == 200
    await make_cluster_store(client, server.url, access="ReadOnly")
    refused(await broker.sign(mover.token, "PUT", pack), 403, "StoreReadOnly")


async def test_store_of_signed_requests_gives_no_credentials(broker: Broker, tenant: Tenant) -> None:
    mover = await tenant.backup()
    refused(await broker.ask(CREDENTIALS_PATH, {}, mover.token), 403, "NotGranted")


async def test_store_of_session_credentials_signs_nothing(
    broker: Broker, tenant: Tenant, client: KubeClient, server: S3Server
) -> None:
    access = {"mode": "SessionCredentials", "sessionCredentials": {"roleArn": "arn:aws:iam::1:role/r"}}
    await make_cluster_store(client, server.url, moverAccess=access)
    mover = await tenant.backup()
    refused(await broker.sign(mover.token, "PUT", own_pack(tenant, mover, server)), 403, "NotGranted")


async def test_requests_of_known_tokens_ask_the_api_server_nothing(
    kubeconfig: Path, system: str, tenant: Tenant, server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mover = await tenant.backup()
    async with broker_before(str(kubeconfig), system) as broker:
        for number in range(20):
            answer = await broker.sign(mover.token, "GET", own_pack(tenant, mover, server, f"{PACK[:-2]}{number:02}"))
            assert answer.status == 200
        lines = [record for record in caplog.records if record.name == "cinderblock.broker.access"]
        assert len(lines) == 1
        text = broker.metrics.render("")[0].decode()
    assert f'cinderblock_broker_request_duration_seconds_count{{code="200",path="{SIGN_PATH}"}} 20.0' in text


async def test_log_says_who_was_refused_and_no_secret(
    broker: Broker, tenant: Tenant, server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mover = await tenant.backup()
    signed = await broker.sign(mover.token, "GET", own_pack(tenant, mover, server))
    await broker.ask(NEW_DATA_KEY_PATH, {}, mover.token)
    await broker.sign(mover.token, "DELETE", f"{server.url}/bucket/other")
    lines = [record for record in caplog.records if record.name == "cinderblock.broker.access"]
    assert [record.getMessage() for record in lines] == [
        f"POST {SIGN_PATH} 200",
        f"POST {NEW_DATA_KEY_PATH} 200",
        f"POST {SIGN_PATH} 403",
    ]
    assert lines[2].__dict__["namespace"] == tenant.namespace
    assert lines[2].__dict__["reason"] == "NotGranted"
    written = json.dumps([{key: str(value) for key, value in record.__dict__.items()} for record in caplog.records])
    for secret in (mover.token, server.credentials.secret_key, signed.json["headers"]["Authorization"]):
        assert secret not in written


async def test_signature_covers_the_body(broker: Broker, tenant: Tenant, server: S3Server) -> None:
    mover = await tenant.backup()
    pack = own_pack(tenant, mover, server)
    signed = await broker.sign(mover.token, "PUT", pack, {}, b"right")
    assert (await broker.deliver("PUT", pack, b"wrong", signed.json["headers"])).status >= 400
    assert (await broker.deliver("PUT", pack, b"right", signed.json["headers"])).status == 200
    assert hashlib.sha256(b"right").hexdigest() == signed.json["headers"]["X-Amz-Content-SHA256"]
