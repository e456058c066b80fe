"""Whether the operator refuses servers that ignore headers that no signature covers, with its own probe."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import PermanentError, StoreUnreachable
from cinderblock.kube.client import KubeClient
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import ignores_unsigned_headers
from tests.contract.s3_server import S3Server
from tests.support.shared_stores import SYSTEM, a_shared_store
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi
from tests.support.store.aws.server import CREDENTIALS, AwsStub
from tests.support.store.scripted_http import Asked, Reply, scripted

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def objects() -> ObjectsInMemory:
    return ObjectsInMemory(lambda: NOW)


@pytest.fixture
def pool(objects: ObjectsInMemory) -> Iterator[StorePool]:
    kube = KubeClient(SimulatedApi(objects, lambda how, item: None))
    created = StorePool(kube, ignores_unsigned_headers=ignores_unsigned_headers)
    yield created
    created.close()


def keep_secret(objects: ObjectsInMemory, credentials: S3Credentials) -> None:
    keys = {"AWS_ACCESS_KEY_ID": credentials.access_key, "AWS_SECRET_ACCESS_KEY": credentials.secret_key}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
    objects.create("Secret", {"metadata": {"name": "s3", "namespace": SYSTEM}, "data": data})


@pytest.mark.integration
async def test_strict_server_may_be_shared_by_signed_requests(
    server: S3Server, pool: StorePool, objects: ObjectsInMemory
) -> None:
    keep_secret(objects, server.credentials)
    store = a_shared_store("shop", endpointUrl=server.url, container="strict", prefix="company")
    await pool.check(store, "strict", SecretReader())


async def test_server_that_checks_no_signature_is_not_shared(
    stub: AwsStub, pool: StorePool, objects: ObjectsInMemory
) -> None:
    keep_secret(objects, CREDENTIALS)
    stub.add_bucket("lenient")
    store = a_shared_store("shop", endpointUrl=stub.url, container="lenient")
    with pytest.raises(PermanentError) as raised:
        await pool.check(store, "lenient", SecretReader())
    assert raised.value.reason == "UnsignedHeadersAccepted"


LISTING = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
OBJECT_GONE = Reply(404, "<Error><Code>NoSuchKey</Code></Error>")
REFUSED = Reply(403, "<Error><Code>AccessDenied</Code></Error>")


def a_strict_server(asked: Asked, *, reads: Reply) -> Reply:
    """Answer as AWS does: it refuses an unsigned header of its own, and knows no header of other servers."""
    signed = asked.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    if any(name.startswith("x-amz-") and name not in signed for name in asked.headers):
        return REFUSED
    if asked.method == "GET" and "list-type" in asked.query:
        return Reply(200, LISTING)
    if asked.method == "GET":
        return reads
    return Reply(204, "") if asked.method == "DELETE" else Reply(200, "", {"ETag": '"x"'})


async def probe(reads: Reply) -> tuple[bool, list[Asked]]:
    async with scripted(lambda asked: a_strict_server(asked, reads=reads)) as server:
        location = StoreLocation(endpoint_url=server.url, region="us-east-1", container="strict", prefix="company")
        return await asyncio.to_thread(ignores_unsigned_headers, location, CREDENTIALS), server.asked


async def test_probe_that_another_one_disturbs_is_repeated_and_condemns_nobody() -> None:
    """The operator and the replicas of the broker begin together, and each deletes what the others have put there."""
    with pytest.raises(StoreUnreachable, match="another process does so now"):
        await probe(OBJECT_GONE)


async def test_probes_share_no_object_that_they_put_in_different_ways() -> None:
    ignores, asked = await probe(Reply(200, ""))
    assert ignores is False
    puts = [(request.path, "x-amz-copy-source" in request.headers) for request in asked if request.method == "PUT"]
    assert [path.rpartition("/")[2] for path, _ in puts] == ["source", "target-0", "target-1"]
    assert [copies for _, copies in puts] == [False, True, False]
    deleted = {request.path for request in asked if request.method == "DELETE"}
    assert {path.rpartition("/")[2] for path in deleted} == {"source", "target-1"}
