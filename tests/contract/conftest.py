"""Every store and every wrapper, each with an empty container, under one fixture: `store`.

Nothing is faked: S3 is a real server on this machine. Only the wrappers' clocks are not exercised here.
"""

from __future__ import annotations

import mmap
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from cinderblock.store.base import BODY_LIMIT, ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.instrumented import InstrumentedStore
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retrying import RetryingStore
from cinderblock.store.rotating import RotatingStore
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server, s3_server
from tests.support.store.faults import FaultyStore

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


ON_A_SERVER: dict[str, Callable[[S3Server], ObjectStore]] = {"s3": _s3, "limited": _limited, "opened": _opened}

STORES = [*IN_MEMORY, *(pytest.param(name, marks=pytest.mark.integration) for name in ON_A_SERVER)]


def _container() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    """Run an empty S3 server."""
    with s3_server() as running:
        yield running


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """Return a store with an empty container."""
    make = IN_MEMORY.get(request.param)
    made = make() if make else ON_A_SERVER[request.param](request.getfixturevalue("server"))
    with closing(made) as opened:
        opened.check()
        yield opened


@pytest.fixture(scope="session")
def sparse() -> Iterator[memoryview]:
    """Return more bytes than one object may have, as holes that take no memory."""
    with tempfile.TemporaryFile() as file:
        file.truncate(BODY_LIMIT + 1)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            yield view
