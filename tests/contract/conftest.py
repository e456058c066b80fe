"""Every store and every wrapper, each with an empty container, under one fixture: `store`.

S3 is a real server on this machine, and a stub that follows AWS where that server is lenient. Only the wrappers' clocks
are not exercised here.
"""

from __future__ import annotations

import mmap
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from cinderblock.store.base import BODY_LIMIT, ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.credentials import RemoteSigner, S3Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.instrumented import InstrumentedStore
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retrying import RetryingStore
from cinderblock.store.rotating import RotatingStore
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server, s3_server
from tests.support.store.aws.server import CREDENTIALS, AwsStub, aws_stub
from tests.support.store.faults import FaultyStore
from tests.support.store.signing_broker import SigningBroker, signing_broker

GIB = 1024**3

IN_MEMORY: dict[str, Callable[[], ObjectStore]] = {
    "memory": MemoryStore,
    "retrying": lambda: RetryingStore(MemoryStore()),
    "counted": lambda: CountedStore(MemoryStore()),
    "rotating": lambda: RotatingStore(lambda: S3Credentials("id", "secret"), lambda credentials: MemoryStore()),
    "observed": lambda: InstrumentedStore(MemoryStore(), lambda *_: None),
    "faulty": lambda: FaultyStore(MemoryStore()),
}


def _s3(server: S3Server) -> ObjectStore:
    return S3Store(server.location(_container(), create_container=True), server.credentials)


def _limited(server: S3Server) -> ObjectStore:
    location = server.location(
        _container(), create_container=True, upload_bytes_per_second=GIB, download_bytes_per_second=GIB
    )
    return S3Store(location, server.credentials)


def _opened(server: S3Server) -> ObjectStore:
    return open_store(server.location(_container(), create_container=True, prefix="prefix"), server.credentials)


def _on_stub(server: AwsStub, **rules: Any) -> ObjectStore:
    name = _container()
    server.add_bucket(name, **rules)
    return S3Store(server.location(name), CREDENTIALS)


def _signed(server: S3Server | AwsStub, broker: SigningBroker, **rules: Any) -> ObjectStore:
    """Return a store whose requests a broker signs. Its container exists: it is never created through a broker."""
    name = _container()
    if isinstance(server, AwsStub):
        server.add_bucket(name, **rules)
        broker.credentials = CREDENTIALS
    else:
        broker.credentials = server.credentials
        with closing(S3Store(server.location(name, create_container=True), server.credentials)) as direct:
            direct.check()
    return S3Store(server.location(name), RemoteSigner(broker.client().sign))


def _versioned(server: S3Server, *, lock: bool = False) -> ObjectStore:
    store = S3Store(server.location(_container()), server.credentials)
    client, container = store._client, store._container
    client.create_bucket(Bucket=container, ObjectLockEnabledForBucket=lock)
    if not lock:
        client.put_bucket_versioning(Bucket=container, VersioningConfiguration={"Status": "Enabled"})
    return store


LOCK = {"lock": True, "default": ("COMPLIANCE", timedelta(days=1))}
ON_A_STUB: dict[str, Callable[[AwsStub], ObjectStore]] = {
    "aws": _on_stub,
    "aws with a default retention": partial(_on_stub, **LOCK),
}
WITH_A_BROKER = {"signed": "server", "signed on aws": "stub"}
"""Stores whose requests a broker signs, with the fixture of their server."""
ON_A_VERSIONED_SERVER: dict[str, Callable[[S3Server], ObjectStore]] = {
    "s3 with versions": _versioned,
    "s3 with versions and locks": partial(_versioned, lock=True),
}
ON_A_SERVER: dict[str, Callable[[S3Server], ObjectStore]] = {"s3": _s3, "limited": _limited, "opened": _opened}

STORES = [
    *IN_MEMORY,
    *ON_A_STUB,
    "signed on aws",
    pytest.param("signed", marks=pytest.mark.integration),
    *(pytest.param(name, marks=pytest.mark.integration) for name in (*ON_A_SERVER, *ON_A_VERSIONED_SERVER)),
]


def _container() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    """Run an empty S3 server."""
    with s3_server() as running:
        yield running


@pytest.fixture(scope="session")
def versioned_server() -> Iterator[S3Server]:
    """Run an empty S3 server whose buckets can have versioning."""
    with s3_server(keeps_versions=True) as running:
        yield running


@pytest.fixture(scope="session")
def stub() -> Iterator[AwsStub]:
    """Run a server with the rules of AWS."""
    with aws_stub() as running:
        yield running


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningBroker]:
    """Run a broker that signs requests."""
    with signing_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """Return a store with an empty container."""
    with closing(_made(request)) as opened:
        opened.check()
        yield opened


def _made(request: pytest.FixtureRequest) -> ObjectStore:
    name = request.param
    if name in IN_MEMORY:
        return IN_MEMORY[name]()
    if name in ON_A_STUB:
        return ON_A_STUB[name](request.getfixturevalue("stub"))
    if name in WITH_A_BROKER:
        return _signed(request.getfixturevalue(WITH_A_BROKER[name]), request.getfixturevalue("broker"))
    if name in ON_A_SERVER:
        return ON_A_SERVER[name](request.getfixturevalue("server"))
    return ON_A_VERSIONED_SERVER[name](request.getfixturevalue("versioned_server"))


@pytest.fixture(scope="session")
def sparse() -> Iterator[memoryview]:
    """Return more bytes than one object may have, as holes that take no memory."""
    with tempfile.TemporaryFile() as file:
        file.truncate(BODY_LIMIT + 1)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            yield view
