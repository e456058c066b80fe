"""Whether the operator refuses servers that ignore headers that no signature covers, with its own probe."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import PermanentError
from cinderblock.kube.client import KubeClient
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import ignores_unsigned_headers
from tests.contract.s3_server import S3Server
from tests.support.shared_stores import SYSTEM, a_shared_store
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi
from tests.support.store.aws.server import CREDENTIALS, AwsStub

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
